"""The allowance on a real chain: raised as far as it was allowed, and never taken away from another."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from deepsquare.chain.market import Market
from deepsquare.chain.rpc import request
from deepsquare.chain.transactions import Sent, UnminedError
from deepsquare.chain.types import UNLIMITED
from deepsquare.cli import app as cli
from deepsquare.client.allowance import parse_policy
from deepsquare.client.client import Client
from deepsquare.client.funding import FundingError
from deepsquare.credits import from_wei
from typer.testing import CliRunner

from core.tests.chain.conftest import Parties
from core.tests.client.test_keys import client, count, workflow

__all__ = ["client"]

cli.add_commands()


@pytest.fixture(autouse=True)
async def nothing_allowed(client: Client) -> AsyncIterator[None]:
    await client.revoke_allowance()
    yield
    await client.set_allowance(1000)


async def allowance(client: Client) -> Decimal:
    return (await client.funds())[1]


async def test_it_is_raised_by_what_is_said_and_revoked(client: Client) -> None:
    await client.set_allowance(5)
    await client.raise_allowance("0.5")
    assert await allowance(client) == Decimal("5.5")
    await client.set_allowance(2)
    assert await allowance(client) == 2
    await client.revoke_allowance()
    assert await allowance(client) == 0


async def test_it_is_raised_to_no_more_than_there_can_be(client: Client) -> None:
    await client.raise_allowance(1)
    with pytest.raises(ValueError, match=r"is 1 credits and can't be raised by"):
        await client.raise_allowance(from_wei(UNLIMITED))
    assert await allowance(client) == 1


async def test_unless_asked_a_purchase_raises_nothing(parties: Parties, client: Client) -> None:
    before = await count(parties)
    with pytest.raises(FundingError, match="the allowance is"):
        await client.submit(workflow(), credits=5)
    assert (await count(parties), await allowance(client)) == (before, 0)


async def test_exact_is_what_the_job_locks(client: Client) -> None:
    await client.set_allowance(1)
    await client.submit(workflow(), credits=5, ensure_allowance="exact")
    assert await allowance(client) == 0
    await client.set_allowance(7)
    await client.submit(workflow(), credits=5, ensure_allowance="exact")
    assert await allowance(client) == 2


async def test_up_to_an_amount_lasts_for_more_jobs_and_goes_no_further(parties: Parties, client: Client) -> None:
    left = []
    for _ in range(4):
        await client.submit(workflow(), credits=4, ensure_allowance=10)
        left.append(await allowance(client))
    assert left == [6, 2, 6, 2]
    before = await count(parties)
    with pytest.raises(FundingError, match=r"needs 11 credits, the allowance is 2, .* raised to 10 only"):
        await client.submit(workflow(), credits=11, ensure_allowance=10)
    assert (await count(parties), await allowance(client)) == (before, 2)


async def test_the_balance_is_looked_at_before_anything_is_raised(client: Client) -> None:
    balance, _ = await client.funds()
    with pytest.raises(FundingError, match="the wallet has"):
        await client.submit(workflow(), credits=balance + 1, ensure_allowance="exact")
    assert await allowance(client) == 0


async def test_a_raise_whose_answer_was_lost_is_not_made_twice(
    parties: Parties, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, before = Market.increase_allowance, await count(parties)

    async def lost(*arguments: Any, **options: Any) -> None:
        await real(*arguments, **options)
        raise UnminedError("in no block")

    async def never_sent(*arguments: Any, before_send: Callable[[Sent], None]) -> None:
        def stop(sent: Sent) -> None:
            before_send(sent)
            raise UnminedError("killed")

        await real(*arguments, before_send=stop)

    for way in (lost, never_sent):
        await client.set_allowance(1)
        monkeypatch.setattr(Market, "increase_allowance", way)
        with pytest.raises(UnminedError):
            await client.submit(workflow(), credits=4, ensure_allowance=10)
        monkeypatch.setattr(Market, "increase_allowance", real)
        await client.submit(workflow(), credits=4, ensure_allowance=10)
        assert await allowance(client) == 6
    assert await count(parties) == before + 2
    assert all(entry.block for entry in client._journal.open_raises(client._grid(), client.account))


async def test_a_raise_whose_nonce_is_anothers_is_no_obstacle(
    parties: Parties, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Market.increase_allowance

    async def never_sent(*arguments: Any, before_send: Callable[[Sent], None]) -> None:
        def stop(sent: Sent) -> None:
            before_send(sent)
            raise UnminedError("killed")

        await real(*arguments, before_send=stop)

    monkeypatch.setattr(Market, "increase_allowance", never_sent)
    with pytest.raises(UnminedError):
        await client.raise_allowance(1000)
    monkeypatch.setattr(Market, "increase_allowance", real)
    await parties.customer.transfer(parties.admin.account, 1)
    # Longer ago than a node can prove anything.
    await request(parties.admin.w3, "anvil_mine", hex(130))
    await client.submit(workflow(), credits=4, ensure_allowance="exact")
    assert await allowance(client) == 0


async def test_what_a_node_behind_its_peers_has_not_seen_is_not_raised_again(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.raise_allowance(3)
    head = await client.market.block_number()
    numbers = iter([head - 1, head - 1])

    async def lagging() -> int:
        return next(numbers, head)

    monkeypatch.setattr(client.market, "block_number", lagging)
    await client.submit(workflow(), credits=3, ensure_allowance=3)
    assert next(numbers, None) is None
    assert await allowance(client) == 0


ANOTHER = """
import asyncio, sys
from deepsquare.client import client as client_module
from core.tests.client.test_keys import stand_in, workflow

client_module.submit_workflow = stand_in

async def main():
    async with client_module.Client("grid") as client:
        for _ in range(3):
            await client.submit(workflow(), credits=3, ensure_allowance=sys.argv[1])

asyncio.run(main())
"""


@pytest.mark.parametrize("policy", ["exact", "5"])
async def test_processes_with_one_wallet_take_nothing_from_each_other(
    parties: Parties, client: Client, policy: str
) -> None:
    before = await count(parties)
    root = Path(__file__).resolve().parents[3]
    others = [
        asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", ANOTHER, policy],
            cwd=root,
            env=os.environ,
            capture_output=True,
            text=True,
        )
        for _ in range(2)
    ]
    mine = [client.submit(workflow(), credits=3, ensure_allowance=policy) for _ in range(3)]
    _, *ended = await asyncio.gather(asyncio.gather(*mine), *others)
    assert [process.returncode for process in ended] == [0, 0], [process.stderr for process in ended]
    assert await count(parties) == before + 9
    assert await allowance(client) <= 5


@pytest.mark.parametrize("policy", ["always", "-1", 1.5])
def test_a_policy_that_is_none_is_refused(policy: str) -> None:
    with pytest.raises(ValueError, match=r"ensure_allowance .*or write never or exact"):
        parse_policy(policy)


async def test_the_commands_show_raise_and_revoke(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSQUARE_CONTEXT", "grid")

    async def run(*arguments: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, cli.app, ["allowance", *arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    await run("set", "5")
    assert "up to 7.25 credits" in await run("raise", "2.25")
    assert json.loads(await run("show", "--json"))["allowance"] == "7.25"
    await run("revoke")
    assert json.loads(await run("show", "--json"))["allowance"] == "0"
