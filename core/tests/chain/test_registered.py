"""Providers by the events of their registration, on a chain with many blocks."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from deepsquare.chain import registered
from deepsquare.chain.market import Market
from deepsquare.chain.rpc import request
from deepsquare.chain.types import Hardware

from core.tests.chain.conftest import PRICES, Parties

A_CALL, UNSETTLED = 4, 6


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # As if the chain were long.
    monkeypatch.setattr(registered, "BLOCKS_A_CALL", A_CALL)
    monkeypatch.setattr(registered, "_UNSETTLED_BLOCKS", UNSETTLED)
    return tmp_path / "cache"


async def look(parties: Parties, folder: Path) -> tuple[list[str], list[tuple[int, int]]]:
    """What a new process finds, and the ranges of blocks that it reads for that."""
    market = await Market.open(parties.url, parties.customer.address("MetaScheduler"), cache_folder=folder)
    ranges: list[tuple[int, int]] = []
    get_logs = market.get_logs

    async def noting(events: object, first: int, last: int) -> object:
        ranges.append((first, last))
        return await get_logs(events, first, last)  # type: ignore[arg-type]

    market.get_logs = noting  # type: ignore[method-assign, assignment]
    try:
        return await market.registered_addresses(), ranges
    finally:
        await market.close()


async def mine(parties: Parties, blocks: int) -> int:
    await request(parties.admin.w3, "anvil_mine", hex(blocks))
    return await parties.admin.block_number()


async def test_blocks_are_read_once_by_all_processes(
    parties: Parties, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registered, "_SAY_SECONDS", 0)
    before = await mine(parties, 100)
    with caplog.at_level(logging.WARNING):
        found, ranges = await look(parties, folder)
    assert found == [parties.provider.account]
    assert sorted(ranges) == [(first, min(first + A_CALL - 1, before)) for first in range(0, before + 1, A_CALL)]
    assert f"block {16 * A_CALL} of {before}" in caplog.text

    await parties.customer.register(Hardware((0,), (1,), (100,)), PRICES, [])
    head = await parties.admin.block_number()
    found, ranges = await look(parties, folder)
    assert found == [parties.provider.account, parties.customer.account]
    assert min(first for first, _ in ranges) >= head - A_CALL - UNSETTLED
    assert (await look(parties, folder))[0] == found


async def test_a_damaged_file_is_no_harm(parties: Parties, folder: Path) -> None:
    await mine(parties, 20)
    found, _ = await look(parties, folder)
    (path,) = folder.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    for damage in ("", "{}", '{"cursor": "x", "providers": []}', '{"cursor": 9, "providers": [4]}', "[]"):
        path.write_text(damage)
        assert (await look(parties, folder))[0] == found


async def test_what_was_read_is_kept_when_the_node_fails(
    parties: Parties, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = await mine(parties, 100)
    market = parties.customer
    get_logs = market.get_logs

    async def failing(events: object, first: int, last: int) -> object:
        if first > head - 10:
            raise ConnectionError("gone")
        return await get_logs(events, first, last)  # type: ignore[arg-type]

    fresh = registered.Registered(market)
    monkeypatch.setattr(market, "get_logs", failing)
    with pytest.raises(ConnectionError):
        await fresh.read()
    asked: list[int] = []

    async def noting(events: object, first: int, last: int) -> object:
        asked.append(first)
        return await get_logs(events, first, last)  # type: ignore[arg-type]

    monkeypatch.setattr(market, "get_logs", noting)
    assert parties.provider.account in await fresh.read()
    assert min(asked) > 0
