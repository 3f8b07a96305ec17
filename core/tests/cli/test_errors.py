"""How the command ends: one line for people, an exit code for programs."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import pytest
import typer
from deepsquare.cli import app as module
from deepsquare.credits import to_wei
from deepsquare.workflow import parse


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Run a command whose body is given; its exit code and what it said on stderr."""

    def run(body, *arguments: str) -> tuple[int, str]:  # type: ignore[no-untyped-def]
        app = typer.Typer(pretty_exceptions_enable=False)
        app.command("try")(body)
        monkeypatch.setattr(module, "app", app)
        monkeypatch.setattr(sys, "argv", ["deepsquare", *(arguments or ("try",))])
        with pytest.raises(SystemExit) as end:
            module.run()
        return int(end.value.code or 0), capsys.readouterr().err

    return run


def test_after_an_interrupt_the_jobs_that_go_on_are_mentioned(run) -> None:  # type: ignore[no-untyped-def]
    def body() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()

    code, text = run(body)
    assert code == 130
    assert text.strip() == "deepsquare: interrupted; jobs that were bought go on (deepsquare job list)"


def test_wrong_use_and_an_exit_keep_their_codes_and_words(run) -> None:  # type: ignore[no-untyped-def]
    def body() -> None:
        raise typer.Exit(3)

    assert run(body) == (3, "")
    code, text = run(body, "try", "--nonsense")
    assert code == 2
    assert "--nonsense" in text


def test_a_value_that_is_none_is_wrong_use(run) -> None:  # type: ignore[no-untyped-def]
    def body(amounts: Annotated[list[str], typer.Argument(callback=module.checked(to_wei))]) -> None: ...

    code, text = run(body, "try", "5", "abc")
    assert code == 2
    assert text == "deepsquare: credits is 'abc', which is not a number; write for example 12.5\n"


def test_each_line_of_a_workflows_problems_begins_with_its_place(run) -> None:  # type: ignore[no-untyped-def]
    def body() -> None:
        parse("steps: []\nresorces: 1\n", "job.yaml")

    code, text = run(body)
    assert code == 1
    assert [line.partition(" ")[0] for line in text.splitlines()] == ["job.yaml:1:1:", "job.yaml:1:1:", "job.yaml:2:1:"]


def test_an_errors_own_lines_stay_and_nothing_in_them_commands_the_terminal(run) -> None:  # type: ignore[no-untyped-def]
    def body() -> None:
        raise ValueError("first\nsecond \x1b[2Jthird\x07")

    assert run(body) == (1, "deepsquare: first\nsecond third\\x07\n")


@pytest.mark.parametrize(
    ("error", "words"),
    [(PermissionError(13, "Permission denied", "/x"), "/x: Permission denied"), (OSError("gone"), "the system: gone")],
)
def test_the_systems_errors_get_one_line(run, error: OSError, words: str) -> None:  # type: ignore[no-untyped-def]
    def body() -> None:
        raise error

    assert run(body) == (1, f"deepsquare: {words}\n")
