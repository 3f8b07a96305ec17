"""The supervisor's journal: what it has begun, written before it is done, so that a killed supervisor knows when it is back."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from deepsquare.files import make_private

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    job_id BLOB PRIMARY KEY,
    state TEXT NOT NULL,
    customer TEXT NOT NULL,
    minutes INTEGER NOT NULL,
    scheduler_id TEXT NOT NULL DEFAULT '',
    log_offset INTEGER NOT NULL DEFAULT 0
) STRICT
"""


class Stage(StrEnum):
    """How far the supervisor is with a job."""

    CLAIMED = "claimed"
    SUBMITTING = "submitting"
    """sbatch may or may not have run: only the scheduler knows."""
    SUBMITTED = "submitted"
    DONE = "done"
    """The end is on chain."""


@dataclass(slots=True)
class Entry:
    """A job in the journal."""

    job_id: bytes
    stage: Stage
    customer: str
    minutes: int
    scheduler_id: str = ""
    log_offset: int = 0
    """How many bytes of the job's output the logger has."""


class SupervisorJournal:
    """Jobs in SQLite; each change is on disk when the method returns."""

    def __init__(self, path: Path) -> None:
        make_private(path)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def open_entries(self) -> dict[bytes, Entry]:
        """All jobs whose end is not on chain yet."""
        rows = self._db.execute(
            "SELECT job_id, state, customer, minutes, scheduler_id, log_offset FROM jobs WHERE state != ?",
            (Stage.DONE,),
        )
        return {row[0]: Entry(row[0], Stage(row[1]), row[2], row[3], row[4], row[5]) for row in rows}

    def is_done(self, job_id: bytes) -> bool:
        """Whether the end of a job of this supervisor is on chain."""
        row = self._db.execute("SELECT state FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        return row is not None and row[0] == Stage.DONE

    def is_done_as(self, scheduler_id: str) -> bool:
        """Whether the last job that was submitted under this id has its end on chain; schedulers that crash give ids twice."""
        row = self._db.execute(
            "SELECT state FROM jobs WHERE scheduler_id = ? ORDER BY rowid DESC LIMIT 1", (scheduler_id,)
        ).fetchone()
        return row is not None and row[0] == Stage.DONE

    def save(self, entry: Entry) -> None:
        """Write an entry, new or changed."""
        self._db.execute(
            "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (job_id) DO UPDATE SET state = excluded.state, "
            "minutes = excluded.minutes, scheduler_id = excluded.scheduler_id, log_offset = excluded.log_offset",
            (
                entry.job_id,
                entry.stage,
                entry.customer,
                entry.minutes,
                entry.scheduler_id,
                entry.log_offset,
            ),
        )
