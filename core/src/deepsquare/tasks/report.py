"""What people read of a job: why it failed, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from deepsquare.chain.types import JobStatus
from deepsquare.client.job import JobInfo
from deepsquare.credits import format_credits, to_wei

_REMEDIES = {
    JobStatus.OUT_OF_CREDITS: "It used up its time: give it a longer time limit (or more credits).",
    JobStatus.CANCELLED: "Somebody cancelled it; submit it again if that was not meant.",
    JobStatus.PANICKED: "It could not be run, and its credits came back. Submit it again.",
}


def failure_text(info: JobInfo, tail: Sequence[str]) -> str:
    """Why a job failed, in a few lines: status, exit code or signal, the provider's words, the last lines, what to do.

    Args:
        info: the job at its end.
        tail: the last lines of its output, sanitised.
    """
    reason = f"Job {short_id(info.id)} ended as {info.status.name}"
    if info.signal:
        reason += f", killed by signal {info.signal}"
    elif info.exit_code:
        reason += f" with exit code {info.exit_code}"
    # The provider's words often are just that once more.
    words = (
        ""
        if info.error in ("", f"exit code {info.exit_code}", f"killed by signal {info.signal}")
        else f": {info.error}"
    )
    lines = [reason + words]
    if tail:
        lines.append("Last lines of its output:")
        lines += [f"    {line}" for line in tail]
    else:
        lines.append("It wrote no output.")
    lines.append(_REMEDIES.get(info.status, f"Its whole output: deepsquare job logs {short_id(info.id)}"))
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class CostRow:
    """One line of a table of costs."""

    label: str
    """What the engine calls the job."""
    info: JobInfo


_HEADER = ("JOB", "ID", "PROVIDER", "STATUS", "QUEUED", "RAN", "LOCKED", "BILLED", "REFUNDED")
_LEFT_ALIGNED = 4


def short_id(job_id: str) -> str:
    """A job id without its leading zeros, as it may be typed."""
    return hex(int(job_id, 16))


def format_cost_table(rows: Sequence[CostRow]) -> str:
    """A line a job with its times and its money, and the totals: aligned plain text."""
    table = [_HEADER]
    for row in rows:
        info = row.info
        table.append(
            (
                row.label,
                short_id(info.id),
                f"{info.provider[:8]}…" if info.provider else "-",
                info.status.name,
                format_time(info.queue_time),
                format_time(info.run_time),
                _money(info.locked),
                _money(info.billed),
                _money(info.refunded),
            )
        )
    totals = [
        _money(sum((getattr(row.info, field) or Decimal(0) for row in rows), Decimal(0)))
        for field in ("locked", "billed", "refunded")
    ]
    table.append((f"{len(rows)} jobs", "", "", "", "", "", totals[0], totals[1], totals[2]))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number < _LEFT_ALIGNED else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    )


def format_time(time: timedelta | None) -> str:
    """A time for people: `7s`, `2m05s`, `1h02m`; `-` for none."""
    if time is None:
        return "-"
    seconds = int(time.total_seconds())
    if seconds < 60:
        return f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}m{seconds:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m"


def _money(credits: Decimal | None) -> str:
    return "-" if credits is None else format_credits(to_wei(credits))
