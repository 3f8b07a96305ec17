"""Data of jobs on whole grids: what moves it comes with the grid."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Grid
from tests.object_store import ObjectStore, object_store

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as made:
        yield made


@pytest.fixture(params=["slurm", "ssh", "local"])
def grid(request: pytest.FixtureRequest) -> Grid:
    made: Grid = request.getfixturevalue(f"{request.param}_grid")
    return made


def test_from_a_bucket_and_into_it(
    grid: Grid, store: ObjectStore, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    bucket = store.bucket(f"bucket-{request.node.callspec.id}")
    store.put(bucket, "in/numbers", b"3\n1\n2\n")
    s3 = {
        "region": store.region,
        "bucketUrl": f"s3://{bucket}",
        "accessKeyId": store.access_key_id,
        "secretAccessKey": store.secret_key,
        "endpointUrl": store.url,
    }
    workflow = {
        "resources": {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 500, "gpus": 0},
        "input": {"s3": s3 | {"path": "/in/"}},
        "output": {"s3": s3 | {"path": "/out/"}},
        "steps": [{"run": {"command": 'sort "$DEEPSQUARE_INPUT/numbers" | tee "$DEEPSQUARE_OUTPUT/sorted"'}}],
    }
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(workflow))
    job = grid.json("submit", path, "--time-limit", "2m")["id"]
    grid.wait(job, "FINISHED", seconds=120)
    assert grid.logs(job) == ["Input contains:", "numbers", "1", "2", "3", "Output contains:", "sorted"]
    assert store.get(bucket, "out/sorted") == b"1\n2\n3\n"
    written = (text.read_bytes() for text in grid.state.rglob("*") if text.is_file() and "grid.log" in text.name)
    assert not any(store.secret_key.encode() in text for text in written)
