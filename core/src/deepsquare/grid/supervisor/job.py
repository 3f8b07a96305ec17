"""One job of the supervisor's: brought as far as it can go now, each round, from its claim to its end on chain."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from deepsquare.chain.market import Market
from deepsquare.chain.types import JobRecord, JobReport, JobStatus, to_hex
from deepsquare.compiler import EXIT_STARTED_BEFORE
from deepsquare.errors import ApiError, ConfigError, ConnectionFailedError, GridError, SchedulerError
from deepsquare.grid.supervisor.accounts import Accounts
from deepsquare.grid.supervisor.folders import JobFolders
from deepsquare.grid.supervisor.journal import Entry, Stage, SupervisorJournal
from deepsquare.grid.supervisor.reports import Reports
from deepsquare.grid.supervisor.schedulers.base import (
    BatchJob,
    BatchState,
    NotSubmittedError,
    Phase,
    RefusedError,
    Scheduler,
)
from deepsquare.grid.supervisor.spool import Spool

_log = logging.getLogger(__name__)

# A job whose sbatch was cut off may show up in the scheduler's answer later: sbatch goes on trying by itself for a while.
_UNKNOWN_SECONDS = 75.0
_TRY_AGAIN_SECONDS = 10.0
_READ_BACK_SECONDS = 1.0
# For how long a scheduler may not take a job, for whatever reason, until the job is given back.
_NOT_SUBMITTED_SECONDS = 900.0
# A job's output is bounded: it shares a disk with everything else. What is left of it at the job's end is shipped for a while.
_MOST_OUTPUT_BYTES = 4 << 30
_DRAIN_SECONDS = 60.0
# No longer, since a round waits for all its jobs; what arrived in vain is ignored by the logger the next time.
_SHIP_SECONDS = 15.0
# How Slurm ends a job whose output it can't open (ExitCode 0:53). A command may end itself so, too, but not for long.
_NO_OUTPUT_SIGNAL = 53
# Between the clocks of the supervisor's host and of the scheduler's.
_CLOCKS_SECONDS = 300
# Where a minute costs nothing, credits buy more minutes than Slurm can count.
LONGEST_MINUTES = 365 * 24 * 60

# How Slurm says in a job's output that a step ran out of memory; its accounting of the job itself knows an exit code only.
_OUT_OF_MEMORY = re.compile(
    rb"(?:srun: error: \S+: task [\d,-]+: Out Of Memory|slurmstepd\S*: error: Detected \d+ oom[-_]kill event)"
)

JOB_NAME = re.compile(r"0x[0-9a-f]{64}")
"""How jobs are called in the scheduler: by their ids on chain."""

_ENDS = {
    Phase.COMPLETED: JobStatus.FINISHED,
    Phase.FAILED: JobStatus.FAILED,
    Phase.CANCELLED: JobStatus.CANCELLED,
    Phase.TIMED_OUT: JobStatus.OUT_OF_CREDITS,
    Phase.LOST: JobStatus.PANICKED,
}

FetchScript = Callable[[bytes, str, str], Awaitable[str]]
"""(job id, batch location hash, customer) → script."""
ShipLines = Callable[[bytes, str, Sequence[tuple[bytes, int, int]]], Awaitable[None]]
"""(job id, customer, lines of `Spool.read`) → when the logger has them."""


@dataclass(frozen=True, slots=True)
class Services:
    """What the supervisor works with."""

    market: Market
    reports: Reports
    ws_url: str | None
    scheduler: Scheduler
    accounts: Accounts
    folders: JobFolders
    spool: Spool
    fetch_script: FetchScript
    ship_lines: ShipLines
    variables: Mapping[str, str]
    """The late-bound variables of every script."""
    poll_seconds: float = 0.5
    """How often the scheduler and the spool files are looked at while there are jobs."""


class SupervisedJob:
    """A job that was claimed, and whose end is not on chain yet.

    What must outlive this process is in its journal entry; the rest may start anew at any moment.
    """

    def __init__(
        self, entry: Entry, services: Services, journal: SupervisorJournal, *, given: Callable[[str], None]
    ) -> None:
        """`given` is told the scheduler's id of the job before the journal has it."""
        self.entry = entry
        self.topped_up = False
        """Whether its credits may buy more time than the scheduler knows of."""
        self.has_more_output = False
        """Whether the logger may lack output that is there already."""
        self._services, self._journal, self._given = services, journal, given
        self._market, self._scheduler, self._spool = services.market, services.scheduler, services.spool
        self._name = to_hex(entry.job_id)
        self._try_again_at = 0.0
        self._unknown_since: float | None = None
        self._not_submitted_since: float | None = None
        self._ended_at: float | None = None
        self._ended: BatchState | None = None
        self._max_cost: int | None = None
        self._is_missing = False
        self._stuck_for = ""
        self._out_of_memory = False

    @property
    def is_done(self) -> bool:
        """Whether its end is on chain, and nothing is left of it here."""
        return self.entry.stage is Stage.DONE

    def keep(self) -> None:
        """Write its journal entry."""
        self._journal.save(self.entry)

    def find(self, states: Sequence[tuple[str, BatchState]]) -> BatchState | None:
        """The scheduler's job: by its id where that is known, since a job can choose another name. An end is final."""
        for found, state in states:
            if self._is(found, state):
                self._ended = state if state.phase.is_end else None
                return state
        return self._ended

    def _is(self, name: str, state: BatchState) -> bool:
        if not is_of(self.entry, state):
            return False
        if self.entry.scheduler_id:
            # One that was never seen there may be an older job with the same number, which has another job's name then.
            is_other = not self.entry.submitted_at and name != self._name and JOB_NAME.fullmatch(name) is not None
            return self.entry.scheduler_id == state.scheduler_id and not is_other
        return name == self._name and not state.is_foreign

    def lose_id(self) -> None:
        """Note that the scheduler gave this job's id to another: after a crash, Slurm's controller gives numbers a second time."""
        self.entry.stage, self.entry.scheduler_id = Stage.SUBMITTING, ""
        self.keep()

    def later(self) -> None:
        """Try what has failed again after a while, not in each round."""
        self._try_again_at = time.monotonic() + _TRY_AGAIN_SECONDS

    async def step(self, record: JobRecord | None, state: BatchState | None, *, accounting_away: bool) -> None:
        """Bring the job as far as it can go now.

        `record` is what the chain has of it, `state` what the scheduler has; `accounting_away` says that the scheduler could not be
        asked about jobs that it lists no more.
        """
        self.has_more_output = False
        if record is None:
            # Not to be read is not to be ended.
            if not self._is_missing:
                _log.error("job %s is not on the chain that the node shows; it goes on as it is", self._name)
            self._is_missing = True
            return
        self._is_missing = False
        # Also when the notice of a top-up was lost.
        if self._max_cost not in (None, record.max_cost):
            self.topped_up = True
        self._max_cost = record.max_cost
        if record.status.is_cold or record.provider != self._market.account:
            # Somebody else ended it on chain, or took it away: nothing of it may go on here.
            if state is not None and not state.phase.is_end:
                await self._scheduler.cancel(state.scheduler_id)
            await self._finish()
        elif self.entry.stage is Stage.CLAIMED:
            # Whatever has its name in the scheduler is not this job: without a line in the journal sbatch can't have run.
            if self._may_try():
                await self._launch(record)
        elif state is None:
            await self._unknown(record, accounting_away)
        else:
            await self._follow(record, state)

    # ------------------------------------------------------------------ submission

    async def _launch(self, record: JobRecord) -> None:
        entry, definition = self.entry, record.definition
        if record.has_cancel_request:
            await self._report(JobStatus.CANCELLED, error="cancelled before it was submitted")
            return
        try:
            script = await self._services.fetch_script(entry.job_id, definition.batch_location_hash, entry.customer)
        except ApiError as error:
            # What goes on chain is public; what the API says may name the provider's own machines.
            _log.warning("job %s: %s", self._name, error)
            await self._report(JobStatus.FAILED, error="the grid has no script for it (any more)")
            return
        try:
            account = await self._services.accounts.of(entry.customer)
            await self._services.folders.admit(account)
        except (ConfigError, GridError) as error:
            # A directory of accounts that is away comes back.
            await self._not_submitted(NotSubmittedError(f"it has no account here: {error}"))
            return
        try:
            output = await self._spool.create(self._name, account)
        except GridError as error:
            _log.error("job %s: %s", self._name, error)
            await self._report(JobStatus.PANICKED, error="the provider has no room for its output")
            return
        await self._submit(
            BatchJob(
                name=self._name,
                script=script,
                minutes=entry.minutes,
                tasks=definition.ntasks,
                cpus_per_task=definition.cpus_per_task,
                mem_per_cpu_mb=definition.mem_per_cpu_mb,
                gpus=definition.gpus,
                account=account,
                output=output,
                variables=self._services.variables,
            )
        )

    async def _submit(self, job: BatchJob) -> None:
        # From here on only the scheduler knows whether the job was submitted; it is never submitted twice.
        self.entry.stage = Stage.SUBMITTING
        self.entry.uid, self.entry.since = job.account.uid, int(time.time())
        self.keep()
        try:
            scheduler_id = await self._scheduler.submit(job)
        except RefusedError as error:
            _log.warning("job %s refused: %s", self._name, error)
            await self._give_back()
        except NotSubmittedError as error:
            self.entry.stage = Stage.CLAIMED
            self.keep()
            await self._not_submitted(error)
        else:
            self._given(scheduler_id)
            self._submitted_as(scheduler_id)
            _log.info("submitted job %s as %s", self._name, scheduler_id)

    def _submitted_as(self, scheduler_id: str) -> None:
        self.entry.stage, self.entry.scheduler_id = Stage.SUBMITTED, scheduler_id
        self.keep()

    async def _not_submitted(self, error: NotSubmittedError) -> None:
        """Have it tried again, or give the job back when that has gone on for long.

        Raises:
            NotSubmittedError: it is to be tried again.
        """
        if self._not_submitted_since is None:
            self._not_submitted_since = time.monotonic()
        if time.monotonic() - self._not_submitted_since < _NOT_SUBMITTED_SECONDS:
            raise error
        _log.warning("job %s is given back: %s", self._name, error)
        await self._give_back()

    async def _give_back(self) -> None:
        # First the journal: the market may give the job to this provider again.
        self.entry.stage = Stage.CLAIMED
        self.keep()
        await self._market.refuse_job(self.entry.job_id)
        await self._spool.remove(self._name)
        self._journal.forget(self.entry.job_id)
        self.entry.stage = Stage.DONE

    # ------------------------------------------------------------------ in the scheduler's hands

    async def _unknown(self, record: JobRecord, accounting_away: bool) -> None:
        """The scheduler doesn't know a job that was, or may have been, submitted."""
        now = time.monotonic()
        if self._unknown_since is None or accounting_away:
            # What is not asked can't be unknown; and accounting takes a while until it knows all, when it is back.
            self._unknown_since = now
        if now - self._unknown_since >= _UNKNOWN_SECONDS and await self._ship(ended=True):
            await self._report(JobStatus.PANICKED, error="the scheduler does not know it (any more)")

    async def _follow(self, record: JobRecord, state: BatchState) -> None:
        self._unknown_since = None
        if self.entry.submitted_at != state.submitted_at:
            self.entry.submitted_at = state.submitted_at
            self.keep()
        if self.entry.stage is not Stage.SUBMITTED:
            self._submitted_as(state.scheduler_id)
        size = 0 if state.phase is Phase.QUEUED else await self._spool.size(self._name)
        too_much = size > _MOST_OUTPUT_BYTES
        if state.phase is Phase.STUCK:
            self._stuck_for = state.reason
        if state.phase in (Phase.REQUEUED, Phase.STUCK) or (
            (record.has_cancel_request or too_much) and not state.phase.is_end
        ):
            await self._scheduler.cancel(state.scheduler_id)
        if _has_started(state) and record.status is JobStatus.SCHEDULED:
            # Also for a job that has ended already: only what ran is billed, and only RUNNING jobs can finish.
            await self._services.reports.send(JobReport(self.entry.job_id, JobStatus.RUNNING))
        if self.topped_up and not state.phase.is_end and self._may_try():
            try:
                await self._extend(record, state)
            except SchedulerError as error:
                # If the scheduler doesn't let us, the job is followed all the same.
                _log.warning("job %s can't be prolonged: %s", self._name, error)
        # At the end always: what a shared file system says of a file's size may be old, but opening it tells the truth.
        shipped = (size <= self.entry.log_offset and not state.phase.is_end) or await self._ship(
            ended=state.phase.is_end
        )
        if state.phase.is_end and shipped:
            cut_off = too_much and not record.has_cancel_request and state.phase is Phase.CANCELLED
            await self._end(record, state, cut_off=cut_off)

    async def _end(self, record: JobRecord, state: BatchState, *, cut_off: bool) -> None:
        if _was_started_again(state):
            # By whom, nobody knows; the job's own account can. What it ran until then is billed by the chain's clock.
            ran = max((state.end_time or time.time()) - record.start_time, 1) if record.start_time else 0
            await self._report(
                JobStatus.CANCELLED, seconds=math.ceil(ran), error="it was to be started again, and jobs run once"
            )
            return
        if state.signal == _NO_OUTPUT_SIGNAL and state.ran_seconds <= 1 and not self.entry.log_offset:
            _log.error(
                "job %s: the node could not open the file of its output: do all nodes see %s?",
                self._name,
                self._spool.path(self._name),
            )
            await self._report(JobStatus.PANICKED, error="the provider's node could not open the file of its output")
            return
        if state.phase is Phase.CANCELLED and not _has_started(state) and self._stuck_for:
            _log.warning("job %s: Slurm would never have started it: %s", self._name, self._stuck_for)
            await self._report(JobStatus.PANICKED, error=f"the provider can't start it: {self._stuck_for}")
            return
        # What was cancelled before it began to run costs nothing, though Slurm gives it a node and a start.
        never_ran = not _has_started(state) or (state.phase is Phase.CANCELLED and state.ran_seconds == 0)
        reason = await self._reason(state)
        if cut_off:
            reason = f"its output is larger than {_MOST_OUTPUT_BYTES >> 30} GiB"
        elif state.phase is Phase.CANCELLED and not record.has_cancel_request:
            reason = "cancelled at the provider"
        await self._report(
            JobStatus.FAILED if cut_off else _ENDS[state.phase],
            seconds=0 if never_ran else max(state.ran_seconds, 1),
            error=reason,
            exit_code=state.exit_code * 256 + state.signal,
        )

    async def _reason(self, state: BatchState) -> str:
        reason = _reason(state)
        if state.phase is Phase.FAILED and self._out_of_memory:
            return "it used more memory than it asked for"
        if state.phase is Phase.FAILED and await self._spool.is_full():
            return f"{reason}; the provider's disk for output is full"
        return reason

    async def _extend(self, record: JobRecord, state: BatchState) -> None:
        """Give the job all the time that its credits buy by now, until the scheduler itself says that it has it."""
        minutes = await minutes_of(self._market, record)
        if state.minutes is None or state.minutes < minutes:
            self.later()
            await self._scheduler.set_time_limit(state.scheduler_id, minutes)
            # Read back soon.
            self._try_again_at = time.monotonic() + _READ_BACK_SECONDS
            return
        _log.info("job %s may run for %d min now", self._name, state.minutes)
        self.entry.minutes = state.minutes
        self.keep()
        self.topped_up = False
        self._try_again_at = 0.0

    def _may_try(self) -> bool:
        """Whether what failed before may be tried again by now."""
        return time.monotonic() >= self._try_again_at

    # ------------------------------------------------------------------ output and end

    async def _ship(self, *, ended: bool) -> bool:
        """Write some of the new output to the logger, which ignores what it has already; whether that was all.

        A little a round, so that a job that writes without end holds up no other. At a job's end the rest follows for a
        minute; what is left then is not kept.
        """
        if ended:
            if self._ended_at is None:
                self._ended_at = time.monotonic()
            if time.monotonic() > self._ended_at + _DRAIN_SECONDS:
                _log.warning(
                    "job %s: the rest of its output, from byte %d, is not kept", self._name, self.entry.log_offset
                )
                return True
        lines = await self._spool.read(self._name, self.entry.log_offset, final=ended)
        if not lines:
            return True
        try:
            async with asyncio.timeout(_SHIP_SECONDS):
                await self._services.ship_lines(self.entry.job_id, self.entry.customer, lines)
        except TimeoutError:
            self._ended_at = None
            raise ConnectionFailedError(f"the grid logger took no output in {_SHIP_SECONDS:.0f} s") from None
        except ConnectionFailedError:
            # The minute counts only while the logger is there.
            self._ended_at = None
            raise
        if any(_OUT_OF_MEMORY.match(line) for line, _, _ in lines):
            self._out_of_memory = True
        self.entry.log_offset = lines[-1][2]
        self.keep()
        self.has_more_output = True
        return ended and not await self._spool.read(self._name, self.entry.log_offset, final=True)

    async def _report(self, status: JobStatus, *, seconds: int = 0, error: str = "", exit_code: int = 0) -> None:
        await self._services.reports.send(JobReport(self.entry.job_id, status, seconds, error, exit_code))
        _log.info("job %s ended: %s, %d s %s", self._name, status.name, seconds, error)
        await self._finish()

    async def _finish(self) -> None:
        # First what can fail: the job's end is on chain, and the next round would come here again.
        await self._spool.remove(self._name)
        if self.entry.scheduler_id and self.entry.uid >= 0:
            await self._services.folders.clear(self.entry.uid, self._name, self.entry.scheduler_id)
        self.entry.stage = Stage.DONE
        self.keep()


async def minutes_of(market: Market, record: JobRecord) -> int:
    """All the time that a job's locked credits buy at the prices fixed for it."""
    minute = await market.cost_per_minute_of(record)
    return min(record.max_cost // minute, LONGEST_MINUTES) if minute else LONGEST_MINUTES


def is_of(entry: Entry, state: BatchState) -> bool:
    """Whether the scheduler's job can be this one: ids and names come again, but not with the same account and a later time."""
    same_account = entry.uid < 0 or state.uid < 0 or entry.uid == state.uid
    earliest = entry.submitted_at or entry.since - _CLOCKS_SECONDS
    return same_account and (not state.submitted_at or state.submitted_at >= earliest)


def _has_started(state: BatchState) -> bool:
    return state.start_time > 0 and state.phase not in (Phase.QUEUED, Phase.REQUEUED, Phase.STUCK)


def _was_started_again(state: BatchState) -> bool:
    return state.restarted and (
        state.phase is Phase.CANCELLED or (state.phase is Phase.FAILED and state.exit_code == EXIT_STARTED_BEFORE)
    )


def _reason(state: BatchState) -> str:
    """Why a job did not finish, in words for its customer; empty for one that did."""
    if state.phase is Phase.COMPLETED:
        return ""
    if state.phase is Phase.TIMED_OUT:
        return "the time that its credits bought is over"
    if state.phase is Phase.CANCELLED:
        return "cancelled"
    if state.phase is Phase.LOST:
        return f"the provider lost it: {state.reason}"
    if "OUT_OF_MEMORY" in state.reason:
        return "it used more memory than it asked for"
    if state.signal:
        return f"killed by signal {state.signal}"
    return f"exit code {state.exit_code}" if state.exit_code else state.reason
