"""What a supervisor reports to the market: while one transaction is on its way, the next reports gather for another."""

from __future__ import annotations

import asyncio

from deepsquare.chain.market import Market
from deepsquare.chain.types import JobReport


class Reports:
    """Sends the reports of many jobs together."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self._waiting: list[tuple[JobReport, asyncio.Future[None]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def send(self, report: JobReport) -> None:
        """Report on a job, and return when the chain has it.

        Raises:
            ContractError: the market refuses this report.
            DeepSquareError: the chain can't be reached; it may have the report or not.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((report, done))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send())
        await done

    async def _send(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                refused = await self._market.report([report for report, _ in batch])
            except BaseException as error:
                for _, done in batch:
                    if not done.done():
                        done.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
                if not isinstance(error, Exception):
                    raise
                continue
            for report, done in batch:
                if done.done():
                    continue
                if report.job_id in refused:
                    done.set_exception(refused[report.job_id])
                else:
                    done.set_result(None)
