"""Output for people (tables, plain when piped) and for programs (JSON)."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from deepsquare.client.job import JobInfo

Json = Annotated[bool, typer.Option("--json", help="Print JSON: money as exact strings of credits, times in ISO 8601.")]
"""The option `--json` of commands."""


def print_json(value: Any) -> None:
    """Print a value as JSON: amounts as exact strings, times in ISO 8601."""
    json.dump(value, sys.stdout, indent=2, default=_encode)
    sys.stdout.write("\n")


def _encode(value: Any) -> Any:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise TypeError(type(value).__name__)


def title(info: JobInfo, labels: Mapping[str, str], given: str | None) -> str:
    """What a customer calls a job: the name that it was given, else its labels, else the name on chain.

    A label `run` names what many jobs share, and tells none from the others.
    """
    return given or " ".join(value for key, value in labels.items() if key != "run") or info.name


def job_json(info: JobInfo, labels: Mapping[str, str]) -> dict[str, Any]:
    """A job as the JSON of the command line; times in ISO 8601, durations in seconds, money in credits."""
    return {
        "id": info.id,
        "name": info.name,
        "labels": dict(labels),
        "status": info.status.name,
        "provider": info.provider,
        "submitted_at": info.submitted_at,
        "started_at": info.started_at,
        "ended_at": info.ended_at,
        "queue_seconds": info.queue_time,
        "run_seconds": info.run_time,
        "locked": info.locked,
        "billed": info.billed,
        "refunded": info.refunded,
        "exit_code": None if info.status.is_hot else info.exit_code,
        "signal": None if info.status.is_hot else info.signal,
        "error": info.error,
    }


def for_people(value: Any) -> str:
    """A value of `job_json` as people read it."""
    from deepsquare.tasks.report import format_time

    match value:
        case None | "":
            return "-"
        case Decimal():
            return format(value, "f")
        case datetime():
            return f"{value.astimezone():%Y-%m-%d %H:%M:%S}"
        case timedelta():
            return format_time(value)
        case Mapping():
            return ", ".join(f"{key}={text}" for key, text in value.items()) or "-"
    return str(value)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> None:
    """Print a table: with rich on a terminal, else aligned plain text. `right` names the columns to align right."""
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for number, name in enumerate(header):
            table.add_column(name, justify="right" if number in right else "left", no_wrap=True)
        for row in rows:
            # Text, since cells hold other people's words, which must not be taken for markup.
            table.add_row(*map(Text, row))
        Console().print(table)
        return
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join(cells).rstrip())


def print_mark(ok: bool, text: str) -> None:
    """Print a line that begins with "ok" or "FAIL", in colour on a terminal; parts of the text may be other people's."""
    from deepsquare.client.text import sanitize

    line = sanitize(text.encode("utf-8", "replace"))
    mark = "ok   " if ok else "FAIL "
    if sys.stdout.isatty():
        mark = f"\x1b[{32 if ok else 31}m{mark}\x1b[0m"
    print(f"{mark}{line}", flush=True)
