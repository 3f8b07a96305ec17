"""From what a client submits to a script, or to what is wrong with it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from deepsquare.compiler import compile_workflow
from deepsquare.grid.sbatch_api.modules import GitModules
from deepsquare.workflow import WorkflowError, from_dict
from deepsquare.workflow.loading import problems_of
from deepsquare.workflow.modules import Module, resolve

# Below the 4 MB that a gRPC client accepts by default, with room for the rest of the message.
MAX_SCRIPT_BYTES = 4 * 1024 * 1024 - 64 * 1024
# For all modules of a job: a client waits half a minute for the answer.
MODULES_SECONDS = 25


@dataclass(frozen=True, slots=True)
class Problem:
    """One field that is not valid. No text of it repeats a secret's value."""

    path: str
    message: str
    tag: str


class RejectedError(Exception):
    """The submission is not valid."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(f"{len(problems)} fields are not valid")
        self.problems = problems


def compile_job(job: Mapping[str, Any], modules: GitModules) -> str:
    """The script of a `Job` as GraphQL gives it, with the modules that it uses.

    Raises:
        RejectedError: the workflow is not valid, a module can't be used, or the script is too long.
    """
    until = time.monotonic() + MODULES_SECONDS
    try:
        workflow = resolve(from_dict(_without_nulls(job)), lambda source: modules.fetch(source, until))
        script = compile_workflow(workflow)
    except WorkflowError as error:
        raise RejectedError(
            [Problem(str(problem.path), problem.message, problem.tag) for problem in error.problems]
        ) from None
    try:
        size = len(script.encode())
    except UnicodeEncodeError:
        raise RejectedError(
            [Problem("", "the text is not valid Unicode: it has half of a surrogate pair", "utf8")]
        ) from None
    if size > MAX_SCRIPT_BYTES:
        raise RejectedError([Problem("steps", f"the script has {size} bytes, {MAX_SCRIPT_BYTES} are allowed", "max")])
    return script


def check_module(module: Mapping[str, Any], modules: GitModules) -> str:
    """`valid`, or a line for each thing that is wrong with a `Module`, also with modules that it uses."""
    plain = _without_nulls(module)
    try:
        Module.model_validate(plain)
        # A module's steps become steps of the job that uses it: what a job may not say, a module may not either.
        compile_job({"resources": plain["minimumResources"], "steps": plain["steps"]}, modules)
    except ValidationError as error:
        reasons = [str(problem) for problem in problems_of(error, {}, Module)]
    except RejectedError as error:
        reasons = [f"{problem.path}: {problem.message}" for problem in error.problems]
    else:
        return "valid"
    return "\n".join(reasons)


def _without_nulls(value: Any) -> Any:
    """GraphQL clients may send null for a field that they leave out; in a workflow only the latter exists."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
