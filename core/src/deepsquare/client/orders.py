"""What `submit` was asked for, and what it comes to in credits."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from deepsquare.chain.types import UNLIMITED, JobDefinition, Provider
from deepsquare.client.allowance import Policy, check_policy
from deepsquare.client.funding import Funding, MaxPriceError, check_funds
from deepsquare.client.purchases import Purpose
from deepsquare.credits import from_wei, to_wei
from deepsquare.workflow.results import with_result

if TYPE_CHECKING:
    from deepsquare.chain.market import Market
    from deepsquare.client.auto_topup import AutoTopUp
    from deepsquare.client.budget import Budget
    from deepsquare.workflow import Workflow


@dataclass(frozen=True, slots=True)
class Submission:
    """One job of `Client.submit_many`; the fields are what `Client.submit` takes."""

    workflow: Workflow
    _: KW_ONLY
    time_limit: timedelta | None = None
    credits: Decimal | int | str | None = None
    max_price: Decimal | int | str | None = None
    margin_percent: int = 0
    name: str | None = None
    labels: Mapping[str, str] | None = None
    key: str | None = None
    auto_top_up: AutoTopUp | None = None
    budget: Budget | None = None
    result: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """What the market offers, and what the customer has for it."""

    providers: Sequence[Provider]
    balance: int
    allowance: int
    """Both in wei."""


async def look_at(market: Market, customer: str) -> Terms:
    """The terms of this moment."""
    return Terms(*await asyncio.gather(market.providers(), market.balance_of(customer), market.allowance_of(customer)))


@dataclass(frozen=True, slots=True)
class Order:
    """One job to buy."""

    workflow: Workflow
    price: Funding
    job_name: bytes
    name: str | None
    """The public name, where the caller gave one."""
    labels: Mapping[str, str]
    ensure_allowance: Policy
    look: Callable[[], Awaitable[Terms]] = field(repr=False)
    """Reads the terms, now or lately."""
    auto_top_up: AutoTopUp | None = None
    budget: Budget | None = None
    purpose: Purpose | None = None
    tag: str | None = None
    """By which the job's result is known; None if it sends none."""

    @property
    def script(self) -> Workflow:
        """What is to be compiled."""
        return self.workflow if self.tag is None else with_result(self.workflow, self.tag)

    def locked(self, needs: JobDefinition, terms: Terms) -> int:
        """The wei to lock, which the customer has.

        Raises:
            NoProviderError: no provider could run it.
            MaxPriceError: it would lock more than its `max_price`.
            FundingError: balance or allowance too low.
            ValueError: as `Funding.locked`.
        """
        locked = self.price.locked(needs, terms.providers)
        self._check_whole(locked)
        check_policy(locked, terms.allowance, self.ensure_allowance)
        allowance = terms.allowance if self.ensure_allowance == "never" else locked
        check_funds(locked, balance=terms.balance, allowance=allowance)
        return locked

    def delegate_cap(self, market: Market) -> int | None:
        """What the meta-scheduler may add to the job, in wei; None if it may not.

        Raises:
            ValueError: the market can't keep the cap, and that is not allowed, or other bounds depend on it.
        """
        if self.auto_top_up is None:
            return None
        cap = self.auto_top_up.delegate_cap(capped=market.extended)
        if cap == UNLIMITED:
            for said, field in ((self.price.max_price, "max_price"), (self.budget, "budget")):
                if said is not None:
                    raise ValueError(
                        f"{field} can't be kept: this market's meta-scheduler adds as much as your allowance. Let the client top "
                        'the job up (by="client")'
                    )
        return cap

    def _check_whole(self, locked: int) -> None:
        """Whether what is locked and what may be added later stay within `max_price`."""
        if self.auto_top_up is None or self.price.max_price is None:
            return
        most = to_wei(self.price.max_price, field="max_price")
        added = self.auto_top_up.cap_wei
        if locked + added > most:
            raise MaxPriceError(
                f"max_price is {from_wei(most):f} credits, but the job locks {from_wei(locked):f} and automatic top-ups may add "
                f"{from_wei(added):f}, together {from_wei(locked + added):f}: raise max_price, or lower the cap"
            )


def check_kinds(wanted: Submission) -> None:
    """Whether what a submission has is of the kinds that it has to be; else the first use would tell, in other words.

    Raises:
        ValueError: it isn't.
    """
    from deepsquare.workflow import Workflow

    if not isinstance(wanted.workflow, Workflow):
        kind = type(wanted.workflow).__name__
        raise ValueError(f"workflow is a {kind}: make a Workflow by deepsquare.workflow.from_dict, parse or load")
    if wanted.time_limit is not None and not isinstance(wanted.time_limit, timedelta):
        raise ValueError(
            f"time_limit is {wanted.time_limit!r}: say it as a timedelta, for example timedelta(minutes=5)"
        )
    if wanted.labels is not None and not (
        isinstance(wanted.labels, Mapping)
        and all(isinstance(text, str) for pair in wanted.labels.items() for text in pair)
    ):
        raise ValueError(f"labels is {wanted.labels!r}: say texts by names, for example {{'run': 'nightly'}}")


def job_name(name: str | None) -> bytes:
    """A public name as 32 bytes; a random one for None.

    Raises:
        ValueError: it is too long, or has a NUL.
    """
    # What a pipeline calls its jobs is nobody's business on a public chain, unless the user says so.
    # Short: what is on chain is paid for.
    raw = (name if name is not None else secrets.token_hex(3)).encode()
    if len(raw) > 32 or b"\0" in raw:
        raise ValueError(f"name is {name!r}, but a public job name has at most 32 bytes and no NUL")
    return raw.ljust(32, b"\0")
