"""Looking at a market without a wallet: no password is needed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from deepsquare import contexts
from deepsquare.chain.market import Market
from deepsquare.contexts import Context


@asynccontextmanager
async def open_reader(name: str | None = None) -> AsyncIterator[tuple[Context, Market]]:
    """A context, the current one when `name` is None, and its market, for reading only.

    Raises:
        ConfigError: no such context, or its node or contract is another's.
        ConnectionFailedError: the node can't be reached.
    """
    context = contexts.load(name)
    market = await Market.open(
        context.rpc_url, context.metascheduler, chain_id=context.chain_id, cache_folder=contexts.home() / "cache"
    )
    try:
        yield context, market
    finally:
        await market.close()
