"""Which Unix account of the cluster a customer's jobs run as."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from deepsquare.errors import ConfigError, GridError
from deepsquare.files import make_private
from deepsquare.grid.supervisor.hosts.base import Account, Host

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,255}")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS accounts (
    customer TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    uid INTEGER NOT NULL UNIQUE,
    gid INTEGER NOT NULL
) STRICT
"""


class Accounts(Protocol):
    """Maps customers to accounts."""

    async def of(self, customer: str) -> Account:
        """The account of a customer (an address), made when it is not there yet.

        Raises:
            GridError: it can't be made.
            ConfigError: it is none that jobs may run as.
            ConnectionFailedError: the host can't be reached.
        """
        ...

    async def all(self) -> Sequence[Account]:
        """Every account that jobs may have run as until now."""
        ...

    def close(self) -> None:
        """Let go of files."""
        ...


class SharedAccount:
    """One account for all customers, who can do with each other's jobs what they can with their own."""

    def __init__(self, account: Account) -> None:
        self._account = account

    async def of(self, customer: str) -> Account:
        """See `Accounts.of`."""
        return self._account

    async def all(self) -> Sequence[Account]:
        """See `Accounts.all`."""
        return [self._account]

    def close(self) -> None:
        """See `Accounts.close`."""


class OwnAccounts:
    """One account each, made by a command of the operator's.

    The command is run on the host with one argument, the customer's address in lower case. It makes the account if need be,
    and prints its name. What it printed is remembered, so that it runs once a customer.
    """

    def __init__(self, host: Host, command: str, *, state: Path) -> None:
        """`state` is the file that remembers."""
        self._host, self._command = host, command
        state.parent.mkdir(mode=0o711, exist_ok=True)
        make_private(state)
        self._db = sqlite3.connect(state, isolation_level=None)
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(_SCHEMA)
        self._making = asyncio.Lock()

    async def of(self, customer: str) -> Account:
        """See `Accounts.of`."""
        key = customer.lower()
        row = self._db.execute("SELECT name, uid, gid FROM accounts WHERE customer = ?", (key,)).fetchone()
        if row is None:
            # One at a time: programs that make accounts rarely bear company.
            async with self._making:
                return await self._make(key)
        known = Account(*row)
        # A number that has gone to somebody else must not get this customer's jobs.
        if await self._host.account(known.name) != known:
            raise ConfigError(f"the account {known.name!r} has another number than when it was made for {key}")
        return known

    async def all(self) -> Sequence[Account]:
        """See `Accounts.all`: from what is remembered, also while the host can't tell who is who."""
        return [Account(*row) for row in self._db.execute("SELECT name, uid, gid FROM accounts")]

    def close(self) -> None:
        """See `Accounts.close`."""
        self._db.close()

    async def _make(self, customer: str) -> Account:
        row = self._db.execute("SELECT name, uid, gid FROM accounts WHERE customer = ?", (customer,)).fetchone()
        if row is not None:
            return Account(*row)
        answer = await self._host.run(self._command, customer, environment={"LANG": "C.UTF-8"})
        name = answer.output.strip()
        if answer.code != 0:
            raise GridError(
                f"{self._command} {customer} made no account: {answer.errors.strip() or f'exit code {answer.code}'}"
            )
        if not _NAME.fullmatch(name):
            raise GridError(f"{self._command} {customer} must print the name of an account, and nothing else")
        # Looked up on the host before it is remembered: never root, and one that is there.
        account = await self._host.account(name)
        try:
            self._db.execute("INSERT INTO accounts VALUES (?, ?, ?, ?)", (customer, name, account.uid, account.gid))
        except sqlite3.IntegrityError:
            raise ConfigError(
                f"{self._command} gave the account {name!r}, or its number, to two customers; each must get one of its own"
            ) from None
        return account
