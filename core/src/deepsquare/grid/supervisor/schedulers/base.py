"""The interface between the supervisor and a batch scheduler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePosixPath
from typing import Protocol

from deepsquare.chain.types import Hardware
from deepsquare.errors import SchedulerError
from deepsquare.grid.supervisor.hosts.base import Account
from deepsquare.grid.supervisor.labels import NodeFacts


class Phase(Enum):
    """Where a batch job stands, in the supervisor's terms."""

    QUEUED = "queued"
    REQUEUED = "requeued"
    """It was given up, and the scheduler would start it again, or holds it."""
    STUCK = "stuck"
    """The scheduler has it, and will never start it as it is."""
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
        return self not in (Phase.QUEUED, Phase.REQUEUED, Phase.STUCK, Phase.RUNNING)


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
    account: Account
    """The Unix account that it runs as."""
    output: PurePosixPath
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
    minutes: int | None
    """The time limit; None when there is none, or the scheduler doesn't tell."""
    restarted: bool = False
    """Somebody had the scheduler start it again, so that its times are not those of its first start."""
    is_foreign: bool = False
    """It hasn't this grid's mark, so that its name means nothing: another chain has jobs of the same names."""
    uid: int = -1
    """The number of the account that it runs as; -1 where the scheduler has one account only."""
    submitted_at: int = 0
    """When it was submitted; 0 where the scheduler gives no id twice."""
    ran_seconds: int = 0
    """How long it ran, without the time in which it was suspended."""


class Scheduler(Protocol):
    """What the supervisor needs of a batch scheduler.

    Every method raises `SchedulerError` when the scheduler can't be reached.
    """

    async def submit(self, job: BatchJob) -> str:
        """Submit and return the scheduler's id.

        Raises:
            RefusedError: the scheduler never takes such a job.
            NotSubmittedError: it did not take the job now, and certainly has not got it.
            SchedulerError: it may or may not have got it.
        """
        ...

    async def states(self) -> list[tuple[str, BatchState]]:
        """All jobs of the jobs' accounts that the scheduler knows, each with its name, oldest first, with one query."""
        ...

    async def accounted(self, ids: Sequence[str], names: Sequence[str]) -> list[tuple[str, BatchState]]:
        """The ends of jobs that the scheduler has forgotten, from its accounting; empty where there is none.

        Args:
            ids: the scheduler's ids of jobs.
            names: names of jobs whose ids are not known.
        """
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

    async def facts(self) -> list[NodeFacts]:
        """What is known of each of these nodes; of the processors perhaps nothing, while all nodes are busy."""
        ...
