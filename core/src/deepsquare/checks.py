"""What `deepsquare doctor` says: one check a part, each with its remedy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from deepsquare.errors import DeepSquareError


@dataclass(frozen=True, slots=True)
class Check:
    """How one part is."""

    part: str
    ok: bool
    detail: str
    """What was found, or what is wrong and what to do about it."""


async def check(part: str, look: Callable[[], Awaitable[str]]) -> Check:
    """Look at a part: what `look` returns is said of a part that works, its error of one that doesn't."""
    try:
        return Check(part, True, await look())
    except (DeepSquareError, OSError) as error:
        return Check(part, False, str(error))


Checks = AsyncIterator[Check]
"""Checks as they are done."""
