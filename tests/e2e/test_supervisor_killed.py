"""A supervisor that is killed at the worst moments neither loses nor doubles a job."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest

from tests.conftest import Grid, seconds_billed

pytestmark = pytest.mark.slurm


@pytest.fixture(params=["slurm", "ssh"])
def grid(request: pytest.FixtureRequest) -> Grid:
    made: Grid = request.getfixturevalue(f"{request.param}_grid")
    return made


def test_killed_while_a_job_runs_it_finishes_and_bills_that_job_once(grid: Grid) -> None:
    job = grid.submit("for i in $(seq 20); do echo $i; sleep 1; done", "--time-limit", "3m")
    grid.wait(job["id"], "RUNNING")
    grid.kill_supervisor()
    time.sleep(1)
    grid.start_supervisor()
    ended = grid.wait(job["id"], "FINISHED")
    assert grid.logs(job["id"]) == [str(number) for number in range(1, 21)]
    assert 20 <= seconds_billed(ended, 3) <= 60
    assert "WRONG" not in grid.cli("cost", "--check").stdout


def test_a_job_that_ends_while_the_supervisor_is_away_is_billed_when_it_is_back(grid: Grid) -> None:
    gate = grid.state / "gate"
    job = grid.submit(f"echo one; until [ -e {gate} ]; do sleep 0.1; done; echo two; exit 7", "--time-limit", "2m")
    grid.wait(job["id"], "RUNNING")
    grid.kill_supervisor()
    gate.touch()
    time.sleep(3)
    grid.start_supervisor()
    ended = grid.wait(job["id"], "FAILED")
    assert ended["exit_code"] == 7
    assert grid.output(job["id"]) == ["one", "two"]
    assert 1 <= seconds_billed(ended, 2) <= 60


def test_jobs_bought_while_the_supervisor_is_away_run_when_it_is_back(grid: Grid) -> None:
    grid.kill_supervisor()
    job = grid.submit("echo late", "--time-limit", "1m")
    grid.wait(job["id"], "META_SCHEDULED")
    grid.start_supervisor()
    grid.wait(job["id"], "FINISHED")
    assert grid.logs(job["id"]) == ["late"]


def test_a_running_job_is_found_again_when_the_journal_is_lost(grid: Grid) -> None:
    gate = grid.state / "lost-gate"
    job = grid.submit(f"echo one; until [ -e {gate} ]; do sleep 0.1; done; echo two", "--time-limit", "5m")
    grid.wait(job["id"], "RUNNING")
    grid.kill_supervisor()
    for file in (grid.state / "supervisor").glob("journal.db*"):
        file.unlink()
    grid.start_supervisor()
    time.sleep(3)
    gate.touch()
    ended = grid.wait(job["id"], "FINISHED")
    assert grid.logs(job["id"]) == ["one", "two"]
    assert 3 <= seconds_billed(ended, 5) <= 60


@pytest.mark.parametrize("delay", [0.02, 0.08, 0.15, 0.3])
def test_killed_at_any_instant_after_the_purchase_a_job_runs_at_most_once_and_ends(grid: Grid, delay: float) -> None:
    job = grid.submit("echo ran", "--time-limit", "1m")
    time.sleep(delay)
    grid.kill_supervisor()
    grid.start_supervisor()
    # Cut off between its journal and sbatch, a job is given up with a full refund: nobody can know whether it was submitted.
    ended = grid.wait(job["id"], "FINISHED", "PANICKED", seconds=150)
    if ended["status"] == "FINISHED":
        assert grid.logs(job["id"]) == ["ran"]
    else:
        assert Decimal(ended["billed"]) == 0
