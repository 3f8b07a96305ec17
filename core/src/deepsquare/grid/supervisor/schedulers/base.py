"""The interface between the supervisor and a batch scheduler."""

from __future__ import annotations

import pwd
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

from deepsquare.chain.types import Hardware
from deepsquare.errors import ConfigError, SchedulerError


class Phase(Enum):
    """Where a batch job stands, in the supervisor's terms."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed out"
    LOST = "lost"
    """The node died, or the scheduler gave the job up."""

    @property
    def is_end(self) -> bool:
        """Nothing more will happen to the job."""
        return self not in (Phase.QUEUED, Phase.RUNNING)


class RefusedError(SchedulerError):
    """The scheduler will never take the job."""


class NotSubmittedError(SchedulerError):
    """The scheduler certainly hasn't got the job: it may be tried again."""


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A job to submit."""

    name: str
    """The on-chain id, by which the job is found again."""
    script: str = field(repr=False)
    minutes: int
    """The time limit, at least 1."""
    tasks: int
    cpus_per_task: int
    mem_per_cpu_mb: int
    gpus: int
    output: Path
    """The spool file of its output, there already and writable for the account."""
    variables: Mapping[str, str]
    """The script's late-bound variables."""


@dataclass(frozen=True, slots=True)
class BatchState:
    """Where a batch job stands; times are unix seconds, 0 = not yet."""

    scheduler_id: str
    phase: Phase
    start_time: int
    end_time: int
    exit_code: int
    signal: int
    reason: str
    """The scheduler's own word for the state, such as OUT_OF_MEMORY."""


def jobs_account(name: str) -> pwd.struct_passwd:
    """The Unix account that jobs run as.

    Raises:
        ConfigError: there is none of that name, or it is root.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(
            f"the account {name!r} that jobs should run as does not exist; make it with useradd"
        ) from None
    if entry.pw_uid == 0:
        raise ConfigError("jobs never run as root: name an unprivileged account")
    return entry


class Scheduler(Protocol):
    """What the supervisor needs of a batch scheduler.

    Every method raises `SchedulerError` when the scheduler can't be reached.
    """

    uid: int
    """The account that jobs run as."""
    gid: int

    async def submit(self, job: BatchJob) -> str:
        """Submit and return the scheduler's id.

        Raises:
            RefusedError: the scheduler never takes such a job.
            NotSubmittedError: it did not take the job now, and certainly has not got it.
            SchedulerError: it may or may not have got it.
        """
        ...

    async def states(self) -> list[tuple[str, BatchState]]:
        """All jobs of the own account that the scheduler knows, each with its name, oldest first, with one query."""
        ...

    async def cancel(self, scheduler_id: str) -> None:
        """End a job; one that has ended already is no error."""
        ...

    async def set_time_limit(self, scheduler_id: str, minutes: int) -> None:
        """Change the time limit of a waiting or running job; it counts from the job's start."""
        ...

    async def probe(self) -> Hardware:
        """The nodes that jobs may use."""
        ...
