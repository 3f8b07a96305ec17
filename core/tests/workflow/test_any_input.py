"""Whatever comes in, what comes out is a workflow or a WorkflowError."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from deepsquare.errors import DeepSquareError
from deepsquare.workflow import WorkflowError, from_dict, load, parse
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = (
    *("resources", "tasks", "cpusPerTask", "memPerCpu", "gpus", "gpusPerTask", "steps", "run", "command", "shell"),
    *("workDir", "env", "key", "value", "container", "image", "password", "mounts", "enableLogging", "name", "if"),
    *("for", "input", "inputMode", "mapUid", "cpus_per_task", "comand"),
)
TOKENS = (
    *(f"{name}: " for name in NAMES[:12]),
    *("\n", "\n  ", "\n- ", "- ", "[", "]", "{", "}", ",", ": ", "? ", "---\n", "...", "\t", "#", "|\n", ">-\n"),
    *("&a ", "*a", "!!int ", "!!float ", "!!bool ", "!!str ", "!x ", "!x!y ", "%TAG ", "<<: ", "'", '"', "\\", "\\x"),
    *(
        "1",
        "0",
        "-1",
        "010",
        "0b_",
        "0x_",
        "1:30",
        "1.5",
        ".inf",
        "~",
        "yes",
        "2024-01-01",
        "\0",
        "\ufeff",
        "\x85",
        "é",
    ),
)

unhurried = settings(deadline=None)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


def parses_or_is_refused(text: str) -> None:
    with contextlib.suppress(WorkflowError):
        workflow = parse(text)
        assert from_dict(workflow.to_dict()) == workflow


@unhurried
@given(st.text())
def test_any_text(text: str) -> None:
    parses_or_is_refused(text)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(TOKENS), max_size=30).map("".join))
def test_any_text_of_what_yaml_is_made_of(text: str) -> None:
    parses_or_is_refused(text)


@unhurried
@given(
    st.sampled_from(("1", "true", "v", "x", "tasks", "command")),
    st.lists(st.sampled_from(TOKENS), max_size=4).map("".join),
)
def test_any_damage_to_a_valid_file(target: str, damage: str) -> None:
    valid = (
        "resources: {tasks: 1, cpusPerTask: 1, memPerCpu: 1, gpus: 0}\n"
        "enableLogging: true\n"
        "env: [{key: A, value: v}]\n"
        "steps:\n- run:\n    command: x\n"
    )
    parses_or_is_refused(valid.replace(target, damage, 1))


@unhurried
@given(anything)
def test_any_json(data: Any) -> None:
    parses_or_is_refused(json.dumps(data))


@unhurried
@given(st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), anything, max_size=6))
def test_any_plain_data(data: dict[str, Any]) -> None:
    with contextlib.suppress(WorkflowError):
        from_dict(data)


@unhurried
@given(data=st.data(), replacement=anything | st.binary() | st.dates() | st.dictionaries(st.integers(), st.text()))
def test_a_valid_job_with_any_one_value_replaced(data: st.DataObject, replacement: Any) -> None:
    job = {
        "resources": {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 1, "gpus": 0},
        "env": [{"key": "A", "value": "v"}],
        "steps": [{"name": "n", "steps": [{"run": {"command": "x", "container": {"image": "i", "password": "p"}}}]}],
    }
    parent: Any = job
    while True:
        place = data.draw(st.sampled_from(sorted(parent) if isinstance(parent, dict) else range(len(parent))))
        if not isinstance(parent[place], (dict, list)) or data.draw(st.booleans()):
            break
        parent = parent[place]
    parent[place] = replacement
    with contextlib.suppress(WorkflowError):
        workflow = from_dict(job)
        assert from_dict(workflow.to_dict()) == workflow


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any") / "job.yaml"


@unhurried
@given(st.binary())
def test_any_bytes_in_a_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with contextlib.suppress(DeepSquareError):
        load(path)
