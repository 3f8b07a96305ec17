"""What commands print: tables for people, plain ones for pipes, JSON for programs; and help that teaches."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from deepsquare.chain.types import JobStatus
from deepsquare.cli import app as module
from deepsquare.cli import show
from deepsquare.client.job import JobInfo

HEADER, ROWS = ["ID", "NAME", "BILLED"], [["0x1", "[red]not markup[/red]", "0.5"], ["0x2", "b", "12.25"]]


def test_a_table_in_a_pipe_is_aligned_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    show.print_table(HEADER, ROWS, right=frozenset({2}))
    assert capsys.readouterr().out.splitlines() == [
        "ID   NAME                   BILLED",
        "0x1  [red]not markup[/red]     0.5",
        "0x2  b                       12.25",
    ]


def test_a_table_on_a_terminal_is_drawn_and_obeys_no_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show.print_table(HEADER, ROWS)
    drawn = capsys.readouterr().out
    assert "─" in drawn
    assert "[red]not markup[/red]" in drawn


def test_json_has_exact_money_times_and_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    value = {
        "locked": Decimal("0.000000000000000001"),
        "at": datetime(2026, 11, 25, tzinfo=UTC),
        "ran": timedelta(minutes=2),
    }
    show.print_json(value)
    assert json.loads(capsys.readouterr().out) == {
        "locked": "0.000000000000000001",
        "at": "2026-11-25T00:00:00+00:00",
        "ran": 120.0,
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("", "-"),
        (0, "0"),
        (Decimal("1E-18"), "0.000000000000000001"),
        (timedelta(minutes=2, seconds=5), "2m05s"),
        ({"rule": "map", "sample": "birch"}, "rule=map, sample=birch"),
        ({}, "-"),
    ],
)
def test_values_as_people_read_them(value: Any, text: str) -> None:
    assert show.for_people(value) == text


@pytest.mark.parametrize("status", JobStatus)
def test_a_job_has_an_exit_code_when_it_has_ended(status: JobStatus) -> None:
    now = datetime(2026, 11, 25, tzinfo=UTC)
    info = JobInfo(
        *("0x1", status, None, Decimal(5), None, None, now, now, None),
        *(0, 0, "", "name", "hash"),
    )
    shown = show.job_json(info, {"file": "job.yaml"})
    assert (shown["exit_code"], shown["signal"]) == ((None, None) if status.is_hot else (0, 0))
    assert shown["labels"] == {"file": "job.yaml"}


@pytest.mark.parametrize("terminal", [False, True])
def test_a_mark_is_coloured_on_a_terminal_only_and_its_text_never_obeyed(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    show.print_mark(False, "chain\x1b[2J is away")
    out = capsys.readouterr().out
    assert out.endswith("chain is away\n")
    assert ("\x1b[31mFAIL" in out) is terminal


def commands(group: Any, path: str = "deepsquare") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def test_the_help_of_every_command_has_an_example_that_names_it() -> None:
    module.add_commands()
    found = dict(commands(typer.main.get_command(module.app)))
    assert len(found) > 15
    without = [path for path, command in found.items() if f"{path}" not in (command.help or "").partition("Example")[2]]
    assert not without


@pytest.mark.parametrize(
    ("labels", "given", "said"),
    [
        ({}, None, "on chain"),
        ({"rule": "map", "run": "2026-11-27"}, None, "map"),
        ({"run": "2026-11-27"}, None, "on chain"),
        ({"rule": "map"}, "mine", "mine"),
    ],
)
def test_what_a_job_is_called(labels: dict[str, str], given: str | None, said: str) -> None:
    assert show.title(SimpleNamespace(name="on chain"), labels, given) == said  # type: ignore[arg-type]
