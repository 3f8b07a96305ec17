"""What the screen knows of the jobs, and how it says it: no widget, no call to the chain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from rich.text import Text

from deepsquare.chain.types import JobStatus
from deepsquare.cli.show import title
from deepsquare.client.account import AccountJob
from deepsquare.client.text import excerpt
from deepsquare.credits import format_credits, to_wei
from deepsquare.tasks.report import format_time, short_id

COLD_SHOWN = 50
"""How many of the jobs at their end are shown unless all are asked for."""

WIDE = 120
"""From how many columns on there is room for labels and exact amounts."""

_STYLES = {
    JobStatus.RUNNING: "green",
    JobStatus.FAILED: "bold red",
    JobStatus.OUT_OF_CREDITS: "bold red",
    JobStatus.PANICKED: "bold red",
}


class Columns(NamedTuple):
    """The widths of the table's columns, in cells; labels have one of their own where there is room."""

    id: int
    name: int
    status: int
    provider: int
    time: int
    credits: int
    labels: int

    @classmethod
    def of(cls, width: int) -> Columns:
        """For a terminal of so many columns; each cell has one more on both sides, and the scroll bar is one."""
        if width < WIDE:
            fixed = cls(5, 0, 14, 8, 13, 12, 0)
            return fixed._replace(name=max(width - 2 - sum(fixed) - 12, 8))
        fixed = cls(6, 0, 14, 9, 15, 17, 0)
        room = width - 2 - sum(fixed) - 14
        return fixed._replace(name=room * 2 // 5, labels=room - room * 2 // 5)

    @property
    def decimals(self) -> int:
        """How exactly credits are shown."""
        return 4 if self.labels else 2


def ran(job: AccountJob, now: datetime) -> timedelta | None:
    """How long a job ran, or has been running until now; None if it has not begun."""
    info = job.info
    if info.started_at is None or info.ended_at is not None:
        return info.run_time
    # The chain's clock may be ahead of this one.
    return max(now - info.started_at, timedelta())


def bought(job: AccountJob) -> timedelta | None:
    """How long the locked credits let a job run in all; None if it has no price."""
    if not job.minute:
        return None
    try:
        # Whole minutes: a provider runs a job no longer.
        return timedelta(minutes=int(job.info.locked / job.minute))
    except OverflowError:
        return timedelta.max


def used(job: AccountJob, now: datetime) -> Decimal:
    """The credits that a job was billed, or those that its time until now costs."""
    if job.info.billed is not None:
        return job.info.billed
    time = ran(job, now)
    if time is None or not job.minute:
        return Decimal()
    return min(job.info.locked, Decimal(int(time.total_seconds())) * job.minute / 60)


def money(credits: Decimal, decimals: int = 4) -> str:
    """Credits for people."""
    return format_credits(to_wei(round(credits, 18)), decimals)


def one_line(text: str) -> str:
    """Somebody's text, safe for a cell."""
    return excerpt(text, 200).replace("\t", " ")


def status_text(job: AccountJob) -> str:
    """A job's status, with the one that only the customer knows."""
    return "CANCELLING" if job.is_cancelling and job.info.status.is_hot else job.info.status.name


@dataclass(slots=True)
class Board:
    """The jobs of an account, and which of them are shown."""

    jobs: dict[str, AccountJob] = field(default_factory=dict)
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    """The names that jobs were given, by location hash, as the labels."""
    words: str = ""
    """Only jobs that have each of these words in their id, name or labels are shown."""
    show_all: bool = False

    def take(self, jobs: Iterable[AccountJob], gone: Iterable[str] = ()) -> None:
        """Take note of jobs that changed, and of those that the chain took back."""
        self.jobs |= {job.info.id: job for job in jobs}
        for job_id in gone:
            self.jobs.pop(job_id, None)

    def shown(self) -> list[AccountJob]:
        """The jobs to show: hot ones first, and of each kind the newest first."""
        newest = sorted(self.jobs.values(), key=lambda job: int(job.info.id, 16), reverse=True)
        found = [job for job in newest if self._has_words(job)]
        cold = [job for job in found if job.info.status.is_cold]
        if not self.show_all:
            cold = cold[:COLD_SHOWN]
        return [job for job in found if job.info.status.is_hot] + cold

    @property
    def hot(self) -> list[AccountJob]:
        """The jobs that are not at their end."""
        return [job for job in self.jobs.values() if job.info.status.is_hot]

    def name(self, job: AccountJob) -> str:
        """What the customer calls a job: by its labels, or by its name on chain."""
        return one_line(title(job.info, self._labels(job), self.names.get(job.info.location_hash)))

    def cells(self, job: AccountJob, columns: Columns, now: datetime) -> list[Text]:
        """A job's row."""
        info = job.info
        time = format_time(ran(job, now))
        paid = bought(job)
        if info.status.is_hot and paid is not None:
            time += f"/{format_time(paid)}"
        spent = used(job, now)
        spent_text = money(spent, columns.decimals) if spent or info.status.is_cold else "-"
        cells = [
            short_id(info.id),
            one_line(info.name) if columns.labels else self.name(job),
            status_text(job),
            info.provider[: columns.provider] if info.provider else "-",
            time.rjust(columns.time),
            f"{spent_text}/{money(info.locked, columns.decimals)}".rjust(columns.credits),
        ]
        if columns.labels:
            cells.append(one_line(" ".join(f"{key}={text}" for key, text in self._labels(job).items())))
        style = "dim" if info.status in (JobStatus.FINISHED, JobStatus.CANCELLED) else ""
        row = [Text(cell, style, no_wrap=True, overflow="ellipsis") for cell in cells]
        row[2].stylize("yellow" if job.is_cancelling else _STYLES.get(info.status, ""))
        return row

    def _labels(self, job: AccountJob) -> Mapping[str, str]:
        return self.labels.get(job.info.location_hash, {})

    def _has_words(self, job: AccountJob) -> bool:
        labels = [f"{key}={text}" for key, text in self._labels(job).items()]
        texts = "\n".join([short_id(job.info.id), job.info.id, job.info.name, *labels]).lower()
        return all(word in texts for word in self.words.lower().split())
