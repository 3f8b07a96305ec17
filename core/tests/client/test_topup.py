"""More credits for a job on a real chain: by amount, by time, once."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from deepsquare.chain.errors import ContractError
from deepsquare.chain.market import Assignment, Market
from deepsquare.chain.transactions import UnminedError
from deepsquare.chain.types import UNLIMITED, JobReport, JobStatus, parse_job_id
from deepsquare.cli import app as cli
from deepsquare.client.client import Client, Job
from deepsquare.client.funding import FundingError, needs_of
from deepsquare.client.topup import TopUpError, TopUpUnknownError
from deepsquare.credits import from_wei
from deepsquare.errors import UnknownJobError
from typer.testing import CliRunner

from core.tests.chain.conftest import PRICES, Parties
from core.tests.client.test_keys import client, workflow

__all__ = ["client"]

cli.add_commands()

MINUTE = from_wei(PRICES.cpu + 1000 * PRICES.mem)


async def claim(parties: Parties, job: Job) -> None:
    assignment = Assignment(parse_job_id(job.id), parties.provider.account, UNLIMITED)
    assert not await parties.scheduler.meta_schedule([assignment])
    await parties.provider.claim_jobs(1)


async def run(parties: Parties, job: Job) -> None:
    await claim(parties, job)
    assert not await parties.provider.report([JobReport(parse_job_id(job.id), JobStatus.RUNNING)])


@pytest.fixture
async def job(parties: Parties, client: Client) -> Job:
    """A job that runs, with credits for two minutes."""
    bought = await client.submit(workflow(), time_limit=timedelta(minutes=2))
    await run(parties, bought)
    return bought


async def test_by_amount_and_by_started_minutes(job: Job) -> None:
    assert await job.top_up(credits="1.5") == Decimal("1.5")
    assert await job.top_up(time=timedelta(seconds=61)) == 2 * MINUTE
    assert (await job.info()).locked == 4 * MINUTE + Decimal("1.5")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, "give either credits or time"),
        ({"credits": 1, "time": timedelta(minutes=1)}, "give either credits or time"),
        ({"credits": "0.01"}, r"credits is 0\.01, which buys no minute: a minute of this job costs 1\.03"),
        ({"time": timedelta()}, "time is 0:00:00"),
    ],
)
async def test_what_buys_no_time_is_refused(job: Job, said: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        await job.top_up(**said)
    assert (await job.info()).locked == 2 * MINUTE


async def test_what_the_wallet_or_the_allowance_lacks_is_said(client: Client, job: Job) -> None:
    balance, allowance = await client.funds()
    with pytest.raises(FundingError, match="the wallet has"):
        await job.top_up(credits=balance + 1)
    await client.set_allowance(1)
    with pytest.raises(FundingError, match="allowance is 1"):
        await job.top_up(credits=2)
    await client.set_allowance(allowance)
    assert (await job.info()).locked == 2 * MINUTE


async def test_only_a_job_that_a_provider_has_takes_more(parties: Parties, client: Client) -> None:
    waiting = await client.submit(workflow(), time_limit=timedelta(minutes=2))
    with pytest.raises(TopUpError, match=r"is PENDING: .* once a provider has it"):
        await waiting.top_up(credits=2)
    await claim(parties, waiting)
    await waiting.top_up(credits=2)
    await parties.provider.report([JobReport(parse_job_id(waiting.id), JobStatus.RUNNING)])
    await parties.provider.report([JobReport(parse_job_id(waiting.id), JobStatus.FINISHED, 60)])
    with pytest.raises(TopUpError, match=r"has ended \(FINISHED\).*buy a new one"):
        await waiting.top_up(credits=2)
    with pytest.raises(UnknownJobError):
        await client.top_up("0xffff", credits=2)


async def test_a_strangers_job_gets_nothing(parties: Parties, client: Client) -> None:
    await parties.admin.approve(10**20)
    stranger = await parties.admin.request_job(needs_of(workflow(), "stranger"), 3 * 10**18, b"s".ljust(32, b"\0"))
    with pytest.raises(TopUpError, match="another customer's"):
        await client.top_up("0x" + stranger.hex(), credits=2)


async def test_a_lost_answer_is_said_and_settled_by_the_next(
    client: Client, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Market.top_up_job

    async def lost(*arguments: Any, **options: Any) -> None:
        await real(*arguments, **options)
        raise UnminedError("in no block")

    monkeypatch.setattr(Market, "top_up_job", lost)
    with pytest.raises(TopUpUnknownError, match="deepsquare job show 0x"):
        await job.top_up(credits=2)
    monkeypatch.setattr(Market, "top_up_job", real)
    await job.top_up(credits=3)
    assert (await job.info()).locked == 2 * MINUTE + 5
    assert client._journal.topped_up_to(client._grid(), client.account, job.id) == int((2 * MINUTE + 5) * 10**18)


async def test_what_the_contract_refuses_leaves_no_trace(
    client: Client, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepsquare.client.topup.check_funds", lambda *_, **__: None)
    with pytest.raises(ContractError):
        await job.top_up(credits=10**6)
    assert client._journal.topped_up_to(client._grid(), client.account, job.id) == 0


VICTIM = """
import asyncio, os, signal, sys
from deepsquare.chain import transactions
from deepsquare.client import client as client_module, journal

step, job_id = sys.argv[1:]

def dies(owner, name, after=False):
    function = getattr(owner, name)
    def sync(*arguments, **options):
        if after:
            function(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)
    async def asynchronous(*arguments, **options):
        await function(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, asynchronous if asyncio.iscoroutinefunction(function) else sync)

{
    "noted": lambda: dies(journal.Journal, "signed_top_up"),
    "signed": lambda: dies(journal.Journal, "signed_top_up", after=True),
    "sent": lambda: dies(transactions.Sender, "_hand_in"),
    "carried out": lambda: dies(journal.Journal, "carried_out_top_up"),
}[step]()

async def main():
    async with client_module.Client("grid") as client:
        await client.top_up(job_id, credits=2)

asyncio.run(main())
"""


@pytest.mark.parametrize(("step", "left"), [("noted", 0), ("signed", 2), ("sent", 2), ("carried out", 2)])
async def test_what_was_cut_off_is_carried_out_once_or_never(job: Job, step: str, left: int) -> None:
    root = Path(__file__).resolve().parents[3]
    victim = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", VICTIM, step, job.id], cwd=root, check=False, capture_output=True
    )
    assert victim.returncode == -signal.SIGKILL, victim.stderr
    await job.top_up(credits=3)
    assert (await job.info()).locked == 2 * MINUTE + left + 3


async def test_the_command(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSQUARE_CONTEXT", "grid")

    async def run(*arguments: str) -> Any:
        return await asyncio.to_thread(CliRunner().invoke, cli.app, ["job", "top-up", job.id, *arguments])

    assert "in all" in (await run("--credits", "2")).stdout
    shown = json.loads((await run("--time", "90s", "--json")).stdout)
    assert shown == {"id": job.id, "added": f"{2 * MINUTE:f}", "locked": f"{4 * MINUTE + 2:f}"}
    assert (await run()).exit_code == (await run("--time", "soon")).exit_code == 2
