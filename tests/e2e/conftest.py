"""Batch schedulers that run compiled workflows, for tests of what scripts do."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import PurePosixPath

import pytest
from deepsquare.grid.supervisor.accounts import SharedAccount
from deepsquare.grid.supervisor.folders import JobFolders
from deepsquare.grid.supervisor.hosts.base import Account
from deepsquare.grid.supervisor.hosts.local import LocalHost, own_account
from deepsquare.grid.supervisor.programs import provide_s5cmd
from deepsquare.grid.supervisor.schedulers.base import Scheduler
from deepsquare.grid.supervisor.schedulers.local.scheduler import Local, stop
from deepsquare.grid.supervisor.schedulers.slurm import Slurm

from tests.apptainer import grid_options
from tests.batch import Runner
from tests.cluster import SlurmCluster, new_cluster
from tests.conftest import open_folder
from tests.enroot import enroot_program


@pytest.fixture(scope="module")
def cluster(slurm_host: None) -> Iterator[SlurmCluster]:
    with new_cluster("--nodes=1", "--cpus=8", "--gpus=2", "--no-accounting") as made:
        yield made


@pytest.fixture(scope="module")
def account() -> Iterator[str]:
    name = f"dsq-{uuid.uuid4().hex[:8]}"
    subprocess.run(["useradd", "--system", "--no-create-home", name], check=True)
    yield name
    subprocess.run(["userdel", name], check=True)


@pytest.fixture(scope="module", params=["local", "slurm"])
async def runner(request: pytest.FixtureRequest, account: str) -> AsyncIterator[Runner]:
    """Runs workflows by the local scheduler, and by real Slurm."""
    root = open_folder("deepsquare-workflows-")
    host, entry = LocalHost(), own_account(account)
    found = Account(account, entry.uid, entry.gid)
    folders = JobFolders(host, PurePosixPath(root))
    await folders.prepare()
    await folders.admit(found)
    s5cmd = await provide_s5cmd(host, folders.programs)
    assert s5cmd is not None
    scheduler: Scheduler
    if request.param == "local":
        scheduler = Local(root / "scheduler", account=account)
    else:
        cluster = request.getfixturevalue("cluster")
        scheduler = Slurm(host, SharedAccount(found), mark="test", slurm_conf=str(cluster.conf))
    enroot, _ = enroot_program()
    grid = dict(zip(*[iter(grid_options("busybox"))] * 2, strict=True))
    programs = {
        "DEEPSQUARE_S5CMD": s5cmd,
        "DEEPSQUARE_ENROOT": enroot,
        "DEEPSQUARE_APPTAINER": grid["--apptainer"],
        "DEEPSQUARE_IMAGES_ROOT": grid["--images"],
    }
    yield Runner(scheduler, found, folders, root, {name: str(path) for name, path in programs.items()})
    stop(root / "scheduler")
    shutil.rmtree(root)
