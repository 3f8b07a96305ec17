"""The check of the money reads everything at one block, or says that it can't."""

from __future__ import annotations

from typing import Any

import pytest
from deepsquare.client import accounting
from deepsquare.client.accounting import Check, check
from deepsquare.errors import DeepSquareError


class MovingMarket:
    """A chain whose block is another one at each of the first looks."""

    def __init__(self, moves: int) -> None:
        self.moves, self.block = moves, 0

    async def block_number(self) -> int:
        if self.moves > 0:
            self.moves -= 1
            self.block += 1
        return self.block


@pytest.fixture
def heads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The blocks up to which everything was read."""
    seen: list[int] = []

    async def read(_: Any, __: str, head: int) -> list[Check]:
        seen.append(head)
        return [Check("money", True, "")]

    monkeypatch.setattr(accounting, "_check", read)
    return seen


async def test_what_was_read_while_the_chain_moved_is_read_again(heads: list[int]) -> None:
    assert len(await check(MovingMarket(moves=4), "0x1")) == 1  # type: ignore[arg-type]
    assert heads == [1, 3, 4]


async def test_a_chain_that_always_moves_is_an_error_that_says_so(heads: list[int]) -> None:
    with pytest.raises(DeepSquareError, match=r"moves on too fast.*try again"):
        await check(MovingMarket(moves=1000), "0x1")  # type: ignore[arg-type]
    assert len(heads) == 5
