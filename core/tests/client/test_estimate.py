"""What a job would cost, on a real chain: asked for, nothing is signed; and what may not be locked buys nothing."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import pytest
from deepsquare.chain.rpc import request
from deepsquare.cli import app as cli
from deepsquare.client.client import Client
from deepsquare.client.funding import MaxPriceError
from typer.testing import CliRunner

from core.tests.chain.conftest import Parties
from core.tests.client.test_keys import client, count, workflow

__all__ = ["client"]

cli.add_commands()


async def test_an_estimate_is_what_the_purchase_locks_and_signs_nothing(parties: Parties, client: Client) -> None:
    sent = await request(client.market.w3, "eth_getTransactionCount", client.account, "pending")
    (offer,) = await client.estimate(workflow(), timedelta(minutes=3))
    assert offer.provider == parties.provider.account
    assert await request(client.market.w3, "eth_getTransactionCount", client.account, "pending") == sent
    job = await client.submit(workflow(), time_limit=timedelta(minutes=3), max_price=offer.cost)
    assert job.locked == offer.cost


async def test_a_job_that_is_too_dear_is_not_bought(parties: Parties, client: Client) -> None:
    before = await count(parties)
    with pytest.raises(MaxPriceError):
        await client.submit(workflow(), time_limit=timedelta(minutes=3), max_price="0.1")
    assert await count(parties) == before


async def test_the_command_prints_a_table_and_json(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPSQUARE_CONTEXT", "grid")
    file = tmp_path / "job.json"
    file.write_text(json.dumps(workflow().to_dict()))
    arguments = ["estimate", str(file), "--time-limit", "10m"]
    shown = await asyncio.to_thread(CliRunner().invoke, cli.app, [*arguments, "--json"])
    (offer,) = json.loads(shown.stdout)
    (known,) = await client.estimate(workflow(), timedelta(minutes=10))
    assert (offer["provider"], offer["cost"], offer["counts"]) == (known.provider, f"{known.cost:f}", True)
    shown = await asyncio.to_thread(CliRunner().invoke, cli.app, arguments)
    assert f"{known.provider} *" in shown.stdout
    assert f"{known.cost:f}" in shown.stdout
