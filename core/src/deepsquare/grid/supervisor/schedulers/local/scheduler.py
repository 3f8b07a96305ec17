"""The local scheduler, as the supervisor sees it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import psutil

from deepsquare.chain.types import Hardware
from deepsquare.errors import SchedulerError
from deepsquare.grid.supervisor.hosts.local import own_account
from deepsquare.grid.supervisor.labels import NodeFacts, own_facts
from deepsquare.grid.supervisor.schedulers.base import (
    BatchJob,
    BatchState,
    NotSubmittedError,
    Phase,
    RefusedError,
)
from deepsquare.grid.supervisor.schedulers.local.queue import JobQueue, QueuedJob, State
from deepsquare.grid.supervisor.schedulers.local.runner import Host, processes_of, start_ready

T = TypeVar("T")

_log = logging.getLogger(__name__)

# What stays for the system, the chain and the services.
_MEMORY_SHARE = 0.9
_PROGRAMS = ("srun", "scontrol", "scancel")
_STOP_SECONDS = 30.0
_ORPHAN_SECONDS = 5.0
_LOOK_SECONDS = 0.1

_PHASES = {
    State.PENDING: Phase.QUEUED,
    State.CONFIGURING: Phase.QUEUED,
    State.RUNNING: Phase.RUNNING,
    State.COMPLETED: Phase.COMPLETED,
    State.FAILED: Phase.FAILED,
    State.CANCELLED: Phase.CANCELLED,
    State.TIMEOUT: Phase.TIMED_OUT,
    State.OUT_OF_MEMORY: Phase.FAILED,
    State.NODE_FAIL: Phase.LOST,
}


class Local:
    """Runs jobs on this machine, as many at once as its CPUs and memory hold."""

    def __init__(self, folder: Path, *, account: str) -> None:
        """`folder` is kept between starts; `account` is whom jobs run as: another than the own one only for root.

        Raises:
            ConfigError: there is no such account, or jobs would run as root or as somebody else than this process may.
        """
        entry = own_account(account)
        self._account = account
        self._owner = (entry.uid, entry.gid) if os.geteuid() == 0 else None
        self._host = _make(folder, self._owner)
        # Different for each folder: by this and its name a job's processes are found again.
        self._cluster = f"local-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"

    async def submit(self, job: BatchJob) -> str:
        """See `Scheduler.submit`."""
        host = self._host
        cpus, mem_mb = job.tasks * job.cpus_per_task, job.tasks * job.cpus_per_task * job.mem_per_cpu_mb
        if job.minutes < 1:
            raise RefusedError(f"a time limit of {job.minutes} minutes buys no run time")
        if cpus > host.cpus or mem_mb > host.mem_mb or job.gpus:
            raise RefusedError(
                f"{cpus} CPUs, {mem_mb} MB and {job.gpus} GPUs are more than the {host.cpus} CPUs, {host.mem_mb} MB and 0 GPUs here"
            )

        def add(queue: JobQueue) -> int:
            return queue.add(
                name=job.name,
                tasks=job.tasks,
                cpus_per_task=job.cpus_per_task,
                mem_per_cpu_mb=job.mem_per_cpu_mb,
                minutes=job.minutes,
                output=Path(job.output),
                environment=self._environment(job),
                script=job.script,
            )

        try:
            job_id = await self._with_queue(add)
        except SchedulerError as error:
            # The queue takes a job whole or not at all.
            raise NotSubmittedError(str(error)) from None
        await self._with_queue(self._start_ready)
        return str(job_id)

    async def states(self) -> list[tuple[str, BatchState]]:
        """See `Scheduler.states`."""

        def look(queue: JobQueue) -> list[QueuedJob]:
            for job in queue.jobs():
                if job.state is State.RUNNING and not queue.has_runner(job.id):
                    _end_orphan(queue, job)
            self._start_ready(queue)
            return queue.jobs()

        return [(job.name, _batch_state(job)) for job in await self._with_queue(look)]

    async def accounted(self, ids: Sequence[str], names: Sequence[str]) -> list[tuple[str, BatchState]]:
        """See `Scheduler.accounted`: the queue forgets no job that somebody may ask for."""
        return []

    async def cancel(self, scheduler_id: str) -> None:
        """See `Scheduler.cancel`."""
        await self._with_queue(lambda queue: queue.cancel(int(scheduler_id)))

    async def set_time_limit(self, scheduler_id: str, minutes: int) -> None:
        """See `Scheduler.set_time_limit`."""
        await self._with_queue(lambda queue: queue.set_minutes(int(scheduler_id), minutes))

    async def probe(self) -> Hardware:
        """See `Scheduler.probe`: this machine, GPUs left out."""
        return Hardware(gpus=(0,), cpus=(self._host.cpus,), mem_mb=(self._host.mem_mb,))

    async def facts(self) -> list[NodeFacts]:
        """See `Scheduler.facts`."""
        return [own_facts()]

    def _start_ready(self, queue: JobQueue) -> None:
        try:
            start_ready(queue, self._host)
        except (OSError, subprocess.SubprocessError) as error:
            # What is in the queue is submitted: the next look tries again.
            _log.warning("no job can be started now: %s (log: %s)", error, self._host.folder / "runners.log")

    async def _with_queue(self, work: Callable[[JobQueue], T]) -> T:
        """Work on the queue in a thread, since it may wait for the disk or for a process.

        Raises:
            SchedulerError: the disk is full, or no process can be started.
        """

        def run() -> T:
            try:
                with contextlib.closing(JobQueue(self._host.folder)) as queue:
                    return work(queue)
            except (OSError, sqlite3.Error, subprocess.SubprocessError) as error:
                raise SchedulerError(f"the local scheduler in {self._host.folder}: {error}") from None

        return await asyncio.to_thread(run)

    def _environment(self, job: BatchJob) -> Mapping[str, str]:
        """What Slurm gives to a job's script, as far as scripts look at it, and nothing else of this process's."""
        node = socket.gethostname().split(".")[0]
        return {
            **job.variables,
            "PATH": f"{self._host.folder / 'programs'}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "LANG": "C.UTF-8",
            "USER": self._account,
            "LOGNAME": self._account,
            "HOME": "/",
            "SLURM_CLUSTER_NAME": self._cluster,
            "SLURM_JOB_NAME": job.name,
            "SLURM_NTASKS": str(job.tasks),
            "SLURM_CPUS_PER_TASK": str(job.cpus_per_task),
            "SLURM_MEM_PER_CPU": str(job.mem_per_cpu_mb),
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_JOB_NODELIST": node,
            "SLURMD_NODENAME": node,
            "SLURM_SUBMIT_DIR": "/",
        }


def stop(folder: Path) -> None:
    """End every job of a local scheduler and wait for that; nothing runs on afterwards.

    Raises:
        SchedulerError: a job does not end, or the queue can't be read or written.
    """
    if not (folder / "queue.db").exists():
        return
    try:
        _stop(folder)
    except sqlite3.Error as error:
        raise SchedulerError(
            f"jobs of the local scheduler may still run, since its queue {folder / 'queue.db'} can't be used: {error}. Make room "
            "on the disk and try again, or end them yourself"
        ) from None


def _stop(folder: Path) -> None:
    with contextlib.closing(JobQueue(folder)) as queue:
        until = time.monotonic() + _STOP_SECONDS
        # Also runners that have noted the end, and are about to go.
        while open_jobs := [job for job in queue.jobs() if not _PHASES[job.state].is_end or queue.has_runner(job.id)]:
            for job in open_jobs:
                queue.cancel(job.id)
                if job.state is State.RUNNING and not queue.has_runner(job.id):
                    _end_orphan(queue, job)
            if time.monotonic() > until:
                raise SchedulerError(
                    f"jobs of the local scheduler don't end: {', '.join(job.name for job in open_jobs)}"
                )
            time.sleep(_LOOK_SECONDS)


def _make(folder: Path, owner: tuple[int, int] | None) -> Host:
    """The scheduler's folder: its queue for itself alone, programs and scripts for the account of the jobs, too."""
    # Names of scripts are numbers: what others can't list, they could guess, but each is its owner's alone.
    programs = folder / "programs"
    for path, mode in ((folder, 0o711), (folder / "scripts", 0o711), (folder / "runners", 0o700), (programs, 0o755)):
        path.mkdir(parents=True, exist_ok=True)
        # Whatever the umask is.
        path.chmod(mode)
    for name in _PROGRAMS:
        # Out of the package, which may lie in a home that the account of the jobs can't enter.
        new = programs / f".{name}"
        new.write_bytes(files(__package__).joinpath("programs", name).read_bytes())
        new.chmod(0o755)
        new.replace(programs / name)
    uid, gid = owner or (-1, -1)
    return Host(
        folder=folder,
        uid=uid,
        gid=gid,
        cpus=len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count() or 1,
        mem_mb=int(psutil.virtual_memory().total * _MEMORY_SHARE) >> 20,
    )


def _end_orphan(queue: JobQueue, job: QueuedJob) -> None:
    """End what a killed runner has left of its job: nobody holds it to its limits any more."""
    until = time.monotonic() + _ORPHAN_SECONDS
    # What can't be ended, such as what a job has started as another account, holds up no other job.
    while (processes := processes_of(job)) and time.monotonic() < until:
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(_LOOK_SECONDS)
    queue.end(job.id, State.NODE_FAIL)
    queue.lock(job.id).unlink(missing_ok=True)


def _batch_state(job: QueuedJob) -> BatchState:
    return BatchState(
        scheduler_id=str(job.id),
        phase=_PHASES[job.state],
        start_time=job.start_time,
        end_time=job.end_time,
        exit_code=job.exit_code,
        signal=job.signal,
        reason=job.state.value,
        minutes=job.minutes,
        ran_seconds=max(job.end_time - job.start_time, 0) if job.end_time else 0,
    )
