"""`deepsquare provider`: hardware, prices in credits and labels, without a password."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from deepsquare import contexts

from core.tests.chain.conftest import Parties
from core.tests.cli.conftest import Said


@pytest.fixture
def provider(cli: Callable[..., Said], home: Path, parties: Parties) -> Callable[..., Said]:
    """Run `deepsquare provider` with a context whose wallet can't be opened."""
    contexts.save(parties.context("local"))
    contexts.use("local")
    return lambda *arguments: cli("provider", *arguments)


async def test_providers_are_listed_and_shown(provider: Callable[..., Said], parties: Parties) -> None:
    address = parties.provider.account
    expected = {
        "address": address,
        "standing": "joined",
        "nodes": [{"cpus": 4, "gpus": 0, "memory_mb": 8000}],
        "credits_per_cpu_minute": "0.95",
        "credits_per_gpu_minute": "8.5",
        "credits_per_mb_minute": "0.00008",
        "labels": {"os": "linux"},
    }
    assert json.loads((await asyncio.to_thread(provider, "list", "--json")).out) == [expected]
    assert json.loads((await asyncio.to_thread(provider, "list", "--waiting", "--json")).out) == [expected]
    assert json.loads((await asyncio.to_thread(provider, "show", address.lower(), "--json")).out) == expected
    header, row = (await asyncio.to_thread(provider, "list")).out.splitlines()
    assert header.split() == ["ADDRESS", "STANDING", "NODES", "CPUS", "GPUS", "MB", "CPU/MIN", "GPU/MIN", "MB/MIN"]
    assert row.split() == [address, "joined", "1", "4", "0", "8000", "0.95", "8.5", "0.00008"]
    shown = (await asyncio.to_thread(provider, "show", address)).out
    assert "node 1                 4 CPUs, 0 GPUs, 8000 MB\nlabel                  os=linux\n" in shown


async def test_who_has_not_registered_is_no_provider(provider: Callable[..., Said], parties: Parties) -> None:
    said = await asyncio.to_thread(provider, "show", parties.customer.account)
    assert (said.code, f"no provider has registered as {parties.customer.account}" in said.err) == (1, True)
    said = await asyncio.to_thread(provider, "show", "0x12")
    assert (said.code, "ADDRESS is '0x12', which is not an address" in said.err) == (2, True)
