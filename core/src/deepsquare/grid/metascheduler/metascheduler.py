"""The meta-scheduler: gives each pending job to a provider that fits, and has running ones topped up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter

from eth_utils import to_checksum_address

from deepsquare.chain.contracts import BLOCKS_A_CALL
from deepsquare.chain.errors import ContractError
from deepsquare.chain.market import Assignment, Market
from deepsquare.chain.types import JobRecord, JobStatus, Provider, to_hex
from deepsquare.chain.watch import JobWatch
from deepsquare.errors import DeepSquareError
from deepsquare.grid.metascheduler.topup import TopUps

_log = logging.getLogger(__name__)

# A provider may be about to register again, so that a job isn't given up at once.
_GIVE_UP_SECONDS = 30.0
_TICK_SECONDS = 5.0
_RETRY_SECONDS = 15.0
# Events that were missed are made good for by reading everything that is hot again.
_RELIST_SECONDS = 60.0


class MetaScheduler:
    """Assigns jobs. The chain is all the state that counts, so that it can be killed and started at will."""

    def __init__(self, market: Market, ws_url: str | None) -> None:
        """`market` signs with an account that has METASCHEDULER_ROLE."""
        self._market, self._ws_url = market, ws_url
        self._hot: dict[bytes, JobRecord] = {}
        self._seen_at: dict[tuple[bytes, JobStatus], float] = {}
        self._refused: dict[bytes, set[str]] = {}
        self._let_wait: dict[bytes, set[str]] = {}
        self._again_at: dict[bytes, float] = {}
        self._refusals_cursor = 0
        self._last_job = 0
        self._relist_at = 0.0
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled; what fails for a while is tried again in the next round."""
        start = await self._market.block_number()
        top_ups = TopUps(self._market, self._hot, self._note, from_block=start + 1)
        beside = [asyncio.create_task(self._watch(start + 1)), asyncio.create_task(top_ups.run())]
        try:
            while True:
                try:
                    if time.monotonic() >= self._relist_at:
                        await self._relist()
                    await self._round()
                except DeepSquareError as error:
                    _log.warning("%s; trying again", error)
                    await asyncio.sleep(1)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_TICK_SECONDS):
                        await self._wake.wait()
                self._wake.clear()
                for task in beside:
                    if task.done():
                        task.result()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _relist(self) -> None:
        known = await self._market.get_jobs(list(self._hot))
        for record in [*known, *await self._market.jobs_after(self._last_job)]:
            if record is not None:
                self._note(record)
                self._last_job = max(self._last_job, int.from_bytes(record.job_id, "big"))
        self._relist_at = time.monotonic() + _RELIST_SECONDS

    def _note(self, record: JobRecord) -> None:
        if record.status.is_hot:
            self._hot[record.job_id] = record
        else:
            for known in (self._hot, self._let_wait, self._again_at):
                known.pop(record.job_id, None)

    async def _watch(self, from_block: int) -> None:
        async for changed in JobWatch(self._market, self._ws_url, from_block=from_block).changes():
            try:
                for record in await self._market.get_jobs(sorted(changed)):
                    if record is not None:
                        self._note(record)
            except DeepSquareError as error:
                _log.warning("%s; reading all jobs again", error)
                self._relist_at = 0.0
            self._wake.set()

    async def _round(self) -> None:
        pending = [job for job in self._hot.values() if job.status is JobStatus.PENDING]
        now = time.monotonic()
        self._seen_at = {
            (job.job_id, job.status): self._seen_at.get((job.job_id, job.status), now) for job in self._hot.values()
        }
        if pending:
            providers = await self._market.providers()
            load = Counter(job.provider for job in self._hot.values())
            await self._read_refusals()
            await self._assign(sorted(pending, key=lambda job: job.job_id), providers, load)
        timeout = int(await self._market.read("Constants", "claimJobTimeout"))
        for job in list(self._hot.values()):
            waited = now - self._seen_at.get((job.job_id, job.status), now)
            if job.status is JobStatus.META_SCHEDULED and waited > timeout:
                await self._carefully(job, self._time_out(job))

    async def _carefully(self, job: JobRecord, action: object) -> None:
        try:
            await action  # type: ignore[misc]  # any coroutine of the market
        except ContractError as error:
            # Usually the job has moved on since we looked.
            _log.info("job %s: %s", to_hex(job.job_id), error)
        record = await self._market.get_job(job.job_id)
        if record is not None:
            self._note(record)

    async def _assign(self, pending: list[JobRecord], providers: list[Provider], load: Counter[str]) -> None:
        """Give each job to the cheapest provider that fits, the one with fewer jobs among equals.

        One that let the job wait until it was taken away comes last: the cheapest may be one that sleeps.
        """
        chosen: dict[bytes, Assignment] = {}
        for job in pending:
            if time.monotonic() < self._again_at.get(job.job_id, 0.0):
                continue
            refused = self._refused.get(job.job_id, set())
            fits = [p for p in providers if job.definition.fits(p.hardware) and p.address not in refused]
            costs = {p.address: job.definition.cost_per_minute(p.prices) for p in fits}
            affordable = [address for address, cost in costs.items() if cost <= job.max_cost]
            if affordable:
                slow = self._let_wait.get(job.job_id, set())
                best = min(affordable, key=lambda address: (address in slow, costs[address], load[address], address))
                load[best] += 1
                chosen[job.job_id] = Assignment(job.job_id, best, costs[best])
            elif time.monotonic() - self._seen_at[job.job_id, job.status] >= _GIVE_UP_SECONDS:
                await self._carefully(job, self._give_up(job, fits=bool(fits), refused=bool(refused)))
        if not chosen:
            return
        left = await self._market.meta_schedule(list(chosen.values()))
        for job_id, to in chosen.items():
            if job_id in left:
                # A try costs gas, also one in vain.
                self._again_at[job_id] = time.monotonic() + _RETRY_SECONDS
                _log.info("job %s: %s", to_hex(job_id), left[job_id])
            else:
                _log.info("job %s goes to %s", to_hex(job_id), to.provider)
        for record in await self._market.get_jobs(list(chosen)):
            if record is not None:
                self._note(record)

    async def _time_out(self, job: JobRecord) -> None:
        # Noted first: it may be somebody else's call that sends the job back.
        self._let_wait.setdefault(job.job_id, set()).add(job.provider)
        await self._market.time_out_job(job.job_id)
        _log.info("job %s was not claimed in time by %s", to_hex(job.job_id), job.provider)

    async def _give_up(self, job: JobRecord, *, fits: bool, refused: bool) -> None:
        if fits:
            reason = "its credits buy no minute at any provider that could run it"
        elif refused:
            reason = "every provider that could run it has refused it"
        else:
            reason = "no provider of this grid is large enough for it"
        await self._market.panic_job(job.job_id, reason)
        _log.info("job %s given up: %s", to_hex(job.job_id), reason)

    async def _read_refusals(self) -> None:
        """Learn which providers have refused which jobs, so that a job doesn't go round in circles."""
        head = await self._market.block_number()
        while self._refusals_cursor <= head:
            last = min(head, self._refusals_cursor + BLOCKS_A_CALL - 1)
            refusals = [("MetaScheduler", "JobRefusedEvent")]
            for log in await self._market.get_logs(refusals, self._refusals_cursor, last):
                data = bytes.fromhex(log["data"][2:])
                self._refused.setdefault(data[:32], set()).add(to_checksum_address(data[44:64]))
            self._refusals_cursor = last + 1
