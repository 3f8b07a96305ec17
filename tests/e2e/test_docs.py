"""The examples of the documentation print what it says."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.conftest import REPOSITORY, Grid
from tests.workflows import own_lines

pytestmark = pytest.mark.slurm

RESOURCES = {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 100, "gpus": 0}
EXAMPLES = re.findall(
    r"```yaml\n(.*?)```\n\n```text\n(.*?)```", (REPOSITORY / "docs" / "workflow.md").read_text(), re.DOTALL
)


@pytest.fixture(params=["slurm", "local"])
def grid(request: pytest.FixtureRequest) -> Grid:
    made: Grid = request.getfixturevalue(f"{request.param}_grid")
    return made


def test_examples_of_the_language(grid: Grid) -> None:
    assert len(EXAMPLES) >= 7
    jobs = []
    for number, (text, printed) in enumerate(EXAMPLES):
        path = grid.state / f"example-{number}.json"
        path.write_text(yaml.safe_dump({"resources": RESOURCES} | yaml.safe_load(text)))
        jobs.append((grid.json("submit", path, "--time-limit", "2m")["id"], printed))
    for job_id, printed in jobs:
        grid.wait(job_id, "FINISHED", seconds=120)
        assert own_lines("\n".join(grid.logs(job_id))) == printed.splitlines()
