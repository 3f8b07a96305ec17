"""What a job of Snakemake needs, in the grid's terms."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

if TYPE_CHECKING:
    from deepsquare.tasks import Task

_DEFAULT_MEM_MB = 1000
# What Snakemake takes for itself in a job: some 160 MB, and a second process of it where a group has a `run:` rule.
_LEAST_MEM_MB = 400


def task_of(job: JobExecutorInterface, command: str, env: Mapping[str, str], image: str | None = None) -> Task:
    """The task of a job: `threads` become CPUs, `mem_mb` the memory of all of them, at least 400 MB, `gpu` GPUs.

    Args:
        job: the job.
        command: what runs it.
        env: the variables that it needs.
        image: what it runs in; None is the provider's host itself.

    Raises:
        ValueError: a resource is no whole number.
    """
    from deepsquare.tasks import Task

    cpus = max(1, job.threads)
    mem_mb = max(_LEAST_MEM_MB, _resource(job, "mem_mb", _DEFAULT_MEM_MB))
    return Task(
        command=command,
        env=env,
        cpus=cpus,
        mem_mb_per_cpu=max(1, -(-mem_mb // cpus)),
        gpus=_resource(job, "gpu", 0),
        image=image,
    )


def time_limit_of(job: JobExecutorInterface, default: timedelta) -> timedelta:
    """How long a job may run: its resource `runtime` in minutes, or the default.

    Raises:
        ValueError: `runtime` is no whole number.
    """
    minutes = _resource(job, "runtime", 0)
    return timedelta(minutes=minutes) if minutes else default


def describe(job: JobExecutorInterface) -> str:
    """A job's name for people: its rule and wildcards, or the name of its group."""
    return " ".join(labels_of(job).values())


def labels_of(job: JobExecutorInterface) -> dict[str, str]:
    """What the client's journal keeps of a job; nothing of it goes on chain."""
    if job.is_group():
        return {"group": str(job.name)}
    wildcards = ",".join(f"{name}={value}" for name, value in job.wildcards_dict.items())
    return {"rule": str(job.name)} | ({"wildcards": wildcards} if wildcards else {})


def _resource(job: JobExecutorInterface, name: str, default: int) -> int:
    value = job.resources.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"the resource {name} of {describe(job)} is {value!r}, but must be a whole number")
    return value
