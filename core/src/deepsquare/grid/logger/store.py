"""The logs: lines in order, each encrypted, in one SQLite file."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from deepsquare.files import read_private, write_private
from deepsquare.grid.logger.database import Database

MAX_LOG_BYTES = 256 * 1024 * 1024

_NONCE_BYTES = 12
# What a line takes beside its text: its row, the nonce and the tag.
_LINE_BYTES = 64
_SCHEMA = """
CREATE TABLE IF NOT EXISTS logs (
    id INTEGER PRIMARY KEY,
    owner TEXT NOT NULL,  -- the customer's address in lower case
    name TEXT NOT NULL,
    lines INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    end_offset INTEGER NOT NULL DEFAULT 0,  -- the job's output is stored up to here
    is_full INTEGER NOT NULL DEFAULT 0,
    UNIQUE (owner, name)
);
CREATE TABLE IF NOT EXISTS lines (
    log INTEGER NOT NULL REFERENCES logs,
    number INTEGER NOT NULL,  -- from 1, without gaps
    timestamp INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (log, number)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of output, the time (unix, ns) at which it was seen, and the offset just behind it (0 = not known)."""

    data: bytes
    timestamp_ns: int
    offset: int = 0


class LogStore:
    """Appends to and reads logs, each named by its owner (address in lower case) and its name."""

    def __init__(self, state_dir: Path, *, max_log_bytes: int = MAX_LOG_BYTES) -> None:
        """Open or make the store in `state_dir`.

        Raises:
            OSError: the folder can't be read or written.
        """
        key_path = state_dir / "logs.key"
        if not key_path.exists():
            write_private(key_path, secrets.token_hex(32))
        self._cipher = ChaCha20Poly1305(bytes.fromhex(read_private(key_path)))
        self._max_log_bytes = max_log_bytes
        self._database = Database(state_dir / "logs.sqlite", _SCHEMA)

    async def close(self) -> None:
        """Close the database."""
        await self._database.close()

    async def append(self, owner: str, name: str, lines: Sequence[Line]) -> None:
        """Store lines behind those that are there, all or none of them.

        A line whose offset is known and not behind what is stored is a repetition, and ignored. When the log would grow
        over its limit, one last line says so, and everything after it is dropped.
        """
        await self._database.transaction(lambda db: self._append(db, owner, name, lines))

    def _append(self, db: sqlite3.Connection, owner: str, name: str, lines: Sequence[Line]) -> None:
        db.execute("INSERT OR IGNORE INTO logs (owner, name) VALUES (?, ?)", (owner, name))
        log, count, size, end, is_full = db.execute(
            "SELECT id, lines, bytes, end_offset, is_full FROM logs WHERE owner = ? AND name = ?", (owner, name)
        ).fetchone()
        rows = []
        for line in lines:
            if line.offset:
                if line.offset <= end:
                    continue
                end = line.offset
            if is_full:
                continue
            data = line.data
            if size + len(data) + _LINE_BYTES > self._max_log_bytes:
                is_full = 1
                data = f"[the log is full: output over {self._max_log_bytes} bytes is not kept]".encode()
            count += 1
            size += len(data) + _LINE_BYTES
            rows.append((log, count, line.timestamp_ns, self._seal(owner, name, count, line.timestamp_ns, data)))
        db.executemany("INSERT INTO lines VALUES (?, ?, ?, ?)", rows)
        db.execute(
            "UPDATE logs SET lines = ?, bytes = ?, end_offset = ?, is_full = ? WHERE id = ?",
            (count, size, end, is_full, log),
        )

    async def count(self, owner: str, name: str) -> int | None:
        """How many lines a log has, or None when there is no such log."""
        row = await self._database.transaction(
            lambda db: db.execute("SELECT lines FROM logs WHERE owner = ? AND name = ?", (owner, name)).fetchone()
        )
        return None if row is None else int(row[0])

    async def read(self, owner: str, name: str, *, after: int, limit: int) -> list[Line]:
        """At most `limit` lines behind the first `after` ones.

        Raises:
            cryptography.exceptions.InvalidTag: the file was changed by somebody else, or the key is another one.
        """

        def work(db: sqlite3.Connection) -> list[Line]:
            rows = db.execute(
                "SELECT number, timestamp, sealed FROM lines"
                " WHERE log = (SELECT id FROM logs WHERE owner = ? AND name = ?) AND number > ? ORDER BY number LIMIT ?",
                (owner, name, after, limit),
            )
            return [Line(self._unseal(owner, name, *row), row[1]) for row in rows]

        return await self._database.transaction(work)

    async def names(self, owner: str) -> list[str]:
        """The names of a user's logs, oldest first."""
        return await self._database.transaction(
            lambda db: [row[0] for row in db.execute("SELECT name FROM logs WHERE owner = ? ORDER BY id", (owner,))]
        )

    def _seal(self, owner: str, name: str, number: int, timestamp: int, data: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, _place(owner, name, number, timestamp))

    def _unseal(self, owner: str, name: str, number: int, timestamp: int, sealed: bytes) -> bytes:
        place = _place(owner, name, number, timestamp)
        return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place)


def _place(owner: str, name: str, number: int, timestamp: int) -> bytes:
    """What a sealed line is bound to: it can't be moved to another log, place or time unnoticed."""
    return f"{owner}/{name}/{number}/{timestamp}".encode()
