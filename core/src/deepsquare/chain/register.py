"""The register of providers as people look at it: also who waits for approval, and who is banned."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum

from deepsquare.chain.market import Market
from deepsquare.chain.reads import READS_AT_ONCE
from deepsquare.chain.types import Provider


class Standing(Enum):
    """Where a provider stands."""

    JOINED = "joined"
    """It can be given jobs."""
    WAITING = "waiting"
    """It has registered, and the operators of the market have not approved it yet."""
    BANNED = "banned"
    """It gets no new jobs."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A provider in the register."""

    provider: Provider
    has_joined: bool

    @property
    def standing(self) -> Standing:
        """Where it stands; a ban counts more than the rest."""
        if self.provider.is_banned:
            return Standing.BANNED
        return Standing.JOINED if self.has_joined else Standing.WAITING


async def find_entry(market: Market, address: str) -> Entry | None:
    """What the register has of an address; None for one that has not registered, or was removed.

    Raises:
        ConnectionFailedError: the node can't be reached.
    """
    joined = await market.get_provider(address)
    if joined is not None:
        return Entry(joined, has_joined=True)
    waiting = Provider.decode(await market.read("ProviderManager", "getWaitingForApprovalProvider", address))
    return Entry(waiting, has_joined=False) if int(waiting.address, 16) else None


async def list_entries(market: Market, *, waiting: bool) -> list[Entry]:
    """All providers that have joined; with `waiting` also those that wait for approval, for which all events are read.

    Raises:
        ConnectionFailedError: the node can't be reached.
    """
    entries: list[Entry | None]
    if market.extended and not waiting:
        entries = [Entry(provider, has_joined=True) for provider in await market.joined_providers()]
    else:
        limit = asyncio.Semaphore(READS_AT_ONCE)

        async def find(address: str) -> Entry | None:
            async with limit:
                return await find_entry(market, address)

        entries = list(await asyncio.gather(*map(find, await market.registered_addresses())))
    return [entry for entry in entries if entry is not None and (waiting or entry.has_joined)]
