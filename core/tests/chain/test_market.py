"""The contracts from Python, on a real chain."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from deepsquare.chain.errors import InsufficientFunds, InvalidJobDefinition, InvalidTransition
from deepsquare.chain.market import Market
from deepsquare.chain.transactions import Sent
from deepsquare.chain.types import JobDefinition, JobReport, JobRequest, JobStatus
from deepsquare.chain.wallet import Wallet
from deepsquare.chain.watch import JobWatch
from deepsquare.client.accounting import check
from deepsquare.errors import ConfigError, ConnectionFailedError, TransactionError

from core.tests.chain.conftest import PRICES, Parties

DEFINITION = JobDefinition(ntasks=1, cpus_per_task=1, mem_per_cpu_mb=1000, gpus=0, batch_location_hash="abc")
MINUTE = DEFINITION.cost_per_minute(PRICES)
NAME = b"test".ljust(32, b"\0")


async def test_the_whole_life_of_a_job(parties: Parties) -> None:
    job_id = await parties.customer.request_job(DEFINITION, 5 * MINUTE, NAME)
    assert not await parties.scheduler.meta_schedule([(job_id, parties.provider.account)])
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
    refused = await parties.scheduler.meta_schedule([(job_id, parties.provider.account) for job_id in ids])
    assert {job_id: str(error) for job_id, error in refused.items()} == {
        ids[1]: "the job has ended (CANCELLED), and what has ended stays as it is"
    }
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
    count = len(await parties.customer.job_ids_of(parties.customer.account))
    ids = await parties.customer.request_jobs(requests)
    assert ids[0] == ids[3]
    assert await parties.customer.job_ids_of(parties.customer.account) == sorted(
        {*ids, *(await parties.customer.job_ids_of(parties.customer.account))[:count]}
    )
    assert len(set(ids)) == 4
    assert await parties.customer.request_jobs(requests[:1]) == ids[:1]
    assert await parties.customer.job_of_key(parties.provider.account, first) is None
    assert all(item.ok for item in await check(parties.customer, parties.customer.account))


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
    assert not await parties.scheduler.meta_schedule([(job_id, parties.provider.account)])
    await parties.provider.claim_jobs(1)
    refused = await parties.provider.report([JobReport(job_id, JobStatus.FINISHED)])
    assert isinstance(refused[job_id], InvalidTransition)
    assert refused[job_id].arguments == {"from_": JobStatus.SCHEDULED, "to": JobStatus.FINISHED}
    assert str(refused[job_id]) == "a job that is SCHEDULED can't become FINISHED"
    assert not await parties.provider.report([JobReport(job_id, JobStatus.FAILED)])


async def test_what_can_not_be_journalled_is_not_sent(parties: Parties) -> None:
    before = await parties.customer.job_ids_of(parties.customer.account)

    def full_disk(_: Sent) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        await parties.customer.request_job(DEFINITION, MINUTE, NAME, before_send=full_disk)
    assert await parties.customer.job_ids_of(parties.customer.account) == before


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
    count = len(await parties.customer.job_ids_of(parties.customer.account))
    sender = parties.customer._signer()  # the public way sends once
    await sender.resend(sent[0])
    await sender.wait(sent[0])
    assert len(await parties.customer.job_ids_of(parties.customer.account)) == count
    await parties.customer.cancel_job(job_id)


async def test_many_jobs_are_read_in_order_and_unknown_ones_are_none(parties: Parties) -> None:
    ids = await parties.customer.job_ids_of(parties.customer.account)
    unknown = b"\xff" * 32
    records = await parties.customer.get_jobs([ids[1], unknown, ids[0]])
    assert [record and record.job_id for record in records] == [ids[1], None, ids[0]]
    assert [record.job_id for record in await parties.customer.all_jobs()][: len(ids)] == ids


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
