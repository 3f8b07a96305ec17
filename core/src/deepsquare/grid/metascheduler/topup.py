"""Top-ups by the grid: running jobs get more time before their credits run out, where their customers allowed that."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from eth_utils import to_checksum_address

from deepsquare.chain.contracts import BLOCKS_A_CALL
from deepsquare.chain.errors import (
    ContractError,
    DelegateCapReached,
    ERC20InsufficientAllowance,
    ERC20InsufficientBalance,
    InsufficientFunds,
    JobHotStatusOnly,
    NoSpendingAuthority,
    RemainingTimeAboveLimit,
    RunningScheduledStatusOnly,
)
from deepsquare.chain.market import Market
from deepsquare.chain.types import JobRecord, JobStatus, to_hex
from deepsquare.errors import DeepSquareError

_log = logging.getLogger(__name__)

TICK_SECONDS = 5.0
"""How often the clock is looked at; a job's time left is known without asking for it."""
MARGIN_MINUTES = 10
"""A job with less time left is topped up: late, since credits are locked for nothing until they are used, but early enough for
a grid that is away for some minutes, and for a batch scheduler that began to count before the chain did."""
_AT_ONCE = 16
# What no event will tell of, such as a role that is missing, is tried again after a while.
_AGAIN_SECONDS = 60.0

_TOPABLE = (JobStatus.SCHEDULED, JobStatus.RUNNING)
_MOVED_ON = (RunningScheduledStatusOnly, JobHotStatusOnly, NoSpendingAuthority)
_NO_FUNDS = (InsufficientFunds, ERC20InsufficientAllowance, ERC20InsufficientBalance)
_DELEGATE, _TRANSFER = ("MetaScheduler", "DelegateSpendingChanged"), ("Credit", "Transfer")
_TELLING = (_DELEGATE, _TRANSFER, ("Credit", "Approval"))


class TopUps:
    """Tops up the jobs whose customers gave the meta-scheduler spending authority, a slice of the contract's at a time.

    The chain is all the state that counts. A second meta-scheduler does no harm: the contract takes no top-up for a job that
    has a slice left, and after the first one it has.
    """

    def __init__(
        self, market: Market, hot: Mapping[bytes, JobRecord], note: Callable[[JobRecord], None], *, from_block: int
    ) -> None:
        """Look after the jobs of `hot`, which somebody else keeps.

        Args:
            market: signs with an account that has METASCHEDULER_ROLE.
            hot: the jobs that have not ended, as they were when they were read last.
            note: is given what was read anew of them.
            from_block: the first block that may tell of what is not in `hot`.
        """
        self._market, self._hot, self._note, self._cursor = market, hot, note, from_block
        self._latest, self._ahead = -1, 0.0
        self._costs: dict[tuple[bytes, str], int] = {}
        self._without_funds: dict[bytes, str] = {}
        self._at_cap: set[bytes] = set()
        self._again_at: dict[bytes, float] = {}
        self._told: dict[bytes, type[DeepSquareError]] = {}

    async def run(self) -> None:
        """Work until cancelled; what fails for a while is tried again in the next round."""
        while True:
            try:
                await self.round()
            except DeepSquareError as error:
                _log.warning("%s; trying again", error)
            await asyncio.sleep(TICK_SECONDS)

    async def round(self) -> None:
        """Top up each job that needs it now.

        The number of reads does not grow with the jobs, but for those that are about to be topped up, 50 of which take one call,
        and a job's price, which is read once.

        Raises:
            DeepSquareError: the chain could not be read.
        """
        number, now = await self._clock()
        self._forget_ended()
        if not any(record.status in _TOPABLE for record in self._hot.values()):
            # Whatever is read of a job from now on has all that happened until now.
            self._cursor = number + 1
            return
        await self._read_events(number)
        wanted = [record for record in self._hot.values() if self._may_try(record)]
        if not wanted:
            return
        await self._read_costs(wanted)
        slice_minutes = int(await self._market.read("Constants", "topUpSliceDurationMin"))
        margin = 60 * min(slice_minutes, MARGIN_MINUTES)
        # What has run dry by what was known may have been given more by somebody else.
        near = [record.job_id for record in wanted if self._seconds_left(record, now) < margin]
        if not near:
            return
        due = []
        for record in await self._market.get_jobs(near):
            if record is None:
                continue
            self._note(record)
            # One whose provider took no notice of the last top-up waits: a provider that is gone would never use them, and no job
            # may be kept from its end by them.
            if self._may_try(record) and not record.pending_top_up and 0 < self._seconds_left(record, now) < margin:
                due.append(record)
        limit = asyncio.Semaphore(_AT_ONCE)

        async def top_up(record: JobRecord) -> None:
            async with limit:
                await self._top_up(record)

        await asyncio.gather(*map(top_up, due))
        for record in await self._market.get_jobs([record.job_id for record in due]):
            if record is not None:
                self._note(record)

    async def _clock(self) -> tuple[int, float]:
        """The number of the latest block, and the chain's time: between blocks it goes on with this machine's clock."""
        number, _, timestamp = await self._market.head()
        if number != self._latest:
            # That a block is old doesn't tell that the chain's clock is behind: nothing may have happened there since.
            self._latest, self._ahead = number, max(timestamp - time.time(), 0.0)
        return number, time.time() + self._ahead

    def _forget_ended(self) -> None:
        for known in (self._without_funds, self._again_at, self._told):
            for job_id in known.keys() - self._hot.keys():
                del known[job_id]
        self._at_cap &= self._hot.keys()
        # The price of another assignment is another one.
        assigned = {(job.job_id, job.provider) for job in self._hot.values() if job.status in _TOPABLE}
        for gone in self._costs.keys() - assigned:
            del self._costs[gone]

    async def _read_events(self, head: int) -> None:
        """Learn whose authority, cap, allowance or balance has changed: what was refused may be taken now."""
        while self._cursor <= head:
            last = min(head, self._cursor + BLOCKS_A_CALL - 1)
            await self._take_in(await self._market.get_logs(_TELLING, self._cursor, last))
            self._cursor = last + 1

    async def _take_in(self, logs: list[dict[str, Any]]) -> None:
        delegate, transfer = (self._market.topic(*event) for event in (_DELEGATE, _TRANSFER))
        changed = {bytes.fromhex(log["topics"][1][2:]) for log in logs if log["topics"][0] == delegate}
        # Who received credits, or whose allowance was set.
        customers = {
            to_checksum_address("0x" + log["topics"][2 if log["topics"][0] == transfer else 1][-40:])
            for log in logs
            if log["topics"][0] != delegate
        }
        for record in await self._market.get_jobs(sorted(changed & self._hot.keys())):
            if record is not None:
                self._note(record)
        self._at_cap -= changed
        for job_id, customer in list(self._without_funds.items()):
            if customer in customers or job_id in changed:
                del self._without_funds[job_id]

    def _may_try(self, record: JobRecord) -> bool:
        return (
            record.delegate_spending_authority
            and record.status in _TOPABLE
            and not record.has_cancel_request
            and record.job_id not in self._at_cap
            and record.job_id not in self._without_funds
            and time.monotonic() >= self._again_at.get(record.job_id, 0.0)
        )

    async def _read_costs(self, records: list[JobRecord]) -> None:
        limit = asyncio.Semaphore(_AT_ONCE)

        async def read(record: JobRecord) -> None:
            async with limit:
                self._costs[record.job_id, record.provider] = await self._market.cost_per_minute_of(record)

        await asyncio.gather(*(read(r) for r in records if (r.job_id, r.provider) not in self._costs))

    def _seconds_left(self, record: JobRecord, now: float) -> float:
        return seconds_left(record, self._costs.get((record.job_id, record.provider), 0), now)

    async def _top_up(self, record: JobRecord) -> None:
        job_id = record.job_id
        try:
            await self._market.top_up_delegated(job_id)
        except RemainingTimeAboveLimit as error:
            # Another meta-scheduler was first; or its price, which contracts of version 1.2 don't tell, is another one.
            above = error.arguments["remaining"] - error.arguments["limit"]
            self._again_at[job_id] = time.monotonic() + 60 * above
        except _MOVED_ON as error:
            # What was read before is old already.
            _log.debug("job %s: %s", to_hex(job_id), error)
        except DelegateCapReached as error:
            self._at_cap.add(job_id)
            self._tell(job_id, error)
        except _NO_FUNDS as error:
            self._without_funds[job_id] = record.customer
            self._tell(job_id, error)
        except ContractError as error:
            self._again_at[job_id] = time.monotonic() + _AGAIN_SECONDS
            self._tell(job_id, error)
        except DeepSquareError as error:
            self._tell(job_id, error)
        else:
            self._told.pop(job_id, None)
            _log.info("job %s topped up", to_hex(job_id))

    def _tell(self, job_id: bytes, error: DeepSquareError) -> None:
        """Say why a job is not topped up; the same reason once."""
        if self._told.get(job_id) is not type(error):
            self._told[job_id] = type(error)
            _log.warning("job %s is not topped up: %s", to_hex(job_id), error)


def seconds_left(record: JobRecord, cost_per_minute: int, now: float) -> float:
    """How long a job's credits last, in seconds; only whole minutes count.

    Args:
        record: the job; one that does not run yet has all its time left.
        cost_per_minute: the wei that a minute costs; where it is 0, time never ends.
        now: the chain's time, in unix seconds.
    """
    if cost_per_minute == 0:
        return math.inf
    paid = record.max_cost // cost_per_minute * 60
    return paid - (now - record.start_time) if record.start_time else paid
