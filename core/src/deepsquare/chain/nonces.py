"""Which nonces of a wallet this machine has used for what, in SQLite, for all its processes.

The node's count is right as long as it has every transaction. One that lags behind its peers, or that lost what waited, counts too
few: then what is written here says which nonces are taken, and has the transactions to hand in again.
"""

from __future__ import annotations

import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from deepsquare.errors import ConfigError
from deepsquare.files import make_private

_SCHEMA = """
CREATE TABLE IF NOT EXISTS transactions (
    chain TEXT NOT NULL,       -- the hash of its first block: a chain begun anew often has the same number
    account TEXT NOT NULL,
    nonce INTEGER NOT NULL,
    raw BLOB NOT NULL,
    is_taken INTEGER NOT NULL, -- a node said that it has it
    signed_at REAL NOT NULL,
    PRIMARY KEY (chain, account, nonce)
) STRICT, WITHOUT ROWID
"""
# Older ones are in blocks that no chain takes back.
_KEPT = 256


@dataclass(frozen=True, slots=True)
class Used:
    """A nonce that was used."""

    nonce: int
    raw: bytes
    is_taken: bool
    age: float
    """Seconds since it was signed."""


class NonceBook:
    """The nonces of one account on one chain; who writes has the account's lock."""

    def __init__(self, path: Path, chain: str, account: str) -> None:
        """Open or make the database at `path` (mode 0600); `chain` is the hash of the chain's first block.

        Raises:
            ConfigError: it can't be opened.
        """
        self._path, self._of = path, (chain, account)
        self._db: sqlite3.Connection | None = None
        self._parents: list[sqlite3.Connection | None] = []
        self._pid = 0
        self._connection()

    def _connection(self) -> sqlite3.Connection:
        if self._db is None or self._pid != os.getpid():
            # A connection must not be used on both sides of a fork, nor closed by the child, as it would be if it was forgotten.
            self._parents.append(self._db)
            try:
                make_private(self._path)
                self._db = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute(_SCHEMA)
            except (sqlite3.Error, OSError) as error:
                raise ConfigError(
                    f"the record of the wallet's transactions, {self._path}, can't be opened: {error}"
                ) from None
            self._pid = os.getpid()
        return self._db

    def close(self) -> None:
        """Close the file."""
        if self._db is not None and self._pid == os.getpid():
            self._db.close()
        self._db = None

    def used(self, since: int) -> dict[int, Used]:
        """What was used of the nonces from `since` on."""
        rows = self._connection().execute(
            "SELECT nonce, raw, is_taken, signed_at FROM transactions WHERE chain = ? AND account = ? AND nonce >= ?",
            (*self._of, since),
        )
        now = time.time()
        return {nonce: Used(nonce, raw, bool(taken), max(now - at, 0.0)) for nonce, raw, taken, at in rows}

    def use(self, nonce: int, raw: bytes) -> None:
        """Note a signed transaction that is about to be sent, in place of any other of its nonce."""
        self._connection().execute(
            "INSERT OR REPLACE INTO transactions VALUES (?, ?, ?, ?, 0, ?)", (*self._of, nonce, raw, time.time())
        )

    def taken(self, nonce: int) -> None:
        """Note that a node has the transaction of a nonce, and forget those of long ago."""
        connection = self._connection()
        connection.execute(
            "UPDATE transactions SET is_taken = 1 WHERE chain = ? AND account = ? AND nonce = ?", (*self._of, nonce)
        )
        connection.execute(
            "DELETE FROM transactions WHERE chain = ? AND account = ? AND nonce < ?", (*self._of, nonce - _KEPT)
        )

    def free(self, nonce: int) -> None:
        """Forget the transaction of a nonce: no node takes it."""
        self._connection().execute(
            "DELETE FROM transactions WHERE chain = ? AND account = ? AND nonce = ?", (*self._of, nonce)
        )
