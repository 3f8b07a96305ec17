"""Rules that span more than one field."""

from __future__ import annotations

from collections.abc import Iterator

from deepsquare.workflow.models import Resources, Run, Workflow
from deepsquare.workflow.problems import Location


def wrong_handles(workflow: Workflow) -> Iterator[tuple[Location, str]]:
    """The handles that are launched twice, or waited for and launched by no earlier step of the same list."""
    for place, steps in workflow.located_lists():
        known: list[str] = []
        for number, step in enumerate(steps):
            for index, name in enumerate(step.depends_on):
                if name.lower() not in map(str.lower, known):
                    allowed = f"launched before are {', '.join(known)}" if known else "none is launched before"
                    text = f"{name} is no handle that an earlier step of the same list launches: {allowed}"
                    yield (*place, number, "dependsOn", index), text
            if step.launch is not None and step.launch.handle_name is not None:
                if step.launch.handle_name.lower() in map(str.lower, known):
                    text = (
                        f"{step.launch.handle_name} is the handle of an earlier step of the same list; choose another"
                    )
                    yield (*place, number, "launch", "handleName"), text
                known.append(step.launch.handle_name)


def excesses(workflow: Workflow) -> Iterator[tuple[Location, str]]:
    """The steps that ask for more than the job has, each with the first thing that is too much."""
    for place, run in workflow.located_runs():
        for what, step, job in _compared(run, workflow.resources):
            if step > job:
                yield (*place, "resources"), f"asks for {step} {what}, but the job has {job}"
                break


def _compared(run: Run, job: Resources) -> Iterator[tuple[str, int, int]]:
    asked = run.resources
    tasks = asked.tasks or 1
    cpus = tasks * (asked.cpus_per_task or job.cpus_per_task)
    yield "CPUs (tasks x cpusPerTask)", cpus, job.tasks * job.cpus_per_task
    yield (
        "MB of memory (tasks x cpusPerTask x memPerCpu)",
        cpus * (asked.mem_per_cpu or job.mem_per_cpu),
        job.tasks * job.cpus_per_task * job.mem_per_cpu,
    )
    yield "GPUs (tasks x gpusPerTask)", tasks * (asked.gpus_per_task or 0), job.gpus
