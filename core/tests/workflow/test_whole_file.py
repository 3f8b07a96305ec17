from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from deepsquare.errors import DeepSquareError
from deepsquare.workflow import WorkflowError, from_dict, load, parse
from deepsquare.workflow.models import For, ForRange, Launch, Resources, Step, Use, VirtualNetwork, Workflow
from deepsquare.workflow.modules import Module, ModuleInput, ModuleOutput
from deepsquare.workflow.run import (
    Bore,
    Container,
    EnvVar,
    Mount,
    NetworkInterface,
    Run,
    StepResources,
    VNet,
    Wireguard,
    WireguardPeer,
)
from deepsquare.workflow.staging import HttpData, S3Data, TransportData
from graphql import build_schema, is_input_object_type, is_non_null_type
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import KEY, workflows

YAML = """\
# Every field of the language.
resources: {tasks: 2, cpusPerTask: 4, memPerCpu: 512, gpus: 1}
enableLogging: true
input: {http: {url: "https://example.org/data.tar.gz"}}
inputMode: 448
output:
  s3:
    region: eu-central-1
    bucketUrl: s3://bucket
    path: /results
    accessKeyId: id
    secretAccessKey: key
    endpointUrl: https://s3.example.org
    deleteSync: true
continuousOutputSync: true
virtualNetworks: [{name: inner, gatewayAddress: 10.0.0.1/24}]
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
  - name: everything else
    if: -e file
    launch:
      handleName: side
      signalOnParentStepExit: 2
      steps:
        - for:
            parallel: true
            range: {begin: 1, end: 9, increment: 2}
            steps:
              - run:
                  command: hostname
                  network: slirp4netns
                  dns: [1.1.1.1]
                  mapUid: 0
                  mapGid: 1000
                  mpi: none
                  customNetworkInterfaces:
                    - wireguard:
                        address: [10.1.0.2/24]
                        privateKey: KEY
                        peers:
                          - publicKey: KEY
                            preSharedKey: KEY
                            allowedIPs: [0.0.0.0/0]
                            endpoint: vpn.example:51820
                            persistentKeepalive: 25
                    - bore: {boreAddress: "bore.example:2200", targetPort: 80, secret: mine}
                    - bore: {address: bore.example, port: 2200, targetPort: 80}
                    - vnet: {name: inner, address: 10.0.0.2/24}
    catch: [{run: {command: "false"}}]
    finally: [{run: {command: "true"}}]
  - dependsOn: [side]
    for: {parallel: false, items: [a, b], steps: [{}]}
  - use:
      source: github.com/example/modules@v1
      args: [{key: A, value: b}]
      exportEnvAs: MODULE
      steps: [{}]
""".replace("KEY", KEY)

PLAIN = {
    "resources": {"tasks": 2, "cpusPerTask": 4, "memPerCpu": 512, "gpus": 1},
    "enableLogging": True,
    "input": {"http": {"url": "https://example.org/data.tar.gz"}},
    "inputMode": 448,
    "output": {
        "s3": {
            "region": "eu-central-1",
            "bucketUrl": "s3://bucket",
            "path": "/results",
            "accessKeyId": "id",
            "secretAccessKey": "key",
            "endpointUrl": "https://s3.example.org",
            "deleteSync": True,
        }
    },
    "continuousOutputSync": True,
    "virtualNetworks": [{"name": "inner", "gatewayAddress": "10.0.0.1/24"}],
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
        {
            "name": "everything else",
            "if": "-e file",
            "launch": {
                "handleName": "side",
                "signalOnParentStepExit": 2,
                "steps": [
                    {
                        "for": {
                            "parallel": True,
                            "range": {"begin": 1, "end": 9, "increment": 2},
                            "steps": [
                                {
                                    "run": {
                                        "command": "hostname",
                                        "network": "slirp4netns",
                                        "dns": ["1.1.1.1"],
                                        "mapUid": 0,
                                        "mapGid": 1000,
                                        "mpi": "none",
                                        "customNetworkInterfaces": [
                                            {
                                                "wireguard": {
                                                    "address": ["10.1.0.2/24"],
                                                    "privateKey": KEY,
                                                    "peers": [
                                                        {
                                                            "publicKey": KEY,
                                                            "preSharedKey": KEY,
                                                            "allowedIPs": ["0.0.0.0/0"],
                                                            "endpoint": "vpn.example:51820",
                                                            "persistentKeepalive": 25,
                                                        }
                                                    ],
                                                }
                                            },
                                            {
                                                "bore": {
                                                    "boreAddress": "bore.example:2200",
                                                    "targetPort": 80,
                                                    "secret": "mine",
                                                }
                                            },
                                            {"bore": {"address": "bore.example", "port": 2200, "targetPort": 80}},
                                            {"vnet": {"name": "inner", "address": "10.0.0.2/24"}},
                                        ],
                                    }
                                }
                            ],
                        }
                    }
                ],
            },
            "catch": [{"run": {"command": "false"}}],
            "finally": [{"run": {"command": "true"}}],
        },
        {"dependsOn": ["side"], "for": {"parallel": False, "items": ["a", "b"], "steps": [{}]}},
        {
            "use": {
                "source": "github.com/example/modules@v1",
                "args": [{"key": "A", "value": "b"}],
                "exportEnvAs": "MODULE",
                "steps": [{}],
            }
        },
    ],
}


def _names(value: object) -> set[str]:
    if isinstance(value, dict):
        return {*value, *(name for inner in value.values() for name in _names(inner))}
    return {name for inner in value for name in _names(inner)} if isinstance(value, list) else set()


MODELS = {
    **{"Job": Workflow, "JobResources": Resources, "VirtualNetwork": VirtualNetwork, "Step": Step, "StepUse": Use},
    **{"StepFor": For, "ForRange": ForRange, "StepAsyncLaunch": Launch, "EnvVar": EnvVar, "StepRun": Run},
    **{
        "StepRunResources": StepResources,
        "ContainerRun": Container,
        "Mount": Mount,
        "NetworkInterface": NetworkInterface,
    },
    **{
        "Wireguard": Wireguard,
        "WireguardPeer": WireguardPeer,
        "Bore": Bore,
        "VNet": VNet,
        "TransportData": TransportData,
    },
    **{"S3Data": S3Data, "HTTPData": HttpData},
    **{"Module": Module, "ModuleInput": ModuleInput, "ModuleOutput": ModuleOutput},
}
SCHEMA = {
    kind.name: kind
    for kind in build_schema(files("deepsquare.wire").joinpath("sbatch.graphql").read_text()).type_map.values()
    if is_input_object_type(kind)
}


def test_there_is_a_model_of_each_type_of_the_language() -> None:
    assert SCHEMA.keys() == MODELS.keys()


@pytest.mark.parametrize("name", MODELS)
def test_each_model_has_the_fields_of_its_type(name: str) -> None:
    fields = {field.alias or key: field for key, field in MODELS[name].model_fields.items()}
    assert fields.keys() == SCHEMA[name].fields.keys()
    needed = {field for field, kind in SCHEMA[name].fields.items() if is_non_null_type(kind.type)}
    # Modules that are there leave out what they are described by.
    needed -= {"description"} if name != "Module" else {"description", "name", "minimumResources"}
    assert {alias for alias, field in fields.items() if field.is_required()} == needed
    assert all(field.description for field in fields.values())


def test_the_example_has_every_field() -> None:
    assert _names(PLAIN) >= {field for name in MODELS if "Module" not in name for field in SCHEMA[name].fields}


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
    commands = ['set -e\necho "$STAGE"\n', "true", "python3 train.py", "hostname", "false", "true"]
    assert [run.command for run in parse(YAML).runs()] == commands


def test_a_job_does_not_change_after_it_was_checked() -> None:
    workflow = parse(YAML)
    with pytest.raises(ValueError, match="frozen"):
        workflow.resources.tasks = 99  # type: ignore[misc]


@settings(deadline=None)
@given(workflows)
def test_any_job_survives_the_way_through_a_yaml_file(job: dict) -> None:
    assert from_dict(job).to_dict() == job
    assert parse(yaml.safe_dump(job, allow_unicode=False)).to_dict() == job


@settings(deadline=None)
@given(workflows, st.booleans(), st.sampled_from([None, 0, 4]))
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
    assert all(line.startswith(f"{path}:1:1: ") for line in str(caught.value).splitlines())
