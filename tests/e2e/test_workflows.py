"""What workflows mean, executed: each row of the table runs on the local scheduler and on real Slurm, with the same result."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from deepsquare.compiler import compile_workflow
from deepsquare.grid.supervisor.accounts import SharedAccount
from deepsquare.grid.supervisor.folders import JobFolders
from deepsquare.grid.supervisor.hosts.base import Account
from deepsquare.grid.supervisor.hosts.local import LocalHost, own_account
from deepsquare.grid.supervisor.schedulers.base import BatchJob, BatchState, Phase, RefusedError, Scheduler
from deepsquare.grid.supervisor.schedulers.local.scheduler import Local, stop
from deepsquare.grid.supervisor.schedulers.slurm.scheduler import Slurm
from deepsquare.workflow import from_dict

from tests.cluster import SlurmCluster, new_cluster
from tests.conftest import open_folder
from tests.workflows import ROWS, UNTIL_SIGNALLED, Row, Steps, items, launch, own_lines, run, until_up

pytestmark = pytest.mark.slurm

_SECONDS = 300


@dataclass(frozen=True)
class Result:
    """How a workflow ended."""

    phase: Phase
    code: int
    lines: list[str]


class Runner:
    """Runs workflows by a scheduler, as the supervisor does."""

    def __init__(self, scheduler: Scheduler, account: Account, folders: JobFolders, root: Path) -> None:
        self.scheduler, self._account, self._folders, self._root = scheduler, account, folders, root

    async def submit(
        self, steps: Steps, *, tasks: int = 1, gpus: int = 0, minutes: int = 5, **fields: Any
    ) -> tuple[str, Path]:
        """Submit a workflow; its id, and the file of its output."""
        name = f"0x{uuid.uuid4().hex}"
        output = self._root / "spool" / f"{name}.out"
        output.touch(mode=0o600)
        os.chown(output, self._account.uid, self._account.gid)
        resources = {"tasks": tasks, "cpusPerTask": 1, "memPerCpu": 50, "gpus": gpus}
        script = compile_workflow(from_dict({"resources": resources, "steps": steps} | fields))
        job = BatchJob(
            name=name,
            script=script,
            minutes=minutes,
            tasks=tasks,
            cpus_per_task=1,
            mem_per_cpu_mb=50,
            gpus=gpus,
            account=self._account,
            output=PurePosixPath(output),
            variables=self._folders.variables(),
        )
        return await self.scheduler.submit(job), output

    async def wait(self, *ids: str) -> dict[str, BatchState]:
        """How these jobs ended."""
        until = time.monotonic() + _SECONDS
        while True:
            found = {state.scheduler_id: state for _, state in await self.scheduler.states()}
            if all(found[job_id].phase.is_end for job_id in ids):
                return found
            assert time.monotonic() < until, {job_id: found[job_id] for job_id in ids}
            await asyncio.sleep(0.2)

    async def prints(self, output: Path, text: str) -> None:
        """Wait until a job has printed something."""
        until = time.monotonic() + 60
        while text not in output.read_text():
            assert time.monotonic() < until, output.read_text()
            await asyncio.sleep(0.1)


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
    root = open_folder("deepsquare-workflows-")
    host, entry = LocalHost(), own_account(account)
    found = Account(account, entry.uid, entry.gid)
    folders = JobFolders(host, PurePosixPath(root))
    await folders.prepare()
    await folders.admit(found)
    scheduler: Scheduler
    if request.param == "local":
        scheduler = Local(root / "scheduler", account=account)
    else:
        cluster = request.getfixturevalue("cluster")
        scheduler = Slurm(host, SharedAccount(found), mark="test", slurm_conf=str(cluster.conf))
    yield Runner(scheduler, found, folders, root)
    stop(root / "scheduler")
    shutil.rmtree(root)


@pytest.fixture(scope="module")
async def results(runner: Runner) -> dict[str, Result]:
    """All rows, run."""
    submitted = {row.name: await runner.submit(row.steps, tasks=row.tasks, **row.fields) for row in ROWS}
    states = await runner.wait(*(job_id for job_id, _ in submitted.values()))
    return {
        name: Result(states[job_id].phase, states[job_id].exit_code, own_lines(output.read_text()))
        for name, (job_id, output) in submitted.items()
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_workflow_does_what_it_says(row: Row, results: dict[str, Result]) -> None:
    result = results[row.name]
    order = sorted if row.in_any_order else list
    assert row.prints is None or order(result.lines) == order(row.prints)
    assert (result.code, result.phase) == (row.code, Phase.FAILED if row.code else Phase.COMPLETED)


async def test_what_is_cancelled_is_caught_and_tidied_up(runner: Runner) -> None:
    steps = [
        {
            "finally": [run("echo outer")],
            "steps": [
                items(
                    *("a", "b"),
                    parallel=True,
                    steps=[
                        {
                            "catch": [run('echo "$item caught"')],
                            "finally": [run('echo "$item finally"')],
                            **run("trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done"),
                        }
                    ],
                ),
                run("echo never"),
            ],
        },
        run("echo never"),
    ]
    job_id, output = await runner.submit(steps, tasks=2)
    await runner.prints(output, "up\nup\n")
    await runner.scheduler.cancel(job_id)
    states = await runner.wait(job_id)
    assert states[job_id].phase is Phase.CANCELLED
    lines = own_lines(output.read_text())
    assert sorted(lines) == sorted(["up", "up", "a caught", "b caught", "a finally", "b finally", "outer"])
    assert lines[-1] == "outer"


async def test_what_is_launched_hears_of_the_jobs_end(runner: Runner) -> None:
    steps = [launch(run(UNTIL_SIGNALLED.format("TERM"))), {"finally": [run("echo f")], **run("echo up; sleep 600")}]
    job_id, output = await runner.submit(steps, tasks=2)
    await runner.prints(output, "up\n")
    await runner.scheduler.cancel(job_id)
    await runner.wait(job_id)
    assert sorted(own_lines(output.read_text())) == ["f", "got TERM", "up"]


async def test_steps_have_the_gpus_that_they_ask_for(runner: Runner) -> None:
    look = 'echo "${CUDA_VISIBLE_DEVICES:-none}"'
    steps = [
        # If it had them all, the others would wait for it for ever.
        launch(run(UNTIL_SIGNALLED.format("TERM"), resources={"gpusPerTask": 1})),
        until_up("TERM"),
        run(look),
        run(f"{look} | tr -d ',' | wc -c", resources={"gpusPerTask": 1}),
    ]
    if isinstance(runner.scheduler, Local):
        with pytest.raises(RefusedError, match="GPUs"):
            await runner.submit(steps, tasks=2, gpus=2)
        return
    job_id, output = await runner.submit(steps, tasks=2, gpus=2)
    await runner.wait(job_id)
    assert own_lines(output.read_text()) == ["parent", "none", "2", "got TERM"]


async def test_out_of_time_is_tidied_up_too(runner: Runner) -> None:
    steps = [{"finally": [run('echo "tidy $(ls a)"')], **run("touch a; echo up; sleep 600")}]
    job_id, output = await runner.submit(steps, minutes=1)
    states = await runner.wait(job_id)
    assert states[job_id].phase is Phase.TIMED_OUT
    assert own_lines(output.read_text()) == ["up", "tidy a"]


async def test_nothing_is_left_of_any_of_them(runner: Runner, results: dict[str, Result]) -> None:
    shared = Path(runner._folders.variables()["DEEPSQUARE_SHARED_ROOT"]) / str(runner._account.uid)
    assert [path.name for path in shared.iterdir()] == ["started"]
    until = time.monotonic() + 30
    while subprocess.run(["pgrep", "-u", str(runner._account.uid)], check=False, capture_output=True).returncode == 0:
        assert time.monotonic() < until
        await asyncio.sleep(0.2)
