"""`deepsquare init`: what it writes is valid, and nothing is overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from deepsquare.cli.app import app
from deepsquare.cli.init import Template, init
from deepsquare.compiler import compile_workflow
from deepsquare.workflow import load
from typer.testing import CliRunner

app.command("init")(init)


@pytest.mark.parametrize("template", list(Template))
def test_each_template_is_a_workflow_that_compiles(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["init", template])
    assert (result.exit_code, "workflow.yaml is written" in result.output) == (0, True)
    compile_workflow(load(Path("workflow.yaml")))
    text = Path("workflow.yaml").read_text()
    first = text.splitlines()[0]
    schema = first.removeprefix("# yaml-language-server: $schema=")
    assert json.loads(Path(schema).read_text())["title"] == "DeepSquare workflow"
    (submit,) = (line.rpartition(", and ")[2] for line in result.output.splitlines())
    assert submit.startswith("deepsquare submit workflow.yaml --credits ")
    assert submit in text


def test_a_template_that_is_none_is_told_with_the_nearest_name() -> None:
    result = CliRunner().invoke(app, ["init", "helo"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 2
    assert (
        "'helo' is not one of 'hello', 'container', 'gpu', 'mpi', 'array', 's3'. Did you mean 'hello'?" in result.output
    )
    assert "Value error" not in result.output


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("mine")
    result = CliRunner().invoke(app, ["init", "--file", str(file)])
    assert result.exit_code == 1
    assert "not overwritten" in result.output
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]
