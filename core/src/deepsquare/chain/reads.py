"""What one sees of the market: jobs, providers and credits, with the forms for many where the contracts have them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from deepsquare.chain.batches import pages
from deepsquare.chain.contracts import Contracts
from deepsquare.chain.errors import ContractError, InvalidJob, UnknownRevertError
from deepsquare.chain.registered import Registered
from deepsquare.chain.rpc import RpcError
from deepsquare.chain.types import ZERO_ADDRESS, JobRecord, JobStatus, Provider

# A call has a block's gas, of some 30 million: a job of the largest size takes about half a million.
_JOBS_A_CALL = 50
# Of jobs that a filter leaves out, a call reads two words.
_JOBS_A_SCAN = 1000
_PROVIDERS_A_CALL = 50
# On contracts that have no forms for many.
READS_AT_ONCE = 16

_log = logging.getLogger(__name__)


class MarketReads(Contracts):
    """The market, as anybody sees it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As `Contracts`; see `open`."""
        super().__init__(*arguments, **options)
        self._registered = Registered(self)

    # ------------------------------------------------------------------ reads: jobs

    async def get_job(self, job_id: bytes) -> JobRecord | None:
        """A job, or None when there is no such job."""
        return (await self.get_jobs([job_id]))[0]

    async def get_jobs(self, job_ids: Sequence[bytes]) -> list[JobRecord | None]:
        """Many jobs with one call for each 50, in the same order; None for an id that is no job's."""
        if not self.extended:
            return await self._get_each(job_ids)
        records: list[JobRecord | None] = []
        for page in pages(job_ids, _JOBS_A_CALL):
            records += [_record(job) for job in await self.read("JobRepository", "getMany", page)]
        return records

    async def _get_each(self, job_ids: Sequence[bytes]) -> list[JobRecord | None]:
        limit = asyncio.Semaphore(READS_AT_ONCE)

        async def get(job_id: bytes) -> JobRecord | None:
            async with limit:
                try:
                    return _record(await self.read("JobRepository", "get", job_id))
                except (InvalidJob, UnknownRevertError):
                    return None

        return list(await asyncio.gather(*map(get, job_ids)))

    async def names_of(self, job_ids: Sequence[bytes]) -> list[tuple[bytes, int] | None]:
        """The names (32 bytes) of jobs, and when they were submitted (unix seconds); None for an id that is no job's.

        Also of jobs that are not understood otherwise.
        """
        limit = asyncio.Semaphore(READS_AT_ONCE)

        async def get(job_id: bytes) -> tuple[bytes, int] | None:
            async with limit:
                try:
                    job = await self.read("JobRepository", "get", job_id)
                except (InvalidJob, UnknownRevertError):
                    return None
            return (bytes(job[7]), int(job[6][0])) if int(job[2], 16) else None

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
        for some in pages((await self.job_ids_of(customer))[::-1], _JOBS_A_CALL):
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
        return await self._registered.read()

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
