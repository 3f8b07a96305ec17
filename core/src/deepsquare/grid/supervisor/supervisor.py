"""The supervisor: claims the jobs of one provider, has them run by the batch scheduler, and reports their ends.

A level-triggered loop: each round reads the truth (the chain, the scheduler, the journal), compares and acts. Events of the chain
wake it, and a timer does. It can be killed at any instant: what it begins is journalled first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter

from deepsquare.chain.market import Market
from deepsquare.chain.types import JobRecord, JobStatus, Label, Prices, to_hex
from deepsquare.chain.watch import JobWatch
from deepsquare.compiler import EXIT_STARTED_BEFORE
from deepsquare.errors import ApiError, ConfigError, ConnectionFailedError, DeepSquareError, GridError, SchedulerError
from deepsquare.grid.supervisor.accounts import Accounts
from deepsquare.grid.supervisor.folders import JobFolders
from deepsquare.grid.supervisor.journal import Entry, Stage, SupervisorJournal
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

# How often the chain is looked at while there are no jobs, when no event comes.
_IDLE_SECONDS = 10.0
_LONGEST_PAUSE_SECONDS = 15.0
# Slurm's controller tells of a job's end while the job is still completing.
_HURRIED_LOOKS = 4
_HURRIED_SECONDS = 0.5
# A job whose sbatch was cut off may show up in the scheduler's answer later: sbatch goes on trying by itself for a while.
_UNKNOWN_SECONDS = 75.0
_TRY_AGAIN_SECONDS = 10.0
_READ_BACK_SECONDS = 1.0
# For how long a scheduler may not take a job, for whatever reason, until the job is given back.
_NOT_SUBMITTED_SECONDS = 900.0
# Accounting is asked about jobs that the scheduler doesn't list, and given up as absent only after long.
_ASK_ACCOUNTING_SECONDS = 5.0
_ACCOUNTING_AWAY_SECONDS = 3600.0
# Lost answers to claims are found by reading the chain again.
_RECOVER_SECONDS = 300.0
_CLAIMS_A_ROUND = 16
# A job's output is bounded: it shares a disk with everything else. What is left of it at the job's end is shipped for a while.
_MOST_OUTPUT_BYTES = 4 << 30
_DRAIN_SECONDS = 60.0
_JOBS_AT_ONCE = 16
# Where a minute costs nothing, credits buy more minutes than Slurm can count.
_LONGEST_MINUTES = 365 * 24 * 60

# How Slurm says in a job's output that a step ran out of memory; its accounting of the job itself knows an exit code only.
_OUT_OF_MEMORY = re.compile(
    rb"(?:srun: error: \S+: task [\d,-]+: Out Of Memory|slurmstepd\S*: error: Detected \d+ oom[-_]kill event)"
)
_JOB_NAME = re.compile(r"0x[0-9a-f]{64}")

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


class Supervisor:
    """One provider's supervisor."""

    def __init__(self, services: Services, *, state: Path) -> None:
        self._services = services
        self._market, self._scheduler, self._spool = services.market, services.scheduler, services.spool
        self._accounts = services.accounts
        self._journal = SupervisorJournal(state)
        self._entries: dict[bytes, Entry] = {}
        self._wake = asyncio.Event()
        self._unknown_since: dict[bytes, float] = {}
        self._try_again_at: dict[bytes, float] = {}
        self._ended_at: dict[bytes, float] = {}
        self._topped_up: set[bytes] = set()
        self._out_of_memory: set[bytes] = set()
        self._stuck: dict[bytes, str] = {}
        self._cancel_again_at: dict[str, float] = {}
        self._not_submitted_since: dict[bytes, float] = {}
        self._recover_at = 0.0
        self._hurried_looks = 0
        self._ask_accounting_at = 0.0
        self._accounting_away_since: float | None = None

    def wake(self) -> None:
        """Look at once, and some more times soon: a job has ended, or is about to be at its end."""
        self._hurried_looks = _HURRIED_LOOKS
        self._wake.set()

    async def register(self, prices: Prices, labels: Sequence[Label]) -> None:
        """Announce this provider with the hardware that the scheduler has."""
        hardware = await self._scheduler.probe()
        await self._market.register(hardware, prices, labels)
        _log.info(
            "registered %s: %d node(s), %d CPUs, %d MB",
            self._market.account,
            hardware.nodes,
            sum(hardware.cpus),
            sum(hardware.mem_mb),
        )

    async def run(self) -> None:
        """Work until cancelled; what fails for a while is tried again in the next round."""
        start = await self._market.block_number()
        watcher = asyncio.create_task(self._watch(start))
        try:
            self._entries = self._journal.open_entries()
            # A top-up may have been claimed, and not been carried out.
            self._topped_up = set(self._entries)
            patiently = AsyncRetrying(
                retry=retry_if_exception_type(DeepSquareError),
                wait=wait_exponential_jitter(multiplier=1, max=_LONGEST_PAUSE_SECONDS),
                before_sleep=self._tell,
            )
            while True:
                await patiently(self._round)
                timeout = self._services.poll_seconds if self._entries else _IDLE_SECONDS
                if self._hurried_looks:
                    self._hurried_looks -= 1
                    timeout = min(timeout, _HURRIED_SECONDS)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), timeout)
                self._wake.clear()
                if watcher.done():
                    # Work goes on by the timer, but nobody should have to guess why it is slow.
                    watcher.result()
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
            self._journal.close()

    def _tell(self, state: RetryCallState) -> None:
        assert state.outcome is not None
        _log.warning("%s; trying again", state.outcome.exception())
        self._recover_at = 0.0

    async def _watch(self, from_block: int) -> None:
        async for _ in JobWatch(self._market, self._services.ws_url, from_block=from_block).changes():
            self._wake.set()

    # ------------------------------------------------------------------ rounds

    async def _recover(self) -> None:
        """Take up the jobs on chain that a claim cut off before its line in the journal."""
        hot = (JobStatus.SCHEDULED, JobStatus.RUNNING)
        for record in await self._market.all_jobs():
            mine = record.provider == self._market.account and record.status in hot
            if mine and record.job_id not in self._entries:
                # Without a line in the journal sbatch can't have run: the line comes first.
                self._keep(Entry(record.job_id, Stage.CLAIMED, record.customer, await self._minutes_of(record)))
                _log.info("taking up job %s, claimed before", to_hex(record.job_id))

    async def _minutes_of(self, record: JobRecord) -> int:
        """All the time that a job's locked credits buy at the prices fixed for it."""
        minute = record.definition.cost_per_minute(await self._market.prices_of(record.job_id))
        return min(record.max_cost // minute, _LONGEST_MINUTES) if minute else _LONGEST_MINUTES

    async def _round(self) -> None:
        if time.monotonic() >= self._recover_at:
            await self._recover()
            self._recover_at = time.monotonic() + _RECOVER_SECONDS
        await self._claim()
        states = await self._scheduler.states()
        await self._end_strays(states)
        states += await self._accounted(states)
        records = await self._market.get_jobs(list(self._entries))
        limit = asyncio.Semaphore(_JOBS_AT_ONCE)

        async def step(entry: Entry, record: JobRecord | None) -> None:
            async with limit:
                try:
                    await self._step(entry, record, _own(entry, states))
                except DeepSquareError as error:
                    # One job's trouble is no other job's: it is tried again in the next round, or later.
                    _log.warning("job %s: %s", to_hex(entry.job_id), error)
                    if entry.stage is Stage.CLAIMED:
                        self._try_again_at[entry.job_id] = time.monotonic() + _TRY_AGAIN_SECONDS
                except Exception:
                    _log.exception("job %s", to_hex(entry.job_id))

        await asyncio.gather(*map(step, list(self._entries.values()), records))

    async def _claim(self) -> None:
        for _ in range(_CLAIMS_A_ROUND):
            claim = await self._market.claim_next_job()
            if claim is None:
                break
            _log.info("claimed job %s for %d min", to_hex(claim.job_id), claim.max_minutes)
            minutes = min(claim.max_minutes, _LONGEST_MINUTES)
            self._keep(Entry(claim.job_id, Stage.CLAIMED, claim.customer, minutes))
        else:
            # There may be more.
            self._wake.set()
        # The job's own record on chain says that it is to be cancelled; the queue only has to be emptied.
        for _ in range(_CLAIMS_A_ROUND):
            if await self._market.claim_next_cancelling_job() is None:
                break
        for _ in range(_CLAIMS_A_ROUND):
            job_id = await self._market.claim_next_top_up_job()
            if job_id is None:
                break
            self._topped_up.add(job_id)

    async def _end_strays(self, states: Sequence[tuple[str, BatchState]]) -> None:
        """Cancel what the scheduler has of jobs that are at their end on chain, such as one whose sbatch came through late."""
        own = {entry.scheduler_id for entry in self._entries.values()}
        for name, state in states:
            if state.phase.is_end or state.scheduler_id in own or not self._has_ended(name, state.scheduler_id):
                continue
            if time.monotonic() < self._cancel_again_at.get(state.scheduler_id, 0):
                continue
            self._cancel_again_at[state.scheduler_id] = time.monotonic() + _TRY_AGAIN_SECONDS
            _log.warning("a job has ended on chain; cancelling %s", state.scheduler_id)
            try:
                await self._scheduler.cancel(state.scheduler_id)
            except DeepSquareError as error:
                _log.warning("%s can't be cancelled: %s", state.scheduler_id, error)

    def _has_ended(self, name: str, scheduler_id: str) -> bool:
        """Whether this is, or was submitted as, a job whose end is on chain: by its name, which it can change, or by its id."""
        if _JOB_NAME.fullmatch(name):
            job_id = bytes.fromhex(name[2:])
            return job_id not in self._entries and self._journal.is_done(job_id)
        return self._journal.is_done_as(scheduler_id)

    async def _accounted(self, states: Sequence[tuple[str, BatchState]]) -> list[tuple[str, BatchState]]:
        """The ends of jobs that the scheduler lists no more: a supervisor may have been away for longer than it remembers."""
        missing = [
            entry
            for entry in self._entries.values()
            if entry.stage is not Stage.CLAIMED and _own(entry, states) is None
        ]
        if not missing or time.monotonic() < self._ask_accounting_at:
            return []
        self._ask_accounting_at = time.monotonic() + _ASK_ACCOUNTING_SECONDS
        ids = [entry.scheduler_id for entry in missing if entry.scheduler_id]
        names = [to_hex(entry.job_id) for entry in missing if not entry.scheduler_id]
        try:
            found = await self._scheduler.accounted(ids, names)
        except SchedulerError as error:
            _log.warning("%s; asking the accounting again", error)
            if self._accounting_away_since is None:
                self._accounting_away_since = time.monotonic()
            return []
        self._accounting_away_since = None
        return [(name, state) for name, state in found if state.phase.is_end]

    def _keep(self, entry: Entry) -> None:
        self._journal.save(entry)
        if entry.stage is Stage.DONE:
            self._entries.pop(entry.job_id, None)
            self._unknown_since.pop(entry.job_id, None)
            self._try_again_at.pop(entry.job_id, None)
            self._ended_at.pop(entry.job_id, None)
            self._topped_up.discard(entry.job_id)
            self._out_of_memory.discard(entry.job_id)
            self._not_submitted_since.pop(entry.job_id, None)
            self._stuck.pop(entry.job_id, None)
        else:
            self._entries[entry.job_id] = entry

    # ------------------------------------------------------------------ one job

    async def _step(self, entry: Entry, record: JobRecord | None, state: BatchState | None) -> None:
        """Bring one job as far as it can go now."""
        if record is None or record.status.is_cold or record.provider != self._market.account:
            # Somebody else ended it on chain, or took it away: nothing of it may go on here.
            if state is not None and not state.phase.is_end:
                await self._scheduler.cancel(state.scheduler_id)
            await self._finish(entry)
        elif entry.stage is Stage.CLAIMED:
            # Whatever has its name in the scheduler is not this job: without a line in the journal sbatch can't have run.
            if self._may_try(entry):
                await self._launch(entry, record)
        elif state is None:
            await self._unknown(entry, record)
        else:
            await self._follow(entry, record, state)

    async def _launch(self, entry: Entry, record: JobRecord) -> None:
        name = to_hex(entry.job_id)
        if record.has_cancel_request:
            await self._report(entry, record, JobStatus.CANCELLED, error="cancelled before it was submitted")
            return
        try:
            script = await self._services.fetch_script(
                entry.job_id, record.definition.batch_location_hash, entry.customer
            )
        except ApiError as error:
            # What goes on chain is public; what the API says may name the provider's own machines.
            _log.warning("job %s: %s", name, error)
            await self._report(entry, record, JobStatus.FAILED, error="the grid has no script for it (any more)")
            return
        try:
            reason = "the provider has no account for it"
            account = await self._accounts.of(entry.customer)
            reason = "the provider has no room for its output"
            await self._services.folders.admit(account)
            output = await self._spool.create(name, account)
        except (ConfigError, GridError) as error:
            _log.error("job %s: %s", name, error)
            await self._report(entry, record, JobStatus.PANICKED, error=reason)
            return
        # From here on only the scheduler knows whether the job was submitted; it is never submitted twice.
        entry.stage = Stage.SUBMITTING
        self._keep(entry)
        definition = record.definition
        try:
            entry.scheduler_id = await self._scheduler.submit(
                BatchJob(
                    name=name,
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
        except RefusedError as error:
            _log.warning("job %s refused: %s", name, error)
            await self._market.refuse_job(entry.job_id)
            await self._finish(entry)
            return
        except NotSubmittedError as error:
            entry.stage = Stage.CLAIMED
            self._keep(entry)
            since = self._not_submitted_since.setdefault(entry.job_id, time.monotonic())
            if time.monotonic() - since < _NOT_SUBMITTED_SECONDS:
                raise
            _log.warning("job %s is given back: %s", name, error)
            await self._market.refuse_job(entry.job_id)
            await self._finish(entry)
            return
        for other in self._entries.values():
            if other is not entry and other.scheduler_id == entry.scheduler_id:
                # The scheduler has forgotten that one: after a crash, Slurm's controller gives numbers a second time.
                other.stage, other.scheduler_id = Stage.SUBMITTING, ""
                self._keep(other)
        entry.stage = Stage.SUBMITTED
        self._keep(entry)
        _log.info("submitted job %s as %s", name, entry.scheduler_id)

    async def _unknown(self, entry: Entry, record: JobRecord) -> None:
        """The scheduler doesn't know a job that was, or may have been, submitted."""
        now = time.monotonic()
        since = self._unknown_since.setdefault(entry.job_id, now)
        if self._accounting_away_since is not None and now - self._accounting_away_since < _ACCOUNTING_AWAY_SECONDS:
            # What is not asked can't be unknown; and it takes a while until it knows all, when it is back.
            self._unknown_since[entry.job_id] = now
            return
        if now - since >= _UNKNOWN_SECONDS and await self._ship(entry, ended=True):
            await self._report(entry, record, JobStatus.PANICKED, error="the scheduler does not know it (any more)")

    async def _follow(self, entry: Entry, record: JobRecord, state: BatchState) -> None:
        self._unknown_since.pop(entry.job_id, None)
        if entry.stage is not Stage.SUBMITTED:
            entry.stage, entry.scheduler_id = Stage.SUBMITTED, state.scheduler_id
            self._keep(entry)
        size = 0 if state.phase is Phase.QUEUED else await self._spool.size(to_hex(entry.job_id))
        too_much = size > _MOST_OUTPUT_BYTES
        if state.phase is Phase.STUCK:
            self._stuck[entry.job_id] = state.reason
        if state.phase in (Phase.REQUEUED, Phase.STUCK) or (
            (record.has_cancel_request or too_much) and not state.phase.is_end
        ):
            await self._scheduler.cancel(state.scheduler_id)
        started = state.start_time > 0 and state.phase not in (Phase.QUEUED, Phase.REQUEUED, Phase.STUCK)
        if started and record.status is JobStatus.SCHEDULED:
            # Also for a job that has ended already: only what ran is billed, and only RUNNING jobs can finish.
            await self._market.set_job_status(entry.job_id, JobStatus.RUNNING)
        shipped = size <= entry.log_offset or await self._ship(entry, ended=state.phase.is_end)
        # Last, and with patience: if the scheduler doesn't let us, the job is followed all the same.
        if entry.job_id in self._topped_up and not state.phase.is_end and self._may_try(entry):
            await self._extend(entry, record, state)
        if state.phase.is_end and shipped and _was_started_again(state):
            # By whom, nobody knows; the job's own account can. What it ran until then is billed by the chain's clock.
            await self._report(
                entry,
                record,
                JobStatus.CANCELLED,
                minutes=-(-int(max(time.time() - record.start_time, 1)) // 60) if record.start_time else 0,
                error="it was to be started again, and jobs run once",
            )
        elif state.phase is Phase.CANCELLED and not started and entry.job_id in self._stuck:
            reason = self._stuck[entry.job_id]
            _log.warning("job %s: Slurm would never have started it: %s", to_hex(entry.job_id), reason)
            await self._report(entry, record, JobStatus.PANICKED, error=f"the provider can't start it: {reason}")
        elif state.phase.is_end and shipped:
            seconds = max(state.end_time - state.start_time, 1) if started else 0
            cut_off = too_much and not record.has_cancel_request and state.phase is Phase.CANCELLED
            await self._report(
                entry,
                record,
                JobStatus.FAILED if cut_off else _ENDS[state.phase],
                minutes=-(-seconds // 60),
                error=f"its output is larger than {_MOST_OUTPUT_BYTES >> 30} GiB"
                if cut_off
                else await self._reason(entry, state),
                exit_code=state.exit_code * 256 + state.signal,
            )

    async def _reason(self, entry: Entry, state: BatchState) -> str:
        reason = _reason(state)
        if state.phase is Phase.FAILED and entry.job_id in self._out_of_memory:
            return "it used more memory than it asked for"
        if state.phase is Phase.FAILED and await self._spool.is_full():
            return f"{reason}; the provider's disk for output is full"
        return reason

    async def _extend(self, entry: Entry, record: JobRecord, state: BatchState) -> None:
        """Give a job all the time that its credits buy by now, until the scheduler itself says that it has it."""
        minutes = await self._minutes_of(record)
        if state.minutes is None or state.minutes < minutes:
            self._try_again_at[entry.job_id] = time.monotonic() + _TRY_AGAIN_SECONDS
            await self._scheduler.set_time_limit(state.scheduler_id, minutes)
            # Read back soon.
            self._try_again_at[entry.job_id] = time.monotonic() + _READ_BACK_SECONDS
            return
        _log.info("job %s may run for %d min now", to_hex(entry.job_id), state.minutes)
        entry.minutes = state.minutes
        self._keep(entry)
        self._topped_up.discard(entry.job_id)
        self._try_again_at.pop(entry.job_id, None)

    def _may_try(self, entry: Entry) -> bool:
        """Whether what failed before may be tried again by now."""
        return time.monotonic() >= self._try_again_at.get(entry.job_id, 0)

    async def _ship(self, entry: Entry, *, ended: bool) -> bool:
        """Write some of the new output to the logger, which ignores what it has already; whether that was all.

        A little a round, so that a job that writes without end holds up no other. At a job's end the rest follows for a
        minute; what is left then is not kept.
        """
        name = to_hex(entry.job_id)
        if ended:
            over = time.monotonic() > self._ended_at.setdefault(entry.job_id, time.monotonic()) + _DRAIN_SECONDS
            if over:
                _log.warning("job %s: the rest of its output, from byte %d, is not kept", name, entry.log_offset)
                return True
        lines = await self._spool.read(name, entry.log_offset, final=ended)
        if not lines:
            return True
        try:
            await self._services.ship_lines(entry.job_id, entry.customer, lines)
        except ConnectionFailedError:
            # The minute counts only while the logger is there.
            self._ended_at.pop(entry.job_id, None)
            raise
        if any(_OUT_OF_MEMORY.match(line) for line, _, _ in lines):
            self._out_of_memory.add(entry.job_id)
        entry.log_offset = lines[-1][2]
        self._keep(entry)
        self._wake.set()
        return ended and not await self._spool.read(name, entry.log_offset, final=True)

    async def _report(
        self,
        entry: Entry,
        record: JobRecord,
        status: JobStatus,
        *,
        minutes: int = 0,
        error: str = "",
        exit_code: int = 0,
    ) -> None:
        await self._market.set_job_status(entry.job_id, status, minutes=minutes, error=error, exit_code=exit_code)
        _log.info("job %s ended: %s, %d min %s", to_hex(entry.job_id), status.name, minutes, error)
        await self._finish(entry)

    async def _finish(self, entry: Entry) -> None:
        # First what can fail: the job's end is on chain, and the next round would come here again.
        await self._spool.remove(to_hex(entry.job_id))
        entry.stage = Stage.DONE
        self._keep(entry)


def _own(entry: Entry, states: Sequence[tuple[str, BatchState]]) -> BatchState | None:
    """The scheduler's job of an entry: by its id where that is known, since a job can choose another name."""
    name = to_hex(entry.job_id)
    for found, state in states:
        if entry.scheduler_id == state.scheduler_id or (not entry.scheduler_id and found == name):
            return state
    return None


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
