"""What only this machine knows of its submissions: written before anything is bought, so that no purchase is without a trace."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path

from deepsquare.errors import ConfigError
from deepsquare.files import make_private

_SCHEMA = """
CREATE TABLE IF NOT EXISTS submissions (
    location_hash TEXT PRIMARY KEY,   -- unique for each submission, so it proves which job on chain is this one
    context TEXT NOT NULL,
    customer TEXT NOT NULL,
    labels TEXT NOT NULL,             -- JSON; names of the engine's things never go on chain
    locked TEXT NOT NULL,             -- wei
    created_at REAL NOT NULL,
    transaction_hash TEXT,
    raw_transaction BLOB,
    job_id TEXT
) STRICT
"""


class Journal:
    """The submissions of this user, in SQLite; safe for many processes at once."""

    def __init__(self, path: Path) -> None:
        """Open or make the journal at `path` (mode 0600).

        Raises:
            ConfigError: it can't be opened.
        """
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            make_private(path)
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"the journal {path} can't be opened: {error}") from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def intend(
        self, *, location_hash: str, context: str, customer: str, labels: Mapping[str, str], locked: int
    ) -> None:
        """Note that a job is about to be bought for `locked` wei."""
        self._db.execute(
            "INSERT INTO submissions (location_hash, context, customer, labels, locked, created_at) VALUES (?, ?, ?, ?, ?, ?)",
            (location_hash, context, customer, json.dumps(dict(labels)), str(locked), time.time()),
        )

    def signed(self, location_hash: str, transaction_hash: bytes, raw: bytes) -> None:
        """Note the transaction that is about to be sent."""
        self._db.execute(
            "UPDATE submissions SET transaction_hash = ?, raw_transaction = ? WHERE location_hash = ?",
            ("0x" + transaction_hash.hex(), raw, location_hash),
        )

    def bought(self, location_hash: str, job_id: str) -> None:
        """Note the job that the transaction made."""
        self._db.execute("UPDATE submissions SET job_id = ? WHERE location_hash = ?", (job_id, location_hash))

    def labels(self, context: str, customer: str) -> dict[str, dict[str, str]]:
        """The labels of all submissions of a customer, by location hash."""
        rows = self._db.execute(
            "SELECT location_hash, labels FROM submissions WHERE context = ? AND customer = ?", (context, customer)
        )
        return {location: json.loads(labels) for location, labels in rows}
