"""All jobs of an account and its money, live.

Events say only which jobs of whichever customer changed; what they are is read from the contracts, with one call for many, and
others' jobs once. What no event tells, a look once in a while finds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from deepsquare.chain.reads import READS_AT_ONCE
from deepsquare.chain.types import JobRecord, JobStatus, to_hex
from deepsquare.client.job import JobInfo
from deepsquare.client.subscriber import SILENCE_SECONDS, Subscriber
from deepsquare.credits import from_wei

if TYPE_CHECKING:
    from deepsquare.chain.market import Market
    from deepsquare.chain.watch import News

# A price takes a call for each job that has begun; those of many at once are spread over some looks.
_PRICES_A_LOOK = 50
_SECOND_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class AccountJob:
    """A job with what only its customer asks for."""

    info: JobInfo
    minute: Decimal | None
    """What a minute of it costs, in credits; None unless it runs, and until that is read."""
    is_cancelling: bool
    """Its end was asked for, and has not come yet."""


@dataclass(frozen=True, slots=True)
class AccountNews:
    """What has changed, as of a block; money in credits."""

    block: int
    balance: Decimal
    allowance: Decimal
    """What the market may still take of the balance."""
    jobs: tuple[AccountJob, ...]
    """The jobs that are new or have changed, oldest first; at first all."""
    gone: tuple[str, ...] = ()
    """The ids of jobs that the chain took back."""
    trouble: str = ""
    """Why the node can't be asked at the moment; the rest is as it was before."""


class Listener(Subscriber):
    """What a watch of an account hears: of all jobs and all blocks."""

    def __init__(self) -> None:
        super().__init__(set())
        self._latest: News | None = None

    def hear(self, news: News) -> None:
        """Take note of everything."""
        self._latest = news
        self._changed |= news.changed
        self._event.set()

    async def wait(self, seconds: float) -> News | None:
        """The latest news; None when there are none for so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return None
        self._event.clear()
        return self._latest

    def take(self) -> set[bytes]:
        """The jobs that have changed since this was asked before."""
        changed, self._changed = self._changed, set()
        return changed


class AccountWatch:
    """Follows the jobs and the money of the market's account."""

    def __init__(self, market: Market, ensure_watcher: Callable[[], Awaitable[None]]) -> None:
        """`ensure_watcher` starts what tells `listener` of changes, if need be."""
        self._market, self._ensure_watcher = market, ensure_watcher
        self.listener = Listener()
        self._mine: dict[bytes, JobRecord] = {}
        self._others: set[bytes] = set()
        self._minutes: dict[bytes, int] = {}
        self._missing: set[bytes] = set()
        """Own jobs that the node should know, and does not: it is behind its peers."""

    async def news(self) -> AsyncGenerator[AccountNews]:
        """Yield how everything stands, and then what changes, for ever.

        Raises:
            DeepSquareError: the node can't be asked, after the retries.
        """
        # Before anything is read: what changes behind that is heard.
        await self._ensure_watcher()
        head = await self._market.head()
        latest = AccountNews(head.number, *await self._funds(), await self._noted(await self._all()))
        yield latest
        look_at = time.monotonic() + SILENCE_SECONDS
        while True:
            await self._ensure_watcher()
            heard = await self.listener.wait(max(look_at - time.monotonic(), 0.0))
            if heard is not None and heard.trouble:
                latest = replace(latest, jobs=(), gone=(), trouble=heard.trouble)
                yield latest
                continue
            changed = self.listener.take() - self._others
            records: list[JobRecord] = []
            if time.monotonic() >= look_at:
                self._others.clear()
                records = await self._newest()
                changed |= {job_id for job_id, record in self._mine.items() if record.status.is_hot}
                look_at = time.monotonic() + SILENCE_SECONDS
            now = heard.head if heard is not None and heard.head is not None else head
            changed |= self._missing
            gone = await self._read(changed - {record.job_id for record in records}, records, now.number)
            funds = (latest.balance, latest.allowance) if now == head else await self._funds()
            head = now
            latest = AccountNews(head.number, *funds, await self._noted(records), gone)
            yield latest

    async def _funds(self) -> tuple[Decimal, Decimal]:
        account = self._market.account
        balance, allowance = await asyncio.gather(self._market.balance_of(account), self._market.allowance_of(account))
        return from_wei(balance), from_wei(allowance)

    async def _all(self) -> list[JobRecord]:
        return await self._market.jobs_of(self._market.account)

    async def _newest(self) -> list[JobRecord]:
        """The newest jobs of the account: among them those whose purchase a node behind its peers did not know yet."""
        pages = self._market.pages_of(self._market.account)
        return await anext(pages, [])

    async def _read(self, job_ids: Iterable[bytes], records: list[JobRecord], block: int) -> tuple[str, ...]:
        """Add the account's jobs among some to `records`; the ids of those that are its jobs no longer.

        `block` is the latest one.
        """
        asked = sorted(job_ids)
        gone = []
        for job_id, record in zip(asked, await self._market.get_jobs(asked) if asked else [], strict=True):
            if record is not None and record.customer.lower() == self._market.account.lower():
                records.append(record)
                self._missing.discard(job_id)
                continue
            if record is None and job_id in self._mine and await self._is_hidden(job_id, block):
                self._missing.add(job_id)
                continue
            self._missing.discard(job_id)
            if self._mine.pop(job_id, None) is not None:
                gone.append(to_hex(job_id))
            if record is not None:
                self._others.add(job_id)
        return tuple(gone)

    async def _is_hidden(self, job_id: bytes, block: int) -> bool:
        """Whether a job is one that the node may only not have seen yet."""
        if block < self._mine[job_id].block_number_state_change:
            return True
        # Of several nodes behind one address, another may have said what the latest block is.
        await asyncio.sleep(_SECOND_LOOK_SECONDS)
        return await self._market.get_job(job_id) is not None

    async def _noted(self, records: Iterable[JobRecord]) -> tuple[AccountJob, ...]:
        """The jobs among some that are not as they were, and those whose price is known by now."""
        changed = {record.job_id: record for record in records if self._mine.get(record.job_id) != record}
        self._mine |= changed
        unpriced = [
            record
            for record in self._mine.values()
            if record.status is JobStatus.RUNNING and record.job_id not in self._minutes
        ]
        newest = sorted(unpriced, key=lambda record: record.job_id)[-_PRICES_A_LOOK:]
        limit = asyncio.Semaphore(READS_AT_ONCE)

        async def read(record: JobRecord) -> None:
            async with limit:
                self._minutes[record.job_id] = await self._market.cost_per_minute_of(record)

        await asyncio.gather(*map(read, newest))
        told = changed | {record.job_id: record for record in newest}
        return tuple(self._job(told[job_id]) for job_id in sorted(told))

    def _job(self, record: JobRecord) -> AccountJob:
        minute = self._minutes.get(record.job_id)
        cancelling = record.has_cancel_request and record.status.is_hot
        return AccountJob(JobInfo.of(record), None if minute is None else from_wei(minute), cancelling)


__all__ = ["AccountJob", "AccountNews", "AccountWatch", "Listener"]
