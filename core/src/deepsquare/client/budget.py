"""Budgets: the most that the jobs of a pipeline run may cost together, whichever processes of this machine buy them.

A budget counts what its hot jobs have locked and what its cold ones were billed. Each purchase and top-up reserves its amount in
the journal before anything is paid, in one transaction of SQLite that adds up what is there: two processes that buy at once can't
exceed a budget together. A reservation whose process was killed before it signed anything counts for an hour; one that was signed,
until its job is found, or it is certain that there never will be one. Machines share no journal: give each a budget of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from deepsquare.chain.types import JobRecord, parse_job_id, to_hex
from deepsquare.credits import from_wei, to_wei
from deepsquare.errors import DeepSquareError, PurchaseUnknownError, TransactionError

if TYPE_CHECKING:
    import sqlite3

    from deepsquare.chain.market import Market
    from deepsquare.client.journal import Journal

# Longer than any purchase takes to be signed.
_UNSIGNED_SECONDS = 3600.0
# Longer than the answer to a purchase is waited for.
_UNANSWERED_SECONDS = 300.0
_NEWEST_JOBS = 200

_log = logging.getLogger(__name__)


class BudgetError(DeepSquareError):
    """A purchase or top-up would exceed a budget; nothing was paid."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that all jobs of a scope may cost.

    Args:
        credits: how much. What was said last counts for all processes.
        scope: your name for what shares it, for example a pipeline's run; it stays on this machine.
        when_spent: what becomes of the scope's running jobs when something is refused because of it: "let_run" lets them end as
            they do, "stop" cancels them.

    Raises:
        ValueError: a value is out of range.
    """

    credits: Decimal | int | str
    scope: str
    when_spent: Literal["let_run", "stop"] = "let_run"

    def __post_init__(self) -> None:
        to_wei(self.credits, field="budget")
        if not self.scope:
            raise ValueError("scope is empty: give the budget a name, which all that share it say")
        if self.when_spent not in ("let_run", "stop"):
            raise ValueError(f"when_spent is {self.when_spent!r}, but running jobs either let_run or stop")


@dataclass(frozen=True, slots=True)
class _Charge:
    """What one purchase or top-up counts for, in wei."""

    number: int
    job_id: str | None
    top_up: int | None
    amount: int
    settled: bool


class Budgets:
    """The budgets of one customer on one market."""

    def __init__(self, market: Market, journal: Journal, *, context: str, customer: str) -> None:
        """`context` is the grid's name in the journal, `customer` the own address."""
        self._market, self._journal = market, journal
        self._owner = (context, customer)

    @asynccontextmanager
    async def reserved(self, budget: Budget | None, amount: int, *, location: str) -> AsyncIterator[None]:
        """What a purchase may add to a budget, `amount` wei, reserved; given back when nothing was bought.

        Raises:
            BudgetError: the budget has not so much left; nothing was paid.
        """
        if budget is None:
            yield
            return
        with self._journal.transaction() as db:
            # Also if this very purchase exceeds it: it is what was said last.
            self._set(db, budget)
        number = await self._reserve(budget.scope, amount, location=location)
        try:
            yield
        except PurchaseUnknownError:
            # It may have been bought: it counts until that is known.
            raise
        except Exception:
            with self._journal.transaction() as db:
                db.execute("DELETE FROM budget_charges WHERE number = ?", (number,))
            raise

    async def reserve_top_up(self, job_id: bytes, amount: int, *, top_up: int) -> None:
        """Reserve what a top-up adds, in wei, where the job has a budget; it is given back when the journal forgets the top-up.

        Raises:
            BudgetError: the budget has not so much left.
        """
        with self._journal.transaction() as db:
            self._link(db)
            found = db.execute(
                "SELECT scope FROM budget_charges WHERE context = ? AND customer = ? AND job_id = ?",
                (*self._owner, to_hex(job_id)),
            ).fetchone()
        if found is not None:
            await self._reserve(found[0], amount, job_id=to_hex(job_id), top_up=top_up)

    async def adopt(self, budget: Budget | None, record: JobRecord) -> None:
        """Count a job that was bought before, also on another machine; one that a budget counts already stays where it is."""
        if budget is None:
            return
        with self._journal.transaction() as db:
            self._set(db, budget)
            self._link(db)
            db.execute(
                "INSERT INTO budget_charges (context, customer, scope, location_hash, job_id, amount, created_at) "
                "SELECT ?, ?, ?, ?, ?, ?, ? WHERE NOT EXISTS "
                "(SELECT 1 FROM budget_charges WHERE context = ? AND customer = ? AND job_id = ?)",
                (
                    *(*self._owner, budget.scope, record.definition.batch_location_hash, to_hex(record.job_id)),
                    *(str(record.max_cost), time.time()),
                    *(*self._owner, to_hex(record.job_id)),
                ),
            )

    async def spent(self, scope: str) -> int:
        """The wei that a scope's jobs have locked or were billed."""
        await self._refresh(scope)
        with self._journal.transaction() as db:
            return sum(charge.amount for charge in self._charges(db, scope))

    async def _reserve(
        self,
        scope: str,
        amount: int,
        *,
        location: str | None = None,
        job_id: str | None = None,
        top_up: int | None = None,
    ) -> int:
        await self._refresh(scope)
        with self._journal.transaction() as db:
            limit, when_spent = db.execute(
                "SELECT credits, when_spent FROM budgets WHERE context = ? AND customer = ? AND scope = ?",
                (*self._owner, scope),
            ).fetchone()
            total = sum(charge.amount for charge in self._charges(db, scope))
            if total + amount <= int(limit):
                number = db.execute(
                    "INSERT INTO budget_charges (context, customer, scope, location_hash, job_id, top_up, amount, created_at) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (*self._owner, scope, location, job_id, top_up, str(amount), time.time()),
                ).lastrowid
                assert number is not None
                return number
        stopped = await self._stop(scope) if when_spent == "stop" else 0
        raise BudgetError(
            f"the budget {scope!r} is {from_wei(int(limit)):f} credits, of which {from_wei(total):f} are locked or spent: "
            f"{from_wei(amount):f} more would exceed it. Raise it, or wait until jobs of it end and get back what they didn't use"
            + (f"; {stopped} running job(s) of it were told to stop" if stopped else "")
        )

    async def _refresh(self, scope: str) -> None:
        """Learn from the chain what the scope's jobs have locked, and what those that ended were billed."""
        with self._journal.transaction() as db:
            self._link(db)
            missing = self._unanswered(db, scope)
        if missing:
            await self._find(missing)
        with self._journal.transaction() as db:
            ids = sorted({c.job_id for c in self._charges(db, scope) if c.job_id is not None and not c.settled})
        records = await self._market.get_jobs([parse_job_id(job_id) for job_id in ids])
        with self._journal.transaction() as db:
            charges: dict[str | None, list[_Charge]] = defaultdict(list)
            for charge in self._charges(db, scope):
                charges[charge.job_id].append(charge)
            for job_id, record in zip(ids, records, strict=True):
                if record is not None:
                    self._adjust(db, charges[job_id], record)

    def _adjust(self, db: sqlite3.Connection, charges: list[_Charge], record: JobRecord) -> None:
        purchase = next((charge for charge in charges if charge.top_up is None), None)
        if purchase is None or purchase.settled:
            return
        amount = purchase.amount
        if record.status.is_cold:
            db.executemany(
                "DELETE FROM budget_charges WHERE number = ?", [(c.number,) for c in charges if c is not purchase]
            )
            amount = record.final_cost
        else:
            # What others have added to it, for example another machine, is known by the chain alone.
            amount += max(record.max_cost - sum(charge.amount for charge in charges), 0)
        db.execute(
            "UPDATE budget_charges SET amount = ?, settled = ? WHERE number = ?",
            (str(amount), record.status.is_cold, purchase.number),
        )

    def _set(self, db: sqlite3.Connection, budget: Budget) -> None:
        db.execute(
            "INSERT INTO budgets (context, customer, scope, credits, when_spent) VALUES (?, ?, ?, ?, ?) ON CONFLICT "
            "(context, customer, scope) DO UPDATE SET credits = excluded.credits, when_spent = excluded.when_spent",
            (*self._owner, budget.scope, str(to_wei(budget.credits)), budget.when_spent),
        )

    def _charges(self, db: sqlite3.Connection, scope: str) -> list[_Charge]:
        rows = db.execute(
            "SELECT number, job_id, top_up, amount, settled FROM budget_charges "
            "WHERE context = ? AND customer = ? AND scope = ?",
            (*self._owner, scope),
        )
        # Wei don't fit SQLite's integers.
        return [_Charge(number, job_id, top_up, int(wei), bool(done)) for number, job_id, top_up, wei, done in rows]

    def _link(self, db: sqlite3.Connection) -> None:
        """Take over what the submissions know of their jobs."""
        db.execute(
            "UPDATE budget_charges SET job_id = submissions.job_id FROM submissions WHERE budget_charges.job_id IS NULL "
            "AND submissions.location_hash = budget_charges.location_hash AND submissions.job_id IS NOT NULL"
        )

    def _unanswered(self, db: sqlite3.Connection, scope: str) -> dict[str, int]:
        """The purchases, by location, that were signed and never answered; those that were never signed are let go."""
        waiting = (
            "FROM budget_charges LEFT JOIN submissions USING (location_hash) WHERE budget_charges.context = ? "
            "AND budget_charges.customer = ? AND scope = ? AND budget_charges.job_id IS NULL AND budget_charges.created_at < ?"
        )
        db.execute(
            f"DELETE FROM budget_charges WHERE number IN (SELECT number {waiting} AND transaction_hash IS NULL)",  # noqa: S608
            (*self._owner, scope, time.time() - _UNSIGNED_SECONDS),
        )
        rows: Any = db.execute(
            f"SELECT location_hash, number {waiting} AND transaction_hash IS NOT NULL",
            (*self._owner, scope, time.time() - _UNANSWERED_SECONDS),
        )
        return dict(rows)

    async def _find(self, missing: dict[str, int]) -> None:
        """Look among the customer's jobs for purchases that were never answered; those that never will be carried out are let go.

        Most are among the newest. For those that are not, all are looked through, once: whose transaction is decided, and that
        are not there, were not bought.
        """
        # Before anything is looked at: what is decided by now is there to be seen.
        decided = await self._decided(missing)
        found: list[tuple[str, int]] = []
        left, seen = dict(missing), 0
        lost: list[int] = []
        async for page in self._market.pages_of(self._owner[1]):
            for record in page:
                number = left.pop(record.definition.batch_location_hash, None)
                if number is not None:
                    found.append((to_hex(record.job_id), number))
            seen += len(page)
            if not left or (seen >= _NEWEST_JOBS and not decided & left.keys()):
                break
        else:
            lost = [number for location, number in left.items() if location in decided]
        with self._journal.transaction() as db:
            db.executemany("UPDATE budget_charges SET job_id = ? WHERE number = ?", found)
            # Of one that is not so old, somebody may be about to sign it anew.
            db.executemany(
                "DELETE FROM budget_charges WHERE number = ? AND created_at < ?",
                [(number, time.time() - _UNSIGNED_SECONDS) for number in lost],
            )

    async def _decided(self, locations: Iterable[str]) -> set[str]:
        """Those of some purchases whose transactions are carried out, or never will be."""
        sent = self._journal.sent(list(locations))
        answers = await asyncio.gather(*map(self._market.is_decided, sent.values()))
        return {location for location, is_decided in zip(sent, answers, strict=True) if is_decided}

    async def _stop(self, scope: str) -> int:
        """Ask for the end of the scope's running jobs, and say how many there were."""
        with self._journal.transaction() as db:
            ids = sorted({c.job_id for c in self._charges(db, scope) if c.job_id is not None and not c.settled})
        records = await self._market.get_jobs([parse_job_id(job_id) for job_id in ids])
        hot = [record for record in records if record and record.status.is_hot and not record.has_cancel_request]
        answers = await asyncio.gather(
            *(self._market.cancel_job(record.job_id) for record in hot), return_exceptions=True
        )
        for record, answer in zip(hot, answers, strict=True):
            # Usually it has ended meanwhile.
            if isinstance(answer, TransactionError):
                _log.warning("the job %s was not told to stop: %s", hex(int.from_bytes(record.job_id, "big")), answer)
            elif isinstance(answer, BaseException):
                raise answer
        return sum(answer is None for answer in answers)
