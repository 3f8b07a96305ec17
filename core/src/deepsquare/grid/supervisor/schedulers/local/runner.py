"""The runner of one job: starts its script, holds it to its limits, and notes its end. What slurmstepd is to Slurm.

It is a process of its own, without a parent that could take it along: supervisors come and go, the job and its runner stay.
Run with:

    python -m deepsquare.grid.supervisor.schedulers.local.runner FOLDER JOB UID GID CPUS MEM_MB

which returns at once; the runner goes on in the background. UID and GID are the account of the job, or -1 for the own one;
CPUS and MEM_MB are what all jobs together may use, since whoever ends a job starts the next.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import psutil

from deepsquare.grid.supervisor.schedulers.local.queue import JobQueue, QueuedJob, State

# How often limits and wishes are looked at; the job's own end is seen at once.
_TICK_SECONDS = 0.5
# Between SIGTERM and SIGKILL, as KillWait of the project's Slurm.
_KILL_WAIT_SECONDS = 5.0
_LOOK_SECONDS = 0.1
_PR_SET_CHILD_SUBREAPER = 36
# How Slurm reports a job that the kernel killed for its memory (ExitCode 0:125).
_OUT_OF_MEMORY_SIGNAL = 125
_START_SECONDS = 30


class Host(NamedTuple):
    """What runners need to know of the scheduler that they belong to."""

    folder: Path
    uid: int
    """The account of jobs, or -1 for the own one."""
    gid: int
    cpus: int
    mem_mb: int


def start_ready(queue: JobQueue, host: Host) -> None:
    """Start a runner for each waiting job that there is room for.

    Raises:
        OSError: no process can be started; the job waits again in a while.
        subprocess.SubprocessError: likewise.
    """
    while (job_id := queue.take(cpus=host.cpus, mem_mb=host.mem_mb)) is not None:
        arguments = [str(host.folder), str(job_id), *map(str, host[1:])]
        with (host.folder / "runners.log").open("ab") as log:
            subprocess.run(
                [sys.executable, "-m", "deepsquare.grid.supervisor.schedulers.local.runner", *arguments],
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                timeout=_START_SECONDS,
            )


def processes_of(job: QueuedJob) -> list[psutil.Process]:
    """What runs of a job, found without its runner: its session, and whatever has the job's name in its environment."""
    mark = {name: job.environment[name] for name in ("SLURM_CLUSTER_NAME", "SLURM_JOB_NAME")}.items()
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            leads = job.leader_pid and os.getsid(process.pid) == job.leader_pid
            if process.status() != psutil.STATUS_ZOMBIE and (leads or mark <= process.environ().items()):
                found.append(process)
    return found


def _run(host: Host, job_id: int) -> None:
    queue = JobQueue(host.folder)
    lock = queue.lock(job_id)
    # Held until this process ends, however it does; the job's processes don't get it.
    descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    job = queue.begin(job_id, runner_pid=os.getpid())
    if job is None:
        return
    try:
        leader = _start(job, queue.script(job.id), host)
    except OSError as error:
        print(f"job {job.id} can't be started: {error}", file=sys.stderr, flush=True)
        queue.end(job.id, State.NODE_FAIL)
    else:
        queue.lead(job.id, leader.pid)
        state = _Watch(queue, job, leader).follow()
        code, number = max(leader.returncode, 0), max(-leader.returncode, 0)
        queue.end(
            job.id, state, exit_code=code, signal=_OUT_OF_MEMORY_SIGNAL if state is State.OUT_OF_MEMORY else number
        )
    start_ready(queue, host)
    lock.unlink(missing_ok=True)


def _start(job: QueuedJob, script: Path, host: Host) -> subprocess.Popen[bytes]:
    output = os.open(job.output, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
    try:
        return subprocess.Popen(
            [script],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env={**job.environment, "SLURM_JOB_ID": str(job.id), "SLURM_JOBID": str(job.id)},
            umask=0o077,
            start_new_session=True,
            user=None if host.uid < 0 else host.uid,
            group=None if host.uid < 0 else host.gid,
            extra_groups=None if host.uid < 0 else (),
        )
    finally:
        os.close(output)


class _Watch:
    """One running job, watched until nothing of it is left."""

    def __init__(self, queue: JobQueue, job: QueuedJob, leader: subprocess.Popen[bytes]) -> None:
        self._queue, self._job, self._leader = queue, replace(job, leader_pid=leader.pid), leader
        self._began = time.monotonic()
        self._waiter = threading.Thread(target=leader.wait, daemon=True)
        self._waiter.start()

    def follow(self) -> State:
        """The state in which the job ended."""
        while True:
            self._waiter.join(_TICK_SECONDS)
            if not self._waiter.is_alive():
                # Like Slurm: what a script leaves running ends with it.
                self._signal(signal.SIGKILL)
                return State.FAILED if self._leader.returncode else State.COMPLETED
            if (reason := self._reason_to_end()) is not None:
                self._end()
                return reason

    def _reason_to_end(self) -> State | None:
        job = self._queue.get(self._job.id)
        if job is None or job.cancelled:
            return State.CANCELLED
        if time.monotonic() - self._began >= job.minutes * 60:
            return State.TIMEOUT
        return State.OUT_OF_MEMORY if self._uses_more_than(job.mem_mb << 20) else None

    def _uses_more_than(self, limit: int) -> bool:
        """Whether the job has more bytes in memory, pages that several processes share counted once where the system tells."""
        processes = self._processes()
        resident = shared_out = 0
        for process in processes:
            with contextlib.suppress(psutil.Error):
                resident += process.memory_info().rss
        if resident <= limit:
            return False
        # Dearer to ask for, so only where it decides.
        for process in processes:
            with contextlib.suppress(psutil.Error):
                memory = process.memory_full_info()
                shared_out += getattr(memory, "pss", memory.rss)
        return shared_out > limit

    def _processes(self) -> list[psutil.Process]:
        """Everything of the job that runs, also what has lost its parent."""
        if sys.platform != "linux":
            return processes_of(self._job)
        alive = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error, ChildProcessError):
                if process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(process)
                elif process.pid != self._leader.pid and process.ppid() == os.getpid():
                    os.waitpid(process.pid, os.WNOHANG)
        return alive

    def _signal(self, number: signal.Signals) -> None:
        """Signal all processes once; with SIGKILL until none is left."""
        while processes := self._processes():
            for process in processes:
                with contextlib.suppress(psutil.Error):
                    process.send_signal(number)
            if number is not signal.SIGKILL:
                return
            time.sleep(_LOOK_SECONDS)

    def _end(self) -> None:
        self._signal(signal.SIGTERM)
        until = time.monotonic() + _KILL_WAIT_SECONDS
        while self._processes() and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
        self._signal(signal.SIGKILL)
        self._waiter.join()


def _adopt_orphans() -> None:
    """Processes of the job that lose their parent become children of this one, so that none gets out of sight (prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def main() -> None:
    """Go to the background and run the job."""
    folder, job_id, uid, gid, cpus, mem_mb = sys.argv[1:]
    if os.fork():
        return
    os.setsid()
    _adopt_orphans()
    _run(Host(Path(folder), int(uid), int(gid), int(cpus), int(mem_mb)), int(job_id))


if __name__ == "__main__":
    main()
