from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from deepsquare.errors import DeepSquareError
from deepsquare.workflow import WorkflowError, from_dict, load, parse
from hypothesis import given, settings
from hypothesis import strategies as st

YAML = """\
# Every field that this version carries out or validates.
resources: {tasks: 2, cpusPerTask: 4, memPerCpu: 512, gpus: 1}
enableLogging: true
env:
  - {key: STAGE, value: "production"}
steps:
  - name: prepare
    run:
      command: |
        set -e
        echo "$STAGE"
      shell: /bin/sh
      workDir: /opt/data
      disableCpuBinding: true
      env:
        - key: MODE
          value: fast
      resources: {tasks: 1, cpusPerTask: 8, memPerCpu: 256, gpusPerTask: 1}
  - name: train
    steps:
      - run: {command: "true"}
      - name: inside
        run:
          command: python3 train.py
          shell: ENTRYPOINT
          container:
            image: library/python:3.12
            registry: registry-1.docker.io
            username: me
            password: mine
            apptainer: true
            deepsquareHosted: false
            x11: false
            mountHome: false
            readOnlyRootFS: true
            mounts: [{hostDir: /a, containerDir: /b, options: ro}]
  - {}
"""

PLAIN = {
    "resources": {"tasks": 2, "cpusPerTask": 4, "memPerCpu": 512, "gpus": 1},
    "enableLogging": True,
    "env": [{"key": "STAGE", "value": "production"}],
    "steps": [
        {
            "name": "prepare",
            "run": {
                "command": 'set -e\necho "$STAGE"\n',
                "shell": "/bin/sh",
                "workDir": "/opt/data",
                "disableCpuBinding": True,
                "env": [{"key": "MODE", "value": "fast"}],
                "resources": {"tasks": 1, "cpusPerTask": 8, "memPerCpu": 256, "gpusPerTask": 1},
            },
        },
        {
            "name": "train",
            "steps": [
                {"run": {"command": "true"}},
                {
                    "name": "inside",
                    "run": {
                        "command": "python3 train.py",
                        "shell": "ENTRYPOINT",
                        "container": {
                            "image": "library/python:3.12",
                            "registry": "registry-1.docker.io",
                            "username": "me",
                            "password": "mine",
                            "apptainer": True,
                            "deepsquareHosted": False,
                            "x11": False,
                            "mountHome": False,
                            "readOnlyRootFS": True,
                            "mounts": [{"hostDir": "/a", "containerDir": "/b", "options": "ro"}],
                        },
                    },
                },
            ],
        },
        {},
    ],
}


def test_yaml_json_and_plain_data_give_the_same_job(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(YAML)
    (tmp_path / "job.json").write_text(json.dumps(PLAIN, indent=2))
    assert load(tmp_path / "job.yaml") == load(tmp_path / "job.json") == from_dict(PLAIN)


def test_what_was_read_is_what_is_sent() -> None:
    assert parse(YAML).to_dict() == PLAIN


def test_fields_have_the_names_of_python() -> None:
    workflow = parse(YAML)
    assert workflow.resources.cpus_per_task == 4
    assert workflow.steps[0].run is not None
    assert workflow.steps[0].run.work_dir == "/opt/data"
    assert workflow.steps[0].run.resources.gpus_per_task == 1


def test_commands_come_in_the_order_in_which_they_run() -> None:
    assert [run.command for run in parse(YAML).runs()] == ['set -e\necho "$STAGE"\n', "true", "python3 train.py"]


def test_a_job_does_not_change_after_it_was_checked() -> None:
    workflow = parse(YAML)
    with pytest.raises(ValueError, match="frozen"):
        workflow.resources.tasks = 99  # type: ignore[misc]


_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
_env = st.lists(
    st.fixed_dictionaries({"key": st.from_regex(r"K_[A-Za-z0-9_]{0,8}", fullmatch=True), "value": _text}), max_size=3
)
_run = st.fixed_dictionaries(
    {"command": _text},
    optional={
        "shell": st.sampled_from(["/bin/bash", "/bin/ash", "/bin/sh", "ENTRYPOINT"]),
        "workDir": _text.map("/{}".format),
        "env": _env,
        "disableCpuBinding": st.booleans(),
        "resources": st.fixed_dictionaries({}, optional={"tasks": st.just(1), "gpusPerTask": st.just(0)}),
        "container": st.fixed_dictionaries({"image": _text.map("i{}".format)}, optional={"password": _text}),
    },
)
_step = st.recursive(
    st.fixed_dictionaries({}, optional={"name": _text, "run": _run}),
    lambda inner: st.fixed_dictionaries({"steps": st.lists(inner, min_size=1, max_size=3)}, optional={"name": _text}),
    max_leaves=5,
)
_number = st.integers(1, 2**31 - 1)
_job = st.fixed_dictionaries(
    {
        "resources": st.fixed_dictionaries(
            {"tasks": _number, "cpusPerTask": _number, "memPerCpu": _number, "gpus": st.integers(0, 2**31 - 1)}
        ),
        "steps": st.lists(_step, min_size=1, max_size=3),
    },
    optional={"env": _env, "enableLogging": st.booleans()},
)


@settings(deadline=None)
@given(_job)
def test_any_job_survives_the_way_through_a_yaml_file(job: dict) -> None:
    assert from_dict(job).to_dict() == job
    assert parse(yaml.safe_dump(job, allow_unicode=False)).to_dict() == job


@settings(deadline=None)
@given(_job, st.booleans(), st.sampled_from([None, 0, 4]))
def test_any_job_survives_the_way_through_a_json_file(job: dict, ascii_only: bool, indent: int | None) -> None:
    assert parse(json.dumps(job, ensure_ascii=ascii_only, indent=indent)).to_dict() == job


def test_json_that_is_indented_by_tabs_is_json() -> None:
    assert parse(json.dumps(PLAIN, indent="\t")).to_dict() == PLAIN


@pytest.mark.parametrize("indent", [None, "\t"])
def test_a_byte_order_mark_before_json_changes_nothing(indent: str | None, job) -> None:
    plain = job(run={"command": "echo 😀"})
    assert parse("\ufeff" + json.dumps(plain, indent=indent)).to_dict() == plain


@pytest.mark.parametrize("text", ["😀", "a\x85b", "a \u2028 b", "a\x7fb", "/"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_every_character_of_a_json_file_arrives(text: str, ascii_only: bool, job) -> None:
    plain = job(run={"command": text})
    assert parse(json.dumps(plain, ensure_ascii=ascii_only)).to_dict() == plain


def test_a_byte_order_mark_and_the_line_ends_of_windows_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_bytes(b"\xef\xbb\xbf" + YAML.replace("\n", "\r\n").encode())
    assert load(tmp_path / "job.yaml").to_dict() == PLAIN


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"\xff\xfe\x00a", "not UTF-8"), ("steps: é".encode("latin-1"), "not UTF-8"), (None, "No such file")],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "job.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DeepSquareError, match=reason) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_mistakes_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("steps: []\n")
    with pytest.raises(WorkflowError) as caught:
        load(path)
    assert all(line.startswith(f"{path}: line 1, ") for line in str(caught.value).splitlines())
