"""Which jobs changed: a cursor over the blocks, woken by the node's WebSocket and, slowly, by a timer.

Events only say where to look; whoever reacts reads the truth from the contracts. So a lost or doubled event does no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, NamedTuple

from websockets.asyncio.client import connect

from deepsquare.chain.contracts import BLOCKS_A_CALL, Head
from deepsquare.chain.market import Market
from deepsquare.errors import DeepSquareError

_log = logging.getLogger(__name__)
# The library writes whole requests into its log, with the keys that addresses of nodes often have.
_quiet = logging.getLogger(f"{__name__}.socket")
_quiet.setLevel(logging.WARNING)

_CHANGES = (
    ("JobRepository", "JobCreated"),
    ("JobRepository", "JobTransitionEvent"),
    # Contracts of version 1.2 have neither of these.
    ("MetaScheduler", "JobToppedUp"),
    ("MetaScheduler", "JobCancelRequested"),
)
# Chains that take more than that back do so once in years; what is missed then, a look after a long silence finds.
_TAKEN_BACK_BLOCKS = 12
_POLL_SECONDS = 1.0
_SLOW_POLL_SECONDS = 10.0
_RECONNECT_SECONDS = 2.0
_SUBSCRIBE = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]})
# A block's header has less; without a bound a node could fill the memory.
_MESSAGE_BYTES = 1 << 20
# What takes longer is told, long before the retries are over.
_PATIENCE_SECONDS = 3.0


class News(NamedTuple):
    """What a look at the chain has brought."""

    changed: set[bytes]
    """The ids of jobs that were made or changed since the last news."""
    head: Head | None
    """The latest block; None as long as none was seen."""
    trouble: str
    """Why the node can't be asked at the moment; empty when it can."""


class JobWatch:
    """An async iterator over the sets of jobs that changed since the last look.

    The number of RPC calls grows with blocks, never with jobs: one `eth_getLogs` for all blocks since the cursor, and some before
    it, in which a chain that takes blocks back may have others by now.
    """

    def __init__(self, market: Market, ws_url: str | None, *, from_block: int) -> None:
        """`ws_url` None means asking for the block number every second; `from_block` is the first block to look at."""
        self._market, self._ws_url, self._cursor = market, ws_url, from_block
        self._first = from_block
        self._head: Head | None = None
        self._recent: dict[tuple[str, str], tuple[int, bytes]] = {}
        self._changed: set[bytes] = set()
        self._wake = asyncio.Event()
        self._subscribed = False

    async def changes(self) -> AsyncIterator[set[bytes]]:
        """Yield the ids of jobs that were made or changed, each time that there are some, for ever."""
        async with contextlib.aclosing(self.news()) as all_news:
            async for news in all_news:
                if news.changed:
                    yield news.changed

    async def news(self) -> AsyncGenerator[News]:
        """Yield at each new block, and when the node is lost or there again, for ever."""
        listener = asyncio.create_task(self._listen()) if self._ws_url else None
        look: asyncio.Task[None] | None = None
        told: tuple[Head | None, str] = (None, "")
        try:
            while True:
                trouble = ""
                look = asyncio.create_task(self._advance())
                await asyncio.wait({look}, timeout=_PATIENCE_SECONDS)
                if not look.done():
                    told = (self._head, "the node of the chain does not answer; asking it again")
                    yield News(set(), *told)
                try:
                    await look
                except DeepSquareError as error:
                    _log.warning("%s; watching goes on when it is back", error)
                    trouble = str(error)
                if self._changed or (self._head, trouble) != told:
                    changed, self._changed = self._changed, set()
                    told = (self._head, trouble)
                    yield News(changed, *told)
                timeout = _SLOW_POLL_SECONDS if self._subscribed else _POLL_SECONDS
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await self._wake.wait()
                self._wake.clear()
        finally:
            tasks = [task for task in (listener, look) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _advance(self) -> None:
        latest = await self._market.head()
        if latest == self._head:
            return
        head = latest.number
        start = max(self._first, self._cursor - _TAKEN_BACK_BLOCKS)
        while start <= head:
            last = min(head, start + BLOCKS_A_CALL - 1)
            self._compare(start, last, await self._market.get_logs(_CHANGES, start, last))
            start = last + 1
            self._cursor = max(self._cursor, start)
        self._head = latest

    def _compare(self, start: int, last: int, logs: list[dict[str, Any]]) -> None:
        """Note the jobs of logs that are new in a range of blocks, and of those that are there no longer."""
        there = {(log["blockHash"], log["logIndex"]): (int(log["blockNumber"], 16), _job_of(log)) for log in logs}
        known = {key: of for key, of in self._recent.items() if start <= of[0] <= last}
        for key in there.keys() ^ known.keys():
            self._changed.add((there.get(key) or known[key])[1])
        oldest = last - _TAKEN_BACK_BLOCKS
        kept = {key: of for key, of in self._recent.items() if key not in known} | there
        self._recent = {key: of for key, of in kept.items() if of[0] > oldest}

    async def _listen(self) -> None:
        """Set the wake-up event at each new block, and reconnect for ever."""
        while True:
            try:
                async with connect(self._ws_url or "", max_size=_MESSAGE_BYTES, logger=_quiet) as socket:
                    await socket.send(_SUBSCRIBE)
                    async for message in socket:
                        answer = json.loads(message)
                        if "error" in answer:
                            raise ConnectionError(answer["error"])
                        self._subscribed = True
                        self._wake.set()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                # Whatever ends the subscription, the block-range polling goes on meanwhile.
                _log.debug("the subscription to new blocks ended: %s", type(error).__name__)
            self._subscribed = False
            # From now on it is asked more often.
            self._wake.set()
            await asyncio.sleep(_RECONNECT_SECONDS)


def _job_of(log: dict[str, Any]) -> bytes:
    """The job that an event is about: its first argument, indexed or not."""
    topics = log["topics"]
    return bytes.fromhex(topics[1][2:] if len(topics) > 1 else log["data"][2:66])
