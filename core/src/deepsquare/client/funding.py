"""How many credits a job needs, and whether the customer has them.

The market fixes a job's price when it assigns the job, at what its provider asks then; until then providers may raise their prices,
and dearer ones may join. What is locked buys the time that it buys at that price. So a time limit is locked at today's dearest
price, by default with no margin: locked credits are also the bound on what a job that never ends can cost, and with a margin and
unchanged prices such a job runs longer than its limit. Who must have the whole time whatever happens to prices asks for a margin.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_DOWN, Decimal
from typing import TYPE_CHECKING, Any

from deepsquare.chain.errors import InsufficientFunds
from deepsquare.chain.types import JobDefinition, Provider
from deepsquare.credits import WEI_PER_CREDIT, format_credits, from_wei, to_wei
from deepsquare.errors import DeepSquareError

if TYPE_CHECKING:
    from deepsquare.workflow import Workflow

_MOST_PERCENT = 1000


class NoProviderError(DeepSquareError):
    """No provider of the grid could ever run the job."""


class MaxPriceError(DeepSquareError):
    """The job would lock more credits than its `max_price`; the text has both amounts."""


class FundingError(InsufficientFunds):
    """The balance or the allowance doesn't cover a job; the text says which, and the command that mends it."""

    def __init__(self, text: str, available: int, required: int) -> None:
        self._text = text
        super().__init__(available, required)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._text, *self.arguments.values())

    def describe(self, **arguments: object) -> str:
        """The text."""
        return self._text


@dataclass(frozen=True, slots=True)
class Funding:
    """What a job may lock.

    Args:
        time_limit: as much as this time costs, in started minutes, at the dearest provider that could get the job.
        credits: exactly this amount, instead of a time limit.
        max_price: the most that may be locked; with neither of the two before, exactly that is locked.
        margin_percent: so much more than the time limit costs now, for prices that rise before the job is assigned. 0 to 1000.

    Raises:
        ValueError: they contradict each other, or one is out of range.
    """

    time_limit: timedelta | None = None
    credits: Decimal | int | str | None = None
    max_price: Decimal | int | str | None = None
    margin_percent: int = 0

    def __post_init__(self) -> None:
        if self.time_limit is not None and self.credits is not None:
            raise ValueError(
                f"time_limit is {self.time_limit} and credits is {self.credits}, but each says how much to lock: give one"
            )
        if self.time_limit is None and self.credits is None and self.max_price is None:
            raise ValueError("give time_limit, credits or max_price: how long the job may run, or what it may cost")
        if not 0 <= self.margin_percent <= _MOST_PERCENT:
            raise ValueError(f"margin_percent is {self.margin_percent}, but a margin is 0 to {_MOST_PERCENT}")
        if self.margin_percent and self.time_limit is None:
            raise ValueError(f"margin_percent is {self.margin_percent}, but only a time_limit can have a margin")
        if self.credits is not None and self.max_price is not None:
            amount, most = to_wei(self.credits), to_wei(self.max_price, field="max_price")
            if amount > most:
                raise ValueError(
                    f"credits is {self.credits}, but max_price is {self.max_price}: raise it, or lock less"
                )

    def locked(self, definition: JobDefinition, providers: Iterable[Provider]) -> int:
        """The wei to lock for a job.

        Raises:
            NoProviderError: no provider could run it.
            MaxPriceError: the time limit costs more than `max_price`.
            ValueError: an amount is none, or buys no minute, or the time limit is not positive.
        """
        most = None if self.max_price is None else to_wei(self.max_price, field="max_price")
        if self.time_limit is not None:
            known = list(providers)
            locked = -(-credits_for(definition, known, self.time_limit) * (100 + self.margin_percent) // 100)
            if most is not None and locked > most:
                margin = f" with a margin of {self.margin_percent} %" if self.margin_percent else ""
                minute = max(definition.cost_per_minute(p.prices) for p in fitting(definition, known))
                raise MaxPriceError(
                    f"max_price is {from_wei(most):f} credits, but {self.time_limit}{margin} would lock {from_wei(locked):f}: the "
                    f"dearest provider that could get the job asks {from_wei(minute):f} a minute. Raise max_price, or ask for less "
                    "time or fewer resources"
                )
            return locked
        if self.credits is not None:
            check_minute(definition, providers, locked := to_wei(self.credits))
            return locked
        assert most is not None
        check_minute(definition, providers, most, field="max_price")
        return most


@dataclass(frozen=True, slots=True)
class Offer:
    """What a job would cost at one provider, in credits."""

    provider: str
    """Its address."""
    cost_per_minute: Decimal
    minutes_per_credit: Decimal | None
    """Rounded down to four decimals; None where a minute is free."""
    cost: Decimal | None
    """Of the time limit; None without one."""
    counts: bool
    """Whether it is the one by which a time limit is turned into credits: the dearest."""


def offers(definition: JobDefinition, providers: Iterable[Provider], time_limit: timedelta | None) -> list[Offer]:
    """What each provider that could get the job would ask, the cheapest first.

    Raises:
        NoProviderError: none could.
        ValueError: the time limit is not positive.
    """
    minutes = None if time_limit is None else started_minutes(time_limit)
    priced = sorted((definition.cost_per_minute(p.prices), p.address) for p in fitting(definition, providers))
    return [
        Offer(
            provider=address,
            cost_per_minute=from_wei(minute),
            minutes_per_credit=(Decimal(WEI_PER_CREDIT) / minute).quantize(Decimal("0.0001"), ROUND_DOWN)
            if minute
            else None,
            cost=None if minutes is None else from_wei(minutes * minute),
            counts=number == len(priced),
        )
        for number, (minute, address) in enumerate(priced, start=1)
    ]


def needs_of(workflow: Workflow, location: str = "") -> JobDefinition:
    """What a workflow's job needs, with the location that the sbatch API gave to its script."""
    resources = workflow.resources
    return JobDefinition(
        ntasks=resources.tasks,
        cpus_per_task=resources.cpus_per_task,
        mem_per_cpu_mb=resources.mem_per_cpu,
        gpus=resources.gpus,
        batch_location_hash=location,
    )


def fitting(definition: JobDefinition, providers: Iterable[Provider]) -> list[Provider]:
    """The providers whose hardware could hold the job.

    Raises:
        NoProviderError: none could; the text compares what is asked for with what there is.
    """
    known = list(providers)
    found = [provider for provider in known if definition.fits(provider.hardware)]
    if found:
        return found
    if not known:
        raise NoProviderError("this grid has no provider at the moment; try again later")
    cpus = max(max(p.hardware.cpus, default=0) for p in known)
    memory = max(max(p.hardware.mem_mb, default=0) for p in known)
    gpus = max(sum(p.hardware.gpus) for p in known)
    raise NoProviderError(
        f"no provider of this grid can run {definition.ntasks} task(s) of {definition.cpus_per_task} CPU(s) with "
        f"{definition.mem_per_cpu_mb} MB a CPU and {definition.gpus} GPU(s): the largest node has {cpus} CPUs and {memory} MB, the "
        f"most GPUs of a provider are {gpus}. Ask for less"
    )


def credits_for(definition: JobDefinition, providers: Iterable[Provider], time_limit: timedelta) -> int:
    """The wei that buy `time_limit` (in started minutes) at whichever provider gets the job: the dearest one counts.

    Raises:
        NoProviderError: no provider could run it.
        ValueError: the time limit is not positive.
    """
    minutes = started_minutes(time_limit)
    return minutes * max(definition.cost_per_minute(p.prices) for p in fitting(definition, providers))


def started_minutes(time: timedelta, *, field: str = "time_limit") -> int:
    """The minutes that begin in a time.

    Raises:
        ValueError: it is not positive.
    """
    if time <= timedelta():
        raise ValueError(f"{field} is {time}, but a job needs at least a second")
    return -(-time // timedelta(minutes=1))


def check_minute(
    definition: JobDefinition, providers: Iterable[Provider], locked: int, *, field: str = "credits"
) -> None:
    """Whether `locked` wei buy a minute at each provider that could get the job.

    Raises:
        NoProviderError: no provider could run it.
        ValueError: they don't; the text says what a minute costs.
    """
    minute = max(definition.cost_per_minute(p.prices) for p in fitting(definition, providers))
    if locked < minute:
        raise ValueError(
            f"{field} is {format_credits(locked)}, which buys no minute: a minute of this job costs {format_credits(minute)}"
        )


def check_funds(required: int, *, balance: int, allowance: int) -> None:
    """Whether `required` wei can be locked.

    Raises:
        FundingError: the balance or the allowance is too low.
    """
    if balance < required:
        raise FundingError(
            f"not enough credits: the job needs {format_credits(required)}, the wallet has {format_credits(balance)}. Get credits, "
            "or ask for less time or fewer resources",
            balance,
            required,
        )
    if allowance < required:
        raise FundingError(
            f"the market may not take enough of your credits: the job needs {format_credits(required)}, the allowance is "
            f"{format_credits(allowance)}. Raise it: deepsquare allowance set AMOUNT",
            allowance,
            required,
        )
