"""Which bills are suspicious."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from deepsquare.chain.types import JobStatus
from deepsquare.client.audit import CHAIN_MARGIN, LOG_MARGIN, suspect

from core.tests.client.test_costs import NOON, made

MINUTE, NOTHING = timedelta(minutes=1), timedelta()


@pytest.mark.parametrize(
    ("billed", "ran", "written", "reasons"),
    [
        (30 * MINUTE, 30 * MINUTE, 30 * MINUTE, ()),
        (30 * MINUTE, 30 * MINUTE - CHAIN_MARGIN, None, ()),
        (30 * MINUTE, 29 * MINUTE - CHAIN_MARGIN, None, ("chain",)),
        (30 * MINUTE, 30 * MINUTE, 30 * MINUTE - LOG_MARGIN, ()),
        (30 * MINUTE, 30 * MINUTE, 29 * MINUTE - LOG_MARGIN, ("log",)),
        (30 * MINUTE, 5 * MINUTE, 5 * MINUTE, ("chain", "log")),
        # A single line, and lines whose times go backwards, tell nothing.
        (30 * MINUTE, 30 * MINUTE, NOTHING, ()),
        (30 * MINUTE, 30 * MINUTE, -MINUTE, ()),
    ],
)
def test_a_bill_for_clearly_more_than_can_be_seen(
    billed: timedelta, ran: timedelta, written: timedelta | None, reasons: tuple[str, ...]
) -> None:
    cost = made({})
    cost = replace(cost, info=replace(cost.info, started_at=NOON, ended_at=NOON + ran))
    found = suspect(cost, billed, None if written is None else (NOON, NOON + written), NOTHING)
    assert (found.reasons if found else ()) == reasons


def test_the_fee_of_a_cancelled_job_is_no_time() -> None:
    cost = made({})
    info = replace(cost.info, started_at=NOON, ended_at=NOON + MINUTE)
    for status, suspicious in ((JobStatus.CANCELLED, False), (JobStatus.PANICKED, False), (JobStatus.FINISHED, True)):
        one = replace(cost, info=replace(info, status=status))
        assert (suspect(one, 60 * MINUTE, (NOON, NOON + MINUTE), 60 * MINUTE) is not None) is suspicious


def test_a_job_that_never_ran_is_not_judged() -> None:
    assert suspect(made({}), MINUTE, None, NOTHING) is None
