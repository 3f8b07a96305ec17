"""What jobs cost, with the transactions of a real chain; sums by label and by day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from deepsquare.chain.market import Assignment
from deepsquare.chain.rpc import request
from deepsquare.chain.types import UNLIMITED, ZERO_ADDRESS, JobDefinition, JobRecord, JobReport, JobStatus
from deepsquare.client import ledger
from deepsquare.client.audit import audit
from deepsquare.client.costs import BY_DAY, CostGroup, JobCost, bought_between, check_label, grouped, job_costs, traced
from deepsquare.client.job import JobInfo
from deepsquare.errors import ApiError, ConnectionFailedError, DeepSquareError
from hypothesis import given
from hypothesis import strategies as st

from core.tests.chain.conftest import PRICES, Parties

DEFINITION = JobDefinition(ntasks=1, cpus_per_task=1, mem_per_cpu_mb=1000, gpus=0, batch_location_hash="abc")
MINUTE = DEFINITION.cost_per_minute(PRICES)
NAME = b"test".ljust(32, b"\0")
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def made(labels: dict[str, str], at: datetime = NOON, locked: int = 5, billed: int | None = 2) -> JobCost:
    """A job that never was."""
    record = JobRecord(
        *(bytes(32), JobStatus.RUNNING if billed is None else JobStatus.FINISHED, ZERO_ADDRESS, "0x" + "1" * 40),
        *(DEFINITION, locked, billed or 0, 0, False, int(at.timestamp()), 0, 0, 0, NAME, False, "", 0),
    )
    return JobCost(record, JobInfo.of(record), labels)


async def run(parties: Parties, seconds: int, *, top_up: int = 0, lasts: int = 0) -> bytes:
    """Buy a job for ten minutes, and end it with a report of some seconds, after so many on the chain."""
    job_id = await parties.customer.request_job(DEFINITION, 10 * MINUTE, NAME)
    await parties.scheduler.meta_schedule([Assignment(job_id, parties.provider.account, UNLIMITED)])
    await parties.provider.claim_jobs(1)
    await parties.provider.report([JobReport(job_id, JobStatus.RUNNING)])
    if top_up:
        await parties.customer.top_up_job(job_id, top_up)
    if lasts:
        await request(parties.customer.w3, "evm_increaseTime", lasts)
    await parties.provider.report([JobReport(job_id, JobStatus.FINISHED, seconds)])
    return job_id


async def costs_of(parties: Parties) -> dict[bytes, JobCost]:
    market = parties.customer
    found = await traced(market, market.account, await job_costs(market, market.account, {"abc": {"run": "1"}}))
    return {cost.record.job_id: cost for cost in found}


async def test_a_job_is_traced_to_its_transactions(parties: Parties) -> None:
    ended = await run(parties, 60, top_up=3 * MINUTE)
    hot = await parties.customer.request_job(DEFINITION, 5 * MINUTE, NAME)
    cancelled = await parties.customer.request_job(DEFINITION, 5 * MINUTE, NAME)
    await parties.customer.cancel_job(cancelled)
    costs = await costs_of(parties)

    async def sender(transaction: str | None) -> str:
        assert transaction
        receipt = await parties.customer.w3.eth.get_transaction_receipt(transaction)  # type: ignore[arg-type]
        return receipt["from"]

    one = costs[ended]
    assert (one.locked, one.billed, one.refunded) == (13 * MINUTE, MINUTE, 12 * MINUTE)
    assert one.labels == {"run": "1"}
    assert one.trace
    assert one.trace.price == (MINUTE if parties.customer.extended else None)
    assert await sender(one.trace.purchase) == parties.customer.account
    assert await sender(one.trace.end) == parties.provider.account
    assert [await sender(top_up) for top_up in one.trace.top_ups] == [parties.customer.account]
    assert one.trace.top_ups[0] != one.trace.purchase

    waiting, never = costs[hot].trace, costs[cancelled].trace
    assert waiting
    assert never
    assert (waiting.end, waiting.top_ups, waiting.price) == (None, (), None)
    assert (costs[hot].billed, costs[hot].refunded, costs[cancelled].billed) == (None, None, 0)
    assert await sender(never.end) == parties.customer.account
    assert len({one.trace.purchase, waiting.purchase, never.purchase, never.end}) == 4
    await parties.customer.cancel_job(hot)


async def test_the_sums_are_those_of_the_transfers(parties: Parties) -> None:
    await run(parties, 30)
    market = parties.customer
    (group,) = grouped(await job_costs(market, market.account, {"abc": {"run": "1"}}), "run")
    moved = (await ledger.read_ledger(market, await market.block_number())).transfers
    house = market.address("MetaScheduler")
    assert group.locked == sum(t.value for t in moved if (t.source, t.target) == (market.account, house))
    assert group.refunded == sum(t.value for t in moved if (t.source, t.target) == (house, market.account))
    assert group.locked == group.billed + group.refunded


async def test_all_transactions_take_one_query_a_range_of_blocks(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges: list[tuple[int, int]] = []
    get_logs = parties.customer.get_logs

    async def counted(events: Any, first: int, last: int) -> Any:
        ranges.append((first, last))
        return await get_logs(events, first, last)

    monkeypatch.setattr(parties.customer, "get_logs", counted)
    monkeypatch.setattr(ledger, "BLOCKS_A_CALL", 10)
    costs = await costs_of(parties)
    assert all(cost.trace and cost.trace.purchase and cost.trace.end for cost in costs.values())
    starts = [ranges[0][0] + 10 * number for number in range(len(ranges))]
    assert ranges[:-1] == [(start, start + 9) for start in starts[:-1]]
    assert ranges[-1] == (starts[-1], await parties.customer.block_number())
    assert len(ranges) > 1
    assert await traced(parties.customer, parties.customer.account, []) == []


async def test_the_events_before_the_first_purchase_are_not_read(parties: Parties) -> None:
    market = parties.customer
    before = await market.block_number()
    await request(market.w3, "evm_increaseTime", 3600)
    job_id = await run(parties, 1)
    head, cost = await market.block_number(), (await costs_of(parties))[job_id]
    first = await ledger.block_at(market, head, cost.record.submit_time)
    assert first == before + 1
    assert job_id in (found := await ledger.read_ledger(market, head, first=first)).opened
    assert len(found.opened) == 1
    assert await ledger.block_at(market, head, 0) == 0
    assert await ledger.block_at(market, head, 2**40) == head


async def test_an_audit_points_out_what_the_provider_reported_too_much(parties: Parties) -> None:
    honest, greedy = await run(parties, 1), await run(parties, 300)
    costs = [cost for job_id, cost in (await costs_of(parties)).items() if job_id in (honest, greedy)]

    async def silent(_: str) -> None:
        return None

    found = await audit(parties.customer, costs, silent)
    assert [(one.cost.record.job_id, one.reasons) for one in found.suspicions] == [(greedy, ("chain",))]
    assert found.suspicions[0].billed == timedelta(minutes=5)
    assert (found.judged, found.read, found.unread) == (2, 0, ())


async def test_an_audit_points_out_a_bill_for_more_than_the_output_spans(parties: Parties) -> None:
    job_id = await run(parties, 1200, top_up=10 * MINUTE, lasts=1200)
    cost = (await costs_of(parties))[job_id]

    async def busy(_: str) -> tuple[datetime, datetime]:
        return NOON, NOON + timedelta(minutes=19)

    async def soon_quiet(_: str) -> tuple[datetime, datetime]:
        return NOON, NOON + timedelta(minutes=1)

    assert not (await audit(parties.customer, [cost], busy)).suspicions
    found = await audit(parties.customer, [cost], soon_quiet)
    assert [(one.billed, one.written, one.reasons) for one in found.suspicions] == [
        (timedelta(minutes=20), timedelta(minutes=1), ("log",))
    ]
    assert found.read == 1


@pytest.mark.parametrize("error", [ApiError("not yours"), ConnectionFailedError("away")])
async def test_an_audit_says_which_output_it_could_not_read(parties: Parties, error: DeepSquareError) -> None:
    await run(parties, 1)
    costs = [cost for cost in (await costs_of(parties)).values() if cost.billed]

    async def refuse(_: str) -> None:
        raise error

    found = await audit(parties.customer, costs, refuse)
    assert found.unread == tuple(cost.info.id for cost in costs)
    assert found.reason == str(error)


def test_groups_by_label_stand_in_the_order_of_their_purchases() -> None:
    hour = timedelta(hours=1)
    costs = [
        made({}),
        made({"run": "b"}, NOON + hour),
        made({"run": "a"}, NOON + 2 * hour, billed=None),
        made({"run": "b"}, NOON + 3 * hour, billed=0),
    ]
    assert grouped(costs, "run") == [
        CostGroup("b", 2, locked=10, billed=2, refunded=8),
        CostGroup("a", 1, locked=5, billed=0, refunded=0),
        CostGroup(None, 1, locked=5, billed=2, refunded=3),
    ]


def test_days_are_those_of_the_time_zone() -> None:
    costs = [made({}, NOON.replace(hour=23)), made({})]
    assert [group.name for group in grouped(costs, BY_DAY, UTC)] == ["2026-11-01"]
    assert [group.name for group in grouped(costs, BY_DAY, ZoneInfo("Europe/Zurich"))] == ["2026-11-01", "2026-11-02"]


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.just("run"), st.text(max_size=2)),
            st.datetimes(datetime(2001, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
            st.integers(0, 2**256 - 1),
        )
    ),
    st.sampled_from(["run", BY_DAY]),
)
def test_no_wei_is_lost_in_groups(jobs: list[tuple[dict[str, str], datetime, int]], by: str) -> None:
    costs = [made(labels, at, locked=wei, billed=wei // 3) for labels, at, wei in jobs]
    groups = grouped(costs, by, UTC)
    whole = CostGroup.of(None, costs)
    for name in ("jobs", "locked", "billed", "refunded"):
        assert sum(getattr(group, name) for group in groups) == getattr(whole, name)
    assert whole.locked == whole.billed + whole.refunded


def test_a_selection_has_its_first_moment_and_not_its_last() -> None:
    costs = [made({}, NOON + timedelta(days=day)) for day in range(3)]
    assert bought_between(costs, None, None) == costs
    assert bought_between(costs, NOON + timedelta(days=1), NOON + timedelta(days=2)) == costs[1:2]


def test_a_label_that_no_job_has_is_an_error_that_names_those_there_are() -> None:
    check_label([made({"run": "1"}), made({})], "run")
    with pytest.raises(DeepSquareError, match=r"no job has the label 'rnu'; group by one of rule, run, or by day"):
        check_label([made({"run": "1", "rule": "map"})], "rnu")
    with pytest.raises(DeepSquareError, match="none has any"):
        check_label([made({})], "run")
