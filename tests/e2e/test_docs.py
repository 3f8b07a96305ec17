"""The examples of the documentation print what it says."""

from __future__ import annotations

import io
import re
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from deepsquare import BlockingClient, BlockingJob, Client, Job, errors
from deepsquare.compiler import compile_workflow
from deepsquare.workflow import from_dict
from deepsquare.workflow.models import Workflow

from tests.batch import Runner
from tests.conftest import REPOSITORY, Grid
from tests.images import busybox_root
from tests.object_store import ObjectStore, object_store
from tests.registry import Registry, registry
from tests.web import Web, web

pytestmark = pytest.mark.slurm

RESOURCES = {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 300, "gpus": 0}
TEXT = (REPOSITORY / "docs" / "workflow.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```\n\n```text\n(.*?)```", TEXT, re.DOTALL)
# Of modules, which are no workflows, and whose examples have a test of their own.
OTHERS = [text for text in re.findall(r"```ya?ml\n(.*?)```", TEXT, re.DOTALL) if "minimumResources" not in text]

PROGRAMS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
PYTHON = (REPOSITORY / "docs" / "python.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PYTHON, re.DOTALL)


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as made:
        made.bucket("my-bucket")
        yield made


@pytest.fixture(scope="module")
def images() -> Iterator[Registry]:
    with registry() as made, busybox_root() as root:
        made.push("team/tool", "1.0", root)
        yield made


@pytest.fixture(scope="module")
def site() -> Iterator[Web]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("numbers")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"2\n1\n"))
    with web({"/numbers.tar.gz": buffer.getvalue()}) as made:
        yield made


@pytest.fixture
def stand_ins(store: ObjectStore, images: Registry, site: Web, runner: Runner) -> Iterator[dict[str, str]]:
    """What takes the place of the world's servers in the examples."""
    Path("/dev/net/tun").chmod(0o666)
    Path("/run/wireguard").mkdir(exist_ok=True)
    runner.variables["APPTAINER_NOHTTPS"] = "true"
    yield {
        "https://example.org": site.url,
        "https://s3.example.org": store.url,
        "MY-ACCESS-KEY-ID": store.access_key_id,
        "MY-SECRET-ACCESS-KEY": store.secret_key,
        "ghcr.io": images.address,
        "me": images.user,
        "my-token": images.password,
    }
    del runner.variables["APPTAINER_NOHTTPS"]


def replaced(value: Any, stand_ins: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: replaced(inner, stand_ins) for key, inner in value.items()}
    if isinstance(value, list):
        return [replaced(inner, stand_ins) for inner in value]
    if isinstance(value, str):
        for place in ("https://example.org", "https://s3.example.org"):
            value = value.replace(place, stand_ins[place])
    return stand_ins.get(value, value) if isinstance(value, str) else value


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
async def test_examples_print_what_is_said(number: int, runner: Runner, stand_ins: dict[str, str]) -> None:
    text, printed = EXAMPLES[number]
    plain = {"resources": RESOURCES} | replaced(yaml.safe_load(text), stand_ins)
    resources = plain.pop("resources")
    result = await runner.run(*plain.pop("steps"), tasks=resources["tasks"], mem_mb=300, **plain)
    assert (result.code, result.lines) == (0, printed.splitlines()), result.text


@pytest.mark.parametrize("number", range(len(OTHERS)))
def test_examples_are_workflows(number: int) -> None:
    workflow = from_dict({"resources": RESOURCES} | yaml.safe_load(OTHERS[number]))
    if all(step.use is None for _, step in workflow.located_steps()):
        compile_workflow(workflow)


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_programs_print_the_result(number: int, local_grid: Grid, tmp_path: Path) -> None:
    step = {"run": {"command": 'echo training; echo 0.93 >"$DEEPSQUARE_RESULT"'}}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump({"resources": RESOURCES, "steps": [step]}))
    said = local_grid.run(sys.executable, "-c", PROGRAMS[number], cwd=tmp_path).stdout
    assert [line for line in said.splitlines() if line] == ["training", "b'0.93\\n'"]


def test_the_command_line_gives_the_result(local_grid: Grid, tmp_path: Path) -> None:
    step = {"run": {"command": 'echo training; echo 0.93 >"$DEEPSQUARE_RESULT"'}}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump({"resources": RESOURCES, "steps": [step]}))
    job = local_grid.json("submit", tmp_path / "train.yaml", "--time-limit", "10m", "--result", "--watch")
    assert local_grid.cli("job", "result", job["id"]).stdout == "0.93\n"
    local_grid.cli("job", "result", job["id"], "--output", tmp_path / "result")
    assert (tmp_path / "result").read_text() == "0.93\n"
    assert local_grid.logs(job["id"])[:1] == ["training"]
    assert "deepsquare-result" not in local_grid.cli("job", "logs", job["id"]).stdout


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippets_print_what_is_said(number: int, local_grid: Grid, tmp_path: Path) -> None:
    program, printed = SNIPPETS[number]
    shutil.copy(REPOSITORY / "docs" / "examples" / "hello.yaml", tmp_path)
    assert local_grid.run(sys.executable, "-c", program, cwd=tmp_path).stdout == printed


@pytest.mark.parametrize("kind", [Client, BlockingClient, Job, BlockingJob, errors], ids=lambda kind: kind.__name__)
def test_each_public_name_is_told(kind: Any) -> None:
    assert len(SNIPPETS) == PYTHON.count("```python")
    names = [name for name in vars(kind) if not name.startswith("_")]
    if kind is errors:
        # Those of operators are theirs.
        names = [name for name in names if name.endswith("Error") and name not in ("GridError", "SchedulerError")]
    assert [name for name in names if not re.search(rf"\b{name}\b", PYTHON)] == []


def test_each_field_of_the_language_is_told() -> None:
    def fields(model: Any) -> set[str]:
        found = set()
        for name, field in model.model_fields.items():
            found |= {field.alias or name} | {inner for part in _models(field.annotation) for inner in fields(part)}
        return found

    seen: set[Any] = set()

    def _models(annotation: Any) -> list[Any]:
        if isinstance(annotation, type) and hasattr(annotation, "model_fields"):
            if annotation in seen:
                return []
            seen.add(annotation)
            return [annotation]
        return [model for part in getattr(annotation, "__args__", ()) for model in _models(part)]

    missing = {field for field in fields(Workflow) if not re.search(rf"\b{field}\b", TEXT)}
    assert missing == set()
