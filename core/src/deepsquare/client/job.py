"""What a customer sees of a job."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from deepsquare.chain.types import ZERO_ADDRESS, JobRecord, JobStatus, to_hex
from deepsquare.client.text import excerpt, sanitize
from deepsquare.credits import from_wei


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job at one moment, as the chain has it; money in credits."""

    id: str
    """0x and 64 hex digits."""
    status: JobStatus
    provider: str | None
    """The provider's address, or None while the job waits for one."""
    locked: Decimal
    billed: Decimal | None
    """None while the job is hot."""
    refunded: Decimal | None
    """None while the job is hot; locked = billed + refunded."""
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    exit_code: int
    """The exit code of the job's script, 0 to 255."""
    signal: int
    """The signal that ended the job, or 0."""
    error: str
    """The reason of a failure, in the provider's or the market's words."""
    name: str
    """The public name on chain."""
    location_hash: str
    """The id under which the sbatch API keeps the script."""

    @classmethod
    def of(cls, record: JobRecord) -> JobInfo:
        """From a job's record on chain."""
        cold = record.status.is_cold
        return cls(
            id=to_hex(record.job_id),
            status=record.status,
            provider=None if record.provider == ZERO_ADDRESS else record.provider,
            locked=from_wei(record.max_cost),
            billed=from_wei(record.final_cost) if cold else None,
            refunded=from_wei(record.max_cost - record.final_cost) if cold else None,
            submitted_at=datetime.fromtimestamp(record.submit_time, UTC),
            started_at=_time(record.start_time),
            ended_at=_time(record.end_time),
            exit_code=(record.exit_code >> 8) & 0xFF,
            signal=record.exit_code & 0x7F,
            error=excerpt(record.last_error),
            name=sanitize(record.job_name.rstrip(b"\0")),
            location_hash=record.definition.batch_location_hash,
        )

    @property
    def queue_time(self) -> timedelta | None:
        """From the request to the start (or to the end of a job that never started); None while it waits."""
        until = self.started_at or self.ended_at
        return None if until is None else until - self.submitted_at

    @property
    def run_time(self) -> timedelta | None:
        """From the start to the end; None unless the job both started and ended."""
        return None if self.started_at is None or self.ended_at is None else self.ended_at - self.started_at


def _time(seconds: int) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
