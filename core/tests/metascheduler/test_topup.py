"""Top-ups by the meta-scheduler on a real chain, with all functions of the market and with those of version 1.2."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from deepsquare.chain.market import Assignment, Market
from deepsquare.chain.rpc import request as rpc
from deepsquare.chain.types import UNLIMITED, JobDefinition, JobRecord, JobReport, JobRequest, JobStatus
from deepsquare.credits import format_credits
from deepsquare.grid.metascheduler import topup
from deepsquare.grid.metascheduler.metascheduler import MetaScheduler
from deepsquare.grid.metascheduler.topup import MARGIN_MINUTES, TopUps, seconds_left
from hypothesis import given
from hypothesis import strategies as st

from core.tests.chain.conftest import PRICES, Parties

DEFINITION = JobDefinition(ntasks=1, cpus_per_task=1, mem_per_cpu_mb=1000, gpus=0, batch_location_hash="abc")
MINUTE = DEFINITION.cost_per_minute(PRICES)
NAME = b"test".ljust(32, b"\0")
SLICE = 60


class Memory:
    """What a meta-scheduler knows, and its top-ups."""

    def __init__(self, market: Market, from_block: int) -> None:
        self.hot: dict[bytes, JobRecord] = {}
        self.top_ups = TopUps(market, self.hot, self.note, from_block=from_block)

    def note(self, record: JobRecord) -> None:
        if record.status.is_hot:
            self.hot[record.job_id] = record
        else:
            self.hot.pop(record.job_id, None)

    async def round(self) -> None:
        await self.top_ups.round()


async def started(market: Market, reader: Any = None) -> Memory:
    """A meta-scheduler that knows what the chain has, as after kill -9."""
    number, *_ = await market.head()
    memory = Memory(reader or market, number + 1)
    for record in await market.jobs_after(0):
        memory.note(record)
    return memory


@pytest.fixture(autouse=True)
async def no_job_outlives_its_test(parties: Parties) -> AsyncIterator[None]:
    await parties.customer.approve(10**21)
    yield
    for record in await parties.provider.jobs_at(parties.provider.account, [JobStatus.SCHEDULED, JobStatus.RUNNING]):
        await parties.scheduler.panic_job(record.job_id, "the test is over")


async def pass_minutes(parties: Parties, minutes: float) -> None:
    await rpc(parties.admin.w3, "evm_increaseTime", int(minutes * 60))
    await rpc(parties.admin.w3, "evm_mine")


async def claimed(parties: Parties, minutes: int, *, delegate: bool = True, cap: int | None = None) -> bytes:
    if cap is None:
        job_id = await parties.customer.request_job(
            DEFINITION, minutes * MINUTE, NAME, delegate_spending_authority=delegate
        )
    else:
        bought = JobRequest(DEFINITION, minutes * MINUTE, NAME, delegate, cap)
        (job_id,) = await parties.customer.request_jobs([bought])
    await parties.scheduler.meta_schedule([Assignment(job_id, parties.provider.account, MINUTE)])
    assert [claim.job_id for claim in await parties.provider.claim_jobs(16)] == [job_id]
    return job_id


async def running(parties: Parties, minutes: int, **options: Any) -> bytes:
    job_id = await claimed(parties, minutes, **options)
    await parties.provider.report([JobReport(job_id, JobStatus.RUNNING)])
    return job_id


async def minutes_of(parties: Parties, job_id: bytes) -> float:
    record = await parties.customer.get_job(job_id)
    assert record is not None
    return record.max_cost / MINUTE


async def refusals(caplog: pytest.LogCaptureFixture, scheduler: Memory, rounds: int = 3) -> list[str]:
    caplog.clear()
    for _ in range(rounds):
        await scheduler.round()
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_running_job_gets_a_slice_near_its_end_and_the_next_near_the_end_of_that(parties: Parties) -> None:
    job_id = await running(parties, 30)
    scheduler = await started(parties.scheduler)
    await scheduler.round()
    assert await minutes_of(parties, job_id) == 30
    await pass_minutes(parties, 30 - MARGIN_MINUTES + 0.5)
    await scheduler.round()
    await scheduler.round()
    assert await minutes_of(parties, job_id) == 30 + SLICE
    assert await parties.provider.claim_top_up_jobs(16) == [job_id]
    await pass_minutes(parties, SLICE)
    await scheduler.round()
    assert await minutes_of(parties, job_id) == 30 + 2 * SLICE


async def test_a_job_that_waits_at_its_provider_is_topped_up_only_if_it_would_run_dry_at_once(parties: Parties) -> None:
    short, long = await claimed(parties, 1), await claimed(parties, MARGIN_MINUTES)
    scheduler = await started(parties.scheduler)
    await scheduler.round()
    assert await minutes_of(parties, short) == 1 + SLICE
    assert await minutes_of(parties, long) == MARGIN_MINUTES


async def test_slices_of_a_minute_come_in_the_last_minute(parties: Parties) -> None:
    await parties.admin.transact("Constants", "setTopUpSliceDurationMin", 1)
    try:
        waiting, job_id = await claimed(parties, 1), await running(parties, 2)
        scheduler = await started(parties.scheduler)
        await pass_minutes(parties, 0.9)
        await scheduler.round()
        assert await minutes_of(parties, job_id) == 2
        await pass_minutes(parties, 0.2)
        await scheduler.round()
        assert await minutes_of(parties, job_id) == 3
        assert await minutes_of(parties, waiting) == 1
    finally:
        await parties.admin.transact("Constants", "setTopUpSliceDurationMin", SLICE)


async def test_nothing_without_authority_after_a_cancel_request_or_when_the_time_is_over(parties: Parties) -> None:
    others = await running(parties, 3, delegate=False)
    cancelled, over = await running(parties, 3), await running(parties, 1)
    await parties.customer.cancel_job(cancelled)
    await pass_minutes(parties, 1.5)
    scheduler = await started(parties.scheduler)
    await scheduler.round()
    assert [await minutes_of(parties, job) for job in (others, cancelled, over)] == [3, 3, 1]
    # Given later: an event tells, or, on contracts without it, the next reading of all that is hot.
    await parties.customer.transact("MetaScheduler", "setDelegateSpendingAuthority", others, True)
    if not parties.scheduler.extended:
        record = await parties.scheduler.get_job(others)
        assert record is not None
        scheduler.note(record)
    await scheduler.round()
    assert await minutes_of(parties, others) == 3 + SLICE


async def test_a_provider_that_takes_no_notice_gets_no_more(parties: Parties) -> None:
    job_id = await running(parties, 1)
    scheduler = await started(parties.scheduler)
    await scheduler.round()
    await pass_minutes(parties, SLICE - 1)
    await scheduler.round()
    assert await minutes_of(parties, job_id) == 1 + SLICE
    await parties.provider.claim_top_up_jobs(16)
    await scheduler.round()
    assert await minutes_of(parties, job_id) == 1 + 2 * SLICE


async def test_two_meta_schedulers_and_one_that_was_killed_add_one_slice(parties: Parties) -> None:
    job_id = await running(parties, 1)
    one = await started(parties.scheduler)
    other = await started(parties.scheduler)
    await asyncio.gather(one.round(), other.round())
    restarted = await started(parties.scheduler)
    await restarted.round()
    assert await minutes_of(parties, job_id) == 1 + SLICE


async def test_the_second_of_two_takes_the_refusal_for_what_it_is(
    parties: Parties, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = await running(parties, 1)
    slow = await started(parties.scheduler, Outrun(parties.scheduler, job_id))
    assert await refusals(caplog, slow) == []
    assert await minutes_of(parties, job_id) == 1 + SLICE


class Outrun:
    """The market, where another meta-scheduler tops a job up between a look at it and what follows from that."""

    def __init__(self, market: Market, job_id: bytes) -> None:
        self._market, self._to_be_topped_up = market, [job_id]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._market, name)

    async def get_jobs(self, job_ids: Sequence[bytes]) -> list[JobRecord | None]:
        found = await self._market.get_jobs(job_ids)
        while job_ids and self._to_be_topped_up:
            await self._market.top_up_delegated(self._to_be_topped_up.pop())
        return found


async def test_the_running_meta_scheduler_tops_up(parties: Parties) -> None:
    task = asyncio.create_task(MetaScheduler(parties.scheduler, parties.ws_url).run())
    try:
        job_id = await parties.customer.request_job(DEFINITION, 2 * MINUTE, NAME, delegate_spending_authority=True)
        async with asyncio.timeout(60):
            while not await parties.provider.claim_jobs(1):
                await asyncio.sleep(0.1)
            while await minutes_of(parties, job_id) == 2:
                await asyncio.sleep(0.1)
        assert await minutes_of(parties, job_id) == 2 + SLICE
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("lacking", ["allowance", "balance"])
async def test_what_lacks_is_said_once_and_tried_again_when_it_has_come(
    parties: Parties, lacking: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = counted(parties.scheduler, monkeypatch)
    job_id = await running(parties, 1)
    balance = await parties.customer.balance_of(parties.customer.account)
    if lacking == "allowance":
        await parties.customer.approve(SLICE * MINUTE - 1)
    else:
        await parties.customer.transact("Credit", "transfer", parties.admin.account, balance - SLICE * MINUTE + 1)
    scheduler = await started(parties.scheduler)
    (said,) = await refusals(caplog, scheduler)
    assert f"{format_credits(SLICE * MINUTE)} are needed" in said or f"{SLICE * MINUTE} wei are needed" in said
    assert tries == [job_id]
    # A change that is not enough is tried, but the reason is known already.
    for more in (0, 1):
        if lacking == "allowance":
            await parties.customer.approve(SLICE * MINUTE - 1 + more)
        else:
            await parties.admin.transact("Credit", "transfer", parties.customer.account, more)
        assert await refusals(caplog, scheduler) == []
    assert tries == [job_id] * 3
    assert await minutes_of(parties, job_id) == 1 + SLICE
    if lacking == "balance":
        await parties.admin.transact("Credit", "transfer", parties.customer.account, balance - SLICE * MINUTE)


# Contracts of version 1.2 have no cap.
@pytest.mark.parametrize("parties", ["all functions"], indirect=True)
async def test_it_stops_exactly_at_the_cap_says_so_once_and_goes_on_when_the_cap_is_raised(
    parties: Parties, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = counted(parties.scheduler, monkeypatch)
    job_id = await running(parties, 1, cap=5 * MINUTE)
    scheduler = await started(parties.scheduler)
    await scheduler.round()
    assert await minutes_of(parties, job_id) == 1 + 5
    await parties.provider.claim_top_up_jobs(16)
    (said,) = await refusals(caplog, scheduler)
    assert "the cap on top-ups by the grid is reached" in said
    assert tries == [job_id] * 2
    await parties.customer.transact("MetaScheduler", "setDelegateSpendingCap", job_id, UNLIMITED)
    assert await refusals(caplog, scheduler) == []
    assert await minutes_of(parties, job_id) == 1 + 5 + SLICE


async def test_a_refusal_that_no_event_can_mend_is_tried_again_after_a_while(
    parties: Parties, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = counted(parties.admin, monkeypatch)
    job_id = await running(parties, 1)
    without_role = await started(parties.admin)
    (said,) = await refusals(caplog, without_role)
    assert "has not the role" in said
    assert tries == [job_id]
    monkeypatch.setattr(topup, "_AGAIN_SECONDS", 0.0)
    without_role = await started(parties.admin)
    await refusals(caplog, without_role)
    assert tries == [job_id] * 4
    assert await minutes_of(parties, job_id) == 1


async def test_a_round_costs_as_many_reads_with_many_jobs_as_with_one(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[str] = []
    provider = parties.scheduler.w3.provider
    make = provider.make_request

    async def count(method: Any, params: Any) -> Any:
        requests.append(method)
        return await make(method, params)

    monkeypatch.setattr(provider, "make_request", count)
    costs = []
    for jobs in (1, 7):
        for _ in range(jobs):
            await running(parties, 30)
        scheduler = await started(parties.scheduler)
        await scheduler.round()
        requests.clear()
        await scheduler.round()
        costs.append(len(requests))
    assert costs[0] == costs[1] <= 4


def counted(market: Market, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The jobs whose top-up is tried, as it happens."""
    tries: list[bytes] = []
    top_up = market.top_up_delegated

    async def count(job_id: bytes) -> None:
        tries.append(job_id)
        await top_up(job_id)

    monkeypatch.setattr(market, "top_up_delegated", count)
    return tries


@given(
    locked=st.integers(0, 2**96), minute=st.integers(1, 2**96), ran=st.integers(0, 10**6), limit=st.integers(1, 10**5)
)
def test_less_than_a_slice_is_left_here_where_it_is_for_the_contract(
    locked: int, minute: int, ran: int, limit: int
) -> None:
    """`JobRules.remainingMinutes` counts a minute that has begun as used."""
    record: Any = SimpleNamespace(max_cost=locked, start_time=1000)
    remaining = max(locked // minute - -(-ran // 60), 0)
    assert (seconds_left(record, minute, 1000 + ran) < 60 * limit) == (remaining < limit)
