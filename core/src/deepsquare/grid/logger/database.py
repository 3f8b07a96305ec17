"""A private SQLite database that does not block the event loop."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from deepsquare.files import make_private

T = TypeVar("T")


class Database:
    """One SQLite file (mode 0600, WAL) whose transactions run one after the other in a thread of their own."""

    def __init__(self, path: Path, schema: str) -> None:
        """Open the file, make it when it is missing, and run the `schema` script, which must be repeatable.

        Raises:
            OSError: the folder can't be written.
            sqlite3.Error: the file is no database of SQLite.
        """
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_private(path)
        path.chmod(0o600)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        # What is acknowledged must survive a power failure: its sender forgets it.
        self._connection.execute("PRAGMA synchronous = FULL")
        # Deleted scripts hold secrets: their pages are overwritten.
        self._connection.execute("PRAGMA secure_delete = ON")
        self._connection.execute("PRAGMA foreign_keys = ON")
        self._connection.executescript(schema)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"sqlite-{path.stem}")

    async def transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one transaction, which is rolled back when it raises, and return its result."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, work)

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(self._connection)
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")
        return result

    async def close(self) -> None:
        """Wait for the running transaction and close the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown(wait=False)
