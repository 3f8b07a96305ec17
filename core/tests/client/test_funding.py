from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from deepsquare.chain.errors import InsufficientFunds
from deepsquare.chain.types import Hardware, JobDefinition, Prices, Provider
from deepsquare.client.funding import (
    Funding,
    MaxPriceError,
    NoProviderError,
    check_funds,
    check_minute,
    credits_for,
    offers,
)
from deepsquare.credits import from_wei
from hypothesis import given
from hypothesis import strategies as st

JOB = JobDefinition(ntasks=1, cpus_per_task=2, mem_per_cpu_mb=100, gpus=0, batch_location_hash="")


def provider(cpu_price: int, cpus: int = 4, address: str = "0x1") -> Provider:
    return Provider(address, Hardware((0,), (cpus,), (8000,)), Prices(0, cpu_price, 0), (), False)


def test_the_dearest_provider_that_fits_decides_and_minutes_are_started_ones() -> None:
    providers = [provider(10), provider(30), provider(1000, cpus=1)]
    assert credits_for(JOB, providers, timedelta(seconds=61)) == 2 * 2 * 30
    assert credits_for(JOB, providers, timedelta(milliseconds=1)) == 2 * 30


def test_a_job_for_nobody_is_refused_with_what_there_is() -> None:
    with pytest.raises(NoProviderError, match="largest node has 1 CPUs"):
        credits_for(JOB, [provider(1, cpus=1)], timedelta(minutes=1))
    with pytest.raises(NoProviderError, match="no provider"):
        credits_for(JOB, [], timedelta(minutes=1))


def test_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="time_limit"):
        credits_for(JOB, [provider(1)], timedelta())


def test_credits_that_buy_no_minute_are_refused_with_the_price() -> None:
    check_minute(JOB, [provider(10**18)], 2 * 10**18)
    with pytest.raises(ValueError, match=r"a minute of this job costs 2\.0000"):
        check_minute(JOB, [provider(10**18)], 2 * 10**18 - 1)


def test_missing_funds_are_named() -> None:
    check_funds(5, balance=5, allowance=5)
    with pytest.raises(InsufficientFunds, match="the wallet has"):
        check_funds(5, balance=4, allowance=9)
    with pytest.raises(InsufficientFunds, match="deepsquare allowance set"):
        check_funds(5, balance=9, allowance=4)


FIVE = timedelta(minutes=5)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, "give time_limit, credits or max_price"),
        ({"time_limit": FIVE, "credits": 5}, "time_limit is 0:05:00 and credits is 5"),
        ({"credits": 5, "max_price": "4.9"}, "credits is 5, but max_price is 4.9"),
        ({"credits": 5, "margin_percent": 10}, "only a time_limit"),
        ({"time_limit": FIVE, "margin_percent": -1}, "margin_percent is -1"),
        ({"credits": 5, "max_price": "much"}, "max_price is 'much'"),
    ],
)
def test_what_contradicts_itself_is_refused(said: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Funding(**said)


def test_a_time_limit_that_costs_more_than_max_price_is_refused_with_both_amounts() -> None:
    providers = [provider(10**17), provider(10**18)]
    assert Funding(FIVE, max_price=10).locked(JOB, providers) == 10 * 10**18
    with pytest.raises(
        MaxPriceError, match=r"max_price is 9\.99 credits, but 0:05:00 would lock 10: .* asks 2 a minute"
    ):
        Funding(FIVE, max_price="9.99").locked(JOB, providers)
    with pytest.raises(MaxPriceError, match=r"with a margin of 1 % would lock 10\.1"):
        Funding(FIVE, max_price=10, margin_percent=1).locked(JOB, providers)


def test_max_price_alone_is_locked_and_must_buy_a_minute() -> None:
    assert Funding(max_price=3).locked(JOB, [provider(10**18)]) == 3 * 10**18
    with pytest.raises(ValueError, match="max_price is 1"):
        Funding(max_price=1).locked(JOB, [provider(10**18)])


def test_a_margin_is_rounded_up_and_there_is_none_unless_asked_for() -> None:
    assert Funding(timedelta(seconds=1)).locked(JOB, [provider(5)]) == 10
    assert Funding(timedelta(seconds=1), margin_percent=1).locked(JOB, [provider(5)]) == 11


@given(st.lists(st.integers(0, 10**20), min_size=1), st.integers(1, 10**6))
def test_the_offer_that_counts_is_what_a_time_limit_locks(prices: list[int], seconds: int) -> None:
    providers = [provider(price, address=f"0x{number}") for number, price in enumerate(prices)]
    limit = timedelta(seconds=seconds)
    found = offers(JOB, providers, limit)
    (dearest,) = [offer for offer in found if offer.counts]
    assert len(found) == len(prices)
    assert (
        dearest.cost
        == max(offer.cost or Decimal(0) for offer in found)
        == from_wei(Funding(limit).locked(JOB, providers))
    )
    assert all(
        offer.minutes_per_credit is None or offer.minutes_per_credit * offer.cost_per_minute <= 1 for offer in found
    )


def test_offers_without_a_time_limit_have_no_cost_and_those_that_cannot_run_it_are_left_out() -> None:
    (offer,) = offers(JOB, [provider(10**18), provider(1, cpus=1, address="0x2")], None)
    assert (offer.provider, offer.cost_per_minute, offer.minutes_per_credit, offer.cost) == (
        "0x1",
        Decimal(2),
        Decimal("0.5"),
        None,
    )
