from __future__ import annotations

import asyncio
import os
import pwd
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from deepsquare.errors import ConfigError, GridError
from deepsquare.grid.supervisor.accounts import OwnAccounts
from deepsquare.grid.supervisor.hosts.local import LocalHost

CUSTOMER, OTHER = "0x" + "aB" * 20, "0x" + "cd" * 20
# Whoever runs the tests: root may use any account, others their own alone.
NAME = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


def accounts(folder: Path, script: str) -> OwnAccounts:
    program = folder / "make-account"
    program.write_text(f'#!/bin/sh\necho "$@" >>{folder}/calls\n{script}\n')
    program.chmod(0o755)
    return OwnAccounts(LocalHost(), str(program), state=folder / "accounts.db")


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


async def test_the_command_runs_once_a_customer_also_after_a_restart(tmp_path: Path) -> None:
    first = accounts(tmp_path, f"echo {NAME}")
    found = await asyncio.gather(*(first.of(CUSTOMER) for _ in range(5)))
    first.close()
    again = accounts(tmp_path, "exit 1")
    assert {account.name for account in found} == {NAME}
    assert await again.of(CUSTOMER) == found[0]
    assert await again.all() == [found[0]]
    assert calls(tmp_path) == [CUSTOMER.lower()]
    again.close()


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        ("echo no room >&2; exit 4", GridError, "no room"),
        ("exit 4", GridError, "exit code 4"),
        ("true", GridError, "must print the name"),
        ("echo one two", GridError, "must print the name"),
        ("echo -n --root", GridError, "must print the name"),
        ("echo root", ConfigError, "never run as root"),
        ("echo nobody-of-that-name", ConfigError, "does not exist"),
    ],
)
async def test_what_a_command_does_wrong_is_told(
    tmp_path: Path, script: str, kind: type[Exception], words: str
) -> None:
    own = accounts(tmp_path, script)
    for _ in range(2):
        with pytest.raises(kind, match=words):
            await own.of(CUSTOMER)
    # It was remembered at no time.
    assert len(calls(tmp_path)) == 2
    assert await own.all() == []
    own.close()


async def test_an_account_whose_number_has_changed_gets_no_jobs(tmp_path: Path) -> None:
    own = accounts(tmp_path, f"echo {NAME}")
    found = await own.of(CUSTOMER)
    with closing(sqlite3.connect(tmp_path / "accounts.db", isolation_level=None)) as database:
        database.execute("UPDATE accounts SET uid = uid + 1")
    with pytest.raises(ConfigError, match="another number"):
        await own.of(CUSTOMER)
    # What may still run as the old one is asked for.
    assert [account.uid for account in await own.all()] == [found.uid + 1]
    own.close()


async def test_two_customers_never_share_an_account(tmp_path: Path) -> None:
    own = accounts(tmp_path, f"echo {NAME}")
    await own.of(CUSTOMER)
    with pytest.raises(ConfigError, match="to two customers"):
        await own.of(OTHER)
    own.close()
