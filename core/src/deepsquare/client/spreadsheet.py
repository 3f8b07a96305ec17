"""Costs as CSV (RFC 4180) that a spreadsheet can open without obeying what strangers wrote."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import TextIO

from deepsquare.client.costs import JobCost, credits_of

LABEL_PREFIX = "label."
"""The columns of labels are named so, behind all others."""

# What spreadsheets take for the begin of a formula, and our own mark, so that it can be taken off again.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")


def write_costs(file: TextIO, costs: Sequence[JobCost]) -> None:
    """Write a row a job, below a row of names; a column more for each label that any of the jobs has."""
    keys = sorted({key for cost in costs for key in cost.labels})
    rows = [_row(cost) | {LABEL_PREFIX + key: cost.labels.get(key) for key in keys} for cost in costs]
    names = list(rows[0]) if rows else list(_COLUMNS)
    write_rows(file, [names, *([row[name] for name in names] for row in rows)])


def write_rows(file: TextIO, rows: Sequence[Sequence[object]]) -> None:
    """Write rows; None is an empty cell. A cell that a spreadsheet could take for a formula gets a ' in front, and so does one
    that begins with ': without the first ' each is what it was.
    """
    csv.writer(file).writerows([[_cell(value) for value in row] for row in rows])


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case Decimal():
            return format(value, "f")
        case datetime():
            return value.isoformat()
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


_COLUMNS = (
    *("id", "name", "status", "provider", "submitted_at", "started_at", "ended_at", "price_per_minute"),
    *("locked", "billed", "refunded", "locked_wei", "billed_wei", "refunded_wei"),
    *("purchase_transaction", "end_transaction", "top_up_transactions", "exit_code", "signal", "error"),
)


def _row(cost: JobCost) -> dict[str, object]:
    info, trace = cost.info, cost.trace
    hot = info.status.is_hot
    values = (
        *(info.id, info.name, info.status.name, info.provider, info.submitted_at, info.started_at, info.ended_at),
        credits_of(trace.price if trace else None),
        *(info.locked, info.billed, info.refunded, cost.locked, cost.billed, cost.refunded),
        *((trace.purchase, trace.end, " ".join(trace.top_ups)) if trace else (None, None, None)),
        *((None, None) if hot else (info.exit_code, info.signal)),
        info.error,
    )
    return dict(zip(_COLUMNS, values, strict=True))
