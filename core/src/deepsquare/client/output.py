"""What a job writes: its lines without those that carry its result, and the result."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from datetime import datetime
from typing import TYPE_CHECKING

from deepsquare.client.text import sanitize
from deepsquare.workflow.results import ResultError, ResultReader

if TYPE_CHECKING:
    from deepsquare.client.client import Client
    from deepsquare.client.journal import Journal
    from deepsquare.client.logs import LogLine, LogReader


class Output:
    """The output of a client's jobs; see the methods of `Client` for the errors."""

    def __init__(self, client: Client, journal: Journal, logs: LogReader) -> None:
        self._client, self._journal, self._logs = client, journal, logs

    async def lines(
        self, job_id: str, *, follow: bool, trouble: Callable[[str], None] | None = None
    ) -> AsyncGenerator[LogLine]:
        """The lines for people, as `Client.logs` gives them."""
        (info,) = await self._client.jobs([job_id])
        job_id, tag = info.id, self._journal.tag_of(info.location_hash)
        # Lines that carry the result are nothing for people to read.
        skips = ResultReader(tag).feed if tag else lambda line: False
        if not follow:
            async for line in self._logs.read(job_id, follow=False, ended=None, trouble=trouble):
                if not skips(line.data):
                    yield line
            return
        ended = asyncio.Event()

        async def wait_for_end() -> None:
            try:
                async for _ in self._client.watch([job_id]):
                    pass
            finally:
                ended.set()

        waiter = asyncio.create_task(wait_for_end())
        try:
            async for line in self._logs.read(job_id, follow=True, ended=ended, trouble=trouble):
                if not skips(line.data):
                    yield line
            await waiter
        finally:
            waiter.cancel()
            await asyncio.gather(waiter, return_exceptions=True)

    async def result(self, job_id: str) -> bytes | None:
        """What a job returned, as `Client.result` gives it."""
        async for info in self._client.watch([job_id]):
            last = info
        tag = self._journal.tag_of(last.location_hash)
        if tag is None:
            raise ResultError("incomplete", "it was not submitted with result=True from this machine")
        reader = ResultReader(tag)
        async for line in self._logs.read(last.id, follow=False, ended=None):
            reader.feed(line.data)
        return reader.result

    async def tail(self, job_id: str, lines: int) -> list[str]:
        """The last lines, as `Client.log_tail` gives them."""
        (info,) = await self._client.jobs([job_id])
        if self._journal.tag_of(info.location_hash) is None:
            return await self._logs.tail(info.id, lines)
        # The last lines are those of the result, as many as it needs.
        last: deque[str] = deque(maxlen=max(lines, 0))
        async for line in self.lines(info.id, follow=False):
            last.append(sanitize(line.data))
        return list(last)

    async def times(self, job_id: str) -> tuple[datetime, datetime] | None:
        """When the first and the last line were seen, as `Client.log_times` gives it."""
        return await self._logs.times(job_id)

    async def close(self) -> None:
        """Close the connection to the logger."""
        await self._logs.close()
