"""What all jobs of a scope may cost together, on a real chain: refused before anything is paid, from whichever process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from deepsquare.chain.market import Market
from deepsquare.chain.transactions import Sent, UnminedError
from deepsquare.chain.types import JobReport, JobStatus, parse_job_id
from deepsquare.cli import app as cli
from deepsquare.client import budget as module
from deepsquare.client.auto_topup import AutoTopUp
from deepsquare.client.budget import Budget, BudgetError
from deepsquare.client.client import Client, Job
from deepsquare.client.purchases import Purchases
from deepsquare.errors import PurchaseUnknownError, TransactionError
from typer.testing import CliRunner

from core.tests.chain.conftest import Parties
from core.tests.client.test_keys import client, count, workflow
from core.tests.client.test_topup import MINUTE, run

__all__ = ["client"]

cli.add_commands()

TEN = Budget(10, "night")


async def buy(client: Client, credits: Any, budget: Budget = TEN, **options: Any) -> Job:
    return await client.submit(workflow(), credits=credits, budget=budget, **options)


async def finish(parties: Parties, job: Job) -> None:
    """One minute is billed."""
    await parties.provider.report([JobReport(parse_job_id(job.id), JobStatus.FINISHED, 60)])


async def test_hot_jobs_count_with_what_they_locked_and_cold_ones_with_their_bill(
    parties: Parties, client: Client
) -> None:
    first = await buy(client, 6)
    await run(parties, first)
    before = await count(parties)
    with pytest.raises(
        BudgetError, match=r"'night' is 10 credits, of which 6 are locked or spent: 5 more would exceed it"
    ):
        await buy(client, 5)
    assert await count(parties) == before
    await buy(client, 5, Budget(10, "another"))
    await finish(parties, first)
    assert await client.spent("night") == MINUTE
    await buy(client, 10 - MINUTE)
    assert await client.spent("night") == 10
    with pytest.raises(BudgetError):
        await buy(client, 2, Budget("11.9", "night"))
    await buy(client, 2, Budget(12, "night"))


async def test_top_ups_count_and_those_of_jobs_without_a_budget_do_not(parties: Parties, client: Client) -> None:
    job = await buy(client, 6)
    await run(parties, job)
    await job.top_up(credits=3)
    with pytest.raises(BudgetError, match="9 are locked or spent: 2 more"):
        await job.top_up(credits=2)
    assert (await job.info()).locked == await client.spent("night") == 9
    assert client._journal.open_top_ups(client._grid(), client.account, job.id) == []
    free = await client.submit(workflow(), credits=6)
    await run(parties, free)
    await free.top_up(credits=6)
    await finish(parties, job)
    assert await client.spent("night") == MINUTE


async def test_what_others_add_to_a_job_counts_too(
    parties: Parties, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await buy(client, 6)
    await run(parties, job)
    await parties.customer.top_up_job(parse_job_id(job.id), 2 * 10**18)
    assert await client.spent("night") == 8
    assert await client.spent("night") == 8


async def test_automatic_top_ups_stop_at_the_budget(
    parties: Parties, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    job = await buy(client, 6, auto_top_up=AutoTopUp(cap=100, slice=timedelta(minutes=20)))
    assert client._auto_top_ups is not None
    await client._auto_top_ups.close()
    await run(parties, job)
    for _ in range(2):
        await client._auto_top_ups.look()
    assert (await job.info()).locked == 6
    assert caplog.text.count("the budget 'night' is 10 credits") == 1


async def test_what_the_grid_may_add_is_reserved(client: Client) -> None:
    wanted = AutoTopUp(cap=4, by="grid", allow_uncapped=True)
    if not client.market.extended:
        with pytest.raises(ValueError, match="budget can't be kept"):
            await buy(client, 5, auto_top_up=wanted)
        return
    await buy(client, 5, auto_top_up=wanted)
    assert await client.spent("night") == 9
    with pytest.raises(BudgetError):
        await buy(client, 2)


async def test_a_job_found_by_its_key_counts_once(client: Client) -> None:
    await client.submit(workflow(), credits=5, key="k")
    for _ in range(2):
        assert (await buy(client, 5, key="k")).adopted
    assert await client.spent("night") == 5


async def test_when_it_is_spent_running_jobs_end_if_that_was_said(parties: Parties, client: Client) -> None:
    waiting, running = await buy(client, 5), await buy(client, 5)
    await run(parties, running)
    other = await client.submit(workflow(), credits=5)
    with pytest.raises(BudgetError):
        await buy(client, 2)
    assert (await waiting.info()).status is JobStatus.PENDING
    with pytest.raises(BudgetError, match=r"2 running job\(s\) of it were told to stop"):
        await buy(client, 2, Budget(10, "night", when_spent="stop"))
    assert (await waiting.info()).status is JobStatus.CANCELLED
    record = await client.market.get_job(parse_job_id(running.id))
    assert record is not None
    assert record.has_cancel_request
    assert (await other.info()).status is JobStatus.PENDING


async def test_what_was_not_bought_does_not_count_and_what_may_have_been_does(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: Any, **__: Any) -> str:
        raise TransactionError("refused")

    async def lost(*_: Any, **__: Any) -> str:
        raise PurchaseUnknownError("x", "in no block")

    for outcome, counted in ((refused, 0), (lost, 5)):
        monkeypatch.setattr(Purchases, "buy", outcome)
        with pytest.raises(TransactionError):
            await buy(client, 5)
        assert await client.spent("night") == counted
    # Nothing of it was ever signed.
    monkeypatch.setattr(module, "_UNSIGNED_SECONDS", -1)
    assert await client.spent("night") == 0


async def test_a_purchase_whose_answer_was_lost_is_found_on_chain(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client._journal, "bought", lambda *_: None)
    job = await buy(client, 5)
    await job.cancel()
    assert await client.spent("night") == 5
    monkeypatch.setattr(module, "_UNANSWERED_SECONDS", -1)
    assert await client.spent("night") == 0


async def test_a_purchase_that_never_will_be_is_let_go(
    parties: Parties, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = client.market.request_job

    async def never_sent(*arguments: Any, before_send: Callable[[Sent], None], **options: Any) -> None:
        def stop(sent: Sent) -> None:
            before_send(sent)
            raise UnminedError("killed")

        await real(*arguments, before_send=stop, **options)

    async def unknown(*_: object) -> None:
        raise UnminedError("in no block")

    monkeypatch.setattr(client.market, "request_job", never_sent)
    monkeypatch.setattr("deepsquare.client.purchases.SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(Market, "settle", unknown)
    with pytest.raises(PurchaseUnknownError):
        await buy(client, 5)
    monkeypatch.setattr(module, "_UNANSWERED_SECONDS", -1)
    # Somebody may send it yet.
    assert await client.spent("night") == 5
    await parties.customer.transfer(parties.admin.account, 1)
    # Or somebody is about to sign it anew.
    assert await client.spent("night") == 5
    monkeypatch.setattr(module, "_UNSIGNED_SECONDS", -1)
    assert await client.spent("night") == 0


ANOTHER = """
import asyncio
from deepsquare.client import client as client_module
from deepsquare.client.budget import Budget, BudgetError
from core.tests.client.test_keys import stand_in, workflow

client_module.submit_workflow = stand_in

async def main():
    bought = 0
    async with client_module.Client("grid") as client:
        for _ in range(4):
            try:
                await client.submit(workflow(), credits=2, budget=Budget(10, "night"))
                bought += 1
            except BudgetError:
                pass
    print(bought)

asyncio.run(main())
"""


async def test_processes_that_buy_at_once_do_not_exceed_it_together(parties: Parties, client: Client) -> None:
    before = await count(parties)
    root = Path(__file__).resolve().parents[3]
    others = [
        asyncio.to_thread(subprocess.run, [sys.executable, "-c", ANOTHER], cwd=root, capture_output=True, text=True)
        for _ in range(2)
    ]
    mine = [buy(client, 2) for _ in range(4)]
    results, *ended = await asyncio.gather(asyncio.gather(*mine, return_exceptions=True), *others)
    assert {type(result) for result in results} <= {Job, BudgetError}
    bought = sum(isinstance(result, Job) for result in results) + sum(int(process.stdout) for process in ended)
    assert bought == await count(parties) - before == 5
    assert await client.spent("night") == 10


@pytest.mark.parametrize(
    ("said", "words"),
    [((-1, "s"), "budget is -1"), ((1, ""), "scope is empty"), ((1, "s", "kill"), "when_spent is 'kill'")],
)
def test_what_says_nothing_is_refused(said: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Budget(*said)


@pytest.mark.parametrize("options", [["--budget", "5"], ["--budget-scope", "night"]])
def test_the_command_needs_an_amount_and_a_name(tmp_path: Path, options: list[str]) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("")
    result = CliRunner().invoke(cli.app, ["submit", str(file), "--credits", "5", *options])
    assert (result.exit_code, "--budget-scope NAME" in result.output) == (2, True)


def test_a_budget_is_exact() -> None:
    assert Budget("0.000000000000000001", "s").credits == "0.000000000000000001"
    assert Budget(Decimal("1e-18"), "s").when_spent == "let_run"
