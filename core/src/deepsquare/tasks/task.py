"""A task of an engine, and the workflow that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deepsquare.workflow import Workflow


@dataclass(frozen=True, slots=True)
class Task:
    """A shell command with its environment and what it needs."""

    command: str = field(repr=False)
    """The text of a shell script."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Its private environment: it travels in the script, which only the customer and the provider see."""
    cpus: int = 1
    mem_mb_per_cpu: int = 1000
    gpus: int = 0
    shell: str = "/bin/bash"
    image: str | None = None
    """The image of a container: `deepsquare://NAME`, hosted by the provider, or a registry's, `docker://` in front or not."""


_HOSTED = "deepsquare://"


def to_workflow(task: Task) -> Workflow:
    """The workflow of one step that runs a task.

    Raises:
        WorkflowError: a value is out of its range.
    """
    from deepsquare.workflow import from_dict

    container = None if task.image is None else _container(task.image)
    return from_dict(
        {
            "enableLogging": True,
            "resources": {
                "tasks": 1,
                "cpusPerTask": task.cpus,
                "memPerCpu": task.mem_mb_per_cpu,
                "gpus": task.gpus,
            },
            "steps": [
                {
                    "run": {
                        "command": task.command,
                        "shell": task.shell,
                        "env": [{"key": key, "value": value} for key, value in task.env.items()],
                        "resources": {"gpusPerTask": task.gpus},
                        "container": container,
                    },
                }
            ],
        }
    )


def _container(image: str) -> dict[str, str | bool]:
    if image.startswith(_HOSTED):
        return {"image": image.removeprefix(_HOSTED), "deepsquareHosted": True}
    return {"image": image.removeprefix("docker://"), "apptainer": True}
