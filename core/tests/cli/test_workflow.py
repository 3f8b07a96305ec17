"""`deepsquare workflow validate`: several files, or standard input."""

from __future__ import annotations

from pathlib import Path

import pytest
from deepsquare.cli.app import add_commands, app
from typer.testing import CliRunner

GOOD = "resources: {tasks: 1, cpusPerTask: 1, memPerCpu: 1, gpus: 0}\nsteps: [{run: {command: x}}]\n"
BAD = "resources: {tasks: 1, cpusPerTask: 1, memPerCpu: 1, gpus: 0}\nsteps: [{rum: x}]\n"


@pytest.fixture
def validate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Validate files by their names; the exit code and what is said on each output."""
    add_commands()
    monkeypatch.chdir(tmp_path)
    Path("good.yaml").write_text(GOOD)
    Path("bad.yaml").write_text(BAD)

    def validate(*files: str, text: str = "") -> tuple[int, str, str]:
        result = CliRunner().invoke(app, ["workflow", "validate", *files], input=text)
        return result.exit_code, result.stdout, result.stderr

    return validate


def test_all_files_are_looked_at(validate) -> None:  # type: ignore[no-untyped-def]
    assert validate("good.yaml") == (0, "good.yaml is valid\n", "")
    code, said, wrong = validate("bad.yaml", "good.yaml", "bad.yaml")
    assert (code, said) == (1, "good.yaml is valid\n")
    assert [line.partition(" is an")[0] for line in wrong.splitlines()] == ["bad.yaml:2:10: steps[0].rum:"] * 2


def test_standard_input(validate) -> None:  # type: ignore[no-untyped-def]
    assert validate("-", text=GOOD) == (0, "<stdin> is valid\n", "")
    code, said, wrong = validate("-", text=BAD)
    assert (code, said) == (1, "")
    assert wrong.startswith("<stdin>:2:10: steps[0].rum: ")


def test_a_file_that_is_not_there_is_wrong_use(validate) -> None:  # type: ignore[no-untyped-def]
    assert validate("good.yaml", "nowhere.yaml") == (2, "", "deepsquare: there is no file nowhere.yaml\n")
