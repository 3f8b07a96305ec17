"""What one does on the market, in the words of Python: with the forms for many where the contracts have them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from eth_utils import to_checksum_address

from deepsquare.chain.contracts import Contracts
from deepsquare.chain.errors import ContractError, InvalidJob, NoJob, UnknownRevertError
from deepsquare.chain.rpc import RpcError
from deepsquare.chain.transactions import Sent
from deepsquare.chain.types import (
    ZERO_ADDRESS,
    Hardware,
    JobDefinition,
    JobRecord,
    JobReport,
    JobRequest,
    JobStatus,
    Label,
    Prices,
    Provider,
)
from deepsquare.errors import PurchaseUnknownError, TransactionError

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

# Nodes limit the range of eth_getLogs; 2,000 blocks are the smallest usual limit.
BLOCKS_A_CALL = 2000
# A call has a block's gas, of some 30 million: a job of the largest size takes about half a million.
_JOBS_A_CALL = 50
# Of jobs that a filter leaves out, a call reads two words.
_JOBS_A_SCAN = 1000
_PROVIDERS_A_CALL = 50
# A job takes some 60,000 of a transaction's gas, with the largest definition or reason of a failure up to a million.
_JOBS_A_TRANSACTION = 50
_GAS_A_TRANSACTION = 10_000_000
_GAS_A_REPORT = 100_000
_GAS_A_REQUEST = 150_000
_GAS_A_WORD = 23_000
# On contracts that have no forms for many.
_READS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Assignment:
    """A pending job for a provider, whose prices were such that a minute costs `most_per_minute` wei."""

    job_id: bytes
    provider: str
    most_per_minute: int


@dataclass(frozen=True, slots=True)
class Claim:
    """What a provider learns when it claims a job; `max_minutes` is all the time that the locked credits buy."""

    job_id: bytes
    customer: str
    max_minutes: int
    definition: JobDefinition


@dataclass(frozen=True, slots=True)
class Waiting:
    """Whether a provider has jobs to claim, cancel requests and top-ups to take notice of."""

    claimable: bool
    cancelling: bool
    topped_up: bool


class Market(Contracts):
    """The market."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As `Contracts`; see `open`."""
        super().__init__(*arguments, **options)
        self._provider_addresses: dict[str, None] = {}
        self._providers_cursor = 0

    # ------------------------------------------------------------------ reads: jobs

    async def get_job(self, job_id: bytes) -> JobRecord | None:
        """A job, or None when there is no such job."""
        return (await self.get_jobs([job_id]))[0]

    async def get_jobs(self, job_ids: Sequence[bytes]) -> list[JobRecord | None]:
        """Many jobs with one call for each 50, in the same order; None for an id that is no job's."""
        if not self.extended:
            return await self._get_each(job_ids)
        records: list[JobRecord | None] = []
        for page in _pages(job_ids, _JOBS_A_CALL):
            records += [_record(job) for job in await self.read("JobRepository", "getMany", page)]
        return records

    async def _get_each(self, job_ids: Sequence[bytes]) -> list[JobRecord | None]:
        limit = asyncio.Semaphore(_READS_AT_ONCE)

        async def get(job_id: bytes) -> JobRecord | None:
            async with limit:
                try:
                    return _record(await self.read("JobRepository", "get", job_id))
                except (InvalidJob, UnknownRevertError):
                    return None

        return list(await asyncio.gather(*map(get, job_ids)))

    async def jobs_after(self, number: int) -> list[JobRecord]:
        """The jobs whose id is above `number`, oldest first: ids count up from 1 to the counter."""
        counter = int(await self.read("JobRepository", "jobIdCounter"))
        records = await self.get_jobs([job.to_bytes(32, "big") for job in range(number + 1, counter + 1)])
        return [record for record in records if record is not None]

    async def pages_of(self, customer: str) -> AsyncIterator[list[JobRecord]]:
        """A customer's jobs, newest first, a page at a time: one of long standing has many."""
        if self.extended:
            async for page in self._filtered((customer, ZERO_ADDRESS, 0), _JOBS_A_CALL):
                yield page
            return
        for some in _pages((await self.job_ids_of(customer))[::-1], _JOBS_A_CALL):
            yield [record for record in await self.get_jobs(some) if record is not None]

    async def job_ids_of(self, customer: str) -> list[bytes]:
        """The ids of a customer's jobs, oldest first."""
        return [bytes(job_id) for job_id in await self.read("JobRepository", "getByCustomer", customer)]

    async def jobs_of(self, customer: str) -> list[JobRecord]:
        """A customer's jobs, oldest first."""
        return [record async for page in self.pages_of(customer) for record in page][::-1]

    async def jobs_at(self, provider: str, statuses: Collection[JobStatus]) -> list[JobRecord]:
        """A provider's jobs of some statuses."""
        if self.extended:
            bits = sum(1 << status for status in set(statuses))
            pages = self._filtered((ZERO_ADDRESS, provider, bits), _JOBS_A_SCAN)
            return [record async for page in pages for record in page]
        return [job for job in await self.jobs_after(0) if job.provider == provider and job.status in statuses]

    async def _filtered(self, wanted: tuple[str, str, int], most: int) -> AsyncIterator[list[JobRecord]]:
        """The jobs that the contract's filter lets through, newest first, looking at up to `most` jobs a call."""
        before, scan = 0, most
        while True:
            try:
                page, before_next = await self.read("JobRepository", "getPage", wanted, before, scan)
            except (ContractError, RpcError):
                # More of them pass than fit a call.
                if scan == 1:
                    raise
                scan = max(scan // 8, 1)
                continue
            scan = min(2 * scan, most)
            yield [record for job in page if (record := _record(job)) is not None]
            before = before_next
            if not before:
                return

    async def cost_per_minute_of(self, record: JobRecord) -> int:
        """What a minute of a job costs, in wei, at the prices that its assignment fixed; 0 before it is assigned.

        Contracts of version 1.2 don't tell; then it is by the prices that the provider has now.
        """
        if self.extended:
            return int(await self.read("JobRepository", "costPerMinute", record.job_id))
        provider = await self.get_provider(record.provider)
        return 0 if provider is None else record.definition.cost_per_minute(provider.prices)

    # ------------------------------------------------------------------ reads: providers, credits

    async def get_provider(self, address: str) -> Provider | None:
        """A provider that has joined the market, or None."""
        return _provider(await self.read("ProviderManager", "getProvider", address))

    async def providers(self) -> list[Provider]:
        """All providers that can be given jobs."""
        if not self.extended:
            return await self._providers_of_events()
        return [provider for provider in await self.joined_providers() if not provider.is_banned]

    async def joined_providers(self) -> list[Provider]:
        """All providers that have joined the market, banned ones too; contracts of version 1.2 have no such list."""
        found: list[Provider] = []
        cursor, size = 0, _PROVIDERS_A_CALL
        while True:
            try:
                page, following = await self.read("ProviderManager", "getProviders", cursor, size)
            except (ContractError, RpcError):
                # What providers say of themselves can be so long that few fit a call.
                if size == 1:
                    raise
                size //= 2
                continue
            size = min(2 * size, _PROVIDERS_A_CALL)
            found += [known for value in page if (known := _provider(value)) is not None]
            cursor = following
            if not cursor:
                return found

    async def registered_addresses(self) -> list[str]:
        """All that have ever registered as providers, as the events tell: on a long chain that takes long at first."""
        head = await self.block_number()
        while self._providers_cursor <= head:
            last = min(head, self._providers_cursor + BLOCKS_A_CALL - 1)
            registered = [("ProviderManager", "ProviderWaitingForApproval")]
            for log in await self.get_logs(registered, self._providers_cursor, last):
                self._provider_addresses[to_checksum_address("0x" + log["data"][-40:])] = None
            self._providers_cursor = last + 1
        return list(self._provider_addresses)

    async def _providers_of_events(self) -> list[Provider]:
        """The providers that the events of their first registration tell of."""
        found = []
        for address in await self.registered_addresses():
            if await self.read("ProviderManager", "isValidForScheduling", address):
                provider = await self.get_provider(address)
                if provider is not None:
                    found.append(provider)
        return found

    async def balance_of(self, address: str) -> int:
        """The credits of an account, in wei."""
        return int(await self.read("Credit", "balanceOf", address))

    async def allowance_of(self, customer: str) -> int:
        """What the market may still take of a customer's credits, in wei."""
        return int(await self.read("Credit", "allowance", customer, self.address("MetaScheduler")))

    # ------------------------------------------------------------------ what customers do

    async def approve(self, amount: int) -> None:
        """Allow the market to take up to `amount` wei of the own credits (it replaces the allowance of before)."""
        await self.transact("Credit", "approve", self.address("MetaScheduler"), amount)

    async def transfer(self, to: str, amount: int, *, before_send: Callable[[Sent], None] | None = None) -> None:
        """Give `amount` wei of the own credits to another account."""
        await self.transact("Credit", "transfer", to, amount, before_send=before_send)

    async def increase_allowance(self, amount: int, *, before_send: Callable[[Sent], None] | None = None) -> None:
        """Allow the market to take `amount` wei more than it may take when the transaction is carried out."""
        await self.transact(
            "Credit", "increaseAllowance", self.address("MetaScheduler"), amount, before_send=before_send
        )

    async def request_job(
        self,
        definition: JobDefinition,
        locked: int,
        job_name: bytes,
        *,
        delegate_spending_authority: bool = False,
        before_send: Callable[[Sent], None] | None = None,
    ) -> bytes:
        """Buy a job for `locked` wei and return its id; see `Sender.transact` for `before_send` and the errors."""
        receipt = await self.transact(
            "MetaScheduler",
            "requestNewJob",
            definition.encode(),
            locked,
            job_name,
            delegate_spending_authority,
            before_send=before_send,
        )
        return self._requested(receipt)[0]

    async def request_jobs(
        self, requests: Sequence[JobRequest], *, before_send: Callable[[Sent], None] | None = None
    ) -> list[bytes]:
        """Buy many jobs, all or none of them, and return their ids in the same order.

        A request whose key was used before buys nothing: its id is that of the job that was bought then.

        Raises:
            ContractError: the contract refuses one of them; nothing was bought.
            PurchaseUnknownError: they were bought, but the node doesn't tell which job is whose.
            TransactionError: the market's contracts have no such form; or as `Sender.transact`.
        """
        if not self.extended:
            raise TransactionError("this market can't sell many jobs in one transaction; buy them one by one")
        # Read before: a node that lags behind would not know afterwards what this very call bought.
        bought = await self._bought(requests)
        receipt = await self.transact(
            "MetaScheduler", "requestNewJobs", [request.encode() for request in requests], before_send=before_send
        )
        made = [bytes(event[0]) for event in self.events(receipt, "MetaScheduler", "NewJobRequestEvent")]
        ids = _in_order(requests, bought, made)
        if ids is None:
            # Another call bought under one of the keys in between.
            bought = await self._bought(requests)
            ids = _in_order(requests, {key: job_id for key, job_id in bought.items() if job_id not in made}, made)
        if ids is None:
            raise PurchaseUnknownError(
                requests[0].definition.batch_location_hash, f"{len(made)} were bought, and which is which can't be told"
            )
        return ids

    async def _bought(self, requests: Sequence[JobRequest]) -> dict[bytes, bytes]:
        """The jobs that the keys of some requests have bought."""
        keys = list(dict.fromkeys(request.key for request in requests if any(request.key)))
        limit = asyncio.Semaphore(_READS_AT_ONCE)

        async def read(key: bytes) -> bytes | None:
            async with limit:
                return await self.job_of_key(self.account, key)

        found = zip(keys, await asyncio.gather(*map(read, keys)), strict=True)
        return {key: job_id for key, job_id in found if job_id is not None}

    async def job_of_key(self, customer: str, key: bytes) -> bytes | None:
        """The job that a customer bought under a key (32 bytes), or None."""
        job_id = bytes(await self.read("MetaScheduler", "jobOfKey", customer, key))
        return job_id if any(job_id) else None

    async def settle_request(self, sent: Sent) -> list[bytes]:
        """The jobs of a request that was sent before, sent once more if need be: the same transaction is carried out once.

        Raises:
            ContractError: the contract refused it.
            UnminedError: it is in no block yet.
            TransactionError: the node will not take it, and has not carried it out.
        """
        return self._requested(await self.settle(sent))

    def _requested(self, receipt: dict[str, Any]) -> list[bytes]:
        created = self.events(receipt, "MetaScheduler", "NewJobRequestEvent")
        if not created:
            raise TransactionError("the market took the request but announced no job: it is not a DeepSquare market")
        return [bytes(event[0]) for event in created]

    async def cancel_job(self, job_id: bytes) -> None:
        """Ask for the end of an own job."""
        await self.transact("MetaScheduler", "cancelJob", job_id)

    async def top_up_job(
        self, job_id: bytes, amount: int, *, before_send: Callable[[Sent], None] | None = None
    ) -> None:
        """Lock `amount` wei more for a job that has not ended; they buy more time. See `Sender.transact`."""
        await self.transact("MetaScheduler", "topUpJob", job_id, amount, before_send=before_send)

    async def settle(self, sent: Sent) -> dict[str, Any]:
        """The receipt of a transaction that was sent before, sent once more if need be; errors as `settle_request`."""
        await self._signer().resend(sent)
        return await self._signer().wait(sent)

    # ------------------------------------------------------------------ what the meta-scheduler does

    async def meta_schedule(self, assignments: Sequence[Assignment]) -> dict[bytes, str]:
        """Assign pending jobs to providers, many in a transaction where the market can.

        Only such a market holds a provider to the price that it was chosen by.

        Returns:
            The jobs that were not assigned, with the reason: usually they have moved on meanwhile.
        """
        refused: dict[bytes, str] = {}
        if not self.extended:
            for one in assignments:
                try:
                    await self.transact("MetaScheduler", "metaSchedule", one.job_id, one.provider)
                except ContractError as error:
                    refused[one.job_id] = str(error)
            return refused
        for page in _pages(assignments, _JOBS_A_TRANSACTION):
            structs = [(one.job_id, one.provider, one.most_per_minute) for one in page]
            reason = "it has moved on, or its provider has left or raised its prices"
            assigned: set[bytes] = set()
            try:
                assigned = self._changed(await self.transact("MetaScheduler", "metaScheduleMany", structs))
            except ContractError as error:
                _log.warning("no job of %d could be assigned: %s", len(page), error)
                reason = str(error)
            refused |= {one.job_id: reason for one in page if one.job_id not in assigned}
        return refused

    async def panic_job(self, job_id: bytes, reason: str) -> None:
        """End a job that can't be run, with a full refund."""
        await self.transact("MetaScheduler", "panicJob", job_id, reason)

    async def top_up_delegated(self, job_id: bytes) -> None:
        """Lock one more slice of the customer's allowance for a job, as the customer allowed."""
        await self.transact("MetaScheduler", "topUpJobDelegate", job_id)

    async def time_out_job(self, job_id: bytes) -> None:
        """Take a job away from a provider that did not claim it in time."""
        await self.transact("MetaScheduler", "timeoutJob", job_id)

    # ------------------------------------------------------------------ what providers do

    async def register(self, hardware: Hardware, prices: Prices, labels: Sequence[Label]) -> None:
        """Announce the own hardware and prices."""
        await self.transact(
            "ProviderManager",
            "register",
            hardware.encode(),
            (prices.gpu, prices.cpu, prices.mem),
            [(label.key, label.value) for label in labels],
        )

    async def waiting(self) -> Waiting:
        """What waits for the own account."""
        queues = "ProviderJobQueues"
        if self.extended:
            return Waiting(*await self.read(queues, "hasJob", self.account))
        return Waiting(
            await self.read(queues, "hasNextClaimableJob", self.account),
            await self.read(queues, "hasCancellingJob", self.account),
            await self.read(queues, "hasTopUpJob", self.account),
        )

    async def claim_jobs(self, most: int) -> list[Claim]:
        """Take up to `most` of the jobs that are assigned to the own account."""
        # A banned provider's claim gives the jobs back to the market, and announces none.
        return [
            Claim(bytes(job_id), to_checksum_address(customer), minutes, JobDefinition.decode(definition))
            for customer, _, job_id, minutes, definition in await self._take("claimNextJob", most, "ClaimJobEvent")
        ]

    async def claim_cancelling_jobs(self, most: int) -> list[bytes]:
        """Take notice of up to `most` jobs that their customers want cancelled."""
        events = await self._take("claimNextCancellingJob", most, "ClaimNextCancellingJobEvent")
        return [bytes(job_id) for _, _, job_id in events]

    async def claim_top_up_jobs(self, most: int) -> list[bytes]:
        """Take notice of up to `most` jobs that were given more credits."""
        events = await self._take("claimNextTopUpJob", most, "ClaimNextTopUpJobEvent")
        return [bytes(job_id) for job_id, _, _ in events]

    async def _take(self, function: str, most: int, event: str) -> list[tuple[Any, ...]]:
        taken: list[tuple[Any, ...]] = []
        try:
            if self.extended:
                receipt = await self.transact("MetaScheduler", function + "s", min(most, _JOBS_A_TRANSACTION))
                return self.events(receipt, "MetaScheduler", event)
            for _ in range(most):
                taken += self.events(await self.transact("MetaScheduler", function), "MetaScheduler", event)
        except NoJob:
            # Nothing (more) waits.
            pass
        return taken

    async def refuse_job(self, job_id: bytes) -> None:
        """Give a claimed job back to the market."""
        await self.transact("MetaScheduler", "refuseJob", job_id)

    async def report(self, reports: Sequence[JobReport]) -> dict[bytes, ContractError]:
        """Report on own jobs, many in a transaction and billed by the second where the market can; else by the minute.

        Returns:
            The jobs whose report was refused, with the contract's reason: usually they have moved on meanwhile.
        """
        left = list(reports)
        if self.extended and len(left) > 1:
            taken: set[bytes] = set()
            for page in _of_gas(left, _gas_of):
                structs = [(r.job_id, r.status, r.seconds, r.error, r.exit_code) for r in page]
                taken |= await self._many("providerSetJobStatuses", structs)
            left = [report for report in left if report.job_id not in taken]
        refused: dict[bytes, ContractError] = {}
        for report in left:
            try:
                await self._report(report)
            except ContractError as error:
                refused[report.job_id] = error
        return refused

    async def _report(self, report: JobReport) -> None:
        function, time = ("providerSetJobStatus", report.started_minutes)
        if self.extended:
            function, time = ("providerSetJobStatusSecond", report.seconds)
        await self.transact(
            "MetaScheduler", function, report.job_id, report.status, time, report.error, report.exit_code
        )

    async def _many(self, function: str, *arguments: Any) -> set[bytes]:
        """The jobs whose status a transaction for many changed; it leaves out those that have moved on."""
        try:
            return self._changed(await self.transact("MetaScheduler", function, *arguments))
        except ContractError as error:
            # Each on its own then, so that one that is refused spoils no other.
            _log.debug("%s: %s", function, error)
            return set()

    def _changed(self, receipt: dict[str, Any]) -> set[bytes]:
        return {bytes(event[0]) for event in self.events(receipt, "JobRepository", "JobTransitionEvent")}


def _in_order(requests: Sequence[JobRequest], known: dict[bytes, bytes], made: Sequence[bytes]) -> list[bytes] | None:
    """The jobs of requests, of which some keys were known before, and the others' jobs are told in the order of the requests.

    None where there are more or fewer of them than requests that need one.
    """
    known = dict(known)
    new = iter(made)
    ids = []
    for request in requests:
        job_id = known.get(request.key) or next(new, None)
        if job_id is None:
            return None
        if any(request.key):
            known[request.key] = job_id
        ids.append(job_id)
    return None if next(new, None) else ids


def _pages(items: Sequence[_T], size: int) -> Iterator[list[_T]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def _gas_of(report: JobReport) -> int:
    # The reason of a failure is stored, and costs by its length.
    return _GAS_A_REPORT + _GAS_A_WORD * (len(report.error.encode()) // 32 + 1)


def _gas_of_request(request: JobRequest) -> int:
    needs = request.definition
    labels = [*needs.uses, *(label for label, _ in needs.affinity)]
    texts = [needs.batch_location_hash, *(text for label in labels for text in (label.key, label.value))]
    return _GAS_A_REQUEST + _GAS_A_WORD * sum(len(text.encode()) // 32 + 1 for text in texts)


def pages_of_requests(requests: Sequence[JobRequest]) -> Iterator[list[JobRequest]]:
    """Cut requests into what fits into a transaction each, in their order."""
    return _of_gas(requests, _gas_of_request)


def _of_gas(items: Sequence[_T], gas_of: Callable[[_T], int]) -> Iterator[list[_T]]:
    """Cut what is to be sent into transactions."""
    page: list[_T] = []
    gas = 0
    for item in items:
        needed = gas_of(item)
        if page and (gas + needed > _GAS_A_TRANSACTION or len(page) == _JOBS_A_TRANSACTION):
            yield page
            page, gas = [], 0
        page.append(item)
        gas += needed
    if page:
        yield page


def _provider(value: Sequence[Any]) -> Provider | None:
    provider = Provider.decode(value)
    return provider if int(provider.address, 16) else None


def _record(job: Sequence[Any]) -> JobRecord | None:
    if not int(job[2], 16):
        return None
    try:
        return JobRecord.decode(job)
    except ValueError as error:
        # One job that another version of the contracts knows better is no reason to see none.
        _log.warning("the job 0x%s is not understood: %s", bytes(job[0]).hex(), error)
        return None
