"""Bills for more time than can be seen: a hint at whom to ask, no proof.

What is seen is the time between a job's start and end on chain, and between the first and the last line of its output. A
provider that reports too much stays within what the contract grants beyond the chain's clock, and writes the times of the
lines itself; a job that writes nothing shows nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from deepsquare.chain.types import JobStatus
from deepsquare.client.costs import JobCost
from deepsquare.errors import ApiError, ConnectionFailedError

if TYPE_CHECKING:
    from deepsquare.chain.market import Market

CHAIN_MARGIN = timedelta(minutes=2)
"""A bill may be for a minute that has just begun, and the reports of start and end may take a minute more. (What the contract
itself grants beyond its clock is `billDurationDeltaMinute`, five minutes as a rule: nothing above that is ever billed.)"""
LOG_MARGIN = timedelta(minutes=10)
"""So long a job may write nothing, before its first line and after its last one together."""

_LOGS_AT_ONCE = 16

Span = tuple[datetime, datetime]
"""The times of the first and the last line of a job's output."""
LogTimes = Callable[[str], Awaitable[Span | None]]
"""Reads them by the job's id; None for an empty log."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """An ended job whose bill is for clearly more time than can be seen."""

    cost: JobCost
    billed: timedelta
    """The time that the bill is for, in whole seconds, rounded down."""
    ran: timedelta
    """From the start to the end on chain."""
    written: timedelta | None
    """From the first to the last line of the output; None where that tells nothing."""
    reasons: tuple[str, ...]
    """Which of them the bill exceeds: "chain", "log"."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found."""

    suspicions: tuple[Suspicion, ...]
    judged: int
    """How many jobs have a bill that could be held against the chain's clock."""
    read: int
    """How many of those wrote enough for another look."""
    unread: tuple[str, ...]
    """The jobs among them whose output could not be read."""
    reason: str
    """Why the first of those could not be read."""


async def audit(market: Market, costs: Sequence[JobCost], log_times: LogTimes) -> Audit:
    """Compare the bills of ended jobs with the times on chain and in their logs; many logs are read at once, not all.

    Prices are those that the assignment fixed; on contracts of version 1.2, which don't tell, those that the provider has now.

    Args:
        market: the contracts.
        costs: the jobs, with what `traced` adds.
        log_times: reads the times of a job's output.

    Raises:
        ConnectionFailedError: the node can't be reached.
    """
    prices = await _prices(market, costs)
    judged = [(cost, _billed(cost, prices[cost.info.id])) for cost in costs if cost.billed and prices.get(cost.info.id)]
    fee = timedelta(minutes=int(await market.read("Constants", "cancellationFeeMinute"))) if judged else timedelta()
    limit = asyncio.Semaphore(_LOGS_AT_ONCE)
    failures: dict[str, str] = {}
    unreachable: list[str] = []

    async def times_of(job_id: str) -> Span | None:
        async with limit:
            if unreachable:
                failures[job_id] = unreachable[0]
                return None
            try:
                return await log_times(job_id)
            except ApiError as error:
                failures[job_id] = str(error)
            except ConnectionFailedError as error:
                # A reader has been patient with the logger; the others need not be.
                failures[job_id] = str(error)
                unreachable.append(str(error))
            return None

    spans = await asyncio.gather(*(times_of(cost.info.id) for cost, _ in judged))
    suspicions = [suspect(cost, billed, span, fee) for (cost, billed), span in zip(judged, spans, strict=True)]
    unread = tuple(cost.info.id for cost, _ in judged if cost.info.id in failures)
    return Audit(
        suspicions=tuple(one for one in suspicions if one is not None),
        judged=len(judged),
        read=sum(span is not None and span[0] < span[1] for span in spans),
        unread=unread,
        reason=failures[unread[0]] if unread else "",
    )


def suspect(cost: JobCost, billed: timedelta, span: Span | None, fee: timedelta) -> Suspicion | None:
    """Judge one ended job.

    Args:
        cost: the job.
        billed: the time that its bill is for.
        span: the times of the first and the last line of its output; None, or the same time twice, tells nothing.
        fee: what a cancelled job is billed at least.
    """
    ran = cost.info.run_time
    if ran is None:
        return None
    least = fee if cost.info.status in (JobStatus.CANCELLED, JobStatus.PANICKED) else timedelta()
    written = span[1] - span[0] if span and span[0] < span[1] else None
    reasons = []
    if billed > max(ran, least) + CHAIN_MARGIN:
        reasons.append("chain")
    if written is not None and billed > max(written, least) + LOG_MARGIN:
        reasons.append("log")
    return Suspicion(cost, billed, ran, written, tuple(reasons)) if reasons else None


async def _prices(market: Market, costs: Sequence[JobCost]) -> dict[str, int]:
    """What a minute of each job costs, in wei, as far as it is known."""
    if market.extended:
        return {cost.info.id: cost.trace.price for cost in costs if cost.trace and cost.trace.price}
    addresses = sorted({cost.info.provider for cost in costs if cost.info.provider})
    providers = dict(zip(addresses, await asyncio.gather(*map(market.get_provider, addresses)), strict=True))
    return {
        cost.info.id: cost.record.definition.cost_per_minute(provider.prices)
        for cost in costs
        if cost.info.provider and (provider := providers[cost.info.provider])
    }


def _billed(cost: JobCost, price: int) -> timedelta:
    """The time that a bill is for, by the price of a minute in wei."""
    seconds = (cost.billed or 0) * 60 // price
    return timedelta(seconds=min(seconds, timedelta.max // timedelta(seconds=1)))
