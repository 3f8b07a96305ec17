"""The supervisor's journal: what it has begun, written before it is done, so that a killed supervisor knows when it is back."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from deepsquare.files import make_private

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    job_id BLOB PRIMARY KEY,
    state TEXT NOT NULL,
    customer TEXT NOT NULL,
    minutes INTEGER NOT NULL,
    scheduler_id TEXT NOT NULL DEFAULT '',
    log_offset INTEGER NOT NULL DEFAULT 0,
    uid INTEGER NOT NULL DEFAULT -1,
    since INTEGER NOT NULL DEFAULT 0,
    submitted_at INTEGER NOT NULL DEFAULT 0
) STRICT
"""

# What later versions added.
_ADDED = (
    "uid INTEGER NOT NULL DEFAULT -1",
    "since INTEGER NOT NULL DEFAULT 0",
    "submitted_at INTEGER NOT NULL DEFAULT 0",
)
_COLUMNS = "job_id, state, customer, minutes, scheduler_id, log_offset, uid, since, submitted_at"


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
    uid: int = -1
    """The number of the account that it runs as; -1 while it has none."""
    since: int = 0
    """When it began to be submitted, in unix seconds."""
    submitted_at: int = 0
    """When it was submitted by the scheduler's clock; 0 until it was seen there."""


class SupervisorJournal:
    """Jobs in SQLite; each change is on disk when the method returns."""

    def __init__(self, path: Path) -> None:
        make_private(path)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(_SCHEMA)
        present = {row[1] for row in self._db.execute("PRAGMA table_info(jobs)")}
        for column in _ADDED:
            if column.split()[0] not in present:
                self._db.execute(f"ALTER TABLE jobs ADD COLUMN {column}")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def open_entries(self) -> dict[bytes, Entry]:
        """All jobs whose end is not on chain yet."""
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE state != ?", (Stage.DONE,))  # noqa: S608
        return {row[0]: _entry(row) for row in rows}

    def get(self, job_id: bytes) -> Entry | None:
        """What is known of a job, also of one whose end is on chain."""
        row = self._db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE job_id = ?", (job_id,)).fetchone()  # noqa: S608
        return None if row is None else _entry(row)

    def last_of(self, scheduler_id: str) -> Entry | None:
        """The last job that was submitted under this id; schedulers that crash give ids twice."""
        row = self._db.execute(
            f"SELECT {_COLUMNS} FROM jobs WHERE scheduler_id = ? ORDER BY since DESC, rowid DESC LIMIT 1",  # noqa: S608
            (scheduler_id,),
        ).fetchone()
        return None if row is None else _entry(row)

    def save(self, entry: Entry) -> None:
        """Write an entry, new or changed."""
        self._db.execute(
            f"INSERT INTO jobs ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (job_id) DO UPDATE SET "  # noqa: S608
            "state = excluded.state, minutes = excluded.minutes, scheduler_id = excluded.scheduler_id, "
            "log_offset = excluded.log_offset, uid = excluded.uid, since = excluded.since, "
            "submitted_at = excluded.submitted_at",
            (
                entry.job_id,
                entry.stage,
                entry.customer,
                entry.minutes,
                entry.scheduler_id,
                entry.log_offset,
                entry.uid,
                entry.since,
                entry.submitted_at,
            ),
        )

    def forget(self, job_id: bytes) -> None:
        """Remove a job that was certainly not submitted: it may come again."""
        self._db.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,))


def _entry(row: tuple[Any, ...]) -> Entry:
    return Entry(row[0], Stage(row[1]), *row[2:])
