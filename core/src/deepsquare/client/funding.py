"""How many credits a job needs, and whether the customer has them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from deepsquare.chain.errors import InsufficientFunds
from deepsquare.chain.types import JobDefinition, Provider
from deepsquare.credits import format_credits
from deepsquare.errors import DeepSquareError


class NoProviderError(DeepSquareError):
    """No provider of the grid could ever run the job."""


class FundingError(InsufficientFunds):
    """The balance or the allowance doesn't cover a job; the text says which, and the command that mends it."""

    def __init__(self, text: str, available: int, required: int) -> None:
        self._text = text
        super().__init__(available, required)

    def describe(self, **arguments: object) -> str:
        """The text."""
        return self._text


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
    seconds = time_limit.total_seconds()
    if seconds <= 0:
        raise ValueError(f"time_limit is {time_limit}, but a job needs at least a second")
    minutes = int(-(-seconds // 60))
    return minutes * max(definition.cost_per_minute(p.prices) for p in fitting(definition, providers))


def check_minute(definition: JobDefinition, providers: Iterable[Provider], locked: int) -> None:
    """Whether `locked` wei buy a minute at each provider that could get the job.

    Raises:
        NoProviderError: no provider could run it.
        ValueError: they don't; the text says what a minute costs.
    """
    minute = max(definition.cost_per_minute(p.prices) for p in fitting(definition, providers))
    if locked < minute:
        raise ValueError(
            f"credits is {format_credits(locked)}, which buys no minute: a minute of this job costs {format_credits(minute)}"
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
