from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from deepsquare.compiler import EXIT_STARTED_BEFORE, LATE_BOUND, compile_workflow
from deepsquare.workflow import Workflow, WorkflowError, from_dict, parse
from deepsquare.workflow.modules import FetchedModule, resolve
from hypothesis import given, settings

from core.tests.compiler.conftest import scripts_in
from tests.strategies import workflows

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
EVERYTHING = """
resources: {tasks: 2, cpusPerTask: 1, memPerCpu: 100, gpus: 1}
input: {http: {url: https://example.org/a.tar.gz}}
output:
  s3: {region: r, bucketUrl: s3://bucket, path: /out, accessKeyId: i, secretAccessKey: k, endpointUrl: https://s3.example.org}
continuousOutputSync: true
virtualNetworks: [{name: n, gatewayAddress: 10.0.0.1/24}]
steps:
  - run:
      command: hostname
      network: pasta
      dns: [1.1.1.1]
      mapUid: 0
      customNetworkInterfaces:
        - bore: {boreAddress: "bore.example:2200", targetPort: 80, secret: s}
        - vnet: {name: n, address: 10.0.0.2/24}
  - for: {parallel: true, items: [a], steps: [{run: {command: x, mapUid: 5, network: slirp4netns}}]}
  - run: {command: x, container: {image: i, deepsquareHosted: true, x11: true, mountHome: true}, resources: {gpusPerTask: 1}}
  - run: {command: x, container: {image: library/a, apptainer: true, username: u, password: p}}
  - run: {command: x y, shell: ENTRYPOINT, container: {image: a, registry: "ghcr.io", username: u, password: p, x11: true}}
  - run:
      command: x
      container: {image: /a.sqsh, mounts: [{hostDir: "/a b", containerDir: /c, options: ro}], mountHome: true}
"""
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


def test_all_that_a_script_writes_is_clean_too(job, complaints) -> None:
    everything = yaml.safe_load(EVERYTHING)
    other = {"output": {"http": {"url": "https://a"}}, "input": everything["output"], "continuousOutputSync": False}
    for plain in (job(*JOBS["all fields"]), everything, everything | other):
        assert complaints(plain) == ""


@settings(max_examples=150, deadline=None)
@given(workflows)
def test_any_valid_workflow_gives_scripts_that_are_shell(plain: dict) -> None:
    for text in scripts_in(compile_workflow(from_dict(plain))).values():
        checked = subprocess.run(["bash", "-n"], check=False, input=text.encode(), capture_output=True)
        assert (checked.returncode, checked.stderr) == (0, b""), text


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


def test_what_a_provider_decides_comes_in_variables_with_the_references_paths_as_defaults(job) -> None:
    script = compile_workflow(from_dict(job("true")))
    assert all(f"${{{name}:-" in compile_workflow(parse(EVERYTHING)) for name in LATE_BOUND)
    for path in ("/opt/cache/shared", "/opt/cache/persistent", "/opt/cache/world-tmp", "/opt/cache/disk"):
        assert f":-{path}}}" in script


def test_the_script_says_what_runs_it(job) -> None:
    assert compile_workflow(from_dict(job("true"))).startswith("#!/bin/bash\n")


def test_a_second_start_has_an_exit_code_of_its_own() -> None:
    assert EXIT_STARTED_BEFORE not in {0, 1, 2, 126, 127}
    assert EXIT_STARTED_BEFORE < 128


def test_modules_are_fetched_before(job) -> None:
    use = {"use": {"source": "github.com/a/b"}}
    with pytest.raises(WorkflowError) as caught:
        compile_workflow(from_dict(job(steps=[{"run": {"command": "true"}}, {"steps": [use]}])))
    assert [problem.path for problem in caught.value.problems] == ["steps[1].steps[0].use"]


def test_the_commits_of_modules_are_in_the_script(job) -> None:
    text = "name: m\nminimumResources: {tasks: 1, cpusPerTask: 1, memPerCpu: 1, gpus: 0}\nsteps: [{}]\n"
    plain = from_dict(job(steps=[{"use": {"source": "github.com/a/b@v1"}}]))
    script = compile_workflow(resolve(plain, lambda _: FetchedModule(text, "0123abcd")))
    assert "# The module github.com/a/b@v1 is that of commit 0123abcd.\n" in script
