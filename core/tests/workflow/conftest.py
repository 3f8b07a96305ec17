"""A valid job to change, and what is wrong with it afterwards."""

from __future__ import annotations

from typing import Any

import pytest
from deepsquare.workflow import Problem, WorkflowError, from_dict, parse

RESOURCES = {"tasks": 2, "cpusPerTask": 4, "memPerCpu": 512, "gpus": 1}


@pytest.fixture(scope="session")
def job():
    """A job of one step as plain data, with changes of its fields, its resources or its step's run."""

    def build(*, run: Any = None, resources: Any = None, **fields: Any) -> dict[str, Any]:
        step = {"run": {"command": "true"} | (run or {})}
        return {"resources": RESOURCES | (resources or {}), "steps": [step]} | fields

    return build


@pytest.fixture(scope="session")
def problems_of():
    """The mistakes that are found in a file's text, or in plain data."""

    def find(source: str | dict[str, Any]) -> list[Problem]:
        with pytest.raises(WorkflowError) as caught:
            parse(source) if isinstance(source, str) else from_dict(source)
        return caught.value.problems

    return find
