from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from deepsquare.chain.types import JobStatus
from deepsquare.client.job import JobInfo
from deepsquare.tasks import CostRow, failure_text, format_cost_table
from deepsquare.tasks.report import format_time

START = datetime(2026, 1, 1, tzinfo=UTC)


def info(status: JobStatus = JobStatus.FINISHED, **changes: object) -> JobInfo:
    values: dict[str, object] = {
        "id": "0x" + "0" * 62 + "1f",
        "status": status,
        "provider": "0x3325a78425F17a7E487Eb5666b2bFd93aBb06c70",
        "locked": Decimal(5),
        "billed": Decimal("1.03") if status.is_cold else None,
        "refunded": Decimal("3.97") if status.is_cold else None,
        "submitted_at": START,
        "started_at": START + timedelta(seconds=2),
        "ended_at": START + timedelta(seconds=67) if status.is_cold else None,
        "exit_code": 0,
        "signal": 0,
        "error": "",
        "name": "tag",
        "location_hash": "abc",
    }
    return JobInfo(**(values | changes))  # type: ignore[arg-type]


def test_a_failure_says_what_happened_and_what_to_do() -> None:
    text = failure_text(info(JobStatus.FAILED, exit_code=3, error="exit code 3"), ["a", "b"])
    assert "ended as FAILED with exit code 3\n" in text
    assert "    a\n    b" in text
    assert "deepsquare job logs 0x" in text
    assert "time limit" in failure_text(info(JobStatus.OUT_OF_CREDITS), [])
    assert "no output" in failure_text(info(JobStatus.OUT_OF_CREDITS), [])
    assert "killed by signal 9" in failure_text(info(JobStatus.FAILED, signal=9), [])


def test_the_table_has_a_line_a_job_and_totals() -> None:
    rows = [CostRow("map[sample=a]", info()), CostRow("index", info(JobStatus.RUNNING))]
    header, first, second, totals = format_cost_table(rows).splitlines()
    assert header.split() == ["JOB", "ID", "PROVIDER", "STATUS", "QUEUED", "RAN", "LOCKED", "BILLED", "REFUNDED"]
    assert first.split() == [
        "map[sample=a]",
        "0x1f",
        "0x3325a7…",
        "FINISHED",
        "2s",
        "1m05s",
        "5.0000",
        "1.0300",
        "3.9700",
    ]
    assert second.split()[-3:] == ["5.0000", "-", "-"]
    assert totals.split() == ["2", "jobs", "10.0000", "1.0300", "3.9700"]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (59, "59s"), (60, "1m00s"), (125, "2m05s"), (3725, "1h02m")])
def test_times_for_people(seconds: int, text: str) -> None:
    assert format_time(timedelta(seconds=seconds)) == text


def test_no_time_is_a_dash() -> None:
    assert format_time(None) == "-"


def test_a_providers_words_can_not_command_the_terminal() -> None:
    from deepsquare.client.text import excerpt

    assert excerpt("\x1b]52;c;AAAA\x07\x1b[2Jgone\nnext") == "gone\\x0anext"
    assert len(excerpt("x" * 10_000)) == 501
