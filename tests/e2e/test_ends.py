"""Jobs that somebody else ends, holds up or prolongs: each has the right status and refund on chain."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from decimal import Decimal

import pytest

from tests.conftest import Grid, seconds_billed

pytestmark = pytest.mark.slurm

TOP_UP = """
import asyncio, sys
from deepsquare import Client
from deepsquare.chain.types import parse_job_id
from deepsquare.credits import to_wei

async def main():
    async with Client() as client:
        await client.market.top_up_job(parse_job_id(sys.argv[1]), to_wei(sys.argv[2]))

asyncio.run(main())
"""


@pytest.fixture(params=["slurm", "ssh"])
def grid(request: pytest.FixtureRequest) -> Grid:
    made: Grid = request.getfixturevalue(f"{request.param}_grid")
    return made


def nodes_of(grid: Grid) -> str:
    return grid.slurm("sinfo", "--noheader", "--format=%N").strip()


@pytest.fixture
def drained(grid: Grid) -> Iterator[None]:
    nodes = nodes_of(grid)
    grid.slurm("scontrol", "update", f"NodeName={nodes}", "State=DRAIN", "Reason=test")
    yield
    if "drain" in grid.slurm("sinfo", "--noheader", "--format=%T"):
        grid.slurm("scontrol", "update", f"NodeName={nodes}", "State=RESUME")


def test_a_job_that_is_cancelled_behind_our_back_ends_with_a_refund(grid: Grid) -> None:
    job = grid.submit("echo started; sleep 300", "--time-limit", "10m")
    grid.wait(job["id"], "RUNNING")
    grid.slurm("scancel", f"--name={job['id']}")
    ended = grid.wait(job["id"], "CANCELLED")
    assert 1 <= seconds_billed(ended, 10) <= 60
    assert Decimal(ended["refunded"]) == Decimal(ended["locked"]) - Decimal(ended["billed"])
    assert grid.logs(job["id"])[0] == "started"


def test_a_waiting_job_that_is_cancelled_behind_our_back_costs_nothing(grid: Grid, drained: None) -> None:
    job = grid.submit("true", "--time-limit", "10m")
    grid.wait(job["id"], "SCHEDULED")
    until = time.monotonic() + 30
    while job["id"] not in grid.slurm("squeue", "--noheader", "--format=%j") and time.monotonic() < until:
        time.sleep(0.2)
    grid.slurm("scancel", f"--name={job['id']}")
    ended = grid.wait(job["id"], "CANCELLED")
    assert (ended["billed"], ended["refunded"], ended["started_at"]) == ("0", ended["locked"], None)


def test_jobs_on_a_drained_node_end_and_others_wait_for_it(grid: Grid) -> None:
    nodes = nodes_of(grid)
    gate = grid.state / "drain-gate"
    running = grid.submit(f"until [ -e {gate} ]; do sleep 0.1; done; echo done", "--time-limit", "5m")
    grid.wait(running["id"], "RUNNING")
    grid.slurm("scontrol", "update", f"NodeName={nodes}", "State=DRAIN", "Reason=test")
    waiting = grid.submit("echo after all", "--time-limit", "1m")
    given_up = grid.submit("true", "--time-limit", "1m")
    grid.wait(waiting["id"], "SCHEDULED")
    grid.wait(given_up["id"], "SCHEDULED")
    # Without a node that is up it has nothing to announce, but jobs to look after.
    grid.kill_supervisor()
    grid.start_supervisor()
    gate.touch()
    assert grid.wait(running["id"], "FINISHED")["exit_code"] == 0
    grid.cli("job", "cancel", given_up["id"])
    cancelled = grid.wait(given_up["id"], "CANCELLED")
    assert (cancelled["billed"], cancelled["refunded"]) == ("0", cancelled["locked"])
    assert grid.json("job", "show", waiting["id"])["status"] == "SCHEDULED"

    grid.slurm("scontrol", "update", f"NodeName={nodes}", "State=RESUME")

    assert Decimal(grid.wait(waiting["id"], "FINISHED")["billed"]) > 0
    assert grid.logs(waiting["id"]) == ["after all"]


@pytest.mark.parametrize("scheduler", ["slurm", "ssh", "local"])
def test_a_topped_up_job_runs_for_as_long_as_all_its_credits_buy(
    scheduler: str, request: pytest.FixtureRequest
) -> None:
    grid: Grid = request.getfixturevalue(f"{scheduler}_grid")
    job = grid.submit("sleep 66; echo in time", "--time-limit", "1m")
    grid.wait(job["id"], "RUNNING")
    grid.run(sys.executable, "-c", TOP_UP, job["id"], job["locked"])
    ended = grid.wait(job["id"], "FINISHED", "OUT_OF_CREDITS", seconds=150)
    assert ended["status"] == "FINISHED"
    assert grid.logs(job["id"]) == ["in time"]
    assert Decimal(ended["locked"]) == 2 * Decimal(job["locked"])
    assert 66 <= seconds_billed(ended, 2) <= 90
    assert "WRONG" not in grid.cli("cost", "--check").stdout
