"""One watch of jobs on the client's subscription."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deepsquare.chain.watch import News

SILENCE_SECONDS = 30.0
"""After how long without news a watch looks all the same, so that nothing is missed for ever."""


class Subscriber:
    """The hot jobs that a watch waits for, and which of them changed."""

    def __init__(self, job_ids: set[bytes]) -> None:
        self.job_ids = job_ids
        self._changed: set[bytes] = set()
        self._event = asyncio.Event()

    def tell(self, changed: set[bytes]) -> None:
        """Take note of jobs that changed; others' are none of this watch's business."""
        mine = changed & self.job_ids
        if mine:
            self._changed |= mine
            self._event.set()

    def hear(self, news: News) -> None:
        """Take note of what the client's watcher has seen."""
        self.tell(news.changed)

    async def next(self, seconds: float = SILENCE_SECONDS) -> set[bytes]:
        """The jobs that changed; after `seconds` of silence all of them."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return set(self.job_ids)
        self._event.clear()
        changed, self._changed = self._changed & self.job_ids, set()
        return changed
