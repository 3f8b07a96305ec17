"""The JSON Schema says what the program says, as far as a schema can."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from deepsquare.workflow.schema import json_schema

from tests.workflows import ROWS, Row

VALIDATOR = jsonschema.Draft202012Validator(json_schema())
RESOURCES = {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 50, "gpus": 0}


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_workflows_keep_it(row: Row) -> None:
    VALIDATOR.validate({"resources": RESOURCES, "steps": row.steps} | row.fields)


@pytest.mark.parametrize(
    "change",
    [
        {"resources": RESOURCES | {"tasks": 0}},
        {"resources": {}},
        {"steps": []},
        {"steps": [{"rum": {"command": "x"}}]},
        {"steps": [{"run": {"command": 1}}]},
        {"steps": [{"run": {"command": "x", "shell": "/bin/zsh"}}]},
        {"steps": [{"run": {"command": "x", "workDir": "here"}}]},
        {"steps": [{"run": {"command": "x", "env": [{"key": "1A", "value": ""}]}}]},
        {"steps": [{"launch": {"steps": [], "signalOnParentStepExit": 4}}]},
        {"steps": [{"dependsOn": ["a-b"]}]},
        {"steps": [{"for": {"steps": [], "items": []}}]},
        {"surprise": True},
    ],
)
def test_mistakes_break_it(change: dict[str, Any]) -> None:
    assert list(VALIDATOR.iter_errors({"resources": RESOURCES, "steps": [{}]} | change))
