"""Customers with an account each: none can read, write or even list what another's jobs and home have."""

from __future__ import annotations

import pwd
import secrets
import shlex
import sys
from pathlib import Path

import pytest
from deepsquare.chain.wallet import Wallet

from tests.conftest import Grid

pytestmark = pytest.mark.slurm

FUND = """
import asyncio, sys
from pathlib import Path
from deepsquare.chain.rpc import connect, request
from deepsquare.credits import to_wei
from deepsquare.grid.config import GridConfig
from deepsquare.grid.services import open_market

async def main():
    config = GridConfig.load(Path(sys.argv[1]))
    w3 = connect(config.rpc_url)
    await request(w3, "anvil_setBalance", sys.argv[2], hex(10**21))
    await w3.provider.disconnect()
    async with open_market(config, "admin") as market:
        await market.transact("Credit", "transfer", sys.argv[2], to_wei("100"))

asyncio.run(main())
"""


@pytest.fixture
def stranger(ssh_grid: Grid) -> dict[str, str]:
    """The environment of another customer with credits and an allowance."""
    key = secrets.token_hex(32)
    ssh_grid.run(sys.executable, "-c", FUND, ssh_grid.state, Wallet.from_key(key).address)
    environment = {"DEEPSQUARE_PRIVATE_KEY": key}
    ssh_grid.cli("allowance", "set", "100", env=environment)
    return environment


def test_jobs_of_two_customers_can_not_reach_each_other(ssh_grid: Grid, stranger: dict[str, str]) -> None:
    grid = ssh_grid
    gate = grid.shared / "world-tmp" / "gate" if grid.shared else Path()
    first = grid.submit(
        "umask 000; echo mine >secret; chmod 666 secret; echo mine >$DEEPSQUARE_TMP/cached; pwd; echo $DEEPSQUARE_TMP; id -un;"
        f" until [ -e {gate} ]; do sleep 0.1; done; cat secret $DEEPSQUARE_TMP/cached",
        "--time-limit",
        "2m",
    )
    grid.wait(first["id"], "RUNNING")
    grid.until(lambda: len(grid.logs(first["id"])) == 3)
    scratch, cache, account = grid.logs(first["id"])
    home = pwd.getpwnam(account).pw_dir
    spool = f"{grid.jobs_folder}/spool/{first['id']}.out"
    attempts = [
        f"cat {shlex.quote(f'{scratch}/secret')}",
        f"cat {shlex.quote(f'{cache}/cached')}",
        f"echo theirs >>{shlex.quote(f'{scratch}/secret')}",
        f"ls {shlex.quote(scratch)}",
        f"ls {shlex.quote(str(Path(scratch).parent))}",
        f"ls {grid.jobs_folder}/shared",
        f"ls {home}",
        f"cat {spool}",
        f"echo theirs >>{spool}",
        f"ls {grid.jobs_folder}/spool",
        f"touch {grid.jobs_folder}/shared/intruder",
    ]
    command = "; ".join(f"if ({attempt}) >/dev/null 2>&1; then echo could: {attempt!r}; fi" for attempt in attempts)
    second = grid.submit(f"id -un; {command}; touch {gate}", "--time-limit", "1m", "--watch", env=stranger)

    other = pwd.getpwnam(grid.cli("job", "logs", second["id"], env=stranger).stdout.split()[0])
    assert grid.cli("job", "logs", second["id"], env=stranger).stdout.splitlines() == [other.pw_name]
    assert other.pw_name not in (account, "root", "nobody")
    assert Path(other.pw_dir).stat().st_mode & 0o077 == 0
    grid.wait(first["id"], "FINISHED")
    assert grid.logs(first["id"]) == [scratch, cache, account, "mine", "mine"]


def test_a_customer_keeps_the_account_and_its_cache(ssh_grid: Grid) -> None:
    for words in ("first", "second"):
        job = ssh_grid.submit(
            f"echo {words} >>$DEEPSQUARE_TMP/visits; cat $DEEPSQUARE_TMP/visits", "--time-limit", "1m", "--watch"
        )
    assert ssh_grid.logs(job["id"])[-2:] == ["first", "second"]
