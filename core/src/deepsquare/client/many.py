"""Buying many jobs at once: each is made ready on its own, and all that are ready are paid together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeAlias

from deepsquare.client.handle import Job
from deepsquare.client.purchases import Purchase, digest_of
from deepsquare.errors import DeepSquareError, KeyUsedError

if TYPE_CHECKING:
    from deepsquare.client.orders import Submission

Buy: TypeAlias = Callable[[Purchase], Awaitable[str]]
"""What pays for one purchase, and returns the job's id."""

# Scripts on their way to the sbatch API.
_READY_AT_ONCE = 16


class _Till:
    """Where purchases wait until all that will come are there, and are paid then."""

    def __init__(self, expected: int, pay: Callable[[Sequence[Purchase]], Awaitable[list[str | Exception]]]) -> None:
        self._expected, self._pay = expected, pay
        self._waiting: list[tuple[Purchase, asyncio.Future[str]]] = []
        self._paying: asyncio.Task[None] | None = None
        self._is_closed = False

    async def buy(self, purchase: Purchase) -> str:
        if self._is_closed:
            raise _closed()
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append((purchase, answer))
        self._look()
        return await answer

    def leave(self) -> None:
        """One that was expected will not come."""
        self._expected -= 1
        self._look()

    def close(self) -> None:
        """Pay nothing any more, unless that has begun."""
        self._is_closed = True
        if self._paying is None:
            for _, answer in self._waiting:
                if not answer.done():
                    answer.set_exception(_closed())

    def _look(self) -> None:
        if not self._is_closed and self._paying is None and self._waiting and len(self._waiting) == self._expected:
            self._paying = asyncio.create_task(self._pay_all())

    async def _pay_all(self) -> None:
        found: Sequence[str | Exception]
        waiting = list(self._waiting)
        try:
            found = await self._pay([purchase for purchase, _ in waiting])
        except Exception as error:
            found = [error] * len(waiting)
        for (_, answer), job_id in zip(waiting, found, strict=True):
            if answer.done():
                # Nobody waits for it any longer.
                continue
            if isinstance(job_id, Exception):
                answer.set_exception(job_id)
            else:
                answer.set_result(job_id)


def _closed() -> DeepSquareError:
    return DeepSquareError("the call was cancelled before anything was paid")


async def submit_together(
    submissions: Sequence[Submission],
    buy_one: Callable[[Submission, Buy], Awaitable[Job]],
    *,
    pay: Callable[[Sequence[Purchase]], Awaitable[list[str | Exception]]],
    alone: Callable[[Iterable[str]], AbstractAsyncContextManager[None]],
) -> list[Job | Exception]:
    """Buy jobs; for each, in their order, its handle, or why it was not bought.

    Args:
        submissions: what to buy. Of several with the same key one is bought.
        buy_one: makes one ready, and has it paid by what it is given.
        pay: buys many; for each its id, or why it was not bought.
        alone: the locks of keys.
    """
    first: dict[str, int] = {}
    for index, wanted in enumerate(submissions):
        if wanted.key is not None:
            first.setdefault(wanted.key, index)
    own = [index for index, wanted in enumerate(submissions) if wanted.key is None or first[wanted.key] == index]
    till = _Till(len(own), pay)
    ready = asyncio.Semaphore(_READY_AT_ONCE)

    async def one(wanted: Submission) -> Job | Exception:
        is_paid = False

        async def buy(purchase: Purchase) -> str:
            nonlocal is_paid
            is_paid = True
            # The next one is made ready meanwhile.
            ready.release()
            try:
                return await till.buy(purchase)
            finally:
                await ready.acquire()

        try:
            async with ready:
                return await buy_one(wanted, buy)
        except asyncio.CancelledError:
            till.close()
            raise
        except Exception as error:
            # Whatever it is, the others are none the worse for it.
            return error
        finally:
            if not is_paid:
                till.leave()

    async with alone(first):
        found = dict(zip(own, await asyncio.gather(*(one(submissions[index]) for index in own)), strict=True))
    return [
        found[index]
        if index in found
        else _again(wanted, submissions[first[wanted.key or ""]], found[first[wanted.key or ""]])
        for index, wanted in enumerate(submissions)
    ]


def _again(wanted: Submission, before: Submission, found: Job | Exception) -> Job | Exception:
    """What a second submission under a key gives."""
    if isinstance(found, Exception):
        return found
    if digest_of(wanted.workflow, result=wanted.result) != digest_of(before.workflow, result=before.result):
        return KeyUsedError(wanted.key or "", found.id)
    return found.again()
