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
import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from deepsquare.grid.supervisor.schedulers.local.queue import JobQueue, QueuedJob, State

# How often limits and wishes are looked at; the job's own end is seen at once.
_TICK_SECONDS = 0.5
# Between SIGTERM and SIGKILL, as KillWait of the project's Slurm.
_KILL_WAIT_SECONDS = 5.0
_LOOK_SECONDS = 0.1
_SWEEP_SECONDS = 60.0
_NOTE_SECONDS = 24 * 3600.0
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
    """What runs of a job, found without its runner: whatever has the names of its queue and its own in its environment.

    Never by numbers of processes or sessions, which may be anybody's after a restart of the machine.
    """
    mark = {name: job.environment[name] for name in ("SLURM_CLUSTER_NAME", "SLURM_JOB_NAME")}.items()
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and mark <= process.environ().items():
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
        _tell(f"job {job.id} can't be started: {error}")
        _note(lambda: queue.end(job.id, State.NODE_FAIL, seconds=0))
    else:
        watch = _Watch(queue, job, leader)
        state = watch.follow()
        code, number = max(leader.returncode, 0), max(-leader.returncode, 0)
        _note(
            lambda: queue.end(
                job.id,
                state,
                seconds=watch.seconds,
                exit_code=code,
                signal=_OUT_OF_MEMORY_SIGNAL if state is State.OUT_OF_MEMORY else number,
            )
        )
    start_ready(queue, host)
    # While the lock is there, the queue may be in use.
    queue.close()
    lock.unlink(missing_ok=True)


def _note(write: Callable[[], None]) -> None:
    """Write a job's end, however long the disk is full: without it the job would count as lost, and its work for nothing."""
    Retrying(
        retry=retry_if_exception_type((sqlite3.Error, OSError)),
        wait=wait_exponential_jitter(initial=0.1, max=10),
        stop=stop_after_delay(_NOTE_SECONDS),
        reraise=True,
    )(write)


def _tell(text: str) -> None:
    """Write a line to the runners' log, where there is room."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _start(job: QueuedJob, script: Path, host: Host) -> subprocess.Popen[bytes]:
    output = os.open(job.output, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
    if host.uid >= 0:
        # Only now: other jobs of the account may run already, and must not read what this one is to do.
        os.chown(script, host.uid, host.gid, follow_symlinks=False)
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
        self._queue, self._job, self._leader = queue, job, leader
        self._began = time.monotonic()
        self.seconds = 0
        """How long the job ran, rounded up, at its end: by the clock of its limit, which stands still while the machine sleeps."""
        self._waiter = threading.Thread(target=leader.wait, daemon=True)
        self._waiter.start()

    def follow(self) -> State:
        """The state in which the job ended."""
        reason = None
        while self._waiter.is_alive() and reason is None:
            self._waiter.join(_TICK_SECONDS)
            if self._waiter.is_alive():
                reason = self._reason_to_end()
        if reason is not None:
            self._ask_to_end()
        self.seconds = math.ceil(time.monotonic() - self._began)
        # Like Slurm: what a script leaves running ends with it.
        self._sweep()
        return reason or (State.FAILED if self._leader.returncode else State.COMPLETED)

    def _reason_to_end(self) -> State | None:
        # While the queue can't be read, what was known last holds.
        with contextlib.suppress(sqlite3.Error):
            self._job = self._queue.get(self._job.id) or self._job
        if self._job.cancelled:
            return State.CANCELLED
        if time.monotonic() - self._began >= self._job.minutes * 60:
            return State.TIMEOUT
        return State.OUT_OF_MEMORY if self._uses_more_than(self._job.mem_mb << 20) else None

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
        """Everything of the job, also what has lost its parent, and what has ended and nobody has taken notice of."""
        if sys.platform != "linux":
            return processes_of(self._job)
        found: list[psutil.Process] = psutil.Process().children(recursive=True)
        return found

    def _ask_to_end(self) -> None:
        """SIGTERM, and some time to tidy up."""
        until = time.monotonic() + _KILL_WAIT_SECONDS
        processes = self._processes()
        # Steps hear of it by their srun, and once: many a program takes a second one for impatience.
        told = {child.pid for process in processes if _is_srun(process) for child in _children(process)}
        # What has left the job's session serves the others, as their network does, and so ends after them.
        first = [process for process in processes if self._is_in_session(process)]
        for processes in (first, self._processes()):
            for process in processes:
                if process.pid not in told:
                    told.add(process.pid)
                    with contextlib.suppress(psutil.Error):
                        process.terminate()
            while any(map(_is_alive, processes)) and time.monotonic() < until:
                time.sleep(_LOOK_SECONDS)
        while not self._is_bare() and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)

    def _is_in_session(self, process: psutil.Process) -> bool:
        try:
            return os.getsid(process.pid) == self._leader.pid
        except OSError:
            return False

    def _sweep(self) -> None:
        """SIGKILL, until nothing is left."""
        until = time.monotonic() + _SWEEP_SECONDS
        while not self._is_bare():
            for process in self._processes():
                with contextlib.suppress(psutil.Error, OSError):
                    # The whole group at once: a process that forks all the time is another one before its number is used.
                    group = os.getpgid(process.pid)
                    if group != os.getpgrp():
                        os.killpg(group, signal.SIGKILL)
            if time.monotonic() > until:
                _tell(f"job {self._job.id}: {len(self._processes())} process(es) don't end")
                return
            time.sleep(_LOOK_SECONDS / 10)
        self._waiter.join()

    def _is_bare(self) -> bool:
        """Whether nothing of the job is left. On Linux the kernel knows: all of it are children of this process, or theirs."""
        if self._waiter.is_alive():
            return False
        if sys.platform != "linux":
            return not self._processes()
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return True
        return False


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


def _is_srun(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return len(words) > 1 and Path(words[1]).name == "srun" and Path(words[0]).name == "bash"


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = process.children(recursive=True)
    except psutil.Error:
        return []
    return found


if __name__ == "__main__":
    main()
