"""The scripts of submitted jobs: kept for an hour, and longer while a job that needs them is hot."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections import defaultdict
from pathlib import Path

from deepsquare.grid.logger.database import Database
from deepsquare.grid.sbatch_api.chain import JobReader
from deepsquare.grid.sbatch_api.challenges import CHALLENGE_SECONDS

KEEP_SECONDS = 3600
# How far the chain's clock may lie behind ours when jobs are compared with scripts by time.
_CLOCK_MARGIN_SECONDS = 24 * 3600

_SCHEMA = """
CREATE TABLE IF NOT EXISTS scripts (
    id TEXT PRIMARY KEY,
    script TEXT NOT NULL,
    customer TEXT,  -- with checksum; NULL until the first job binds an unsigned submission
    created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS used_nonces (nonce BLOB PRIMARY KEY, used REAL NOT NULL) WITHOUT ROWID;
"""


class UnknownScriptError(Exception):
    """There is no script of this id."""


class WrongCustomerError(Exception):
    """The script belongs to another customer."""


class UsedNonceError(Exception):
    """The nonce has been used."""


class ScriptStore:
    """Scripts by random id, each bound to the customer who may buy a job with it."""

    def __init__(self, state_dir: Path) -> None:
        self._database = Database(state_dir / "scripts.sqlite", _SCHEMA)

    async def close(self) -> None:
        """Close the database."""
        await self._database.close()

    async def add(self, script: str, customer: str | None) -> str:
        """Keep a script; returns its new id. `customer` (checksummed) is None when the submission was not signed."""
        # Random and never derived from the content: equal scripts of two customers must not share an id.
        script_id = secrets.token_urlsafe(12)
        await self._database.transaction(
            lambda db: db.execute("INSERT INTO scripts VALUES (?, ?, ?, ?)", (script_id, script, customer, time.time()))
        )
        return script_id

    async def exists(self, script_id: str) -> bool:
        """Whether a script of this id is kept."""
        row = await self._database.transaction(
            lambda db: db.execute("SELECT 1 FROM scripts WHERE id = ?", (script_id,)).fetchone()
        )
        return row is not None

    async def release(self, script_id: str, *, customer: str, nonce: bytes) -> str:
        """The script, for a job of `customer` (checksummed).

        Uses up the nonce, and binds the script when it is not bound yet.

        Raises:
            UnknownScriptError: there is no such script.
            WrongCustomerError: it is bound to another customer.
            UsedNonceError: the nonce has been used.
        """

        def work(db: sqlite3.Connection) -> str:
            row = db.execute("SELECT script, customer FROM scripts WHERE id = ?", (script_id,)).fetchone()
            if row is None:
                raise UnknownScriptError
            script, owner = row
            if owner not in (None, customer):
                raise WrongCustomerError
            try:
                db.execute("INSERT INTO used_nonces VALUES (?, ?)", (nonce, time.time()))
            except sqlite3.IntegrityError:
                raise UsedNonceError from None
            db.execute("UPDATE scripts SET customer = ? WHERE id = ?", (customer, script_id))
            return str(script)

        return await self._database.transaction(work)

    async def purge(self, chain: JobReader) -> int:
        """Forget the scripts older than an hour that no hot job names; returns how many.

        Raises:
            DeepSquareError: the chain can't be read; the scripts that it has to decide about are kept.
        """
        now = time.time()

        def read(db: sqlite3.Connection) -> list[tuple[str, str | None, float]]:
            db.execute("DELETE FROM used_nonces WHERE used < ?", (now - 2 * CHALLENGE_SECONDS,))
            return db.execute(
                "SELECT id, customer, created FROM scripts WHERE created < ?", (now - KEEP_SECONDS,)
            ).fetchall()

        by_customer: dict[str | None, list[tuple[str, float]]] = defaultdict(list)
        for script_id, customer, created in await self._database.transaction(read):
            by_customer[customer].append((script_id, created))
        forgotten = 0
        for customer, scripts in by_customer.items():
            since = min(created for _, created in scripts)
            hot = await _hot_locations(chain, customer, since) if customer else set()
            cold = [(script_id,) for script_id, _ in scripts if script_id not in hot]
            await self._database.transaction(
                lambda db, cold=cold: db.executemany("DELETE FROM scripts WHERE id = ?", cold)  # type: ignore[misc]
            )
            forgotten += len(cold)
        return forgotten


async def _hot_locations(chain: JobReader, customer: str, since: float) -> set[str]:
    """The batchLocationHash of each hot job that the customer requested after `since`."""
    hot: set[str] = set()
    # From the newest on: a customer of long standing has many jobs, of which only the last ones are young enough.
    async for jobs in chain.pages_of(customer):
        hot |= {job.definition.batch_location_hash for job in jobs if job.status.is_hot}
        if any(job.submit_time < since - _CLOCK_MARGIN_SECONDS for job in jobs):
            break
    return hot
