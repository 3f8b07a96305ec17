"""Exact money: credits are whole numbers of wei (10**-18 credit) inside, and Decimal at the edge. Never float."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, Inexact, localcontext

WEI_PER_CREDIT = 10**18
# A uint256 has 78 digits: no sum or conversion may round below that.
_PRECISION = 100
_MOST_WEI = 2**256 - 1


def to_wei(credits: Decimal | int | str, *, field: str = "credits") -> int:
    """The wei in an amount of credits; exact.

    Raises:
        ValueError: not a number, negative, more than 2**256 - 1 wei, more than 18 decimals, or a float (which is never exact).
    """
    if isinstance(credits, float):
        raise ValueError(
            f"{field} must be a Decimal, an integer or a string, not the float {credits!r}: floats round money"
        )
    try:
        amount = Decimal(credits)
    except ArithmeticError:
        raise ValueError(f"{field} is {credits!r}, which is not a number; write for example 12.5") from None
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"{field} is {credits}, but an amount is 0 or more")
    # Compared before anything is computed: an exponent may be beyond what can be.
    if amount > from_wei(_MOST_WEI):
        raise ValueError(f"{field} is {credits}, more credits than there can be (2**256 - 1 wei)")
    try:
        with localcontext(prec=_PRECISION) as exact:
            exact.traps[Inexact] = True
            wei = amount * WEI_PER_CREDIT
            if wei == wei.to_integral_value():
                return int(wei)
    except Inexact:
        pass
    raise ValueError(f"{field} is {credits}, but credits have at most 18 decimals")


def from_wei(wei: int) -> Decimal:
    """The exact amount of credits, without trailing zeros, of a number of wei."""
    with localcontext(prec=_PRECISION):
        credits = Decimal(wei) / WEI_PER_CREDIT
        return credits.quantize(Decimal(1)) if credits == credits.to_integral_value() else credits.normalize()


def format_credits(wei: int, decimals: int = 4) -> str:
    """An amount for people: rounded half up to `decimals` digits, with separators of thousands."""
    with localcontext(prec=_PRECISION):
        return f"{(Decimal(wei) / WEI_PER_CREDIT).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP):,f}"
