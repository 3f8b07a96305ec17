"""Where providers stand, on a market that lists them and on one that has only events to tell."""

from __future__ import annotations

from pathlib import Path

from deepsquare.chain.market import Market
from deepsquare.chain.register import Standing, find_entry, list_entries
from deepsquare.chain.rpc import request
from deepsquare.chain.types import Hardware, Label, Prices
from deepsquare.chain.wallet import Wallet

from core.tests.chain.conftest import PRICES, Parties


async def test_joined_waiting_banned_and_gone(parties: Parties, tmp_path: Path) -> None:
    newcomer = Wallet.from_key(b"\x21" * 32)
    await request(parties.admin.w3, "anvil_setBalance", newcomer.address, hex(10**20))
    market = await Market.open(
        parties.url, parties.admin.address("MetaScheduler"), wallet=newcomer, lock_folder=tmp_path
    )
    try:
        await market.register(Hardware((2, 0), (8, 4), (64, 32)), Prices(3, 2, 1), [Label("os", "linux")])
    finally:
        await market.close()
    reader, register = parties.customer, parties.admin
    joined = parties.provider.account

    async def standings(*, waiting: bool) -> dict[str, Standing]:
        return {entry.provider.address: entry.standing for entry in await list_entries(reader, waiting=waiting)}

    assert await standings(waiting=False) == {joined: Standing.JOINED}
    assert await standings(waiting=True) == {joined: Standing.JOINED, newcomer.address: Standing.WAITING}
    entry = await find_entry(reader, newcomer.address)
    assert entry is not None
    assert entry.provider.hardware == Hardware((2, 0), (8, 4), (64, 32))
    assert entry.provider.prices == Prices(3, 2, 1)
    assert entry.provider.labels == (Label("os", "linux"),)

    await register.transact("ProviderManager", "ban", joined)
    assert await reader.providers() == []
    assert (await standings(waiting=False)) == {joined: Standing.BANNED}
    banned = await find_entry(reader, joined)
    assert banned is not None
    assert (banned.standing, banned.provider.prices) == (Standing.BANNED, PRICES)

    await register.transact("ProviderManager", "remove", newcomer.address)
    assert await find_entry(reader, newcomer.address) is None
    assert await find_entry(reader, reader.account) is None
    assert newcomer.address not in await standings(waiting=True)
    await register.transact("ProviderManager", "unban", joined)
