"""What one does on the market, in the words of Python: with the forms for many where the contracts have them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from eth_utils import to_checksum_address

from deepsquare.chain.batches import JOBS_A_TRANSACTION, in_order, pages, pages_of_reports
from deepsquare.chain.errors import ContractError, NoJob
from deepsquare.chain.reads import READS_AT_ONCE, MarketReads
from deepsquare.chain.transactions import Sent
from deepsquare.chain.types import (
    Hardware,
    JobDefinition,
    JobReport,
    JobRequest,
    Label,
    Prices,
)
from deepsquare.errors import PurchaseUnknownError, TransactionError

_log = logging.getLogger(__name__)


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


class Market(MarketReads):
    """The market, and what its parties do there."""

    # ------------------------------------------------------------------ what customers do

    async def approve(self, amount: int) -> dict[str, Any]:
        """Allow the market to take up to `amount` wei of the own credits (it replaces the allowance of before); its receipt."""
        return await self.transact("Credit", "approve", self.address("MetaScheduler"), amount)

    async def transfer(self, to: str, amount: int, *, before_send: Callable[[Sent], None] | None = None) -> None:
        """Give `amount` wei of the own credits to another account."""
        await self.transact("Credit", "transfer", to, amount, before_send=before_send)

    async def increase_allowance(
        self, amount: int, *, before_send: Callable[[Sent], None] | None = None
    ) -> dict[str, Any]:
        """Allow the market to take `amount` wei more than it may take when the transaction is carried out; its receipt."""
        return await self.transact(
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
        ids = in_order(requests, bought, made)
        if ids is None:
            # Another call bought under one of the keys in between.
            bought = await self._bought(requests)
            ids = in_order(requests, {key: job_id for key, job_id in bought.items() if job_id not in made}, made)
        if ids is None:
            raise PurchaseUnknownError(
                requests[0].definition.batch_location_hash, f"{len(made)} were bought, and which is which can't be told"
            )
        return ids

    async def _bought(self, requests: Sequence[JobRequest]) -> dict[bytes, bytes]:
        """The jobs that the keys of some requests have bought."""
        keys = list(dict.fromkeys(request.key for request in requests if any(request.key)))
        limit = asyncio.Semaphore(READS_AT_ONCE)

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

    async def is_decided(self, sent: Sent) -> bool:
        """Whether a transaction of the own account is carried out, or never will be."""
        return await self._signer().is_decided(sent)

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
        for page in pages(assignments, JOBS_A_TRANSACTION):
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
                receipt = await self.transact("MetaScheduler", function + "s", min(most, JOBS_A_TRANSACTION))
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
            for page in pages_of_reports(left):
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
