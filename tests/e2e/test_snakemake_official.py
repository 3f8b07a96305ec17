"""The tests that Snakemake has for executors, on a real grid: once with a folder as storage, once with S3."""

from __future__ import annotations

import inspect
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from snakemake.common.tests import TestWorkflowsBase, TestWorkflowsMinioPlayStorageBase
from snakemake_executor_plugin_deepsquare import ExecutorSettings

from tests.conftest import Grid

pytestmark = pytest.mark.slurm

# What the official workflows must buy, by rule or group: a group is one job, and a rule that runs nothing is none.
JOBS = {"simple": ["a", "b", "c", "d", "d"], "groups": ["c", "foo_a_b", "foo_a_b", "foo_a_b"]}

# Takes a free port and says which; ends with its standard input, so also when the tests are killed.
S3_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


class OnTheGrid:
    """What both classes share: Snakemake runs in this process, its jobs as another account that can't enter its folder."""

    grid: Grid

    @pytest.fixture(autouse=True)
    def prepare(self, grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        closed = [folder for folder in (tmp_path, *tmp_path.parents) if not folder.stat().st_mode & stat.S_IXOTH]
        assert closed, f"jobs could enter {tmp_path}, so that nothing would show that they need no shared folder"
        for name in [name for name in os.environ if name.startswith("DEEPSQUARE_")]:
            monkeypatch.delenv(name)
        for name in ("DEEPSQUARE_HOME", "PATH"):
            monkeypatch.setenv(name, grid.environment[name])
        self.grid = grid
        terminate = signal.getsignal(signal.SIGTERM)
        yield
        signal.signal(signal.SIGTERM, terminate)  # Snakemake takes it and never gives it back

    def get_executor(self) -> str:
        return "deepsquare"

    def get_assume_shared_fs(self) -> bool:
        return False

    def run_workflow(self, test_name: str, tmp_path: Path, *arguments: Any) -> None:
        before = len(self.grid.json("job", "list"))
        super().run_workflow(test_name, tmp_path, *arguments)  # type: ignore[misc]
        jobs = self.grid.json("job", "list")[before:]
        assert {job["status"] for job in jobs} == {"FINISHED"}
        assert sorted(job["labels"].get("group") or job["labels"]["rule"] for job in jobs) == JOBS[test_name]


class TestWithAFolder(OnTheGrid, TestWorkflowsBase):  # type: ignore[misc]
    """Storage on a file system, in a folder that belongs to the jobs' account."""

    __test__ = True
    storage: Path

    @pytest.fixture(autouse=True)
    def make_storage(self, prepare: None, request: pytest.FixtureRequest) -> None:
        self.storage = self.grid.state / request.node.name
        self.storage.mkdir(mode=0o700)
        account = self.grid.json("grid", "status", "--state", self.grid.state)["account"]
        shutil.chown(self.storage, account, account)

    def get_executor_settings(self) -> None:
        return None

    def get_default_storage_provider(self) -> str:
        return "fs"

    def get_default_storage_prefix(self) -> str:
        return str(self.storage)

    def get_default_storage_provider_settings(self) -> None:
        return None


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    server = subprocess.Popen(
        [sys.executable, "-c", S3_SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        port = server.stdout.readline().strip()
        assert port, "the S3 server has not started"
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


class TestWithS3(OnTheGrid, TestWorkflowsMinioPlayStorageBase):  # type: ignore[misc]
    """Storage in S3: its address and credentials reach jobs as private variables only."""

    __test__ = True
    endpoint_url = ""

    @pytest.fixture(autouse=True)
    def use_server(self, s3_url: str) -> None:
        self.endpoint_url = s3_url

    def get_executor_settings(self) -> ExecutorSettings:
        return ExecutorSettings()


def test_both_classes_run_every_official_test() -> None:
    number = 0
    for ours in (TestWithAFolder, TestWithS3):
        tests = [test for name, test in inspect.getmembers(ours, inspect.isfunction) if name.startswith("test_")]
        assert tests
        assert {test.__module__ for test in tests} == {TestWorkflowsBase.__module__}
        number += len(tests)
    print(f"{number} official tests of Snakemake")
