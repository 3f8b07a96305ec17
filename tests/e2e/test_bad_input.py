"""Mistakes and missing parts: one clear line that says what to do, an exit code that is not 0, nothing bought or left over."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SERVICES, Grid

pytestmark = pytest.mark.slurm

# Nothing listens there.
NOWHERE = "127.0.0.1:1"


@pytest.fixture
def grid(local_grid: Grid) -> Grid:
    return local_grid


def workflow(folder: Path, **run: object) -> Path:
    """A workflow file of one step."""
    cpus = run.pop("cpus", 1)
    resources = {"tasks": 1, "cpusPerTask": cpus, "memPerCpu": 100, "gpus": 0}
    path = folder / "workflow.json"
    path.write_text(json.dumps({"resources": resources, "steps": [{"run": run or {"command": "true"}}]}))
    return path


@pytest.fixture
def refused(grid: Grid, tmp_path: Path) -> Iterator[object]:
    """Run a command that must fail with these words and nothing else than a line; then, that nothing was bought."""

    def standing() -> tuple[object, object]:
        return grid.cli("allowance", "show").stdout, len(grid.json("job", "list"))

    before = standing()

    def refused(
        *arguments: str | Path,
        words: str,
        code: int = 1,
        env: dict[str, str] | None = None,
        begins: str = "deepsquare: ",
    ) -> str:
        result = grid.cli(*arguments, check=False, env=env)
        assert result.returncode == code, result.stderr
        assert words in result.stderr
        assert result.stdout == ""
        lines = [line for line in result.stderr.splitlines() if not line.startswith("  ")]
        assert len([line for line in lines if line.startswith(begins)]) == 1, result.stderr
        assert "Traceback" not in result.stderr
        return str(result.stderr)

    yield refused
    assert standing() == before


def test_an_unknown_field_is_named_with_the_nearest_valid_one(refused, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = workflow(tmp_path, command="true", workdir="/tmp")
    for command in (("submit", path, "--credits", "5"), ("workflow", "validate", path), ("workflow", "compile", path)):
        words = "steps[0].run.workdir: is an unknown field; did you mean workDir?"
        refused(*command, words=words, begins=f"{path}:1:")


@pytest.mark.parametrize(
    ("credits", "code", "words"),
    [
        ("0.5", 1, "buys no minute: a minute of this job costs 0.958"),
        ("1000000", 1, "not enough credits: the job needs 1,000,000.0000, the wallet has"),
        ("five", 2, "'five', which is not a number; write for example 12.5"),
        ("-1", 2, "an amount is 0 or more"),
    ],
)
def test_amounts_that_buy_nothing(refused, tmp_path: Path, credits: str, code: int, words: str) -> None:  # type: ignore[no-untyped-def]
    refused("submit", workflow(tmp_path), "--credits", credits, words=words, code=code)


def test_times_that_are_none(refused, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = workflow(tmp_path)
    refused("submit", path, "--time-limit", "5 minutes", words="write for example 30s, 10m or 1h30m", code=2)
    refused("submit", path, "--time-limit", "0s", words="needs at least a second")
    refused("submit", path, words="either --credits 5 or --time-limit 10m", code=2)


def test_a_job_larger_than_any_provider(refused, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    words = "no provider of this grid can run 1 task(s) of 9999 CPU(s)"
    assert "Ask for less" in refused("submit", workflow(tmp_path, cpus=9999), "--time-limit", "1m", words=words)


def test_a_wallet_without_credits(refused, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    stranger = {"DEEPSQUARE_PRIVATE_KEY": secrets.token_hex(32)}
    refused("submit", workflow(tmp_path), "--credits", "5", words="the wallet has 0.0000. Get credits", env=stranger)


def test_without_an_allowance(grid: Grid, tmp_path: Path) -> None:
    allowed = grid.cli("allowance", "show").stdout.split()[1]
    grid.cli("allowance", "set", "1")
    try:
        result = grid.cli("submit", workflow(tmp_path), "--credits", "5", check=False)
        assert result.returncode == 1
        assert "the allowance is 1.0000. Raise it: deepsquare allowance set AMOUNT" in result.stderr
    finally:
        grid.cli("allowance", "set", allowed)


def test_a_wrong_wallet_password(refused, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    wrong = {"DEEPSQUARE_WALLET_PASSWORD": "guess-7741"}
    said = refused("submit", workflow(tmp_path), "--credits", "5", words="wrong password", env=wrong)
    assert "correct DEEPSQUARE_WALLET_PASSWORD" in said
    assert "guess-7741" not in said


def test_a_key_that_is_none_is_not_printed(refused) -> None:  # type: ignore[no-untyped-def]
    said = refused("job", "list", words="is not a private key", env={"DEEPSQUARE_PRIVATE_KEY": "not-hex-7742"})
    assert "7742" not in said


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("RPC_URL", f"http://{NOWHERE}", f"the chain at http://{NOWHERE} can't be reached"),
        ("SBATCH_URL", f"http://{NOWHERE}/graphql", f"the sbatch API at http://{NOWHERE} can't be reached"),
    ],
)
def test_parts_that_are_not_there(refused, tmp_path: Path, variable: str, value: str, words: str) -> None:  # type: ignore[no-untyped-def]
    env = {f"DEEPSQUARE_{variable}": value}
    said = refused("submit", workflow(tmp_path), "--credits", "5", words=words, env=env)
    assert "deepsquare grid status" in said


def test_ids_that_are_no_jobs(refused) -> None:  # type: ignore[no-untyped-def]
    for command in ("show", "logs", "cancel"):
        refused("job", command, "0xfffff", words="no such job on this grid: 0xfffff (list yours: deepsquare job list)")
        refused("job", command, "first", words="'first' is not a job id", code=2)


def test_slurm_not_there(grid: Grid, second_grid: Grid) -> None:
    state = second_grid.state / "new"
    result = second_grid.cli("grid", "up", "--state", state, "--scheduler", "slurm", check=False)
    assert result.returncode == 1
    assert "Slurm is" in result.stderr
    assert "do without: --scheduler local" in result.stderr
    assert not state.exists(), "a grid that never was leaves nothing"


def test_a_cluster_that_does_not_start_is_told_and_nothing_stays(second_grid: Grid) -> None:
    folder = second_grid.state / "cluster"
    folder.mkdir()
    for name in ("up", "down", "status"):
        (folder / name).write_text("#!/bin/sh\necho 'no munge here' >&2\nexit 1\n")
        (folder / name).chmod(0o755)
    state = second_grid.state / "new"
    result = second_grid.cli("grid", "up", "--state", state, "--cluster", folder, check=False)
    assert (result.returncode, "no munge here" in result.stderr) == (1, True)
    assert not state.exists()


def test_a_grid_that_runs_already_with_other_settings(grid: Grid, refused) -> None:  # type: ignore[no-untyped-def]
    words = "is up already, with scheduler local, not slurm; stop it first: deepsquare grid down"
    refused("grid", "up", "--state", grid.state, "--scheduler", "slurm", words=words)
    words = "with scheduler local, not slurm, and without images /nowhere; stop it"
    refused("grid", "up", "--state", grid.state, "--scheduler", "slurm", "--images", "/nowhere", words=words)


def test_another_grid_does_not_take_a_context_away(grid: Grid, refused) -> None:  # type: ignore[no-untyped-def]
    state = grid.state.with_name(grid.state.name + "-other")
    refused("grid", "up", "--state", state, "--scheduler", "local", words="choose another name with --context")
    assert not state.exists()


def test_a_service_whose_port_is_taken(grid: Grid, refused) -> None:  # type: ignore[no-untyped-def]
    for service, name in (("sbatch-api", "sbatch API"), ("logger", "grid logger")):
        said = refused("grid", "serve", service, "--state", grid.state, words=f"the {name} can't listen on 127.0.0.1:")
        assert "another program has that port" in said


def test_ports_that_are_taken_are_left_alone(second_grid: Grid) -> None:
    grid, state = second_grid, second_grid.state
    grid.cli("grid", "up", "--state", state, "--scheduler", "local")
    chain = grid.json("context", "show")["rpc_url"]
    grid.cli("grid", "down", "--state", state)
    with socket.create_server(("127.0.0.1", int(chain.rpartition(":")[2]))):
        said = grid.cli("grid", "up", "--state", state).stderr
        assert "is taken by another program: chain gets" in said
        assert grid.json("context", "show")["rpc_url"] != chain
        assert grid.submit("true", "--time-limit", "1m", "--watch")["status"] == "FINISHED"


def test_the_folder_of_a_killed_grid(second_grid: Grid) -> None:
    grid, state = second_grid, second_grid.state
    grid.cli("grid", "up", "--state", state, "--scheduler", "local")
    job = grid.submit("for i in 1 2 3 4 5 6; do echo $i; sleep 1; done", "--time-limit", "2m")
    grid.wait(job["id"], "RUNNING")
    grid.kill_daemon()
    status = grid.cli("grid", "status", "--state", state, check=False)
    assert (status.returncode, "up             False" in status.stdout) == (3, True)
    checks = {
        check["part"]: check for check in json.loads(grid.cli("doctor", "--state", state, "--json", check=False).stdout)
    }
    assert not checks["grid"]["ok"]
    assert "it was killed; go on where it was: deepsquare grid up" in checks["grid"]["detail"]
    other = grid.cli("grid", "up", "--state", state, "--scheduler", "slurm", check=False)
    assert (other.returncode, "was killed, and its jobs may go on, with scheduler local" in other.stderr) == (1, True)

    grid.cli("grid", "up", "--state", state)

    assert grid.wait(job["id"], "FINISHED")
    assert grid.logs(job["id"]) == ["1", "2", "3", "4", "5", "6"]
    assert "WRONG" not in grid.cli("cost", "--check").stdout


@pytest.fixture
def small_spool(second_grid: Grid) -> Iterator[Grid]:
    """A grid whose disk for output is full."""
    grid = second_grid
    spool = grid.jobs_folder / "spool"
    grid.cli("grid", "up", "--state", grid.state, "--scheduler", "local")
    grid.cli("grid", "down", "--state", grid.state)
    spool.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0710", "tmpfs", spool], check=True)
    try:
        grid.cli("grid", "up", "--state", grid.state)
        yield grid
    finally:
        grid.cli("grid", "down", "--state", grid.state)
        subprocess.run(["umount", spool], check=True)


def test_a_full_disk_for_output(small_spool: Grid, tmp_path: Path) -> None:
    grid = small_spool
    result = grid.cli("submit", workflow(tmp_path), "--credits", "5", "--watch", check=False)
    assert result.returncode == 3
    assert "[PANICKED: the provider has no room for its output] billed 0" in result.stdout
    assert "make room" in grid.cli("grid", "logs", "supervisor", "--state", grid.state).stdout
    subprocess.run(["mount", "-o", "remount,size=64m", grid.jobs_folder / "spool"], check=True)
    assert grid.submit("true", "--time-limit", "1m", "--watch")["status"] == "FINISHED"


def test_doctor_names_each_part_that_fails_and_what_to_do(grid: Grid) -> None:
    assert grid.cli("doctor", "--state", grid.state).returncode == 0
    for env, part, words in (
        ({"DEEPSQUARE_CONTEXT": "nowhere"}, "context", "there is no context 'nowhere'"),
        ({"DEEPSQUARE_WALLET_PASSWORD": "wrong"}, "wallet", "wrong password"),
        ({"DEEPSQUARE_RPC_URL": f"http://{NOWHERE}"}, "chain", "can't be reached"),
        ({"DEEPSQUARE_SBATCH_URL": f"http://{NOWHERE}/graphql"}, "sbatch API", "deepsquare grid status"),
        ({"DEEPSQUARE_LOGGER_GRPC": NOWHERE}, "logger", "deepsquare grid status"),
        ({"DEEPSQUARE_PRIVATE_KEY": secrets.token_hex(32)}, "credits", "has no credits"),
    ):
        result = grid.cli("doctor", "--state", grid.state, "--json", check=False, env=env)
        assert result.returncode == 1
        failed = {check["part"]: check["detail"] for check in json.loads(result.stdout) if not check["ok"]}
        assert words in failed[part], failed
    bare = grid.cli("doctor", "--state", grid.state, check=False, env={"PATH": "/nowhere"}).stdout
    assert "without git no modules" in bare


def test_grid_logs_tell_the_services_apart(second_grid: Grid) -> None:
    grid, state = second_grid, second_grid.state
    grid.cli("grid", "up", "--state", state, "--scheduler", "local")
    job = grid.submit("true", "--time-limit", "1m", "--watch")
    said = {name: grid.cli("grid", "logs", name, "--state", state).stdout for name in SERVICES}
    assert f"submitted job {job['id']}" in said["supervisor"]
    assert f"job {job['id']} goes to" in said["metascheduler"]
    assert "submitted" not in said["metascheduler"] + said["logger"]
    follower = subprocess.Popen(
        [
            shutil.which("deepsquare", path=grid.environment["PATH"]) or "",
            "grid",
            "logs",
            "-f",
            "-n",
            "1",
            "--state",
            state,
        ],
        env=grid.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert follower.stdout is not None
        # It looks: what is written from now on, it sees.
        assert follower.stdout.readline()
        second = grid.submit("true", "--time-limit", "1m", "--watch")
        for line in follower.stdout:
            if f"job {second['id']} ended: FINISHED" in line:
                break
    finally:
        follower.send_signal(signal.SIGINT)
        assert follower.wait() == 130
