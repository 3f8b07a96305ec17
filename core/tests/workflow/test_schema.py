"""The JSON Schema says what the program says, as far as a schema can."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from deepsquare.workflow import Workflow
from deepsquare.workflow.schema import json_schema

from tests.conftest import REPOSITORY
from tests.workflows import ROWS, Row

VALIDATOR = jsonschema.Draft202012Validator(json_schema())
S3 = {
    **{"region": "r", "bucketUrl": "s3://bucket", "path": "/", "accessKeyId": "i", "secretAccessKey": "k"},
    "endpointUrl": "https://s3.example",
}
RESOURCES = {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 50, "gpus": 0}


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_workflows_keep_it(row: Row) -> None:
    # Without the rows' null, which is as good as left out.
    workflow = Workflow.model_validate({"resources": RESOURCES, "steps": row.steps} | row.fields)
    VALIDATOR.validate(workflow.to_dict())


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
        {"steps": [{"for": {"steps": [], "parallel": True}}]},
        {"steps": [{"for": {"steps": [], "parallel": True, "items": [], "range": {"begin": 1, "end": 2}}}]},
        {"steps": [{"run": {"command": "x"}, "steps": [{}]}]},
        {"steps": [{"launch": {"steps": []}, "use": {"source": "github.com/a/b"}}]},
        {"steps": [{"use": {"source": "https://github.com/a/b"}}]},
        {"steps": [{"use": {"source": "github.com/a"}}]},
        {"steps": [{"if": " "}]},
        {"steps": [{"run": {"command": "x", "customNetworkInterfaces": [{}]}}]},
        {"steps": [{"run": {"command": "x", "customNetworkInterfaces": [{"bore": {"targetPort": 1}}]}}]},
        {"input": {"http": {"url": "https://a/"}, "s3": S3}},
        {"env": [{"key": "A", "value": []}]},
        {"surprise": True},
    ],
)
def test_mistakes_break_it(change: dict[str, Any]) -> None:
    assert list(VALIDATOR.iter_errors({"resources": RESOURCES, "steps": [{}]} | change))


@pytest.mark.parametrize(
    "change",
    [
        {"env": [{"key": "A", "value": value} for value in ("v", 1, 1.5, True)]},
        {"steps": [{"for": {"parallel": True, "items": ["a", 1, False], "steps": [{}]}}]},
        {"steps": [{"run": {"command": "x"}, "steps": []}]},
        {"steps": [{"use": {"source": "git.example.org:8443/a/b/c/d@v1.2+x/y"}}]},
        {"input": {"s3": S3}, "output": {"http": {"url": "https://a/"}}},
        {"input": {}},
    ],
)
def test_what_keeps_it(change: dict[str, Any]) -> None:
    VALIDATOR.validate({"resources": RESOURCES, "steps": [{}]} | change)


def test_a_mistake_is_told_once_and_where_it_is() -> None:
    assert "null" not in json.dumps(json_schema())
    (error,) = VALIDATOR.iter_errors({"resources": RESOURCES, "steps": [{"run": {"command": "x", "shel": "y"}}]})
    assert list(error.absolute_path) == ["steps", 0, "run"]


FILES = [
    *(REPOSITORY / "core/src/deepsquare/cli/templates").glob("*.yaml"),
    *(REPOSITORY / "docs/examples").glob("*.yaml"),
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_templates_and_examples_keep_it(file: Path) -> None:
    VALIDATOR.validate(yaml.safe_load(file.read_text()))


def test_the_documentation_keeps_it() -> None:
    text = (REPOSITORY / "docs" / "workflow.md").read_text()
    examples = re.findall(r"```ya?ml\n(steps:.*?|resources:.*?|env:.*?|input:.*?)```", text, re.DOTALL)
    assert len(examples) > 10
    for example in examples:
        VALIDATOR.validate({"resources": RESOURCES} | yaml.safe_load(example))
