"""Which jobs changed: a cursor over the blocks, woken by the node's WebSocket and, slowly, by a timer.

Events only say where to look; whoever reacts reads the truth from the contracts. So a lost or doubled event does no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from web3 import AsyncWeb3, WebSocketProvider

from deepsquare.chain.market import BLOCKS_A_CALL, Market
from deepsquare.errors import DeepSquareError

_log = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_SLOW_POLL_SECONDS = 10.0
_RECONNECT_SECONDS = 2.0


class JobWatch:
    """An async iterator over the sets of jobs that changed since the last look.

    The number of RPC calls grows with blocks, never with jobs: one `eth_getLogs` for all blocks since the cursor.
    """

    def __init__(self, market: Market, ws_url: str | None, *, from_block: int) -> None:
        """`ws_url` None means asking for the block number every second; `from_block` is the first block to look at."""
        self._market, self._ws_url, self._cursor = market, ws_url, from_block
        self._changed: set[bytes] = set()
        self._wake = asyncio.Event()
        self._subscribed = False

    async def changes(self) -> AsyncIterator[set[bytes]]:
        """Yield the ids of jobs that were made or changed, each time that there are some, for ever."""
        listener = asyncio.create_task(self._listen()) if self._ws_url else None
        try:
            while True:
                try:
                    await self._advance()
                except DeepSquareError as error:
                    _log.warning("%s; watching goes on when it is back", error)
                if self._changed:
                    changed, self._changed = self._changed, set()
                    yield changed
                timeout = _SLOW_POLL_SECONDS if self._subscribed else _POLL_SECONDS
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), timeout)
                self._wake.clear()
        finally:
            if listener is not None:
                listener.cancel()
                await asyncio.gather(listener, return_exceptions=True)

    async def _advance(self) -> None:
        head = await self._market.block_number()
        while self._cursor <= head:
            last = min(head, self._cursor + BLOCKS_A_CALL - 1)
            logs = await self._market.get_logs(
                [("JobRepository", "JobCreated"), ("JobRepository", "JobTransitionEvent")], self._cursor, last
            )
            self._changed.update(bytes.fromhex(log["data"][2:66]) for log in logs)
            self._cursor = last + 1

    async def _listen(self) -> None:
        """Set the wake-up event at each new block, and reconnect for ever."""
        while True:
            try:
                async with AsyncWeb3(WebSocketProvider(self._ws_url)) as w3:
                    await w3.eth.subscribe("newHeads")
                    self._subscribed = True
                    self._wake.set()
                    async for _ in w3.socket.process_subscriptions():
                        self._wake.set()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                # Whatever ends the subscription, the block-range polling goes on meanwhile.
                _log.debug("the subscription to new blocks ended: %s", type(error).__name__)
            self._subscribed = False
            await asyncio.sleep(_RECONNECT_SECONDS)
