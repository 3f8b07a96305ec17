"""Jobs that are topped up before they run dry, on a real chain: in slices, once, up to the cap."""

from __future__ import annotations

import asyncio
import logging
import sys
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from deepsquare.chain.rpc import request
from deepsquare.chain.types import JobReport, JobStatus, parse_job_id
from deepsquare.cli import app as cli
from deepsquare.client.auto_topup import AutoTopUp
from deepsquare.client.client import Client, Job
from deepsquare.client.funding import MaxPriceError
from deepsquare.errors import UnknownJobError
from typer.testing import CliRunner

from core.tests.chain.conftest import Parties
from core.tests.client.test_keys import client, count, workflow
from core.tests.client.test_topup import MINUTE, run

__all__ = ["client"]

cli.add_commands()

LIMIT = timedelta(minutes=5)
TWO = timedelta(minutes=2)


async def look(client: Client) -> float:
    assert client._auto_top_ups is not None
    return await client._auto_top_ups.look()


async def minutes(job: Job) -> Decimal:
    return (await job.info()).locked / MINUTE


async def bought(parties: Parties, client: Client, **wanted: Any) -> Job:
    """A job that runs, which the test alone looks after."""
    job = await client.submit(workflow(), time_limit=LIMIT, auto_top_up=AutoTopUp(slice=TWO, **wanted))
    assert client._auto_top_ups is not None
    await client._auto_top_ups.close()
    await run(parties, job)
    return job


async def pass_time(client: Client, seconds: int) -> None:
    await request(client.market.w3, "evm_increaseTime", seconds)
    await request(client.market.w3, "evm_mine")


async def test_a_slice_is_added_when_less_than_one_is_left(parties: Parties, client: Client) -> None:
    job = await bought(parties, client, cap=100)
    await look(client)
    assert await minutes(job) == 5
    await pass_time(client, 181)
    await look(client)
    await look(client)
    assert await minutes(job) == 7
    await pass_time(client, 130)
    await look(client)
    assert await minutes(job) == 9


async def test_at_the_cap_it_stops_and_says_so_once(
    parties: Parties, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    job = await bought(parties, client, cap=3 * MINUTE)
    for _ in range(4):
        await pass_time(client, 190)
        await look(client)
    assert await minutes(job) == 8
    assert caplog.text.count("is not topped up") == 1
    assert "that automatic top-ups may add" in caplog.text


async def test_without_funds_it_waits_for_them_and_says_so_once(
    parties: Parties, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    job = await bought(parties, client, cap=100)
    _, allowance = await client.funds()
    await client.set_allowance(1)
    await pass_time(client, 200)
    for _ in range(3):
        await look(client)
    assert caplog.text.count("the allowance is 1.0") == 1
    assert await minutes(job) == 5
    await client.set_allowance(allowance)
    await look(client)
    assert await minutes(job) == 7


async def test_the_watcher_needs_no_other_word_than_that_the_job_runs(parties: Parties, client: Client) -> None:
    # Less than a slice from the start.
    job = await client.submit(workflow(), time_limit=LIMIT, auto_top_up=AutoTopUp(cap=100))
    await run(parties, job)
    async with asyncio.timeout(60):
        while await minutes(job) == 5:
            await asyncio.sleep(0.1)
    assert await minutes(job) == 15
    await parties.provider.report([JobReport(parse_job_id(job.id), JobStatus.FINISHED, 60)])
    await job.wait()


async def test_jobs_are_looked_at_together(parties: Parties, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        await bought(parties, client, cap=100)
    await look(client)
    calls: list[str] = []
    monkeypatch.setattr(
        client.market, "get_jobs", lambda ids, get=client.market.get_jobs: calls.append(str(len(ids))) or get(ids)
    )
    monkeypatch.setattr(client.market, "cost_per_minute_of", None)
    await look(client)
    assert calls == ["3"]


ANOTHER = """
import asyncio, sys
from datetime import timedelta
from deepsquare.client.auto_topup import AutoTopUp
from deepsquare.client.client import Client

async def main():
    async with Client("grid") as client:
        wanted = AutoTopUp(cap=sys.argv[2], slice=timedelta(minutes=2))
        await client.auto_top_up(sys.argv[1], wanted)
        await client._auto_top_ups.close()
        print("ready", flush=True)
        sys.stdin.read()
        for _ in range(3):
            await client._auto_top_ups.look()

asyncio.run(main())
"""


@pytest.mark.parametrize(("cap", "added"), [("100", 2), ("1.5", Decimal("1.5") / MINUTE)])
async def test_of_many_watchers_one_tops_up(parties: Parties, client: Client, cap: str, added: Decimal) -> None:
    job = await bought(parties, client, cap=cap)
    await pass_time(client, 181)
    pipe = asyncio.subprocess.PIPE
    others = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", ANOTHER, job.id, cap, stdin=pipe, stdout=pipe, stderr=pipe
        )
        for _ in range(3)
    ]
    for process in others:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    ended = await asyncio.gather(*(process.communicate(b"") for process in others), look(client))
    assert [process.returncode for process in others] == [0, 0, 0], ended
    assert await minutes(job) == 5 + added


async def test_a_job_of_before_and_none_that_is_unknown(client: Client) -> None:
    job = await client.submit(workflow(), time_limit=LIMIT)
    await job.auto_top_up(AutoTopUp(cap=1))
    with pytest.raises(UnknownJobError):
        await client.auto_top_up("0xffff", AutoTopUp(cap=1))
    with pytest.raises(ValueError, match="which only a purchase can authorise"):
        await job.auto_top_up(AutoTopUp(cap=1, by="grid"))


async def test_the_grid_is_authorised_up_to_the_cap_where_the_market_keeps_one(
    parties: Parties, client: Client
) -> None:
    before = await count(parties)
    wanted = AutoTopUp(cap=3, by="grid")
    if not client.market.extended:
        with pytest.raises(ValueError, match="can't keep the cap of 3 credits"):
            await client.submit(workflow(), time_limit=LIMIT, auto_top_up=wanted)
        with pytest.raises(ValueError, match="max_price can't be kept"):
            await client.submit(
                workflow(),
                time_limit=LIMIT,
                max_price=100,
                auto_top_up=AutoTopUp(cap=3, by="grid", allow_uncapped=True),
            )
        assert await count(parties) == before
        wanted = AutoTopUp(cap=3, by="grid", allow_uncapped=True)
    for key in (None, "delegated"):
        job = await client.submit(workflow(), time_limit=LIMIT, auto_top_up=wanted, key=key)
        record = await client.market.get_job(parse_job_id(job.id))
        assert record is not None
        assert record.delegate_spending_authority
        if client.market.extended:
            assert await client.market.read("JobRepository", "delegateAllowance", record.job_id) == 3 * 10**18
    assert client._auto_top_ups is None


async def test_max_price_bounds_the_whole_job(parties: Parties, client: Client) -> None:
    before = await count(parties)
    with pytest.raises(MaxPriceError, match=r"locks 5\.15 and automatic top-ups may add 3, together 8\.15"):
        await client.submit(workflow(), time_limit=LIMIT, max_price=8, auto_top_up=AutoTopUp(cap=3))
    assert await count(parties) == before


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"cap": 0}, "cap is 0"),
        ({"cap": "x"}, "cap is 'x'"),
        ({"cap": 1, "by": "me"}, "by is 'me'"),
        ({"cap": 1, "slice": timedelta(seconds=90)}, "whole minutes"),
        ({"cap": 1, "slice": timedelta()}, "whole minutes"),
        ({"cap": 1, "slice": TWO, "by": "grid"}, "a setting of its market"),
    ],
)
def test_what_says_nothing_is_refused(said: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AutoTopUp(**said)


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--auto-top-up", "5"], "needs --watch"), (["--top-up-by", "grid"], "--auto-top-up CAP")],
)
def test_the_command_says_what_is_missing(tmp_path: Path, options: list[str], words: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("")
    result = CliRunner().invoke(cli.app, ["submit", str(file), "--credits", "5", *options])
    assert result.exit_code == 2
    assert words in result.output


@pytest.fixture(autouse=True)
def _warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="deepsquare.client.auto_topup")
