"""The queue of the local scheduler: a SQLite file that the scheduler and the runners of its jobs share.

Little is imported here, since each job starts a process that needs this module.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from deepsquare.files import make_private

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    tasks INTEGER NOT NULL,
    cpus_per_task INTEGER NOT NULL,
    mem_per_cpu_mb INTEGER NOT NULL,
    minutes INTEGER NOT NULL,
    output TEXT NOT NULL,
    environment TEXT NOT NULL,
    state TEXT NOT NULL,
    changed_at REAL NOT NULL,
    cancelled INTEGER NOT NULL DEFAULT 0,
    runner_pid INTEGER NOT NULL DEFAULT 0,
    start_time INTEGER NOT NULL DEFAULT 0,
    end_time INTEGER NOT NULL DEFAULT 0,
    exit_code INTEGER NOT NULL DEFAULT 0,
    signal INTEGER NOT NULL DEFAULT 0
) STRICT
"""
_COLUMNS = (
    "id, name, tasks, cpus_per_task, mem_per_cpu_mb, minutes, output, environment, state, cancelled, runner_pid, "
    "start_time, end_time, exit_code, signal"
)
_BUSY_SECONDS = 30.0
# A runner begins within moments. One that didn't died on its way, and its job waits again: the runner that comes first has it.
_STARTING_SECONDS = 30.0
# As MinJobAge of Slurm: the supervisor may be away for so long.
_KEEP_SECONDS = 24 * 3600


class State(StrEnum):
    """Where a job stands, in Slurm's words."""

    PENDING = "PENDING"
    CONFIGURING = "CONFIGURING"
    """It has its CPUs and memory, and its runner is on the way."""
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMEOUT = "TIMEOUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    NODE_FAIL = "NODE_FAIL"
    """Its runner died or could not start it."""


_HOLDING = (State.CONFIGURING, State.RUNNING)
_OPEN = (State.PENDING, *_HOLDING)


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job of the queue; times are unix seconds, 0 = not yet."""

    id: int
    name: str
    tasks: int
    cpus_per_task: int
    mem_per_cpu_mb: int
    minutes: int
    output: Path
    environment: Mapping[str, str] = field(repr=False)
    state: State
    cancelled: bool
    runner_pid: int
    start_time: int
    end_time: int
    exit_code: int
    signal: int

    @property
    def cpus(self) -> int:
        """The CPUs of all tasks."""
        return self.tasks * self.cpus_per_task

    @property
    def mem_mb(self) -> int:
        """The memory of all tasks."""
        return self.cpus * self.mem_per_cpu_mb


class JobQueue:
    """Jobs of one machine, oldest first. Every change is on disk when the method returns."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the scheduler's; the file in it is readable by its owner alone."""
        self.folder = folder
        path = folder / "queue.db"
        make_private(path)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_SECONDS)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def script(self, job_id: int) -> Path:
        """Where a job's script lies until its end."""
        return self.folder / "scripts" / str(job_id)

    def lock(self, job_id: int) -> Path:
        """The file that a job's runner holds locked (flock) for as long as it lives."""
        return self.folder / "runners" / str(job_id)

    def has_runner(self, job_id: int) -> bool:
        """Whether a job's runner lives. The kernel knows: numbers of processes come again, and clocks are set."""
        try:
            with self.lock(job_id).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            pass
        return False

    def add(
        self,
        *,
        name: str,
        tasks: int,
        cpus_per_task: int,
        mem_per_cpu_mb: int,
        minutes: int,
        output: Path,
        environment: Mapping[str, str],
        script: str,
    ) -> int:
        """Append a job and return its id; until it starts, its script is this process's account's alone.

        Raises:
            OSError: the script can't be written, and the job is not in the queue.
        """
        with self._transaction():
            self._db.execute(
                "DELETE FROM jobs WHERE end_time > 0 AND end_time < ?", (int(time.time() - _KEEP_SECONDS),)
            )
            cursor = self._db.execute(
                "INSERT INTO jobs (name, tasks, cpus_per_task, mem_per_cpu_mb, minutes, output, environment, state, changed_at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    name,
                    tasks,
                    cpus_per_task,
                    mem_per_cpu_mb,
                    minutes,
                    str(output),
                    json.dumps(dict(environment)),
                    State.PENDING,
                    time.time(),
                ),
            )
            assert cursor.lastrowid is not None
            self._write_script(cursor.lastrowid, script)
            return cursor.lastrowid

    def _write_script(self, job_id: int, script: str) -> None:
        path = self.script(job_id)
        # What was cut off may have left scripts of jobs that never were, or are no more.
        placeholders = ", ".join("?" * len(_OPEN))
        rows = self._db.execute(f"SELECT id FROM jobs WHERE state IN ({placeholders})", _OPEN)  # noqa: S608
        needed = {str(row[0]) for row in rows} - {path.name}
        for old in path.parent.iterdir():
            if old.name not in needed:
                old.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o500)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(script)

    def jobs(self) -> list[QueuedJob]:
        """All jobs, oldest first, also those that ended within the last day."""
        return [_job(row) for row in self._db.execute(f"SELECT {_COLUMNS} FROM jobs ORDER BY id")]  # noqa: S608

    def get(self, job_id: int) -> QueuedJob | None:
        """A job, or None when there is none of that id."""
        row = self._db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (job_id,)).fetchone()  # noqa: S608
        return None if row is None else _job(row)

    def take(self, *, cpus: int, mem_mb: int) -> int | None:
        """Give the oldest waiting job its CPUs and memory, when that much is free; its id, to start a runner for.

        Strictly in order: a large job is never overtaken for ever by small ones.
        """
        with self._transaction():
            self._db.execute(
                "UPDATE jobs SET state = ? WHERE state = ? AND changed_at < ?",
                (State.PENDING, State.CONFIGURING, time.time() - _STARTING_SECONDS),
            )
            while (job := self._oldest_waiting()) is not None and (job.cpus > cpus or job.mem_mb > mem_mb):
                # The machine was larger when it was submitted; it must not hold up the others for ever.
                self.end(job.id, State.NODE_FAIL)
            if job is None:
                return None
            used_cpus, used_mem = self._db.execute(
                "SELECT COALESCE(SUM(tasks * cpus_per_task), 0), COALESCE(SUM(tasks * cpus_per_task * mem_per_cpu_mb), 0) "
                "FROM jobs WHERE state IN (?, ?)",
                _HOLDING,
            ).fetchone()
            if used_cpus + job.cpus > cpus or used_mem + job.mem_mb > mem_mb:
                return None
            self._db.execute(
                "UPDATE jobs SET state = ?, changed_at = ? WHERE id = ?", (State.CONFIGURING, time.time(), job.id)
            )
            return job.id

    def _oldest_waiting(self) -> QueuedJob | None:
        row = self._db.execute(
            f"SELECT {_COLUMNS} FROM jobs WHERE state = ? ORDER BY id LIMIT 1",  # noqa: S608
            (State.PENDING,),
        ).fetchone()
        return None if row is None else _job(row)

    def begin(self, job_id: int, *, runner_pid: int) -> QueuedJob | None:
        """A runner takes its job; None when another one was first, or the job is not to be started any more."""
        with self._transaction():
            changed = self._db.execute(
                "UPDATE jobs SET state = ?, changed_at = ?, runner_pid = ?, start_time = ? "
                "WHERE id = ? AND state = ? AND NOT cancelled",
                (State.RUNNING, time.time(), runner_pid, int(time.time()), job_id, State.CONFIGURING),
            ).rowcount
        return self.get(job_id) if changed else None

    def end(
        self, job_id: int, state: State, *, seconds: int | None = None, exit_code: int = 0, signal: int = 0
    ) -> None:
        """Note a job's end, unless it has ended already, and remove its script.

        `seconds` is how long it ran, by the clock that its time limit was held to; None means until now.
        """
        self._db.execute(
            "UPDATE jobs SET state = ?, changed_at = ?, end_time = CASE WHEN ? IS NULL THEN ? ELSE start_time + ? END, "
            "exit_code = ?, signal = ? WHERE id = ? AND state IN (?, ?, ?)",
            (state, time.time(), seconds, int(time.time()), seconds, exit_code, signal, job_id, *_OPEN),
        )
        self.script(job_id).unlink(missing_ok=True)

    def cancel(self, job_id: int) -> None:
        """End a waiting job; have the runner of a running one end it."""
        with self._transaction():
            self._db.execute("UPDATE jobs SET cancelled = 1 WHERE id = ?", (job_id,))
            waiting = self._db.execute(
                "SELECT 1 FROM jobs WHERE id = ? AND state IN (?, ?)", (job_id, State.PENDING, State.CONFIGURING)
            ).fetchone()
            if waiting:
                self.end(job_id, State.CANCELLED)

    def set_minutes(self, job_id: int, minutes: int) -> None:
        """Change a job's time limit."""
        self._db.execute("UPDATE jobs SET minutes = ? WHERE id = ?", (minutes, job_id))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _job(row: tuple[object, ...]) -> QueuedJob:
    values = dict(zip(_COLUMNS.split(", "), row, strict=True))
    values |= {
        "output": Path(str(values["output"])),
        "environment": json.loads(str(values["environment"])),
        "state": State(str(values["state"])),
        "cancelled": bool(values["cancelled"]),
    }
    return QueuedJob(**values)  # type: ignore[arg-type]
