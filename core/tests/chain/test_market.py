"""The contracts from Python, on a real chain."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from deepsquare.chain import contracts as contracts_module
from deepsquare.chain import reads, rpc, transactions
from deepsquare.chain import watch as watch_module
from deepsquare.chain.errors import InsufficientFunds, InvalidJobDefinition, InvalidTransition
from deepsquare.chain.market import Assignment, Market
from deepsquare.chain.rpc import RpcError
from deepsquare.chain.transactions import Sent
from deepsquare.chain.types import UNLIMITED, Hardware, JobDefinition, JobReport, JobRequest, JobStatus, Label, Prices
from deepsquare.chain.wallet import Wallet
from deepsquare.chain.watch import JobWatch
from deepsquare.client.accounting import check
from deepsquare.errors import ConfigError, ConnectionFailedError, TransactionError

from core.tests.chain.conftest import PRICES, Parties

DEFINITION = JobDefinition(ntasks=1, cpus_per_task=1, mem_per_cpu_mb=1000, gpus=0, batch_location_hash="abc")
MINUTE = DEFINITION.cost_per_minute(PRICES)
NAME = b"test".ljust(32, b"\0")


async def ids_of(parties: Parties) -> list[bytes]:
    return [record.job_id for record in await parties.customer.jobs_of(parties.customer.account)]


async def test_the_whole_life_of_a_job(parties: Parties) -> None:
    job_id = await parties.customer.request_job(DEFINITION, 5 * MINUTE, NAME)
    assert not await parties.scheduler.meta_schedule([Assignment(job_id, parties.provider.account, UNLIMITED)])
    (claim,) = await parties.provider.claim_jobs(5)
    assert (claim.job_id, claim.customer, claim.max_minutes) == (job_id, parties.customer.account, 5)
    assert claim.definition == DEFINITION
    assert not await parties.provider.report([JobReport(job_id, JobStatus.RUNNING)])
    assert not await parties.provider.report([JobReport(job_id, JobStatus.FINISHED, seconds=60)])
    job = await parties.customer.get_job(job_id)
    assert job is not None
    assert (job.status, job.max_cost, job.final_cost) == (JobStatus.FINISHED, 5 * MINUTE, MINUTE)
    assert await parties.customer.cost_per_minute_of(job) == MINUTE
    assert all(item.ok for item in await check(parties.customer, parties.customer.account))


async def test_many_jobs_live_together(parties: Parties) -> None:
    """As many as a transaction takes and one more; one that moves on meanwhile spoils no other."""
    count = 51 if parties.customer.extended else 3
    ids = [await parties.customer.request_job(DEFINITION, 5 * MINUTE, NAME) for _ in range(count)]
    await parties.customer.cancel_job(ids[1])
    refused = await parties.scheduler.meta_schedule(
        [Assignment(job_id, parties.provider.account, UNLIMITED) for job_id in ids]
    )
    assert list(refused) == [ids[1]]
    assert ("moved on" if parties.customer.extended else "the job has ended (CANCELLED)") in refused[ids[1]]
    ids.remove(ids[1])
    claimed: list[bytes] = []
    while (await parties.provider.waiting()).claimable:
        claimed += [claim.job_id for claim in await parties.provider.claim_jobs(16)]
    assert claimed == ids
    assert not await parties.provider.report([JobReport(job_id, JobStatus.RUNNING) for job_id in ids])

    await parties.customer.cancel_job(ids[0])
    await parties.customer.top_up_job(ids[1], 2 * MINUTE)
    waiting = await parties.provider.waiting()
    assert (waiting.claimable, waiting.cancelling, waiting.topped_up) == (False, True, True)
    assert await parties.provider.claim_cancelling_jobs(16) == [ids[0]]
    assert await parties.provider.claim_top_up_jobs(16) == [ids[1]]
    assert await parties.provider.claim_top_up_jobs(16) == []

    ends = [JobReport(job_id, JobStatus.FAILED, 90, "no luck" * 100, 256) for job_id in ids]
    assert not await parties.provider.report(ends[:1])
    refused = await parties.provider.report(ends)
    assert list(refused) == [ids[0]]
    for job in await parties.customer.get_jobs(ids):
        assert job is not None
        # By the second where the contracts can, else the minutes that have begun; 90 s are in the bound's delta.
        assert job.final_cost == (MINUTE * 3 // 2 if parties.customer.extended else MINUTE * 2)
        assert (job.status, job.exit_code, job.last_error) == (JobStatus.FAILED, 256, "no luck" * 100)
    assert all(item.ok for item in await check(parties.customer, parties.customer.account))


async def test_a_key_buys_once(parties: Parties) -> None:
    first, second = (bytes([number]) * 32 for number in (1, 2))
    requests = [
        JobRequest(DEFINITION, 5 * MINUTE, NAME, key=first),
        JobRequest(DEFINITION, 5 * MINUTE, NAME),
        JobRequest(DEFINITION, 5 * MINUTE, NAME, key=second),
        JobRequest(DEFINITION, 5 * MINUTE, NAME, key=first),
        JobRequest(DEFINITION, 5 * MINUTE, NAME),
    ]
    if not parties.customer.extended:
        with pytest.raises(TransactionError, match="one by one"):
            await parties.customer.request_jobs(requests)
        return
    count = len(await ids_of(parties))
    ids = await parties.customer.request_jobs(requests)
    assert ids[0] == ids[3]
    assert len(set(ids)) == 4
    assert await ids_of(parties) == [*(await ids_of(parties))[:count], *sorted(set(ids))]
    assert await parties.customer.request_jobs(requests[:1]) == ids[:1]
    assert await parties.customer.job_of_key(parties.provider.account, first) is None
    assert all(item.ok for item in await check(parties.customer, parties.customer.account))


async def test_a_market_of_a_version_to_come_is_refused(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    if not parties.customer.extended:
        return
    monkeypatch.setattr(contracts_module, "_EXTENSIONS", 1)
    with pytest.raises(ConfigError, match=r"of another version \(2\) than this program knows \(1\)"):
        await Market.open(parties.url, parties.customer.address("MetaScheduler"))


async def test_many_keys_one_of_which_is_known(parties: Parties) -> None:
    if not parties.customer.extended:
        return
    keys = [bytes([number]) * 32 for number in (11, 12, 13)]
    (known,) = await parties.customer.request_jobs([JobRequest(DEFINITION, 5 * MINUTE, NAME, key=keys[1])])
    mixed = [JobRequest(DEFINITION, 5 * MINUTE, NAME, key=key) for key in (keys[0], keys[1], bytes(32), keys[2])]
    ids = await parties.customer.request_jobs(mixed)
    assert ids[1] == known
    assert [await parties.customer.job_of_key(parties.customer.account, key) for key in keys] == [ids[0], known, ids[3]]
    assert len(set(ids)) == 4


async def test_a_provider_is_held_to_the_price_that_it_was_chosen_by(parties: Parties) -> None:
    job_id = await parties.customer.request_job(DEFINITION, 5 * MINUTE, NAME)
    hardware, labels = Hardware((0,), (4,), (8000,)), [Label("os", "linux")]
    await parties.provider.register(hardware, Prices(PRICES.gpu, PRICES.cpu * 4, PRICES.mem), labels)
    try:
        refused = await parties.scheduler.meta_schedule([Assignment(job_id, parties.provider.account, MINUTE)])
    finally:
        await parties.provider.register(hardware, PRICES, labels)
    job = await parties.customer.get_job(job_id)
    assert job is not None
    if parties.customer.extended:
        assert "raised its prices" in refused[job_id]
        assert job.status is JobStatus.PENDING
        await parties.customer.cancel_job(job_id)
    else:
        # Contracts of version 1.2 know no such bound; what is locked is the only one.
        assert job.status is JobStatus.META_SCHEDULED
        await parties.scheduler.panic_job(job_id, "too dear")


async def test_a_providers_jobs_are_found_page_by_page(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "_JOBS_A_SCAN", 2)
    ids = [await parties.customer.request_job(DEFINITION, MINUTE, NAME) for _ in range(3)]
    assigned = [Assignment(job_id, parties.provider.account, UNLIMITED) for job_id in ids]
    assert not await parties.scheduler.meta_schedule(assigned)
    claimed = [claim.job_id for claim in await parties.provider.claim_jobs(2)]
    found = await parties.scheduler.jobs_at(parties.provider.account, {JobStatus.SCHEDULED, JobStatus.RUNNING})
    assert sorted(record.job_id for record in found) == claimed == ids[:2]
    for job_id in ids:
        await parties.scheduler.panic_job(job_id, "enough")
    assert not await parties.scheduler.jobs_at(parties.provider.account, {JobStatus.SCHEDULED, JobStatus.RUNNING})


async def test_providers_are_found(parties: Parties) -> None:
    (provider,) = await parties.customer.providers()
    assert (provider.address, provider.prices) == (parties.provider.account, PRICES)


async def test_a_pending_job_is_cancelled_at_once_and_costs_nothing(parties: Parties) -> None:
    before = await parties.customer.balance_of(parties.customer.account)
    job_id = await parties.customer.request_job(DEFINITION, 3 * MINUTE, NAME)
    assert await parties.customer.balance_of(parties.customer.account) == before - 3 * MINUTE
    await parties.customer.cancel_job(job_id)
    job = await parties.customer.get_job(job_id)
    assert job is not None
    assert (job.status, job.final_cost) == (JobStatus.CANCELLED, 0)
    assert await parties.customer.balance_of(parties.customer.account) == before


async def test_reverts_are_their_own_classes_and_nothing_is_sent(parties: Parties) -> None:
    sent: list[Sent] = []
    with pytest.raises(InsufficientFunds):
        await parties.customer.request_job(DEFINITION, 10**24, NAME, before_send=sent.append)
    with pytest.raises(InvalidJobDefinition):
        await parties.customer.request_job(JobDefinition(0, 1, 1, 0, "x"), MINUTE, NAME, before_send=sent.append)
    assert not sent
    job_id = await parties.customer.request_job(DEFINITION, MINUTE, NAME)
    assert not await parties.scheduler.meta_schedule([Assignment(job_id, parties.provider.account, UNLIMITED)])
    await parties.provider.claim_jobs(1)
    refused = await parties.provider.report([JobReport(job_id, JobStatus.FINISHED)])
    assert isinstance(refused[job_id], InvalidTransition)
    assert refused[job_id].arguments == {"from_": JobStatus.SCHEDULED, "to": JobStatus.FINISHED}
    assert str(refused[job_id]) == "a job that is SCHEDULED can't become FINISHED"
    assert not await parties.provider.report([JobReport(job_id, JobStatus.FAILED)])


async def test_what_can_not_be_journalled_is_not_sent(parties: Parties) -> None:
    before = await ids_of(parties)

    def full_disk(_: Sent) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        await parties.customer.request_job(DEFINITION, MINUTE, NAME, before_send=full_disk)
    assert await ids_of(parties) == before


async def test_one_wallet_sends_many_at_once_without_a_nonce_in_common(parties: Parties, tmp_path: Path) -> None:
    wallet = Wallet.from_key(b"\4" * 32)
    assert wallet.address == parties.customer.account
    markets = [
        await Market.open(parties.url, parties.customer.address("MetaScheduler"), wallet=wallet, lock_folder=tmp_path)
        for _ in range(4)
    ]
    ids = await asyncio.gather(*(market.request_job(DEFINITION, MINUTE, NAME) for market in markets for _ in range(5)))
    assert len(set(ids)) == 20
    for market in markets:
        await market.close()


async def test_a_transaction_sent_again_is_still_one(parties: Parties) -> None:
    sent: list[Sent] = []
    job_id = await parties.customer.request_job(DEFINITION, MINUTE, NAME, before_send=sent.append)
    count = len(await ids_of(parties))
    sender = parties.customer._signer()  # the public way sends once
    await sender.resend(sent[0])
    await sender.wait(sent[0])
    assert len(await ids_of(parties)) == count
    await parties.customer.cancel_job(job_id)


@pytest.mark.parametrize("words", ["AlreadyKnown", "Known transaction", "already known", "nonce too low"])
async def test_a_node_that_has_a_transaction_already_is_understood(
    parties: Parties, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """The node took it and its answer was lost: the second answer is in words of its own, and there is no receipt yet."""
    tries = 0

    async def forgetful(w3: Any, method: str, *arguments: Any) -> Any:
        nonlocal tries
        if method == "eth_getTransactionReceipt" and tries < 3:
            tries += 1
            return None
        answer = await rpc.request(w3, method, *arguments)
        if method == "eth_sendRawTransaction":
            raise RpcError(-32000, words, None)
        return answer

    monkeypatch.setattr(transactions, "request", forgetful)
    before = await ids_of(parties)
    job_id = await parties.customer.request_job(DEFINITION, MINUTE, NAME)
    assert await ids_of(parties) == [*before, job_id]
    await parties.customer.cancel_job(job_id)


async def test_what_ran_out_of_gas_is_sent_again(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    too_low = [True]

    async def misjudging(w3: Any, method: str, *arguments: Any) -> Any:
        answer = await rpc.request(w3, method, *arguments)
        if method == "eth_estimateGas" and too_low:
            too_low.pop()
            return hex(int(answer, 16) * 6 // 10)
        return answer

    monkeypatch.setattr(transactions, "request", misjudging)
    before, sent = await ids_of(parties), list[Sent]()
    job_id = await parties.customer.request_job(DEFINITION, MINUTE, NAME, before_send=sent.append)
    assert len(sent) == 2
    assert await ids_of(parties) == [*before, job_id]
    await parties.customer.cancel_job(job_id)


async def test_a_watch_keeps_what_it_saw_before_a_node_failed(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "BLOCKS_A_CALL", 1)
    from_block = await parties.customer.block_number() + 1
    ids = [await parties.customer.request_job(DEFINITION, MINUTE, NAME) for _ in range(2)]
    get_logs = parties.customer.get_logs
    calls = 0

    async def failing_once(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ConnectionFailedError("away for a moment")
        return await get_logs(*arguments)

    monkeypatch.setattr(parties.customer, "get_logs", failing_once)
    seen: set[bytes] = set()
    async with asyncio.timeout(20):
        async for changed in JobWatch(parties.customer, None, from_block=from_block).changes():
            seen |= changed
            if seen >= set(ids):
                break


async def test_many_jobs_are_read_in_order_and_unknown_ones_are_none(parties: Parties) -> None:
    ids = await ids_of(parties)
    unknown = b"\xff" * 32
    records = await parties.customer.get_jobs([ids[1], unknown, ids[0]])
    assert [record and record.job_id for record in records] == [ids[1], None, ids[0]]
    assert [record.job_id for record in await parties.customer.jobs_after(0)][: len(ids)] == ids


@pytest.mark.parametrize("subscribed", [True, False])
async def test_a_watch_tells_of_old_and_new_changes(parties: Parties, subscribed: bool) -> None:
    job_id = await parties.customer.request_job(DEFINITION, MINUTE, NAME)
    watch = JobWatch(parties.customer, parties.ws_url if subscribed else None, from_block=0)
    changes = watch.changes()
    assert job_id in await anext(changes)
    task = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0.05)
    assert not task.done()
    await parties.customer.cancel_job(job_id)
    assert await asyncio.wait_for(task, 10) == {job_id}
    await changes.aclose()  # type: ignore[attr-defined]


async def test_a_wrong_address_is_explained(parties: Parties) -> None:
    with pytest.raises(ConfigError, match="no contract at"):
        await Market.open(parties.url, "0x" + "1" * 40)


async def test_a_node_that_is_not_there_is_named_without_the_key_in_its_url() -> None:
    with pytest.raises(ConnectionFailedError, match=r"http://127\.0\.0\.1:9 can't be reached") as caught:
        await Market.open("http://user:pass@127.0.0.1:9/v3/SECRET", "0x" + "1" * 40, retry_seconds=0.2)
    assert "SECRET" not in str(caught.value)
    assert "pass" not in str(caught.value)


async def test_an_account_without_coins_is_told_so(parties: Parties, tmp_path: Path) -> None:
    poor = await Market.open(
        parties.url,
        parties.customer.address("MetaScheduler"),
        wallet=Wallet.from_key(b"\x09" * 32),
        lock_folder=tmp_path,
    )
    with pytest.raises(TransactionError, match="can't pay the fee"):
        await poor.approve(1)
    await poor.close()
