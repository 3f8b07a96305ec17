"""A second grid beside the first: up, down and up again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.apptainer import grid_options
from tests.cluster import SlurmCluster
from tests.conftest import CLUSTER, SERVICES, Grid, account_exists

pytestmark = pytest.mark.slurm


def leftovers(state: Path, account: str) -> list[str]:
    """What of a grid is still on this machine: processes, mounts, cgroups, the account."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if str(state).encode() in text:
            found.append(f"process {process.name}: {text[:200]!r}")
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if str(state) in line]
    name = (state / "slurm/etc/slurm.conf").read_text().partition("ClusterName=")[2].split()[0]
    found += [str(path) for path in Path("/sys/fs/cgroup").rglob(f"*{name}*")]
    if account_exists(account):
        found.append(f"account {account}")
    return found


def test_down_leaves_nothing_and_up_goes_on_where_it_was(grid: Grid, second_grid: Grid) -> None:
    state = second_grid.state
    second_grid.cli("grid", "up", "--state", state, "--cluster", CLUSTER, cwd=state)
    finished = second_grid.submit("echo first", "--time-limit", "1m", "--watch")
    running = second_grid.submit("sleep 600 & echo started; sleep 600", "--time-limit", "20m")
    second_grid.wait(running["id"], "RUNNING")
    account = second_grid.json("grid", "status", "--state", state)["account"]
    assert leftovers(state, account)

    second_grid.cli("grid", "down", "--state", state)

    assert not leftovers(state, account)
    status = second_grid.cli("grid", "status", "--state", state, check=False)
    assert (status.returncode, "up             False" in status.stdout) == (3, True)

    second_grid.cli("grid", "up", "--state", state)
    # The job that `down` cut off ends on chain when its supervisor is back, and what it did not use comes back.
    ended = second_grid.wait(running["id"], "CANCELLED", "FAILED", "PANICKED")
    assert ended["refunded"] != "0"
    assert second_grid.logs(finished["id"]) == ["first"]
    assert second_grid.submit("echo second", "--time-limit", "1m", "--watch")["status"] == "FINISHED"
    assert "WRONG" not in second_grid.cli("cost", "--check").stdout
    # The first grid has not noticed.
    assert grid.submit("echo still here", "--time-limit", "1m", "--watch")["status"] == "FINISHED"


def test_down_ends_its_jobs_on_a_cluster_that_is_not_its_own(second_grid: Grid, slurm_cluster: SlurmCluster) -> None:
    state = second_grid.state
    second_grid.cli("grid", "up", "--state", state, "--slurm-conf", slurm_cluster.conf, cwd=state)
    job = second_grid.submit("echo started; sleep 600", "--time-limit", "20m")
    second_grid.wait(job["id"], "RUNNING")
    account = second_grid.json("grid", "status", "--state", state)["account"]
    second_grid.cli("grid", "down", "--state", state)
    assert job["id"] not in slurm_cluster.run("squeue", "--noheader", "--format=%j")
    assert not account_exists(account)


def test_slurm_wakes_the_supervisor_when_a_job_ends(second_grid: Grid) -> None:
    state = second_grid.state
    # So seldom that without being woken nobody would see the end.
    second_grid.cli("grid", "up", "--state", state, "--cluster", CLUSTER, "--poll", "3600", cwd=state)
    job = second_grid.submit("sleep 1; echo done", "--time-limit", "5m")
    assert second_grid.wait(job["id"], "FINISHED")["exit_code"] == 0
    assert second_grid.logs(job["id"]) == ["done"]


def test_each_service_runs_alone(second_grid: Grid) -> None:
    state = second_grid.state
    without = [word for name in SERVICES for word in ("--without", name)]
    second_grid.cli("grid", "up", "--state", state, "--cluster", CLUSTER, *without, cwd=state)
    services = [second_grid.serve(name) for name in SERVICES]
    try:
        second_grid.cli("grid", "approve", "--state", state)
        job = second_grid.submit("echo heard", "--time-limit", "1m", "--watch")
        assert (job["status"], second_grid.logs(job["id"])) == ("FINISHED", ["heard"])
    finally:
        for service in services:
            service.terminate()
            service.wait()


def test_a_second_up_leaves_a_running_grid_alone(grid: Grid) -> None:
    before = grid.json("grid", "status", "--state", grid.state)
    assert "is up already" in grid.cli("grid", "up", "--state", grid.state).stderr
    assert grid.json("grid", "status", "--state", grid.state) == before


def test_a_second_grid_says_how_to_choose_its_context(second_grid: Grid) -> None:
    other = second_grid.state / "other"
    second_grid.cli("grid", "up", "--state", second_grid.state, "--scheduler", "local")
    said = second_grid.cli("grid", "up", "--state", other, "--context", "other", "--scheduler", "local").stdout
    try:
        assert said.endswith("the current context is still local; choose this one: deepsquare context use other\n")
        said = second_grid.cli("doctor", "--state", other).stdout
        assert "has the context other, not local; to check the two together: deepsquare doctor --context other" in said
        assert "FAIL" not in said
        assert "not local" not in second_grid.cli("doctor", "--state", other, "--context", "other").stdout
    finally:
        second_grid.cli("grid", "down", "--state", other)


def test_a_second_supervisor_on_the_same_state_is_refused(grid: Grid) -> None:
    second = grid.cli("grid", "serve", "supervisor", "--state", grid.state, check=False)
    assert second.returncode == 1
    assert "another supervisor works on" in second.stderr
    assert "Traceback" not in second.stderr
    assert grid.submit("echo once", "--time-limit", "1m", "--watch")["status"] == "FINISHED"


def test_a_grid_that_was_killed_goes_on_after_up(grid: Grid, second_grid: Grid) -> None:
    state = second_grid.state
    second_grid.cli("grid", "up", "--state", state, "--cluster", CLUSTER, cwd=state)
    job = second_grid.submit("for i in $(seq 12); do echo $i; sleep 1; done", "--time-limit", "3m")
    second_grid.wait(job["id"], "RUNNING")

    second_grid.kill_daemon()
    second_grid.cli("grid", "up", "--state", state)

    assert second_grid.wait(job["id"], "FINISHED")
    assert second_grid.logs(job["id"]) == [str(number) for number in range(1, 13)]
    assert "WRONG" not in second_grid.cli("cost", "--check").stdout


def test_the_demo_on_slurm_isolates_its_jobs_and_finds_the_same_variants(second_grid: Grid, runtime: Path) -> None:
    image = ("--image", "deepsquare://snakemake", *grid_options("snakemake"))
    options = ("--state", second_grid.state, "--cluster", CLUSTER, "--runtime", runtime, *image)
    said = second_grid.cli("demo", "--quick", *options, timeout=600)
    assert "scheduler: Slurm, partition main" in said.stderr
    assert "variants: 0 private to the local run, 0 private to the grid run," in said.stdout
    results = second_grid.state / "demo/variants/storage/results"
    assert (results / "canary.txt").read_text() == "denied\n"
    (canary,) = [job for job in second_grid.json("job", "list") if job["labels"].get("rule") == "canary"]
    # In an image it is not there at all; on the host it would be closed.
    assert any("as it should be" in line and "No such file" in line for line in second_grid.logs(canary["id"]))
    again = second_grid.cli("demo", "--quick", *options, timeout=600)
    assert "Nothing to be done" in again.stderr
    assert {job["status"] for job in second_grid.json("job", "list")} == {"FINISHED"}
