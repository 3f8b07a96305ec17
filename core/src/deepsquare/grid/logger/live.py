"""Wakes the readers of a log when lines were added to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator


class Wakeups:
    """The events of the readers that wait, by log."""

    def __init__(self) -> None:
        self._waiting: defaultdict[tuple[str, str], set[asyncio.Event]] = defaultdict(set)

    @contextlib.contextmanager
    def listen(self, owner: str, name: str) -> Iterator[asyncio.Event]:
        """An event that is set after each addition to the log; who waits for it clears it before looking at the log."""
        event = asyncio.Event()
        self._waiting[owner, name].add(event)
        try:
            yield event
        finally:
            self._waiting[owner, name].discard(event)
            if not self._waiting[owner, name]:
                del self._waiting[owner, name]

    def notify(self, owner: str, name: str) -> None:
        """Tell the readers of a log that it has grown."""
        for event in self._waiting.get((owner, name), ()):
            event.set()
