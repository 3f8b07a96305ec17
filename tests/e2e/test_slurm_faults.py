"""Slurm itself fails in every way it can: each job ends once on chain, with the right status, reason and bill."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import SlurmCluster, new_cluster
from tests.conftest import Grid, grid_over_ssh, running_grid, seconds_billed

pytestmark = pytest.mark.slurm

_NODE_TIMEOUT = 10


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    """A cluster of two nodes that soon forgets jobs, and soon gives nodes up."""
    options = ["--nodes=2", "--cpus=4", f"--node-timeout={_NODE_TIMEOUT}", "--min-job-age=2", "--ssh"]
    with new_cluster(*options) as made:
        yield made


@pytest.fixture(scope="module", params=["here", "ssh"])
def grid(request: pytest.FixtureRequest, cluster: SlurmCluster) -> Iterator[Grid]:
    """A supervisor on the host of Slurm's controller, or one that reaches it over SSH."""
    if request.param == "ssh":
        with grid_over_ssh(None, cluster) as made:
            yield made
    else:
        with running_grid(None, "--slurm-conf", cluster.conf) as made:
            made.cluster, made.nodes, made.cpus = cluster, 2, 4
            yield made


def is_refunded(job: Any) -> bool:
    return bool((job["billed"], job["refunded"]) == ("0", job["locked"]))


def test_a_job_killed_by_a_signal(grid: Grid) -> None:
    job = grid.submit("kill -KILL $(pgrep -u $(id -u) -f slurm_script); sleep 60", "--time-limit", "2m", "--watch")
    assert (job["status"], job["error"], job["signal"]) == ("FAILED", "killed by signal 9", 9)
    assert 1 <= seconds_billed(job, 2) <= 60


def test_a_job_that_takes_more_memory_than_it_asked_for(grid: Grid, cluster: SlurmCluster) -> None:
    assert cluster.status()["cgroups"] in ("v1", "v2")
    # Without a newline, tail keeps all that it reads.
    job = grid.submit("head -c 400M /dev/zero | tail -n 1 | wc -c", "--time-limit", "2m", "--watch", memory_mb=100)
    assert (job["status"], job["error"]) == ("FAILED", "it used more memory than it asked for")
    assert 1 <= seconds_billed(job, 2) <= 60


def test_a_step_that_takes_more_memory_may_be_caught(grid: Grid, tmp_path: Path) -> None:
    greedy = {"command": "head -c 400M /dev/zero | tail -n 1 | wc -c"}
    workflow = {
        "resources": {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 100, "gpus": 0},
        "steps": [
            {"run": greedy, "catch": [{"run": {"command": "echo caught"}}]},
            {"run": {"command": "echo going on"}},
        ],
    }
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(workflow))
    job = json.loads(grid.cli("submit", path, "--time-limit", "2m", "--watch", "--json", check=False).stdout)
    assert grid.logs(job["id"])[-2:] == ["caught", "going on"]
    assert job["status"] == "FINISHED"


def test_a_job_whose_node_dies_costs_nothing(grid: Grid, cluster: SlurmCluster) -> None:
    job = grid.submit("echo began; sleep 300", "--time-limit", "5m")
    grid.wait(job["id"], "RUNNING")
    node = grid.slurm("squeue", "--noheader", "--format=%N", f"--name={job['id']}").strip()
    cluster.kill_daemon(f"slurmd/{node}", signal.SIGKILL)
    ended = grid.wait(job["id"], "PANICKED", seconds=6 * _NODE_TIMEOUT)
    assert "NODE_FAIL" in ended["error"]
    assert is_refunded(ended)
    cluster.up()
    assert grid.submit("true", "--time-limit", "1m", "--watch")["status"] == "FINISHED"


def test_a_job_is_not_run_a_second_time_even_if_an_operator_insists(grid: Grid) -> None:
    job = grid.submit("echo began; sleep 300", "--time-limit", "5m")
    grid.wait(job["id"], "RUNNING")
    slurm_id = grid.slurm("squeue", "--noheader", "--format=%A", f"--name={job['id']}").strip()
    refused = grid.run("scontrol", "requeue", slurm_id, env={"SLURM_CONF": str(grid.slurm_conf)}, check=False)
    assert refused.returncode != 0
    assert grid.json("job", "show", job["id"])["status"] == "RUNNING"

    grid.slurm("scontrol", "update", f"JobId={slurm_id}", "Requeue=1")
    grid.slurm("scontrol", "requeue", slurm_id)

    # Its own account can do that too: what it ran is paid for.
    ended = grid.wait(job["id"], "CANCELLED")
    assert ended["error"] == "it was to be started again, and jobs run once"
    assert 1 <= seconds_billed(ended, 5) <= 60
    assert [line for line in grid.logs(job["id"]) if line == "began"] == ["began"]


def test_a_job_that_changes_its_name_is_followed_and_billed_all_the_same(grid: Grid) -> None:
    forged = "$'x\\n1\\x1f0x" + "0" * 63 + "1'"
    job = grid.submit(
        f"scontrol update JobId=$SLURM_JOB_ID JobName={forged} && echo renamed; sleep 3", "--time-limit", "5m"
    )
    ended = grid.wait(job["id"], "FINISHED")
    assert grid.logs(job["id"]) == ["renamed"]
    assert 3 <= seconds_billed(ended, 5) <= 60


def test_a_job_that_slurm_would_never_start_is_given_up(grid: Grid) -> None:
    grid.slurm("scontrol", "update", "PartitionName=main", "MaxTime=1")
    try:
        ended = grid.wait(grid.submit("true", "--time-limit", "5m")["id"], "PANICKED")
    finally:
        grid.slurm("scontrol", "update", "PartitionName=main", "MaxTime=INFINITE")
    assert "PartitionTimeLimit" in ended["error"]
    assert is_refunded(ended)


def test_a_job_that_slurm_has_forgotten_is_found_in_its_accounting(grid: Grid) -> None:
    gate = grid.state / "gate"
    job = grid.submit(f"until [ -e {gate} ]; do sleep 0.1; done; echo done; exit 7", "--time-limit", "2m")
    grid.wait(job["id"], "RUNNING")
    grid.kill_supervisor()
    gate.touch()
    # Slurm forgets once a minute.
    grid.until(lambda: job["id"] not in grid.slurm("squeue", "--noheader", "--states=all", "--format=%j"), seconds=150)
    grid.start_supervisor()
    ended = grid.wait(job["id"], "FAILED")
    assert (ended["exit_code"], grid.output(job["id"])) == (7, ["done"])
    assert 1 <= seconds_billed(ended, 2) <= 60


def test_a_job_that_slurm_loses_costs_nothing(grid: Grid, cluster: SlurmCluster) -> None:
    job = grid.submit("echo began; sleep 600", "--time-limit", "10m")
    grid.wait(job["id"], "RUNNING")
    cluster.kill_daemon("slurmctld", signal.SIGKILL)
    for file in (cluster.state / "state").glob("job_state*"):
        file.unlink()
    cluster.up()
    ended = grid.wait(job["id"], "PANICKED", seconds=180)
    assert "lost it" in ended["error"] or "does not know it" in ended["error"]
    assert is_refunded(ended)


def test_the_controller_is_killed_under_load(grid: Grid, cluster: SlurmCluster) -> None:
    jobs, bought = [], []
    for number in range(12):
        bought.append(time.monotonic())
        jobs.append(grid.submit(f"echo {number}; sleep {number % 3}; echo end", "--time-limit", "10m")["id"])
        if number % 4 == 3:
            cluster.kill_daemon("slurmctld", signal.SIGKILL)
            time.sleep(1)
            cluster.up()
    statuses = []
    for number, job_id in enumerate(jobs):
        ended = grid.wait(job_id, "FINISHED", "PANICKED", "CANCELLED", "FAILED", seconds=240)
        # A node tells its controller of an end each 15 s until that one answers, and Slurm counts on meanwhile.
        age = math.ceil(time.monotonic() - bought[number])
        statuses.append(ended["status"])
        if ended["status"] == "FINISHED":
            assert grid.logs(job_id) == [str(number), "end"]
            assert max(number % 3, 1) <= seconds_billed(ended, 10) <= age
        elif ended["status"] == "FAILED":
            # Slurm forgot that it had started it. It ran once all the same, and says so.
            assert "This job was started before, and is not started again." in grid.logs(job_id)
            assert seconds_billed(ended, 10) <= age
        elif ended["status"] == "CANCELLED":
            # It got the number of one that was forgotten and still ran, which Slurm then ended as both.
            assert seconds_billed(ended, 10) <= age
        else:
            # A controller that is killed forgets the submissions of its last seconds.
            assert is_refunded(ended)
    assert "FINISHED" in statuses
    assert "WRONG" not in grid.cli("cost", "--check").stdout
    # The numbers of forgotten jobs come again, and nodes refuse them for a while.
    grid.until(lambda: grid.submit("true", "--time-limit", "1m", "--watch")["status"] == "FINISHED", seconds=240)


def test_munge_and_the_accounting_are_away_for_a_minute(grid: Grid, cluster: SlurmCluster) -> None:
    running = grid.submit("for i in $(seq 40); do echo $i; sleep 1; done", "--time-limit", "3m")
    grid.wait(running["id"], "RUNNING")
    cluster.kill_daemon("munged", signal.SIGKILL)
    cluster.kill_daemon("slurmdbd", signal.SIGKILL)
    bought = grid.submit("echo late", "--time-limit", "1m")
    time.sleep(60)
    assert grid.json("job", "show", running["id"])["status"] == "RUNNING"
    cluster.up()
    ended = grid.wait(running["id"], "FINISHED", seconds=90)
    # Beside them srun may say that it was not understood in the meantime.
    own = [line for line in grid.logs(running["id"]) if not line.startswith("srun: ")]
    assert own == [str(number) for number in range(1, 41)]
    # Slurm counts until it hears of the end, and it hears nothing without munge.
    assert 40 <= seconds_billed(ended, 3) <= 120
    grid.wait(bought["id"], "FINISHED", seconds=90)
    assert grid.logs(bought["id"]) == ["late"]


def test_every_minute_was_paid_for_once_and_nothing_runs_on(grid: Grid) -> None:
    assert "WRONG" not in grid.cli("cost", "--check").stdout
    accounts = ",".join(grid.accounts())
    grid.until(lambda: subprocess.run(["pgrep", "-u", accounts], check=False, capture_output=True).returncode == 1)
