"""Steps in containers, by a real Apptainer on real Slurm."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.apptainer import IMAGES, grid_options
from tests.conftest import CLUSTER, Grid, open_folder, running_grid

pytestmark = pytest.mark.slurm

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """A folder that the operator shows to all containers."""
    folder = open_folder("deepsquare-data-")
    (folder / "genome.fa").write_text(">chr1\n")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def grid(data: Path) -> Iterator[Grid]:
    with running_grid(None, "--cluster", CLUSTER, *grid_options("busybox"), "--bind", data) as made:
        yield made


def runner(grid: Grid, folder: Path) -> Run:
    """What submits steps, each a `run` (in busybox unless it says otherwise), and returns the job at its end."""

    def run(*steps: dict[str, Any], memory_mb: int = 100, wait: bool = True, **fields: Any) -> Any:
        inside = {"container": {"image": "busybox", "deepsquareHosted": True}, "shell": "/bin/sh"}
        workflow = {
            "resources": {"tasks": 1, "cpusPerTask": 1, "memPerCpu": memory_mb, "gpus": 0},
            "enableLogging": True,
            "steps": [{"run": inside | step} for step in steps],
        } | fields
        path = folder / "workflow.json"
        path.write_text(json.dumps(workflow))
        options = ["--watch"] if wait else []
        return json.loads(grid.cli("submit", path, "--time-limit", "2m", "--json", *options, check=False).stdout)

    return run


@pytest.fixture
def run(grid: Grid, tmp_path: Path) -> Run:
    return runner(grid, tmp_path)


HOST = {"container": None, "shell": "/bin/bash"}


def test_a_command_runs_in_its_image_as_the_account_of_the_job(run: Run, grid: Grid) -> None:
    job = run({"command": "busybox | head -n 1 | cut -c 1-7; pwd; id -u; ls /etc; exit 3"})
    assert (job["status"], job["exit_code"]) == ("FAILED", 3)
    name, folder, uid, *etc = grid.output(job["id"])
    account = grid.json("grid", "status", "--state", grid.state)["account"]
    assert (name, folder) == ("BusyBox", "/deepsquare")
    assert int(uid) == int(grid.run("id", "-u", account).stdout) != 0
    assert "debian_version" not in etc


def test_variables_reach_it_with_the_languages_precedence(run: Run, grid: Grid) -> None:
    odd = "a b,c='$(x)"
    job = run(
        {"command": "echo from=host >>$DEEPSQUARE_ENV"} | HOST,
        {
            "command": 'echo "$JOB|$STEP|$from|$PATH"; echo back=inside >>$DEEPSQUARE_ENV',
            "env": [{"key": "STEP", "value": odd}],
        },
        {"command": 'echo "$back|$STEP"; echo $STORAGE_PATH'} | HOST,
        env=[{"key": "JOB", "value": odd}, {"key": "STEP", "value": "of the job"}],
    )
    assert job["status"] == "FINISHED"
    lines = grid.logs(job["id"])
    assert len(lines) == 3, lines
    inside, outside, path = lines
    assert inside.startswith(f"{odd}|{odd}|host|")
    assert outside == "inside|of the job"
    assert path.startswith(str(grid.jobs_folder))


def test_it_sees_its_job_and_nothing_else_of_the_host(run: Run, grid: Grid) -> None:
    secret = grid.state / "secret"
    secret.write_text("for everybody on the host\n")
    secret.chmod(0o644)
    looks = (
        f"for f in {secret} {grid.jobs_folder}/shared /etc/shadow /home/* /root/*; do [ ! -e $f ] || echo sees $f; done"
    )
    job = run(
        {"command": "echo input >$STORAGE_PATH/file; mkdir $DEEPSQUARE_OUTPUT/o"} | HOST,
        {
            "command": f"{looks}; cat $STORAGE_PATH/file; ls $DEEPSQUARE_OUTPUT; echo kept >$DEEPSQUARE_TMP/cached; "
            "touch /new-in-root && rm /new-in-root && echo writable; echo x >$HOME/x && echo home; df /tmp | grep -c tmpfs || true"
        },
        {"command": "cat $DEEPSQUARE_TMP/cached"} | HOST,
    )
    assert grid.logs(job["id"]) == ["input", "o", "writable", "home", "0", "kept"]
    assert job["status"] == "FINISHED"


def test_it_sees_what_the_operator_shows_to_all(run: Run, grid: Grid, data: Path) -> None:
    job = run({"command": f"cat {data}/genome.fa; touch {data}/mine 2>/dev/null || echo as its account may"})
    assert (job["status"], grid.logs(job["id"])) == ("FINISHED", [">chr1", "as its account may"])


def test_a_root_that_is_read_only(run: Run, grid: Grid) -> None:
    container = {"image": "busybox.sif", "deepsquareHosted": True, "readOnlyRootFS": True}
    job = run({"command": "touch /new 2>/dev/null || echo refused", "container": container, "workDir": "/tmp"})
    assert (job["status"], grid.logs(job["id"])) == ("FINISHED", ["refused"])


def test_an_image_of_the_job_itself(run: Run, grid: Grid) -> None:
    mine = {"container": {"image": "/mine.sif", "apptainer": True}}
    copy = f"cp {IMAGES}/busybox.sif $STORAGE_PATH/mine.sif"
    job = run({"command": copy} | HOST, {"command": "echo in my own"} | mine)
    assert (job["status"], grid.logs(job["id"])) == ("FINISHED", ["in my own"])


def test_an_images_variables_win_over_the_jobs_and_lose_to_the_steps(run: Run, grid: Grid) -> None:
    tree = """\
mkdir -p $STORAGE_PATH/own/bin $STORAGE_PATH/own/.singularity.d/env && cd $STORAGE_PATH/own
cp /bin/busybox bin/ && ln -s busybox bin/sh
echo 'export OF_JOB=image OF_STEP=image' >.singularity.d/env/90-environment.sh
printf '#!/bin/sh\\necho "entry point: $# $1, $OF_JOB, $OF_STEP"\\n' >.singularity.d/runscript
chmod +x .singularity.d/runscript"""
    build = "cd $STORAGE_PATH && $DEEPSQUARE_APPTAINER --silent build own.sif own"
    own = {"container": {"image": "/own.sif", "apptainer": True}, "shell": "ENTRYPOINT"}
    several = [{"key": "OF_STEP", "value": "first line\nsecond $HOME"}]
    job = run(
        {"command": tree},
        {"command": build} | HOST,
        {"command": "'$(id) $0' two", "env": several} | own,
        env=[{"key": "OF_JOB", "value": "job"}, {"key": "OF_STEP", "value": "job"}],
    )
    assert grid.logs(job["id"]) == ["entry point: 2 $(id) $0, image, first line", "second $HOME"]
    assert job["status"] == "FINISHED"


def test_an_image_that_is_not_there_is_told(run: Run, grid: Grid) -> None:
    job = run({"command": "true", "container": {"image": "no/such", "deepsquareHosted": True}})
    assert job["status"] == "FAILED"
    assert grid.output(job["id"])[0].startswith("This provider has no image no/such. It has: busybox")


def test_memory_is_bounded_inside(run: Run, grid: Grid) -> None:
    job = run({"command": "head -c 400m /dev/zero | tail -n 1 | wc -c"})
    assert (job["status"], job["error"]) == ("FAILED", "it used more memory than it asked for")


def cancel_leaves_nothing(run: Run, grid: Grid) -> None:
    job = run({"command": "echo started; sleep 1000"}, wait=False)
    grid.until(lambda: grid.logs(job["id"]) == ["started"])
    grid.cli("job", "cancel", job["id"])
    grid.wait(job["id"], "CANCELLED")
    account = grid.json("grid", "status", "--state", grid.state)["account"]
    grid.until(lambda: grid.run("pgrep", "-u", account, check=False).returncode == 1)
    assert job["id"] not in Path("/proc/mounts").read_text()


def test_cancelling_leaves_nothing_of_it(run: Run, grid: Grid) -> None:
    cancel_leaves_nothing(run, grid)


def test_the_local_scheduler_runs_and_cancels_it_alike(tmp_path: Path) -> None:
    with running_grid(None, "--scheduler", "local", *grid_options("busybox")) as grid:
        run = runner(grid, tmp_path)
        job = run({"command": "pwd; exit 3"})
        assert (job["exit_code"], grid.output(job["id"])) == (3, ["/deepsquare"])
        cancel_leaves_nothing(run, grid)
