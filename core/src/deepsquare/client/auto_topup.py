"""Topping jobs up before they run dry: by the client, as long as it lives, or by the grid, which the customer authorises.

The client looks at all jobs that it watches with one call for many, whenever one of them may be due or has changed. It adds a slice
to a job that has less than a slice of time left: as the market does for the grid. Whether it is due is decided once more under the
lock of `TopUps`, so that of several watchers with one DEEPSQUARE_HOME one adds it, and the others see that it is there; the cap
counts what all of them have added. Several machines share neither the lock nor the count: two that look at the same moment may both
add a slice, and each adds up to its own cap. Let one machine watch a job, or let the grid do it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from deepsquare.chain.types import UNLIMITED, JobRecord
from deepsquare.client.subscriber import SILENCE_SECONDS, Subscriber
from deepsquare.client.topup import TopUpCapError, TopUps, seconds_left
from deepsquare.credits import to_wei
from deepsquare.errors import DeepSquareError

if TYPE_CHECKING:
    from deepsquare.chain.market import Market

DEFAULT_SLICE = timedelta(minutes=10)

_TOP_UPS_AT_ONCE = 16
_SOONEST_SECONDS = 1.0
_UNKNOWN_SECONDS = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AutoTopUp:
    """Lock more for a job in slices, each time that it has less than a slice of time left.

    Args:
        cap: the credits that this may add to the job in all.
        slice: the time that the client adds at once, in whole minutes, 10 when left out; the last one may be shorter. The grid's
            slice is a setting of its market.
        by: "client": this program does it, as long as it runs. "grid": the meta-scheduler does it, out of your allowance, also when
            nothing of yours runs.
        allow_uncapped: with "grid" on a market that keeps no cap (version 1.2): take it that only the allowance bounds
            what is added.

    Raises:
        ValueError: a value is out of range, or says nothing about who is to do it.
    """

    cap: Decimal | int | str
    slice: timedelta | None = None
    by: Literal["client", "grid"] = "client"
    allow_uncapped: bool = False

    def __post_init__(self) -> None:
        if not to_wei(self.cap, field="cap"):
            raise ValueError(
                f"cap is {self.cap}, so that nothing may be added: raise it, or leave the automatic top-up out"
            )
        if self.by not in ("client", "grid"):
            raise ValueError(f"by is {self.by!r}, but either client or grid tops a job up")
        if self.slice is not None and self.by == "grid":
            raise ValueError(f"slice is {self.slice}, but the grid's slice is a setting of its market: leave it out")
        if self.slice is not None and (self.slice <= timedelta() or self.slice % timedelta(minutes=1)):
            raise ValueError(f"slice is {self.slice}, but it has to be whole minutes, at least one")

    @property
    def cap_wei(self) -> int:
        """The cap in wei."""
        return to_wei(self.cap, field="cap")

    @property
    def minutes(self) -> int:
        """The client's slice."""
        return (self.slice or DEFAULT_SLICE) // timedelta(minutes=1)

    def delegate_cap(self, *, capped: bool) -> int | None:
        """What the meta-scheduler may add, in wei, for the purchase; None if it may not.

        Args:
            capped: whether the market keeps a cap.

        Raises:
            ValueError: it doesn't, and that is not allowed.
        """
        if self.by == "client":
            return None
        if capped:
            return self.cap_wei
        if not self.allow_uncapped:
            raise ValueError(
                f"this market can't keep the cap of {self.cap} credits: its meta-scheduler could add as much as your allowance. "
                'Let the client do it (by="client"), or take that (allow_uncapped=True)'
            )
        return UNLIMITED


class AutoTopUps:
    """The jobs that a client tops up."""

    def __init__(
        self,
        market: Market,
        top_ups: TopUps,
        *,
        ensure_watcher: Callable[[], Awaitable[None]],
        whole: Callable[..., Awaitable[int]],
    ) -> None:
        """Watch nothing yet.

        Args:
            market: the market.
            top_ups: what adds the slices.
            ensure_watcher: starts what tells `subscriber` of changes, if need be.
            whole: carries a payment out to its end, also when who waits for it is cancelled.
        """
        self._market, self._top_ups = market, top_ups
        self._ensure_watcher, self._whole = ensure_watcher, whole
        self.subscriber = Subscriber(set())
        self._wanted: dict[bytes, AutoTopUp] = {}
        self._minutes: dict[bytes, int] = {}
        self._warned: set[tuple[bytes, type[Exception]]] = set()
        self._loop: asyncio.Task[None] | None = None

    def add(self, job_id: bytes, wanted: AutoTopUp) -> None:
        """Top a job up from now on."""
        self._wanted[job_id] = wanted
        self.subscriber.job_ids.add(job_id)
        self.subscriber.tell({job_id})
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop; a payment in flight goes on to its end."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    async def _run(self) -> None:
        while self._wanted:
            try:
                await self._ensure_watcher()
                due = await self.look()
            except Exception as error:
                # Whatever it was: jobs that nobody tops up any more run dry.
                _log.warning("%s; topping up goes on when that is over", error)
                due = SILENCE_SECONDS
            await self.subscriber.next(min(max(due, _SOONEST_SECONDS), SILENCE_SECONDS))

    async def look(self) -> float:
        """Top up what is due; in how many seconds the next job may be."""
        job_ids = list(self._wanted)
        records = await self._market.get_jobs(job_ids)
        now = max((await self._market.head()).timestamp, int(time.time()))
        due: list[bytes] = []
        soonest = SILENCE_SECONDS
        for job_id, record in zip(job_ids, records, strict=True):
            if record is None:
                # The node is behind its peers.
                soonest = min(soonest, _UNKNOWN_SECONDS)
                continue
            if record.status.is_cold:
                self._drop(job_id)
                continue
            left = seconds_left(record, await self._minute(record), now)
            if left is None:
                continue
            early = left - 60 * self._wanted[job_id].minutes
            if early < 0:
                due.append(job_id)
            else:
                soonest = min(soonest, early + 1)
        limit = asyncio.Semaphore(_TOP_UPS_AT_ONCE)

        async def top_up(job_id: bytes) -> None:
            async with limit:
                await self._top_up(job_id, now)

        await asyncio.gather(*map(top_up, due))
        return soonest

    async def _minute(self, record: JobRecord) -> int:
        """What a minute of a running job costs: fixed once it has its provider."""
        if record.start_time and record.job_id not in self._minutes:
            self._minutes[record.job_id] = await self._market.cost_per_minute_of(record)
        return self._minutes.get(record.job_id, 0)

    async def _top_up(self, job_id: bytes, now: int) -> None:
        wanted = self._wanted[job_id]
        payment = self._top_ups.add_slice(job_id, minutes=wanted.minutes, cap=wanted.cap_wei, now=now)
        try:
            await self._whole(payment)
        except TopUpCapError as error:
            self._drop(job_id)
            self._warn(job_id, error)
        except (DeepSquareError, OSError, sqlite3.Error) as error:
            # The next look tries again; if this one was sent, it settles that first.
            self._warn(job_id, error)
        else:
            self._warned = {(warned, kind) for warned, kind in self._warned if warned != job_id}

    def _warn(self, job_id: bytes, error: Exception) -> None:
        """Say once why a job is not topped up; what is looked at again may change for the better."""
        if (job_id, type(error)) not in self._warned:
            self._warned.add((job_id, type(error)))
            _log.warning("%s is not topped up: %s", hex(int.from_bytes(job_id, "big")), error)

    def _drop(self, job_id: bytes) -> None:
        self._wanted.pop(job_id, None)
        self._minutes.pop(job_id, None)
        self.subscriber.job_ids.discard(job_id)
