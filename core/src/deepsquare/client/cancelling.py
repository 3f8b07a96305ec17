"""Asking for the end of many jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from deepsquare.chain.errors import ContractError
from deepsquare.chain.types import parse_job_id
from deepsquare.errors import DeepSquareError

if TYPE_CHECKING:
    from deepsquare.chain.market import Market
    from deepsquare.client.job import JobInfo

# Enough signatures and transactions in flight to keep the node busy, few enough to be no burden for a public one.
_CANCELS_AT_ONCE = 16


async def cancel_all(market: Market, hot: Sequence[JobInfo]) -> None:
    """Ask for the end of jobs that have not ended.

    Raises:
        DeepSquareError: some could not be cancelled; the text says which and why, the others are cancelled all the same.
    """
    limit = asyncio.Semaphore(_CANCELS_AT_ONCE)

    async def cancel_one(info: JobInfo) -> str | None:
        async with limit:
            try:
                await market.cancel_job(parse_job_id(info.id))
            except ContractError as error:
                # It may have ended, or been cancelled, since we looked.
                now = await market.get_job(parse_job_id(info.id))
                if now is not None and now.status.is_hot and not now.has_cancel_request:
                    return f"{info.id}: {error}"
        return None

    # Whatever happens to one, all are tried.
    found = await asyncio.gather(*map(cancel_one, hot), return_exceptions=True)
    for unexpected in found:
        if isinstance(unexpected, BaseException) and not isinstance(unexpected, DeepSquareError):
            raise unexpected
    failures = [
        f"{info.id}: {text}" if isinstance(text, BaseException) else text
        for info, text in zip(hot, found, strict=True)
        if text
    ]
    if failures:
        raise DeepSquareError("not cancelled: " + "; ".join(failures))
