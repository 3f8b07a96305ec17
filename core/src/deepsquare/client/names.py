"""The customer's jobs by their names on chain, for markets that know no keys.

Who has many jobs can't read them all for each purchase. A job keeps its name, so each is read once, and noted for all processes of
this machine; but for those that were seen lately, which a chain that takes blocks back may have otherwise by now.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from deepsquare.chain.types import parse_job_id, to_hex
from deepsquare.errors import PurchaseUnknownError

if TYPE_CHECKING:
    from deepsquare.chain.market import Market
    from deepsquare.chain.types import JobRecord
    from deepsquare.client.journal import Journal

# More than any chain takes back.
_UNSETTLED_BLOCKS = 128
_UNSETTLED_SECONDS = 3600


class Names:
    """The names of one customer's jobs on one market."""

    def __init__(self, market: Market, journal: Journal, *, context: str, customer: str) -> None:
        """`context` is the grid's name in the journal."""
        self._market, self._journal = market, journal
        self._context, self._customer = context, customer
        self._lock = asyncio.Lock()
        self._begun = 0.0

    async def refresh(self) -> None:
        """Learn of the jobs that were bought up to now, by whichever machine.

        Raises:
            PurchaseUnknownError: the node knows of jobs, but not them all.
        """
        asked = time.monotonic()
        async with self._lock:
            if self._begun <= asked:
                # Else somebody began later than we came, and has seen it all.
                begun = time.monotonic()
                await self._read()
                self._begun = begun

    async def find(self, name: bytes) -> JobRecord | None:
        """The customer's job of a name (32 bytes), among those that `refresh` learnt of; None if there is none.

        Raises:
            PurchaseUnknownError: the node can't tell.
        """
        for _ in range(2):
            job_id = self._journal.job_named(*await self._owner(), name)
            if job_id is None:
                return None
            record = await self._market.get_job(parse_job_id(job_id))
            if record is None:
                raise PurchaseUnknownError("", f"the node does not know the job {job_id} yet")
            if (record.job_name, record.customer.lower()) == (name, self._customer.lower()):
                return record
            # The chain took back more than any does, or the file is damaged.
            async with self._lock:
                await self._read(anew=True)
        raise PurchaseUnknownError("", "the node tells of a job now this, now that")

    async def _owner(self) -> tuple[str, str]:
        return f"{self._context} {await self._market.first_block()}", self._customer

    async def _read(self, *, anew: bool = False) -> None:
        owner, head = await self._owner(), await self._market.head()
        ids = await self._market.job_ids_of(self._customer)
        count, last = self._journal.settled_names(*owner, head.number - _UNSETTLED_BLOCKS)
        if anew or count > len(ids) or (count and to_hex(ids[count - 1]) != last):
            count = 0
        names = []
        for job_id, found in zip(ids[count:], await self._market.names_of(ids[count:]), strict=True):
            if found is None:
                raise PurchaseUnknownError("", f"the node does not know the job {to_hex(job_id)} yet")
            name, submitted = found
            is_old = submitted < head.timestamp - _UNSETTLED_SECONDS
            names.append((to_hex(job_id), name, 0 if is_old else head.number))
        self._journal.keep_names(*owner, count, names, head.number)
