from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snakemake_executor_plugin_deepsquare.needs import describe, labels_of, task_of, time_limit_of

TEN_MINUTES = timedelta(minutes=10)


def job(threads: int = 1, wildcards: dict[str, str] | None = None, *, group: bool = False, **resources: Any) -> Any:
    """What Snakemake gives to an executor, as far as needs are concerned."""
    return SimpleNamespace(
        name="map_reads",
        threads=threads,
        resources=resources,
        wildcards_dict=wildcards or {},
        is_group=lambda: group,
    )


def test_threads_memory_and_gpus_become_the_task() -> None:
    task = task_of(job(threads=4, mem_mb=2000, gpu=1), "true", {"TOKEN": "secret"})
    assert (task.cpus, task.mem_mb_per_cpu, task.gpus, task.command) == (4, 500, 1, "true")
    assert task.env == {"TOKEN": "secret"}
    assert "secret" not in repr(task)


def test_a_job_without_resources_gets_a_gigabyte() -> None:
    task = task_of(job(), "true", {})
    assert (task.cpus, task.mem_mb_per_cpu, task.gpus) == (1, 1000, 0)


@given(st.integers(1, 256), st.integers(1, 10**7))
def test_a_job_gets_at_least_the_memory_it_asks_for_and_less_than_a_megabyte_a_cpu_more(cpus: int, mem_mb: int) -> None:
    task = task_of(job(threads=cpus, mem_mb=mem_mb), "true", {})
    # Snakemake itself runs in the job, and needs 400 MB.
    needed = max(mem_mb, 400)
    assert needed <= task.cpus * task.mem_mb_per_cpu < needed + cpus


def test_the_runtime_is_the_time_limit() -> None:
    assert time_limit_of(job(runtime=3), TEN_MINUTES) == timedelta(minutes=3)
    assert time_limit_of(job(), TEN_MINUTES) == TEN_MINUTES


@pytest.mark.parametrize("value", ["<TBD>", 1.5, True, None])
def test_a_resource_that_is_no_whole_number_is_named(value: Any) -> None:
    with pytest.raises(ValueError, match=r"the resource mem_mb of map_reads sample=a is .* must be a whole number"):
        task_of(job(wildcards={"sample": "a"}, mem_mb=value), "true", {})
    with pytest.raises(ValueError, match="the resource runtime of map_reads"):
        time_limit_of(job(runtime=value), TEN_MINUTES)


def test_a_job_is_called_after_its_rule_and_wildcards() -> None:
    assert labels_of(job(wildcards={"sample": "a", "lane": "1"})) == {
        "rule": "map_reads",
        "wildcards": "sample=a,lane=1",
    }
    assert describe(job()) == "map_reads"
    assert labels_of(job(group=True)) == {"group": "map_reads"}
