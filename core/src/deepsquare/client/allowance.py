"""What the market may take of the customer's credits, and raising it for a purchase.

ERC-20's `approve` replaces the allowance: whoever reads it, adds and approves the sum gives back what a purchase took in between,
or takes away what another process added. So here the allowance is raised by the token's `increaseAllowance`, which adds to what
there is at that moment, and all processes of this machine that change it for a wallet, or need what they raised, take turns under
a lock on a file. Other machines with the same wallet know nothing of the lock: there, two that raise at once may each add what
they lack, and `set` may take away what another counts on, which then is refused and buys nothing. Give each machine a wallet, or
one allowance that is large enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from filelock import AsyncFileLock

from deepsquare.chain.transactions import Sent, is_refusal
from deepsquare.chain.types import UNLIMITED
from deepsquare.client.funding import FundingError
from deepsquare.credits import from_wei, to_wei
from deepsquare.errors import ConnectionFailedError, TransactionError

if TYPE_CHECKING:
    from deepsquare.chain.market import Market
    from deepsquare.client.journal import Journal

_LOOKS = 20

EnsureAllowance: TypeAlias = Literal["never", "exact"] | Decimal | int | str
"""Whether a purchase may raise the allowance: "never", "exact" (to what it needs), or up to an amount of credits."""

Policy: TypeAlias = Literal["never", "exact"] | int
"""The same with an amount in wei."""


def parse_policy(policy: EnsureAllowance) -> Policy:
    """The policy, with an amount in wei.

    Raises:
        ValueError: it is none.
    """
    if policy == "never":
        return "never"
    if policy == "exact":
        return "exact"
    try:
        return to_wei(policy, field="ensure_allowance")
    except ValueError as error:
        raise ValueError(f"{error}; or write never or exact") from None


class Allowance:
    """The allowance of one customer on one market."""

    def __init__(self, market: Market, journal: Journal, *, context: str, lock_folder: Path) -> None:
        """`context` is the grid's name in the journal, `lock_folder` where the lock of the wallet lives."""
        self._market, self._journal, self._lock_folder = market, journal, lock_folder
        self._owner = (context, market.account)

    async def set(self, amount: int) -> None:
        """Let the market take up to `amount` wei from now on; it replaces the allowance of before."""
        async with self._alone():
            receipt = await self._market.approve(amount)
            # Its nonce is above that of any raise.
            self._journal.decided_raises(*self._owner, int(receipt["blockNumber"], 16))

    async def raise_by(self, amount: int) -> None:
        """Let the market take `amount` wei more than it may take at this moment.

        Raises:
            ValueError: together they are more than there can be.
            UnminedError: it was sent, or one of before was, and is in no block yet.
        """
        async with self._alone():
            await self._settle()
            await self._raise(amount, await self._market.allowance_of(self._market.account))

    @asynccontextmanager
    async def ensured(self, needed: int, policy: Policy) -> AsyncIterator[None]:
        """The market may take `needed` wei, as far as the policy goes; until the end, nobody of this machine changes that.

        Raises:
            FundingError: the policy allows less than is needed; nothing was changed.
            UnminedError: a raise was sent, now or before, and is in no block yet.
        """
        if policy == "never":
            # The purchase finds out itself.
            yield
            return
        async with self._alone():
            await self._settle()
            allowed = await self._market.allowance_of(self._market.account)
            if allowed < needed:
                limit = needed if policy == "exact" else policy
                check_policy(needed, allowed, policy)
                await self._raise(limit - allowed, allowed)
            yield

    async def _raise(self, amount: int, allowed: int) -> None:
        if amount + allowed > UNLIMITED:
            raise ValueError(
                f"the allowance is {from_wei(allowed):f} credits and can't be raised by {from_wei(amount):f}: that is more than "
                "there can be"
            )
        try:
            receipt = await self._market.increase_allowance(
                amount, before_send=lambda sent: self._journal.signed_raise(*self._owner, sent.hash, sent.raw)
            )
        except TransactionError as error:
            if is_refusal(error):
                self._journal.forget_raises(*self._owner)
            raise
        self._journal.decided_raises(*self._owner, int(receipt["blockNumber"], 16))

    async def _settle(self) -> None:
        """Learn what became of earlier raises: one that is still to come, or that the node has not seen, would add to the next."""
        entries = self._journal.open_raises(*self._owner)
        for entry in entries:
            if entry.block is not None:
                await self._seen(entry.block)
                continue
            sent = Sent(bytes.fromhex(entry.transaction_hash[2:]), entry.raw_transaction)
            if await self._market.is_decided(sent):
                # Carried out or not, what the allowance is now has it in it.
                continue
            try:
                await self._market.settle(sent)
            except TransactionError as error:
                if not is_refusal(error):
                    raise
        if any(entry.block is None for entry in entries):
            self._journal.decided_raises(*self._owner, await self._market.block_number())

    async def _seen(self, block: int) -> None:
        """Wait for a node that is behind its peers."""
        for _ in range(_LOOKS):
            if await self._market.block_number() >= block:
                return
            await asyncio.sleep(1)
        raise ConnectionFailedError(
            f"the node has not seen block {block}, in which the allowance was raised: try again later, or ask another. "
            "If the chain was begun anew: deepsquare allowance set AMOUNT"
        )

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        self._lock_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._lock_folder / f"allowance-{self._market.account.lower()}.lock"
        async with AsyncFileLock(path, mode=0o600):
            yield


def check_policy(needed: int, allowed: int, policy: Policy) -> None:
    """Whether a policy lets the market take `needed` wei, where it may take `allowed` now.

    Raises:
        FundingError: it doesn't.
    """
    if not isinstance(policy, int) or needed <= max(allowed, policy):
        return
    raise FundingError(
        f"the job needs {from_wei(needed):f} credits, the allowance is {from_wei(allowed):f}, and ensure_allowance lets it be "
        f"raised to {from_wei(policy):f} only. Allow more, or ask for less time or fewer resources",
        allowed,
        needed,
    )
