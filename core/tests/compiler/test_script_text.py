from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from deepsquare.compiler import EXIT_STARTED_BEFORE, LATE_BOUND, UnsupportedError, compile_workflow
from deepsquare.workflow import Workflow, WorkflowError, from_dict
from hypothesis import given, settings
from hypothesis import strategies as st

HOSTILE = 'it\'s "$(touch hacked)" `touch hacked`\nEND_OF_FILE_0\n\\ \t~ * é 😀 ${x} #'

JOBS = {
    "one step": [{"command": "echo hello"}],
    "no step": [],
    "all fields": [
        {
            "command": "set -e\nmake all\n",
            "shell": "/bin/sh",
            "workDir": "/opt/data",
            "env": [{"key": "MODE", "value": "fast"}],
            "disableCpuBinding": True,
            "resources": {"tasks": 2, "cpusPerTask": 2, "memPerCpu": 100, "gpusPerTask": 1},
        }
    ],
    "many steps": [{"command": f"echo {number}"} for number in range(20)],
    "hostile": [{"command": HOSTILE, "workDir": f"/{HOSTILE}", "env": [{"key": "A", "value": HOSTILE}]}],
    "broken command": [{"command": "if [ 'unfinished"}],
    "empty command": [{"command": ""}],
}
LOGGING = (None, True, False)


def workflow(job, name: str, logging: bool | None = None) -> Workflow:
    fields = {"env": [{"key": "STAGE", "value": HOSTILE}], "enableLogging": logging}
    return from_dict(job(*JOBS[name], **fields) | ({} if JOBS[name] else {"steps": [{"name": "nothing"}]}))


@pytest.mark.parametrize("logging", LOGGING)
@pytest.mark.parametrize("name", JOBS)
def test_scripts_are_clean_down_to_matters_of_style(name: str, logging: bool | None, job, tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text(compile_workflow(workflow(job, name, logging)))
    for command in (["bash", "-n", path], ["shellcheck", "--norc", "--severity=style", path]):
        checked = subprocess.run(command, check=False, capture_output=True, text=True)
        assert checked.stdout + checked.stderr == ""


@pytest.mark.parametrize("name", ["one step", "all fields"])
def test_launchers_are_clean_too(name: str, job, complaints) -> None:
    assert complaints(compile_workflow(workflow(job, name))) == ""


_texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.lists(
    st.sampled_from(
        ["'", '"', "\n", "$(", ")", "`", "END_OF_FILE_0\n", "END_OF_FILE_1", "\\", "#", "<<'EOF'\n", "((", "{"]
    )
).map("".join)


@settings(max_examples=60, deadline=None)
@given(command=_texts, value=_texts, directory=_texts, job_value=_texts)
def test_no_text_of_a_customer_breaks_the_scripts_syntax(
    job, command: str, value: str, directory: str, job_value: str
) -> None:
    run = {"command": command, "workDir": f"/{directory}", "env": [{"key": "A", "value": value}]}
    script = compile_workflow(from_dict(job(run, run, env=[{"key": "B", "value": job_value}])))
    checked = subprocess.run(["bash", "-n"], check=False, input=script.encode(), capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, b"")


def test_the_same_workflow_gives_the_same_bytes_in_every_process(job) -> None:
    program = (
        "import json, sys; from deepsquare.compiler import compile_workflow; from deepsquare.workflow import from_dict\n"
        "sys.stdout.write(compile_workflow(from_dict(json.load(sys.stdin))))"
    )
    plain = workflow(job, "hostile")
    scripts = {
        subprocess.run(
            [sys.executable, "-c", program],
            input=json.dumps(plain.to_dict()).encode(),
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert scripts == {compile_workflow(plain).encode()}


def test_names_of_steps_change_nothing(job) -> None:
    plain = job("true")
    named = plain | {"steps": [plain["steps"][0] | {"name": "a name\nexit 1"}]}
    assert compile_workflow(from_dict(named)) == compile_workflow(from_dict(plain))


def test_what_a_provider_decides_comes_in_variables_with_the_references_paths_as_defaults(job) -> None:
    script = compile_workflow(from_dict(job("true")))
    hosted = {"command": "true", "container": {"image": "i", "deepsquareHosted": True}}
    assert all(f"${{{name}:-" in script + compile_workflow(from_dict(job(hosted))) for name in LATE_BOUND)
    for path in ("/opt/cache/shared", "/opt/cache/persistent", "/opt/cache/world-tmp", "/opt/cache/disk"):
        assert f":-{path}}}" in script


def test_the_script_says_what_runs_it(job) -> None:
    assert compile_workflow(from_dict(job("true"))).startswith("#!/bin/bash\n")


def test_a_second_start_has_an_exit_code_of_its_own() -> None:
    assert EXIT_STARTED_BEFORE not in {0, 1, 2, 126, 127}
    assert EXIT_STARTED_BEFORE < 128


CONTAINER = {"command": "true", "container": {"image": "library/alpine:3", "password": "hunter2"}}


@pytest.mark.parametrize("run", [CONTAINER, {"command": "true", "shell": "ENTRYPOINT"}])
def test_what_this_version_cannot_run_is_refused(run: dict, job) -> None:
    valid = from_dict(job("true", run))
    with pytest.raises(UnsupportedError) as caught:
        compile_workflow(valid)
    assert isinstance(caught.value, WorkflowError)
    assert "container" in str(caught.value)
    assert "hunter2" not in f"{caught.value} {caught.value.problems!r}"


def test_the_step_that_cannot_be_run_is_named(job) -> None:
    inner = {"steps": [{"run": {"command": "true"}}, {"run": CONTAINER}]}
    with pytest.raises(UnsupportedError) as caught:
        compile_workflow(from_dict(job(steps=[{"run": {"command": "true"}}, inner])))
    assert [problem.path for problem in caught.value.problems] == ["steps[1].steps[1].run.container"]
