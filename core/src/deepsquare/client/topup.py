"""Locking more credits for a job that runs: once for each call, and never twice for one need.

All processes of a machine that top a job up take turns under a lock on a file, which the system releases when a process dies. The
journal has each top-up before it is sent, with its signed transaction: whoever comes next first settles what was cut off, by
sending the same transaction again, which is carried out once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import AsyncFileLock

from deepsquare.chain.transactions import Sent, is_refusal
from deepsquare.chain.types import JobRecord, JobStatus, to_hex
from deepsquare.client.funding import check_funds, started_minutes
from deepsquare.credits import from_wei, to_wei
from deepsquare.errors import DeepSquareError, TransactionError, UnknownJobError

if TYPE_CHECKING:
    from deepsquare.chain.market import Market
    from deepsquare.client.budget import Budgets
    from deepsquare.client.journal import Journal


class TopUpError(DeepSquareError):
    """The job can't be given more credits; nothing was locked."""


class TopUpCapError(TopUpError):
    """The automatic top-ups of a job have reached their cap."""


class TopUpUnknownError(TransactionError):
    """The top-up was sent, and its answer was lost."""

    def __init__(self, job_id: str, reason: str) -> None:
        self.job_id, self.reason = job_id, reason
        super().__init__(
            f"the job {_short(job_id)} may have got the credits, but the answer was lost ({reason}). Don't add them again before "
            f"you have looked: deepsquare job show {_short(job_id)}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.job_id, self.reason)


class TopUps:
    """The top-ups of one customer on one market."""

    def __init__(self, market: Market, journal: Journal, budgets: Budgets, *, context: str, lock_folder: Path) -> None:
        """`context` is the grid's name in the journal."""
        self._market, self._journal, self._budgets, self._lock_folder = market, journal, budgets, lock_folder
        self._owner = (context, market.account)

    async def add(
        self, job_id: bytes, *, credits: Decimal | int | str | None = None, time: timedelta | None = None
    ) -> int:
        """Lock more for a job, and return how much, in wei.

        Raises:
            ValueError: neither or both of `credits` and `time`, or one that is out of range.
            UnknownJobError: there is no such job.
            TopUpError: it is another customer's, no provider has it yet, or it has ended.
            FundingError: balance or allowance too low.
            BudgetError: the job's budget has not so much left.
            ContractError: the contract refused.
            TopUpUnknownError: it was sent, and its answer was lost.
        """
        if (credits is None) == (time is None):
            raise ValueError("give either credits or time: what to lock more, or for how much longer the job may run")
        async with self._alone(job_id):
            record = await self._topable(job_id)
            minute = await self._market.cost_per_minute_of(record)
            if time is not None:
                amount = started_minutes(time, field="time") * minute
                if not amount:
                    raise ValueError(f"time is {time}, but a minute of this job is free: it needs no more credits")
            else:
                assert credits is not None
                amount = to_wei(credits)
                if amount < max(minute, 1):
                    raise ValueError(
                        f"credits is {credits}, which buys no minute: a minute of this job costs {from_wei(minute):f}"
                    )
            await self._lock(record, amount, automatic=False)
            return amount

    async def add_slice(self, job_id: bytes, *, minutes: int, cap: int, now: int) -> int:
        """Lock `minutes` more for a job that has less time than that left, and return how much, in wei; 0 if it has not.

        Args:
            job_id: the job.
            minutes: the slice.
            cap: how much all automatic top-ups of the job may add, in wei; the last one is what is left of it.
            now: the chain's time, unix seconds.

        Raises:
            TopUpCapError: what is left of the cap buys no minute.
            Exception: as `add`.
        """
        async with self._alone(job_id):
            record = await self._topable(job_id)
            minute = await self._market.cost_per_minute_of(record)
            # The journal knows more than a node that lags behind.
            locked = max(record.max_cost, self._journal.topped_up_to(*self._owner, to_hex(job_id)))
            left = seconds_left(record, minute, now, locked=locked)
            if left is None or left >= 60 * minutes:
                return 0
            added = self._journal.topped_up(*self._owner, to_hex(job_id))
            amount = min(minutes * minute, cap - added)
            if amount < minute:
                raise TopUpCapError(
                    f"the job {_short(to_hex(job_id))} has got {from_wei(added):f} credits of the {from_wei(cap):f} that automatic "
                    f"top-ups may add, and a minute costs {from_wei(minute):f}: it ends when what it has is used"
                )
            await self._lock(record, amount, automatic=True)
            return amount

    async def _topable(self, job_id: bytes) -> JobRecord:
        await self._settle(job_id)
        record = await self._market.get_job(job_id)
        if record is None:
            raise UnknownJobError([to_hex(job_id)])
        name = f"the job {_short(to_hex(job_id))}"
        if record.customer.lower() != self._market.account.lower():
            raise TopUpError(f"{name} is another customer's ({record.customer}): what it doesn't use would go there")
        if record.status.is_cold:
            raise TopUpError(
                f"{name} has ended ({record.status.name}), and more credits don't revive it: buy a new one"
            )
        if record.status < JobStatus.SCHEDULED:
            raise TopUpError(
                f"{name} is {record.status.name}: it takes more credits once a provider has it (SCHEDULED). Try again then"
            )
        return record

    async def _lock(self, record: JobRecord, amount: int, *, automatic: bool) -> None:
        balance = await self._market.balance_of(self._market.account)
        check_funds(amount, balance=balance, allowance=await self._market.allowance_of(self._market.account))
        job_id = to_hex(record.job_id)
        number = self._journal.intend_top_up(
            *self._owner, job_id, amount=amount, locked_before=record.max_cost, automatic=automatic
        )
        signed: list[Sent] = []

        def journal(sent: Sent) -> None:
            self._journal.signed_top_up(number, sent.hash, sent.raw)
            signed.append(sent)

        try:
            await self._budgets.reserve_top_up(record.job_id, amount, top_up=number)
            await self._market.top_up_job(record.job_id, amount, before_send=journal)
        except Exception as error:
            if not signed or is_refusal(error):
                self._journal.forget_top_up(number)
                raise
            raise TopUpUnknownError(job_id, str(error) or type(error).__name__) from None
        self._journal.carried_out_top_up(number)

    async def _settle(self, job_id: bytes) -> None:
        """End what an earlier top-up of the job left open."""
        for entry in self._journal.open_top_ups(*self._owner, to_hex(job_id)):
            if entry.transaction_hash is None or entry.raw_transaction is None:
                # Nobody sends it any more: who was about to held the lock.
                self._journal.forget_top_up(entry.number)
                continue
            try:
                await self._market.settle(Sent(bytes.fromhex(entry.transaction_hash[2:]), entry.raw_transaction))
            except TransactionError as error:
                if not is_refusal(error):
                    raise
                self._journal.forget_top_up(entry.number)
            else:
                self._journal.carried_out_top_up(entry.number)

    @asynccontextmanager
    async def _alone(self, job_id: bytes) -> AsyncIterator[None]:
        self._lock_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = (
            self._lock_folder
            / f"top-up-{self._market.address('MetaScheduler')[2:10].lower()}-{job_id.hex().lstrip('0')}.lock"
        )
        async with AsyncFileLock(path, mode=0o600):
            yield


def seconds_left(record: JobRecord, minute: int, now: int, *, locked: int | None = None) -> int | None:
    """For how many seconds a job can run on from `now` (unix seconds); None before it runs, and where a minute is free.

    Args:
        record: the job.
        minute: what a minute of it costs, in wei.
        now: the chain's time.
        locked: what is locked for it, in wei, if that is more than the record knows.
    """
    if record.status is not JobStatus.RUNNING or not minute:
        return None
    # Whole minutes: a provider runs a job no longer.
    return (record.max_cost if locked is None else locked) // minute * 60 - (now - record.start_time)


def _short(job_id: str) -> str:
    return hex(int(job_id, 16))
