from __future__ import annotations

import pytest
from deepsquare.tasks import Task, to_workflow


def test_a_task_is_one_step_with_its_shell_its_variables_and_what_it_needs() -> None:
    task = Task("exit 1", env={"TOKEN": "secret"}, cpus=2, mem_mb_per_cpu=300, gpus=1)
    workflow = to_workflow(task)
    (run,) = workflow.runs()
    assert (workflow.resources.cpus_per_task, workflow.resources.mem_per_cpu, workflow.resources.gpus) == (2, 300, 1)
    assert (run.command, run.shell, run.resources.gpus_per_task, run.container) == ("exit 1", "/bin/bash", 1, None)
    assert [(variable.key, variable.value) for variable in run.env] == [("TOKEN", "secret")]


@pytest.mark.parametrize(
    ("image", "name", "is_hosted"),
    [
        ("deepsquare://genomics/tools.sif", "genomics/tools.sif", True),
        ("docker://library/alpine:3", "library/alpine:3", None),
        ("registry.example:5000/a/b", "registry.example:5000/a/b", None),
    ],
)
def test_a_tasks_image_is_the_providers_or_a_registrys(image: str, name: str, is_hosted: bool | None) -> None:
    (run,) = to_workflow(Task("true", image=image)).runs()
    assert run.container is not None
    assert (run.container.image, run.container.deepsquare_hosted) == (name, is_hosted)
    assert run.container.apptainer is (None if is_hosted else True)
