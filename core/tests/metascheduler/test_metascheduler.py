"""The meta-scheduler on a real chain, with all functions of the market and with those of version 1.2."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest
from deepsquare.chain.types import Hardware, JobDefinition, JobRecord, JobStatus, Prices
from deepsquare.grid.metascheduler import metascheduler
from deepsquare.grid.metascheduler.metascheduler import MetaScheduler

from core.tests.chain.conftest import PRICES, Parties

DEFINITION = JobDefinition(ntasks=1, cpus_per_task=1, mem_per_cpu_mb=1000, gpus=0, batch_location_hash="abc")
MINUTE = DEFINITION.cost_per_minute(PRICES)
NAME = b"test".ljust(32, b"\0")


async def wait_for(parties: Parties, ids: Sequence[bytes], status: JobStatus) -> list[JobRecord]:
    async with asyncio.timeout(60):
        while True:
            records = [record for record in await parties.customer.get_jobs(ids) if record is not None]
            if all(record.status is status for record in records):
                return records
            await asyncio.sleep(0.1)


async def test_many_are_assigned_and_one_that_is_refused_spoils_no_other(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metascheduler, "_GIVE_UP_SECONDS", 2.0)
    ids = [await parties.customer.request_job(DEFINITION, 5 * MINUTE, NAME) for _ in range(4)]
    poor = await parties.customer.request_job(DEFINITION, MINUTE - 1, NAME)
    running = asyncio.create_task(MetaScheduler(parties.scheduler, parties.ws_url).run())
    try:
        records = await wait_for(parties, ids, JobStatus.META_SCHEDULED)
        assert {record.provider for record in records} == {parties.provider.account}
        claims = await parties.provider.claim_jobs(16)
        assert [claim.job_id for claim in claims] == ids
        # What a provider refuses goes to no one else: there is none.
        await parties.provider.refuse_job(ids[0])
        (given_up, left) = await wait_for(parties, [ids[0], poor], JobStatus.PANICKED)
        assert given_up.last_error == "every provider that could run it has refused it"
        assert left.last_error == "its credits buy no minute at any provider that could run it"
        assert (given_up.final_cost, left.final_cost) == (0, 0)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_a_job_that_was_not_claimed_in_time_goes_to_another(parties: Parties) -> None:
    """The cheapest provider may be one that sleeps; the account of the administrator plays it."""
    cheap = Prices(PRICES.gpu, PRICES.cpu // 2, PRICES.mem)
    await parties.admin.register(Hardware((0,), (4,), (8000,)), cheap, [])
    await parties.admin.transact("ProviderManager", "approve", parties.admin.account)
    await parties.admin.transact("Constants", "setClaimJobTimeout", 1)
    running = asyncio.create_task(MetaScheduler(parties.scheduler, parties.ws_url).run())
    try:
        job_id = await parties.customer.request_job(DEFINITION, 5 * MINUTE, NAME)
        (first,) = await wait_for(parties, [job_id], JobStatus.META_SCHEDULED)
        assert first.provider == parties.admin.account
        async with asyncio.timeout(60):
            while not await parties.provider.claim_jobs(1):
                await asyncio.sleep(0.1)
        (job,) = await wait_for(parties, [job_id], JobStatus.SCHEDULED)
        assert job.provider == parties.provider.account
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await parties.admin.transact("Constants", "setClaimJobTimeout", 300)
        await parties.admin.transact("ProviderManager", "remove", parties.admin.account)
