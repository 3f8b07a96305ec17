"""What jobs write to $DEEPSQUARE_RESULT arrives with their logs, from real Slurm, the local scheduler and real containers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deepsquare.workflow import ResultReader, from_dict, new_tag, with_result

from tests.apptainer import grid_options
from tests.conftest import Grid, running_grid

pytestmark = pytest.mark.slurm


@pytest.fixture(params=["slurm", "local"])
def grid(request: pytest.FixtureRequest) -> Grid:
    made: Grid = request.getfixturevalue(f"{request.param}_grid")
    return made


@pytest.fixture(scope="module")
def container_grid() -> Iterator[Grid]:
    with running_grid(None, "--scheduler", "local", *grid_options("busybox")) as made:
        yield made


class Returning:
    """A job that returns something, bought on a grid."""

    def __init__(self, grid: Grid, folder: Path, *runs: dict[str, Any], wait: bool = True) -> None:
        self._grid, self._tag = grid, new_tag()
        workflow = {
            "resources": {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 100, "gpus": 0},
            "steps": [{"run": run} for run in runs],
        }
        path = folder / "workflow.json"
        path.write_text(json.dumps(with_result(from_dict(workflow), self._tag).to_dict()))
        options = ["--watch"] if wait else []
        bought = grid.cli("submit", path, "--time-limit", "2m", "--json", *options, check=False)
        self.job = json.loads(bought.stdout)

    def result(self) -> tuple[bytes | None, list[str]]:
        """The result, and the lines that people see."""
        reader = ResultReader(self._tag)
        shown = [line for line in self._grid.logs(self.job["id"]) if not reader.feed(line)]
        return reader.result, [line for line in shown if line]


def test_a_result_arrives_beside_the_output(grid: Grid, tmp_path: Path) -> None:
    command = 'printf "no newline"; head -c 1048576 /dev/zero | tr "\\0" "\\377" >"$DEEPSQUARE_RESULT"'
    made = Returning(grid, tmp_path, {"command": "echo one"}, {"command": command})
    assert (made.job["status"], made.result()) == ("FINISHED", (b"\xff" * (1 << 20), ["one", "no newline"]))


def test_a_job_without_a_result_has_none(grid: Grid, tmp_path: Path) -> None:
    made = Returning(grid, tmp_path, {"command": "echo one"})
    assert (made.job["status"], made.result()) == ("FINISHED", (None, ["one"]))


def test_a_failed_job_sends_what_there_is(grid: Grid, tmp_path: Path) -> None:
    made = Returning(grid, tmp_path, {"command": 'echo partial >"$DEEPSQUARE_RESULT"; exit 42'})
    assert (made.job["status"], made.job["exit_code"]) == ("FAILED", 42)
    assert made.result()[0] == b"partial\n"


def test_a_cancelled_job_sends_what_there_is(grid: Grid, tmp_path: Path) -> None:
    command = 'echo partial >"$DEEPSQUARE_RESULT"; echo written; exec sleep 300'
    made = Returning(grid, tmp_path, {"command": command}, wait=False)
    grid.until(lambda: "written" in grid.logs(made.job["id"]), seconds=60)
    grid.cli("job", "cancel", made.job["id"])
    grid.wait(made.job["id"], "CANCELLED")
    assert made.result()[0] == b"partial\n"


def test_containers_and_the_host_write_the_same_file(container_grid: Grid, tmp_path: Path) -> None:
    container = {"image": "busybox", "deepsquareHosted": True}
    made = Returning(
        container_grid,
        tmp_path,
        {"command": 'printf inside >"$DEEPSQUARE_RESULT"', "shell": "/bin/sh", "container": container},
        {"command": 'printf " and outside" >>"$DEEPSQUARE_RESULT"'},
    )
    assert (made.job["status"], made.result()) == ("FINISHED", (b"inside and outside", []))
