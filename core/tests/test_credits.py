from __future__ import annotations

from decimal import Decimal

import pytest
from deepsquare.credits import format_credits, from_wei, to_wei
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(min_value=0, max_value=2**256 - 1))
def test_any_amount_of_the_chain_survives_the_way_to_credits_and_back(wei: int) -> None:
    assert to_wei(from_wei(wei)) == wei
    assert to_wei(format(from_wei(wei), "f")) == wei


def test_amounts_are_exact() -> None:
    assert to_wei("0.1") + to_wei("0.2") == to_wei("0.3")
    assert to_wei("12.5") == 12_500_000_000_000_000_000
    assert from_wei(1) == Decimal("0.000000000000000001")


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        ("abc", "not a number"),
        ("-1", "0 or more"),
        ("NaN", "0 or more"),
        ("Infinity", "0 or more"),
        ("0.0000000000000000001", "at most 18 decimals"),
        (0.5, "float"),
    ],
)
def test_a_wrong_amount_is_refused_with_the_field_and_the_value(amount: object, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        to_wei(amount, field="allowance")  # type: ignore[arg-type]
    assert "allowance" in str(caught.value)


def test_people_see_rounded_amounts() -> None:
    assert format_credits(1_234_567_890_000_000_000_000) == "1,234.5679"
    assert format_credits(0) == "0.0000"


@pytest.mark.parametrize("amount", ["1e60", "1e97", "1e999999", Decimal("1e999999"), 2**256, 10**120])
def test_more_than_the_chain_can_hold_is_refused_in_words(amount: str | int | Decimal) -> None:
    with pytest.raises(ValueError, match="more credits than there can be"):
        to_wei(amount)


@pytest.mark.parametrize("amount", ["1e-19", "1e-999999", f"1.{'0' * 150}1"])
def test_no_amount_is_rounded(amount: str) -> None:
    with pytest.raises(ValueError, match="at most 18 decimals"):
        to_wei(amount)


def test_the_most_that_there_can_be_is_shown() -> None:
    assert format_credits(2**256 - 1).endswith(",457.5840")
    assert to_wei("0e999999") == 0
