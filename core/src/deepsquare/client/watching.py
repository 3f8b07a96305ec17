"""One subscription to the chain for all who watch something by one client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deepsquare.chain.watch import JobWatch
from deepsquare.errors import ConfigError

if TYPE_CHECKING:
    from deepsquare.chain.market import Market
    from deepsquare.client.subscriber import Subscriber


_CLOSED = "the client is closed: what it watched, another one can go on watching"


class Watcher:
    """Tells its subscribers what the chain has brought."""

    def __init__(self, market: Market, ws_url: str | None) -> None:
        """`ws_url` is where the node tells of new blocks; None to ask for them."""
        self._market, self._ws_url = market, ws_url
        self._subscribers: set[Subscriber] = set()
        self._task: asyncio.Task[None] | None = None
        self._begun: asyncio.Future[None]
        self._is_closed = False

    @contextmanager
    def tells(self, subscriber: Subscriber) -> Iterator[None]:
        """As long as this lasts, the subscriber hears of the chain, once somebody has started the watcher."""
        self.add(subscriber)
        try:
            yield
        finally:
            self._subscribers.discard(subscriber)

    def add(self, subscriber: Subscriber) -> None:
        """Tell a subscriber from now on."""
        self._subscribers.add(subscriber)

    async def start(self) -> None:
        """Watch from now on, unless it does: its cursor is set before anybody reads a state that may change behind it.

        Raises:
            ConfigError: the client is closed.
            DeepSquareError: the node can't be asked, after the retries.
        """
        if self._is_closed:
            raise ConfigError(_CLOSED)
        if self._task is None or self._task.done():
            # Made before anything is awaited: of two watches at once, one makes it.
            self._begun = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._dispatch(self._begun))
        await asyncio.shield(self._begun)

    async def close(self) -> None:
        """Watch no longer."""
        self._is_closed = True
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        # Nobody may wait for a watcher that was ended before it began.
        if not self._begun.done():
            self._begun.set_exception(ConfigError(_CLOSED))
            self._begun.exception()

    async def _dispatch(self, begun: asyncio.Future[None]) -> None:
        try:
            from_block = await self._market.block_number()
        except Exception as error:
            begun.set_exception(error)
            # Whoever waits for it is told; with nobody left, nobody has to be.
            begun.exception()
            return
        begun.set_result(None)
        watch = JobWatch(self._market, self._ws_url, from_block=from_block)
        async for news in watch.news():
            for subscriber in self._subscribers:
                subscriber.hear(news)
