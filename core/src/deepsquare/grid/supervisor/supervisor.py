"""The supervisor: claims the jobs of one provider, has them run by the batch scheduler, and reports their ends.

A level-triggered loop: each round reads the truth (the chain, the scheduler, the journal), compares and acts. Events of the chain
wake it, and a timer does. It can be killed at any instant: what it begins is journalled first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter

from deepsquare.chain.errors import ContractError
from deepsquare.chain.types import Hardware, JobRecord, JobStatus, Label, Prices, to_hex
from deepsquare.chain.watch import JobWatch
from deepsquare.errors import DeepSquareError, SchedulerError
from deepsquare.grid.supervisor.job import JOB_NAME, LONGEST_MINUTES, Services, SupervisedJob, is_of, minutes_of
from deepsquare.grid.supervisor.journal import Entry, Stage, SupervisorJournal
from deepsquare.grid.supervisor.schedulers.base import BatchState

_log = logging.getLogger(__name__)

# How often the chain is looked at while there are no jobs, when no event comes.
_IDLE_SECONDS = 10.0
_LONGEST_PAUSE_SECONDS = 15.0
# Slurm's controller tells of a job's end while the job is still completing.
_HURRIED_LOOKS = 4
_HURRIED_SECONDS = 0.5
_CANCEL_AGAIN_SECONDS = 10.0
# Accounting is asked about jobs that the scheduler doesn't list, and given up as absent only after long.
_ASK_ACCOUNTING_SECONDS = 5.0
_ACCOUNTING_AWAY_SECONDS = 3600.0
# Lost answers to claims are found by reading the chain again.
_RECOVER_SECONDS = 300.0
# Nodes come and go.
_ANNOUNCE_SECONDS = 600.0
_CLAIMS_A_ROUND = 16
_JOBS_AT_ONCE = 16


class Supervisor:
    """One provider's supervisor."""

    def __init__(self, services: Services, *, state: Path) -> None:
        self._services, self._market, self._scheduler = services, services.market, services.scheduler
        self._journal = SupervisorJournal(state)
        self._jobs: dict[bytes, SupervisedJob] = {}
        self._wake = asyncio.Event()
        self._hurried_looks = 0
        self._recover_at = 0.0
        self._cancel_again_at: dict[str, float] = {}
        self._ask_accounting_at = 0.0
        self._accounting_away_since: float | None = None
        self._offer: tuple[Prices, Sequence[Label]] | None = None
        self._announced: Hardware | None = None
        self._announce_at = 0.0

    def wake(self) -> None:
        """Look at once, and some more times soon: a job has ended, or is about to be at its end."""
        self._hurried_looks = _HURRIED_LOOKS
        self._wake.set()

    async def register(self, prices: Prices, labels: Sequence[Label]) -> None:
        """Announce this provider with the hardware that the scheduler has, now and whenever that changes.

        Raises:
            SchedulerError: the scheduler has no hardware now, and there are no jobs to be looked after meanwhile.
        """
        self._offer = prices, labels
        try:
            await self._announce()
        except (SchedulerError, ContractError) as error:
            # The market refuses for example what is too large for it.
            if not self._journal.open_entries():
                raise
            _log.warning("%s; not announced anew, but looking after the jobs that are there", error)

    async def _announce(self) -> None:
        self._announce_at = time.monotonic() + _ANNOUNCE_SECONDS
        hardware = await self._scheduler.probe()
        if self._offer is None or hardware == self._announced:
            return
        await self._market.register(hardware, *self._offer)
        self._announced = hardware
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
            for entry in self._journal.open_entries().values():
                # A top-up may have been claimed, and not been carried out.
                self._follow(entry).topped_up = True
            patiently = AsyncRetrying(
                retry=retry_if_exception_type(DeepSquareError),
                wait=wait_exponential_jitter(multiplier=1, max=_LONGEST_PAUSE_SECONDS),
                before_sleep=self._tell,
            )
            while True:
                await patiently(self._round)
                timeout = self._services.poll_seconds if self._jobs else _IDLE_SECONDS
                if self._hurried_looks:
                    self._hurried_looks -= 1
                    timeout = min(timeout, _HURRIED_SECONDS)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await self._wake.wait()
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

    def _follow(self, entry: Entry) -> SupervisedJob:
        job = SupervisedJob(entry, self._services, self._journal, given=self._given)
        self._jobs[entry.job_id] = job
        return job

    def _take_up(self, job_id: bytes, customer: str, minutes: int, *, may_run: bool) -> None:
        """Follow a job that is assigned to this provider; `may_run` says that it may be in the scheduler already."""
        known = self._journal.get(job_id)
        stage = Stage.CLAIMED
        if may_run or (known is not None and known.stage is not Stage.CLAIMED):
            # The journal may be an older one, or the chain may have lost its last blocks: then the scheduler knows more than
            # they do, and is asked by the job's name.
            stage = Stage.SUBMITTING
        entry = Entry(job_id, stage, customer, minutes)
        if known is not None:
            entry.scheduler_id, entry.log_offset = known.scheduler_id, known.log_offset
            entry.uid, entry.since, entry.submitted_at = known.uid, known.since, known.submitted_at
        self._journal.save(entry)
        # A top-up may have come at any time.
        self._follow(entry).topped_up = stage is not Stage.CLAIMED

    def _given(self, scheduler_id: str) -> None:
        for job in self._jobs.values():
            if job.entry.scheduler_id == scheduler_id:
                job.lose_id()

    # ------------------------------------------------------------------ rounds

    async def _recover(self) -> None:
        """Take up the jobs on chain that a claim cut off before its line in the journal."""
        hot = (JobStatus.SCHEDULED, JobStatus.RUNNING)
        for record in await self._market.jobs_at(self._market.account, hot):
            if record.job_id not in self._jobs:
                minutes = await minutes_of(self._market, record)
                self._take_up(record.job_id, record.customer, minutes, may_run=record.status is JobStatus.RUNNING)
                _log.info("taking up job %s, claimed before", to_hex(record.job_id))

    async def _round(self) -> None:
        if time.monotonic() >= self._recover_at:
            await self._recover()
            self._recover_at = time.monotonic() + _RECOVER_SECONDS
        if time.monotonic() >= self._announce_at:
            try:
                await self._announce()
            except (SchedulerError, ContractError) as error:
                _log.warning("%s; what is announced stays as it is", error)
        await self._claim()
        states = await self._scheduler.states()
        await self._end_strays(states)
        states += await self._accounted(states)
        jobs = list(self._jobs.values())
        records = await self._market.get_jobs([job.entry.job_id for job in jobs])
        limit = asyncio.Semaphore(_JOBS_AT_ONCE)

        async def step(job: SupervisedJob, record: JobRecord | None) -> None:
            async with limit:
                try:
                    await job.step(record, job.find(states), accounting_away=self._accounting_is_away())
                except DeepSquareError as error:
                    # One job's trouble is no other job's: it is tried again in the next round, or later.
                    _log.warning("job %s: %s", to_hex(job.entry.job_id), error)
                    if job.entry.stage is Stage.CLAIMED:
                        job.later()
                except Exception:
                    _log.exception("job %s", to_hex(job.entry.job_id))

        await asyncio.gather(*map(step, jobs, records))
        for job in jobs:
            if job.is_done:
                del self._jobs[job.entry.job_id]
        if any(job.has_more_output for job in jobs):
            self._wake.set()

    async def _claim(self) -> None:
        waiting = await self._market.waiting()
        counts = []
        if waiting.claimable:
            claims = await self._market.claim_jobs(_CLAIMS_A_ROUND)
            counts.append(len(claims))
            for claim in claims:
                _log.info("claimed job %s for %d min", to_hex(claim.job_id), claim.max_minutes)
                minutes = min(claim.max_minutes, LONGEST_MINUTES)
                if claim.job_id not in self._jobs:
                    self._take_up(claim.job_id, claim.customer, minutes, may_run=False)
        if waiting.cancelling:
            # The job's own record on chain says that it is to be cancelled; the queue only has to be emptied.
            counts.append(len(await self._market.claim_cancelling_jobs(_CLAIMS_A_ROUND)))
        if waiting.topped_up:
            topped_up = await self._market.claim_top_up_jobs(_CLAIMS_A_ROUND)
            counts.append(len(topped_up))
            for job_id in topped_up:
                if job_id in self._jobs:
                    self._jobs[job_id].topped_up = True
        if 0 in counts or _CLAIMS_A_ROUND in counts:
            # There may be more: also behind entries of the queue that have become void, of which one claim skips a few.
            self._wake.set()

    async def _end_strays(self, states: Sequence[tuple[str, BatchState]]) -> None:
        """Cancel what the scheduler has of jobs that are at their end on chain, such as one whose sbatch came through late."""
        own = {job.entry.scheduler_id for job in self._jobs.values()}
        for name, state in states:
            if state.phase.is_end or state.scheduler_id in own or not self._has_ended(name, state):
                continue
            if time.monotonic() < self._cancel_again_at.get(state.scheduler_id, 0):
                continue
            self._cancel_again_at[state.scheduler_id] = time.monotonic() + _CANCEL_AGAIN_SECONDS
            _log.warning("a job has ended on chain; cancelling %s", state.scheduler_id)
            try:
                await self._scheduler.cancel(state.scheduler_id)
            except DeepSquareError as error:
                _log.warning("%s can't be cancelled: %s", state.scheduler_id, error)

    def _has_ended(self, name: str, state: BatchState) -> bool:
        """Whether this is, or was submitted as, a job whose end is on chain: by its name, which it can change, or by its id."""
        if JOB_NAME.fullmatch(name) and not state.is_foreign:
            job_id = bytes.fromhex(name[2:])
            known = self._journal.get(job_id)
            return job_id not in self._jobs and known is not None and known.stage is Stage.DONE
        last = self._journal.last_of(state.scheduler_id)
        # To the second: its number may be another grid's by now.
        return (
            last is not None
            and last.stage is Stage.DONE
            and is_of(last, state)
            and last.submitted_at in (0, state.submitted_at)
        )

    async def _accounted(self, states: Sequence[tuple[str, BatchState]]) -> list[tuple[str, BatchState]]:
        """The ends of jobs that the scheduler lists no more: a supervisor may have been away for longer than it remembers."""
        missing = [
            job.entry
            for job in self._jobs.values()
            if job.entry.stage is not Stage.CLAIMED and job.find(states) is None
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

    def _accounting_is_away(self) -> bool:
        away_since = self._accounting_away_since
        return away_since is not None and time.monotonic() - away_since < _ACCOUNTING_AWAY_SECONDS
