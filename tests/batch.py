"""Runs workflows by a batch scheduler as the supervisor does, without chain and services."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from deepsquare.compiler import compile_workflow
from deepsquare.grid.supervisor.folders import JobFolders
from deepsquare.grid.supervisor.hosts.base import Account
from deepsquare.grid.supervisor.schedulers.base import BatchJob, BatchState, Phase, Scheduler
from deepsquare.workflow import from_dict
from deepsquare.workflow.modules import resolve

from tests.workflows import Steps, fetched, own_lines

_SECONDS = 300


@dataclass(frozen=True)
class Result:
    """How a workflow ended."""

    phase: Phase
    code: int
    lines: list[str]
    """What its commands printed."""
    text: str = ""
    """That, and what programs of the scheduler and shells said."""


@dataclass
class Runner:
    """A scheduler with an account and folders for jobs."""

    scheduler: Scheduler
    account: Account
    folders: JobFolders
    root: Path
    variables: dict[str, str] = field(default_factory=dict)
    """Late-bound ones, beside the folders'."""

    @property
    def shared(self) -> Path:
        """Where the jobs' scratch is."""
        return Path(self.folders.variables()["DEEPSQUARE_SHARED_ROOT"]) / str(self.account.uid)

    async def submit(
        self, steps: Steps, *, tasks: int = 1, gpus: int = 0, mem_mb: int = 50, minutes: int = 5, **fields: Any
    ) -> tuple[str, Path]:
        """Submit a workflow; its id, and the file of its output. `modules` has the text of each source that it uses."""
        modules: Mapping[str, str] = fields.pop("modules", {})
        resources = {"tasks": tasks, "cpusPerTask": 1, "memPerCpu": mem_mb, "gpus": gpus}
        workflow = from_dict({"resources": resources, "steps": steps} | fields)
        script = compile_workflow(resolve(workflow, fetched(modules)))
        return await self.submit_script(script, tasks=tasks, gpus=gpus, mem_mb=mem_mb, minutes=minutes)

    async def submit_script(
        self, script: str, *, tasks: int = 1, gpus: int = 0, mem_mb: int = 50, minutes: int = 5
    ) -> tuple[str, Path]:
        """Submit a compiled workflow; its id, and the file of its output."""
        name = f"0x{uuid.uuid4().hex}"
        output = self.root / "spool" / f"{name}.out"
        output.touch(mode=0o600)
        os.chown(output, self.account.uid, self.account.gid)
        job = BatchJob(
            name=name,
            script=script,
            minutes=minutes,
            tasks=tasks,
            cpus_per_task=1,
            mem_per_cpu_mb=mem_mb,
            gpus=gpus,
            account=self.account,
            output=PurePosixPath(output),
            variables=self.folders.variables() | self.variables,
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

    async def result(self, job_id: str, output: Path) -> Result:
        """How a job ended that was submitted."""
        state = (await self.wait(job_id))[job_id]
        text = output.read_text()
        return Result(state.phase, state.exit_code, own_lines(text), text)

    async def run(self, *steps: dict[str, Any], **fields: Any) -> Result:
        """Run a workflow to its end."""
        return await self.result(*await self.submit(list(steps), **fields))

    async def prints(self, output: Path, text: str) -> None:
        """Wait until a job has printed something."""
        until = time.monotonic() + 60
        while text not in output.read_text():
            assert time.monotonic() < until, output.read_text()
            await asyncio.sleep(0.1)
