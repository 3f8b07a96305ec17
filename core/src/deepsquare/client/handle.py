"""The handle of one job: what the client can do, of that job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from deepsquare.client.job import JobInfo
from deepsquare.client.logs import LogLine

if TYPE_CHECKING:
    from deepsquare.client.auto_topup import AutoTopUp
    from deepsquare.client.client import Client


class Job:
    """The handle of one job."""

    def __init__(self, client: Client, job_id: str, locked: Decimal | None, *, adopted: bool = False) -> None:
        self._client = client
        self.adopted = adopted
        """Whether `submit` found it by its key, and bought nothing."""
        self.id = job_id
        """0x and 64 hex digits."""
        self.locked = locked
        """The credits that its purchase locked; None for a handle made from an id."""

    def __repr__(self) -> str:
        return f"Job({self.id})"

    def again(self) -> Job:
        """A handle of the same job, for a submission that bought nothing."""
        return Job(self._client, self.id, self.locked, adopted=True)

    async def info(self) -> JobInfo:
        """How the job stands now."""
        info = (await self._client.jobs([self.id]))[0]
        self.id = info.id
        return info

    async def wait(self) -> JobInfo:
        """How the job stands at its end; cancel the waiting as you like, the job goes on."""
        async for info in self._client.watch([self.id]):
            self.id = info.id
            if info.status.is_cold:
                return info
        raise AssertionError("unreachable: a watch ends with the job's end")

    async def top_up(self, *, credits: Decimal | int | str | None = None, time: timedelta | None = None) -> Decimal:
        """Lock more credits for it, by amount or for a time; see `Client.top_up`."""
        return await self._client.top_up(self.id, credits=credits, time=time)

    async def auto_top_up(self, wanted: AutoTopUp) -> None:
        """Top it up from now on, as long as the client is open; see `Client.auto_top_up`."""
        await self._client.auto_top_up(self.id, wanted)

    async def cancel(self) -> None:
        """Ask for its end."""
        await self._client.cancel([self.id])

    def deliver(self) -> None:
        """Note that its result has reached you: from now on its key buys anew."""
        self._client.purchases.deliver(self.id)

    async def result(self) -> bytes | None:
        """What it wrote to `$DEEPSQUARE_RESULT`, when it is at its end; see `Client.result`."""
        return await self._client.result(self.id)

    def logs(self, *, follow: bool = True) -> AsyncIterator[LogLine]:
        """Its output; see `Client.logs`."""
        return self._client.logs(self.id, follow=follow)
