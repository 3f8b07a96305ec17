"""Steps whose tasks are on several nodes of a real Slurm: on the host, in containers, in networks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apptainer import IMAGES
from tests.batch import Runner
from tests.cluster import SlurmCluster, new_cluster
from tests.enroot import KIND
from tests.workflows import run

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def cluster(slurm_host: None) -> Iterator[SlurmCluster]:
    with new_cluster("--nodes=2", "--cpus=2", "--no-accounting") as made:
        yield made


WHERE = 'echo "$SLURM_PROCID of $SLURM_NTASKS on ${SLURMD_NODENAME##*-}"'
ALL = [f"{rank} of 4 on n{1 + rank // 2}" for rank in range(4)]
CONTAINERS = {
    "apptainer": {"image": "/busybox.sif", "apptainer": True},
    f"enroot-{KIND}": {"image": "/busybox.sqsh"},
}


@pytest.mark.parametrize("runner", ["slurm"], indirect=True)
async def test_on_hosts(runner: Runner) -> None:
    step = run(WHERE, resources={"tasks": 4})
    result = await runner.run(run('echo "${SLURM_JOB_NUM_NODES}"'), step, tasks=4)
    assert (result.code, result.lines[0], sorted(result.lines[1:])) == (0, "2", ALL)


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("runner", ["slurm"], indirect=True)
async def test_in_containers(runner: Runner, kind: str) -> None:
    step = run(
        f"{WHERE} && touch /own-$SLURM_PROCID", container=CONTAINERS[kind], shell="/bin/sh", resources={"tasks": 4}
    )
    left = run('ls -d "$STORAGE_PATH"/../.*/enroot/data/* 2>/dev/null | wc -l')
    result = await runner.run(run(f"cp {IMAGES}/busybox.* ."), step, left, tasks=4, mem_mb=300)
    assert (result.code, sorted(result.lines[:4]), result.lines[4:]) == (0, ALL, ["0"])


@pytest.mark.parametrize("runner", ["slurm"], indirect=True)
async def test_in_networks_and_as_other_users(runner: Runner) -> None:
    Path("/dev/net/tun").chmod(0o666)
    step = run(f"{WHERE}; id -u", network="pasta", mapUid=77, resources={"tasks": 4})
    result = await runner.run(step, tasks=4)
    assert (result.code, sorted(result.lines)) == (0, sorted([*ALL, *["77"] * 4]))
