from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
from deepsquare.workflow import Container, EnvVar, Run, WorkflowError, from_dict, load, parse

SECRET = "hunter2"


def everywhere(value: Any = SECRET) -> dict[str, Any]:
    """A job that has a secret wherever one may stand."""
    return {
        "resources": {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 1, "gpus": 0},
        "env": [{"key": "TOKEN", "value": value}],
        "steps": [
            {
                "run": {
                    "command": value,
                    "env": [{"key": "TOKEN", "value": value}],
                    "container": {"image": "i", "username": "me", "password": value},
                }
            }
        ],
    }


def everything_told(error: WorkflowError) -> str:
    told = [str(error), repr(error), repr(error.problems), *map(str, error.problems)]
    return "\n".join(told + traceback.format_exception(error))


def test_no_representation_shows_a_secret() -> None:
    workflow = from_dict(everywhere())
    run = workflow.runs()[0]
    for part in (workflow, workflow.env, workflow.steps, run, run.env[0], run.container):
        assert SECRET not in f"{part!r} {part!s} {part}"


def test_no_representation_shows_where_data_is() -> None:
    # An address may have a token in it.
    address = f"https://store.example.org/{SECRET}"
    s3 = {"region": "r", "bucketUrl": "s3://bucket", "path": "/", "accessKeyId": SECRET, "secretAccessKey": SECRET}
    data = {"input": {"http": {"url": address}}, "output": {"s3": s3 | {"endpointUrl": address}}}
    workflow = from_dict(everywhere() | data)
    assert SECRET not in f"{workflow!r} {workflow.input!r} {workflow.output!r} {workflow.output}"


def test_what_is_sent_has_the_secrets() -> None:
    assert from_dict(everywhere()).to_dict() == everywhere()


@pytest.mark.parametrize(
    "change",
    [
        {"resources": {}},
        {"resources": {"tasks": 0, "cpusPerTask": 0, "memPerCpu": 0, "gpus": -1}},
        {"unknown": SECRET},
        {"enableLogging": SECRET},
        {"resources": SECRET},
        {"input": {"s3": {"secretAccessKey": SECRET}}},
        {"env": SECRET},
        {"env": [SECRET]},
        {"steps": SECRET},
        {"steps": [{"if": [SECRET]}]},
        {"steps": [{"for": {"parallel": True, "items": [SECRET], "range": SECRET, "steps": []}}]},
        {"steps": [{"launch": {"signalOnParentStepExit": SECRET, "steps": []}}]},
        {"steps": [{"run": {"command": "x", "shell": SECRET}}]},
        {"steps": [{"run": {"command": "x", "workDir": SECRET}}]},
        {"steps": [{"run": {"command": SECRET}, "steps": [{}]}]},
        {"steps": [{"run": {"command": SECRET, "resources": {"tasks": 9}}}]},
    ],
)
def test_mistakes_beside_a_secret_do_not_show_it(change: dict[str, Any]) -> None:
    with pytest.raises(WorkflowError) as caught:
        from_dict(everywhere() | change)
    assert SECRET not in everything_told(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        [SECRET],
        {SECRET: SECRET},
        SECRET.encode(),
        SECRET + "\0",
        SECRET + "\ud800",
        pytest.param(SECRET + "x" * (1 << 20), id="too long"),
    ],
)
def test_a_secret_that_is_itself_a_mistake_is_not_shown(value: object) -> None:
    with pytest.raises(WorkflowError) as caught:
        from_dict(everywhere(value))
    assert SECRET not in everything_told(caught.value)


def test_a_secret_that_yaml_reads_as_a_number_is_not_shown() -> None:
    for secret in ("8675309", "86753.09"):
        with pytest.raises(WorkflowError) as caught:
            parse(f"env:\n- key: A\n  value: {secret}\nsteps: [{{run: {{command: {secret}}}}}]\n")
        assert secret not in everything_told(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        f'"{SECRET}',
        f"'{SECRET}",
        f"{SECRET}: x",
        f"!{SECRET}!x",
        f"!<{SECRET}",
        f"*{SECRET}",
        f"&{SECRET} &{SECRET} x",
        f"%{SECRET}",
        f"@{SECRET}",
        f"`{SECRET}`",
        f'"\\q{SECRET}"',
        f'"\\x{SECRET}"',
        f"|{SECRET}",
        f"[{SECRET}",
        f"{{{SECRET}",
        f"[{SECRET}}}",
        f"{SECRET}\0",
        f"!!int {SECRET}",
    ],
)
def test_broken_yaml_around_a_secret_does_not_show_it(value: str) -> None:
    with pytest.raises(WorkflowError) as caught:
        parse(f"env:\n- key: TOKEN\n  value: {value}\nsteps: []\n")
    assert SECRET not in everything_told(caught.value)


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (Run, {"command": [SECRET]}),
        (EnvVar, {"key": "A", "value": [SECRET]}),
        (Container, {"image": "i", "password": 7}),
    ],
)
def test_models_that_are_made_in_python_do_not_show_it_either(model: type, fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error") as caught:
        model(**fields)
    assert SECRET not in str(caught.value)
    assert "input_value" not in str(caught.value)


def test_a_file_that_is_not_text_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(f"command: {SECRET}".encode() + b"\xff")
    with pytest.raises(Exception, match="can't be read") as caught:
        load(path)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
