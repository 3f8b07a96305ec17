"""A hello workflow goes through the chain to real Slurm, here or over SSH, or to the local scheduler, and back: it is the same."""

from __future__ import annotations

import pwd
import re
from decimal import Decimal
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Grid

pytestmark = pytest.mark.slurm


@pytest.fixture(params=["slurm", "ssh", "local"])
def grid(request: pytest.FixtureRequest) -> Grid:
    made: Grid = request.getfixturevalue(f"{request.param}_grid")
    return made


def test_watching_shows_states_and_output_as_they_come(grid: Grid) -> None:
    result = grid.cli("submit", REPOSITORY / "docs" / "examples" / "hello.yaml", "--credits", "5", "--watch")
    lines = result.stdout.splitlines()

    def at(text: str) -> int:
        return next(number for number, line in enumerate(lines) if text in line)

    assert "5 credits locked" in lines[0]
    assert at("[RUNNING") < at("line 1") < at("line 2") < at("line 3") < at("[FINISHED")
    billed, refunded = map(Decimal, re.findall(r"billed ([\d.]+), refunded ([\d.]+)", lines[-1])[0])
    assert billed > 0
    assert billed + refunded == 5


def test_a_job_runs_as_the_account_of_the_grid_never_as_root(grid: Grid) -> None:
    job = grid.submit("id -u; umask; pwd; echo $HOME", "--time-limit", "1m", "--watch")
    uid, umask, directory, home = grid.logs(job["id"])
    # On a cluster of the operator's, named after the customer, whose it is alone.
    own = f"dsq-{grid.json('context', 'show')['account'].lower()[2:30]}"
    account = own if grid.cluster else next(iter(grid.accounts()))
    assert int(uid) == pwd.getpwnam(account).pw_uid != 0
    assert umask == "0022"
    assert directory.startswith(str(grid.jobs_folder / "shared"))
    assert home.startswith(str(grid.jobs_folder / "shared"))


def test_the_scratch_of_a_job_is_gone_after_it(grid: Grid) -> None:
    job = grid.submit("touch here; pwd", "--time-limit", "1m", "--watch")
    (directory,) = grid.logs(job["id"])
    assert not Path(directory).exists()


def test_the_scratch_of_a_job_that_was_killed_is_gone_too(grid: Grid) -> None:
    stubborn = "trap '' TERM; mkdir closed; chmod 0 closed; while :; do sleep 0.1; done"
    job = grid.submit(stubborn, "--time-limit", "2m")["id"]
    shared = grid.jobs_folder / "shared"
    grid.until(lambda: bool(list(shared.glob(f"*/{job}.*/closed"))), seconds=60)
    grid.cli("job", "cancel", job)
    grid.wait(job, "CANCELLED", seconds=120)
    grid.until(lambda: not list(shared.glob(f"*/*{job}.*")))


def test_the_exit_code_of_a_failed_job_arrives(grid: Grid) -> None:
    job = grid.submit("echo before; exit 42", "--time-limit", "1m", "--watch")
    assert (job["status"], job["exit_code"], job["error"]) == ("FAILED", 42, "exit code 42")
    assert grid.output(job["id"]) == ["before"]


def test_what_has_a_key_is_bought_once(grid: Grid) -> None:
    again = ("echo once", "--time-limit", "1m", "--key", "nightly")
    job = grid.submit(*again)
    assert grid.submit(*again)["id"] == job["id"]
    grid.wait(job["id"], "FINISHED")
    assert grid.submit(*again, "--watch")["id"] == job["id"]
    assert grid.logs(job["id"]) == ["once"]
    failing = ("exit 3", "--time-limit", "1m", "--key", "fails", "--watch")
    assert grid.submit(*failing)["id"] != grid.submit(*failing)["id"]


def test_what_a_step_writes_to_both_outputs_stays_in_order(grid: Grid) -> None:
    job = grid.submit("for i in 1 2 3 4 5 6; do echo $i; echo $i >&2; done", "--time-limit", "1m", "--watch")
    assert grid.logs(job["id"]) == [str(number) for number in range(1, 7) for _ in "ab"]


def test_output_without_a_last_newline_and_with_any_bytes_arrives(grid: Grid) -> None:
    job = grid.submit(r"printf 'a\n\nb\tc\033[31mred\nlast'", "--time-limit", "1m", "--watch")
    raw = grid.run("deepsquare", "job", "logs", "--raw", job["id"]).stdout
    assert raw == "a\n\nb\tc\x1b[31mred\nlast\n"
    # On a terminal nothing that a job prints can move the cursor or change colours.
    assert "\x1b" not in grid.cli("job", "logs", job["id"]).stdout


def test_a_running_job_is_cancelled_and_the_rest_comes_back(grid: Grid) -> None:
    job = grid.submit("echo started; sleep 300", "--time-limit", "10m")
    grid.wait(job["id"], "RUNNING")
    grid.cli("job", "cancel", job["id"])
    ended = grid.wait(job["id"], "CANCELLED")
    assert Decimal(ended["billed"]) > 0
    assert Decimal(ended["billed"]) + Decimal(ended["refunded"]) == Decimal(ended["locked"])


def test_a_job_that_is_cancelled_in_the_queue_costs_nothing(grid: Grid) -> None:
    running = [grid.submit("sleep 300", "--time-limit", "10m", cpus=grid.cpus) for _ in range(grid.nodes)]
    for job in running:
        grid.wait(job["id"], "RUNNING")
    waiting = grid.submit("sleep 300", "--time-limit", "10m", cpus=grid.cpus)
    grid.wait(waiting["id"], "SCHEDULED")
    grid.cli("job", "cancel", waiting["id"])
    ended = grid.wait(waiting["id"], "CANCELLED")
    assert (ended["billed"], ended["refunded"], ended["started_at"]) == ("0", ended["locked"], None)
    for job in running:
        grid.cli("job", "cancel", job["id"])
        grid.wait(job["id"], "CANCELLED")


def test_a_job_that_runs_out_of_its_time_ends_as_out_of_credits(grid: Grid) -> None:
    job = grid.submit("sleep 600", "--time-limit", "1m", "--watch")
    assert job["status"] == "OUT_OF_CREDITS"
    assert job["billed"] == job["locked"]


def test_a_job_that_writes_without_end_holds_up_no_other(grid: Grid) -> None:
    noisy = grid.submit("yes", "--time-limit", "10m")
    grid.wait(noisy["id"], "RUNNING")
    quiet = grid.submit("echo heard", "--time-limit", "1m", "--watch")
    assert (quiet["status"], grid.logs(quiet["id"])) == ("FINISHED", ["heard"])
    grid.cli("job", "cancel", noisy["id"])
    grid.wait(noisy["id"], "CANCELLED", seconds=150)


@pytest.mark.parametrize("scheduler", ["slurm", "ssh"])
def test_slurm_knows_exactly_the_jobs_of_the_chain(scheduler: str, request: pytest.FixtureRequest) -> None:
    grid: Grid = request.getfixturevalue(f"{scheduler}_grid")
    grid.submit("true", "--time-limit", "1m", "--watch")
    jobs = grid.json("job", "list")
    log = grid.slurm_conf.parent.parent / "log" / "jobcomp.txt"
    lines = grid.slurm("sacct", "--completion", "--noheader", "--parsable2", "--format=JobName,UID", "-f", log).split()
    # Another grid, with a chain of its own, may have used the same cluster, in an account of its own.
    own = {str(pwd.getpwnam(name).pw_uid) for name in grid.accounts()}
    completed = [name for name, uid in (line.split("|") for line in lines) if name.startswith("0x") and uid in own]
    assert sorted(completed) == sorted(set(completed)), "a job ran twice"
    assert {job["id"] for job in jobs if job["started_at"]} <= set(completed)
    # One that was cancelled in the queue has not started, but Slurm knew it all the same; other customers have jobs there, too.
    newest = max(int(job["id"], 16) for job in jobs)
    assert all(1 <= int(name, 16) <= newest for name in completed)


def test_the_money_adds_up_to_the_wei(grid: Grid) -> None:
    grid.submit("true", "--credits", "7.000000000000000003", "--watch")
    result = grid.cli("cost", "--check")
    checks = [line for line in result.stdout.splitlines() if line.startswith(("ok", "WRONG"))]
    assert len(checks) == 4
    assert all(line.startswith("ok") for line in checks)
