"""What a cluster has besides jobs: accounting, GPUs, MPI, SSH, and how soon it gives up."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import SlurmCluster, cluster_place

pytestmark = pytest.mark.slurm

UNAVAILABLE = "Requested node configuration is not available"


def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def accounted(cluster: SlurmCluster, job: str, fields: str, account: str | None = None) -> list[str]:
    """What accounting knows of a job, once it knows all of it."""
    command = ("sacct", "-n", "-P", "-X", "-j", job, "-o")

    def is_complete() -> bool:
        # The controller tells the end of a job at once, and its name within the next five seconds.
        name, _, end = cluster.run(*command, "jobname,end", account=account).partition("|")
        return name != "allocation" and end not in ("", "Unknown")

    until(is_complete)
    return cluster.run(*command, fields, account=account).split("|")


@pytest.fixture
def place(slurm_cluster: SlurmCluster, slurm_account: str) -> Iterator[Path]:
    """A folder that the account of jobs may write to."""
    folder = slurm_cluster.state.parent / "place"
    folder.mkdir()
    shutil.chown(folder, slurm_account, slurm_account)
    yield folder
    shutil.rmtree(folder)


# --- accounting -----------------------------------------------------------------------------------------------------


def test_any_account_sees_how_its_job_ended(slurm_cluster: SlurmCluster, slurm_account: str) -> None:
    job = slurm_cluster.submit("exit 7", "--job-name=ended", account=slurm_account)
    fields = accounted(slurm_cluster, job, "jobname,user,state,exitcode", account=slurm_account)
    assert fields == ["ended", slurm_account, "FAILED", "7:0"]


def test_the_database_is_closed_to_the_accounts_of_jobs(slurm_cluster: SlurmCluster, slurm_account: str) -> None:
    database = slurm_cluster.state / "db"
    assert (database / "data").stat().st_mode & 0o777 == 0o700
    done = slurm_cluster.attempt("mariadb", "--no-defaults", f"--socket={database}/socket", account=slurm_account)
    assert "Permission denied" in done.stderr or "(13)" in done.stderr


# --- GPUs -----------------------------------------------------------------------------------------------------------


def test_gpus_are_counted_and_too_many_refused(slurm_cluster: SlurmCluster) -> None:
    assert [node["gpus"] for node in slurm_cluster.status()["nodes"]] == [1, 1]
    for too_many in (["--gpus=3"], ["--nodes=1", "--gpus=2"], ["--ntasks=3", "--gpus-per-task=1"]):
        assert UNAVAILABLE in slurm_cluster.attempt("sbatch", *too_many, "--wrap=true").stderr
    job = slurm_cluster.submit("true", "--ntasks=2", "--gpus-per-task=1")
    slurm_cluster.wait(job, "COMPLETED")
    assert {"gres/gpu=2", "node=2"} <= set(slurm_cluster.field(job, "TRES").split(","))


def test_a_job_is_told_its_gpus(slurm_cluster: SlurmCluster, slurm_account: str, place: Path) -> None:
    told = 'echo "$SLURM_JOB_GPUS $CUDA_VISIBLE_DEVICES"'
    job = slurm_cluster.submit(told, "--gpus=1", f"--output={place}/out", account=slurm_account)
    slurm_cluster.wait(job, "COMPLETED")
    assert (place / "out").read_text() == "0 0\n"


def test_jobs_wait_for_a_gpu(slurm_cluster: SlurmCluster) -> None:
    node = slurm_cluster.status()["nodes"][0]["name"]
    first, second = (slurm_cluster.submit("sleep 2", "--gpus=1", f"--nodelist={node}") for _ in range(2))
    slurm_cluster.wait(first, "RUNNING")
    assert slurm_cluster.field(second, "JobState") == "PENDING"
    slurm_cluster.wait(second, "COMPLETED")
    assert slurm_cluster.field(first, "JobState") == "COMPLETED"
    assert slurm_cluster.field(second, "StartTime") >= slurm_cluster.field(first, "EndTime")


# --- MPI ------------------------------------------------------------------------------------------------------------

HELLO = r"""
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
    int rank, size, sum;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    printf("%d %d %d %s\n", rank, size, sum, getenv("SLURMD_NODENAME"));
    MPI_Finalize();
}
"""


@pytest.mark.skipif(shutil.which("mpicc") is None, reason="no MPI here: apt-get install -y libmpich-dev")
def test_mpi_ranks_talk_to_each_other_over_nodes(slurm_cluster: SlurmCluster, slurm_account: str, place: Path) -> None:
    (place / "hello.c").write_text(HELLO)
    subprocess.run(["mpicc", "-o", place / "hello", place / "hello.c"], check=True)
    spread = ("--nodes=2", "--ntasks=2", "--ntasks-per-node=1")
    said = slurm_cluster.run("srun", "--mpi=pmi2", *spread, place / "hello", account=slurm_account)
    nodes = [node["name"] for node in slurm_cluster.status()["nodes"]]
    assert sorted(said.splitlines()) == [f"{rank} 2 1 {node}" for rank, node in enumerate(nodes)]


# --- SSH ------------------------------------------------------------------------------------------------------------


def test_root_and_accounts_log_in(slurm_cluster: SlurmCluster, slurm_account: str) -> None:
    assert slurm_cluster.ssh("id -un; sinfo -h -o %P") == "root\nmain*"
    assert slurm_cluster.ssh("id -un; sinfo -h -o %P", account=slurm_account) == f"{slurm_account}\nmain*"


def test_files_go_over_sftp(slurm_cluster: SlurmCluster, slurm_account: str, place: Path) -> None:
    script = f"cd {place}\nput {slurm_cluster.conf} copy\n"
    slurm_cluster.ssh(program="sftp", stdin=script, account=slurm_account)
    assert (place / "copy").read_text() == slurm_cluster.conf.read_text()
    assert (place / "copy").owner() == slurm_account


def test_only_the_key_opens(slurm_cluster: SlurmCluster) -> None:
    ssh = slurm_cluster.status()["ssh"]
    assert Path(ssh["key"]).stat().st_mode & 0o777 == 0o600
    known = f"UserKnownHostsFile={ssh['known_hosts']}"
    command = ["ssh", "-F", "none", "-o", "BatchMode=yes", "-o", known, "-p", str(ssh["port"]), "root@127.0.0.1"]
    done = subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False)
    assert "Permission denied (publickey)." in done.stderr


# --- a cluster that soon gives up ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hasty(slurm_host: None) -> Iterator[SlurmCluster]:
    with cluster_place() as cluster:
        epilog = cluster.state.parent / "epilog"
        cluster.up("--min-job-age=5", "--node-timeout=5", f"--epilog={epilog}")
        # Not there before the cluster is up.
        epilog.write_text(f"#!/bin/sh\nid -un >{cluster.state}/run/epilog.$SLURM_JOB_ID\n")
        epilog.chmod(0o755)
        yield cluster


def test_the_epilog_runs_at_a_jobs_end(hasty: SlurmCluster) -> None:
    job = hasty.submit("true")
    ran = hasty.state / f"run/epilog.{job}"
    until(lambda: ran.exists() and ran.read_text() == "slurm\n")


def test_accounting_learns_late_but_all_and_remembers_what_the_controller_forgets(hasty: SlurmCluster) -> None:
    before = hasty.pids()
    hasty.kill_daemon("slurmdbd")
    hasty.kill_daemon("mariadbd")
    assert hasty.script("status", check=False).returncode == 3
    ended = hasty.submit("exit 6")
    hasty.wait(ended, "FAILED")
    assert "restarted mariadbd slurmdbd" in hasty.up().stderr
    after = hasty.pids()
    assert {name for name in before if before[name] != after[name]} == {"mariadbd", "slurmdbd"}

    lost = hasty.submit("sleep 300")
    hasty.wait(lost, "RUNNING")
    hasty.kill_daemon(f"slurmd/{hasty.name}-n1")
    until(lambda: accounting_says(hasty, lost) == "NODE_FAIL", seconds=60)
    assert "Invalid job id" in hasty.attempt("scontrol", "show", "job", ended).stderr
    assert accounted(hasty, ended, "state,exitcode") == ["FAILED", "6:0"]


def accounting_says(cluster: SlurmCluster, job: str) -> str:
    return cluster.run("sacct", "-n", "-P", "-X", "-j", job, "-o", "state")
