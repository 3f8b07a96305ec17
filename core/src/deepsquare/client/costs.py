"""What jobs cost: one by one with their transactions, and in sums by a label or by day."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from decimal import Decimal
from typing import TYPE_CHECKING

from deepsquare.chain.types import JobRecord
from deepsquare.client.job import JobInfo
from deepsquare.client.ledger import block_at, read_ledger
from deepsquare.credits import from_wei
from deepsquare.errors import DeepSquareError

if TYPE_CHECKING:
    from deepsquare.chain.market import Market

BY_DAY = "day"
"""The grouping that is by no label, but by the day of the purchase."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What the events of the chain tell of a job; transactions are 0x-hex."""

    purchase: str | None
    end: str | None
    """None while the job is hot."""
    top_ups: tuple[str, ...]
    """On contracts of version 1.2 only those that the customer paid, which tell of themselves by no event."""
    price: int | None
    """What a minute costs at the prices that the assignment fixed, in wei. None before, and on contracts of version 1.2."""


@dataclass(frozen=True, slots=True)
class JobCost:
    """A job and its money, in wei."""

    record: JobRecord
    info: JobInfo
    labels: Mapping[str, str]
    trace: Trace | None = None
    """None when nobody asked the chain's events."""
    name: str | None = None
    """The public name that this machine gave it."""

    @property
    def locked(self) -> int:
        """What was locked for it, top-ups included."""
        return self.record.max_cost

    @property
    def billed(self) -> int | None:
        """None while the job is hot."""
        return self.record.final_cost if self.info.status.is_cold else None

    @property
    def refunded(self) -> int | None:
        """None while the job is hot; locked = billed + refunded."""
        return None if self.billed is None else self.locked - self.billed


@dataclass(frozen=True, slots=True)
class CostGroup:
    """The sums of some jobs, in wei; hot jobs count in `locked` alone."""

    name: str | None
    """The label's value, or the day in ISO 8601; None for the jobs without the label."""
    jobs: int
    locked: int
    billed: int
    refunded: int

    @classmethod
    def of(cls, name: str | None, costs: Sequence[JobCost]) -> CostGroup:
        """The sums of these jobs."""
        return cls(
            name,
            len(costs),
            sum(cost.locked for cost in costs),
            sum(cost.billed or 0 for cost in costs),
            sum(cost.refunded or 0 for cost in costs),
        )


async def job_costs(
    market: Market, customer: str, labels: Mapping[str, Mapping[str, str]], names: Mapping[str, str] | None = None
) -> list[JobCost]:
    """What all jobs of a customer cost, oldest first; `labels` and `names` are by location hash.

    Raises:
        ConnectionFailedError: the node can't be reached.
    """
    infos = [(record, JobInfo.of(record)) for record in await market.jobs_of(customer)]
    given = names or {}
    return [
        JobCost(record, info, labels.get(info.location_hash, {}), name=given.get(info.location_hash))
        for record, info in infos
    ]


async def traced(market: Market, customer: str, costs: Sequence[JobCost]) -> list[JobCost]:
    """The same jobs with their transactions and prices: the events since the first purchase are read once, for all of them.

    Raises:
        RpcError: the node refuses.
        ConnectionFailedError: the node can't be reached.
    """
    if not costs:
        return []
    head = await market.block_number()
    first = await block_at(market, head, min(cost.record.submit_time for cost in costs))
    ledger = await read_ledger(market, head, first=first, payer=customer)
    top_ups: dict[bytes, list[str]] = {cost.record.job_id: [] for cost in costs}
    for top_up in ledger.top_ups:
        if top_up.job_id in top_ups:
            top_ups[top_up.job_id].append(top_up.transaction)

    def trace(cost: JobCost) -> Trace:
        job_id = cost.record.job_id
        return Trace(
            purchase=ledger.opened.get(job_id),
            # The events may be younger than the record.
            end=ledger.closed.get(job_id) if cost.info.status.is_cold else None,
            top_ups=tuple(top_ups[job_id]),
            price=ledger.prices.get(job_id) if cost.info.provider else None,
        )

    return [replace(cost, trace=trace(cost)) for cost in costs]


def bought_between(costs: Iterable[JobCost], since: datetime | None, until: datetime | None) -> list[JobCost]:
    """The jobs that were bought from `since` on and before `until`; None is no bound."""
    return [
        cost
        for cost in costs
        if (since is None or cost.info.submitted_at >= since) and (until is None or cost.info.submitted_at < until)
    ]


def check_label(costs: Iterable[JobCost], label: str) -> None:
    """See that a label can group these jobs.

    Raises:
        DeepSquareError: none of them has it.
    """
    known = sorted({key for cost in costs for key in cost.labels})
    if label not in known:
        raise DeepSquareError(
            f"no job has the label {label!r}; "
            + (
                f"group by one of {', '.join(known)}, or by day"
                if known
                else "none has any on this machine: group by day"
            )
        )


def grouped(costs: Iterable[JobCost], by: str, tz: tzinfo | None = None) -> list[CostGroup]:
    """The sums by the values of a label, or by `BY_DAY`.

    Days are those of the purchases, in the zone `tz` (None: the local one), in their order. Values of labels are in the order of
    their first purchases, and jobs without the label come last.
    """
    groups: dict[str | None, list[JobCost]] = {}
    for cost in sorted(costs, key=lambda cost: cost.info.submitted_at):
        name = f"{cost.info.submitted_at.astimezone(tz):%Y-%m-%d}" if by == BY_DAY else cost.labels.get(by)
        groups.setdefault(name, []).append(cost)
    if None in groups:
        groups[None] = groups.pop(None)
    return [CostGroup.of(name, members) for name, members in groups.items()]


def credits_of(wei: int | None) -> Decimal | None:
    """Exact credits, or None for None."""
    return None if wei is None else from_wei(wei)
