from __future__ import annotations

from datetime import timedelta

import pytest
from deepsquare.chain.errors import InsufficientFunds
from deepsquare.chain.types import Hardware, JobDefinition, Prices, Provider
from deepsquare.client.funding import NoProviderError, check_funds, check_minute, credits_for

JOB = JobDefinition(ntasks=1, cpus_per_task=2, mem_per_cpu_mb=100, gpus=0, batch_location_hash="")


def provider(cpu_price: int, cpus: int = 4) -> Provider:
    return Provider("0x1", Hardware((0,), (cpus,), (8000,)), Prices(0, cpu_price, 0), (), False)


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
