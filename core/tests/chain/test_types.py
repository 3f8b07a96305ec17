from __future__ import annotations

import pytest
from deepsquare.chain.types import Hardware, JobDefinition, JobStatus, Prices, parse_job_id, to_hex
from hypothesis import given
from hypothesis import strategies as st


def test_hot_and_cold() -> None:
    hot = {JobStatus.PENDING, JobStatus.META_SCHEDULED, JobStatus.SCHEDULED, JobStatus.RUNNING}
    assert {status for status in JobStatus if status.is_hot} == hot
    assert {status for status in JobStatus if status.is_cold} == set(JobStatus) - hot


def test_the_price_of_a_minute_is_the_contracts_formula() -> None:
    definition = JobDefinition(ntasks=2, cpus_per_task=3, mem_per_cpu_mb=1000, gpus=1, batch_location_hash="x")
    prices = Prices(gpu=8_500_000_000_000_000_000, cpu=950_000_000_000_000_000, mem=80_000_000_000_000)
    assert definition.cost_per_minute(prices) == 6 * prices.cpu + 6 * 1000 * prices.mem + prices.gpu


@pytest.mark.parametrize(
    ("tasks", "cpus", "mem", "gpus", "fits"),
    [
        (1, 4, 1000, 0, True),
        (1, 5, 1000, 0, False),  # a task is on one node
        (2, 4, 1000, 0, True),
        (3, 4, 1000, 0, False),
        (8, 1, 1000, 0, True),
        (8, 1, 1001, 0, False),  # memory is short before CPUs are
        (1, 1, 1, 2, True),
        (1, 1, 1, 3, False),
    ],
)
def test_a_job_fits_where_all_its_tasks_have_room(tasks: int, cpus: int, mem: int, gpus: int, fits: bool) -> None:
    hardware = Hardware(gpus=(2, 0), cpus=(4, 4), mem_mb=(4000, 4000))
    assert JobDefinition(tasks, cpus, mem, gpus, "x").fits(hardware) is fits


@given(st.integers(min_value=0, max_value=2**256 - 1))
def test_job_ids_are_read_in_any_of_their_forms(number: int) -> None:
    job_id = number.to_bytes(32, "big")
    assert parse_job_id(to_hex(job_id)) == parse_job_id(hex(number)) == parse_job_id(str(number)) == job_id


@pytest.mark.parametrize("text", ["", "x", "0x", "-1", "1.5", "0x" + "1" * 65])
def test_what_is_no_job_id_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not a job id"):
        parse_job_id(text)
