"""CSV that any reader of RFC 4180 gets back, and no spreadsheet takes for a formula."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from datetime import timedelta

from deepsquare.client.costs import Trace
from deepsquare.client.spreadsheet import write_costs, write_rows
from hypothesis import given
from hypothesis import strategies as st

from core.tests.client.test_costs import NOON, made

CELLS = st.text() | st.text("=+-@'\t\r\n\",;x", max_size=6)


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


@given(st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1)))
def test_cells_come_back_and_begin_no_formula(rows: list[list[str]]) -> None:
    file = io.StringIO(newline="")
    write_rows(file, rows)
    got = read(file.getvalue())
    assert [[cell.removeprefix("'") for cell in row] for row in got] == rows
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for row in got for cell in row)
    assert file.getvalue().endswith("\r\n")


def test_a_row_a_job_with_exact_amounts_transactions_and_labels() -> None:
    ended = made({"run": "=1+1"}, locked=5 * 10**18 + 1, billed=10**18)
    info = replace(ended.info, name="@SUM(A1)", error="-2+3|cmd", started_at=NOON, ended_at=NOON + timedelta(minutes=1))
    ended = replace(ended, info=info, trace=Trace("0xaa", "0xbb", ("0xcc", "0xdd"), 10**18 // 4))
    file = io.StringIO(newline="")
    write_costs(file, [ended, made({"rule": "a,b"}, billed=None)])
    names, first, second = read(file.getvalue())
    row, hot = dict(zip(names, first, strict=True)), dict(zip(names, second, strict=True))
    assert row["id"] == "0x" + "0" * 64
    assert (row["name"], row["error"], row["label.run"], row["label.rule"]) == ("'@SUM(A1)", "'-2+3|cmd", "'=1+1", "")
    assert (row["locked"], row["billed"], row["refunded"]) == ("5.000000000000000001", "1", "4.000000000000000001")
    assert (row["locked_wei"], row["billed_wei"]) == ("5000000000000000001", "1000000000000000000")
    assert (row["price_per_minute"], row["started_at"]) == ("0.25", "2026-11-01T12:00:00+00:00")
    assert (row["purchase_transaction"], row["end_transaction"]) == ("0xaa", "0xbb")
    assert row["top_up_transactions"] == "0xcc 0xdd"
    assert (hot["status"], hot["billed"], hot["billed_wei"], hot["exit_code"]) == ("RUNNING", "", "", "")
    assert hot["label.rule"] == "a,b"


def test_without_jobs_there_are_the_names() -> None:
    file = io.StringIO(newline="")
    write_costs(file, [])
    assert read(file.getvalue())[0][:3] == ["id", "name", "status"]
