"""What the sbatch API reads from the chain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from deepsquare.chain.types import JobRecord


class JobReader(Protocol):
    """Reads jobs; `deepsquare.chain.market.Market` is one."""

    async def get_job(self, job_id: bytes) -> JobRecord | None:
        """A job, or None when there is no such job."""

    async def get_jobs(self, job_ids: Sequence[bytes]) -> Sequence[JobRecord | None]:
        """Many jobs, in the same order; None for an id that is no job's."""

    def pages_of(self, customer: str) -> AsyncIterator[Sequence[JobRecord]]:
        """A customer's jobs, newest first, a page at a time."""
