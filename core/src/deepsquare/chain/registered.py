"""Who has ever registered as a provider, as the events tell: contracts of version 1.2 have no other list."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from eth_utils import to_checksum_address

from deepsquare.chain.contracts import BLOCKS_A_CALL
from deepsquare.files import read_private, write_private

if TYPE_CHECKING:
    from deepsquare.chain.contracts import Contracts

_CALLS_AT_ONCE = 16
# Blocks that a chain may take back are read again.
_UNSETTLED_BLOCKS = 128
_SAY_SECONDS = 5.0

_log = logging.getLogger(__name__)


class Registered:
    """The addresses of one market's providers. What was read once is kept, in memory and in the contracts' cache folder."""

    def __init__(self, contracts: Contracts) -> None:
        self._contracts = contracts
        self._known: dict[str, None] = {}
        self._cursor = 0
        self._path: Path | None = None

    async def read(self) -> list[str]:
        """All that have registered up to now, in that order.

        Raises:
            ConnectionFailedError: the node can't be reached.
        """
        if self._path is None and self._contracts.cache_folder is not None:
            self._path = await self._open(self._contracts.cache_folder)
        head, said = await self._contracts.block_number(), time.monotonic()
        if self._cursor > head + 1:
            # It is of a longer chain than this one.
            self._known, self._cursor = {}, 0
        found, cursor = dict(self._known), self._cursor
        while cursor <= head:
            starts = range(cursor, head + 1, BLOCKS_A_CALL)[:_CALLS_AT_ONCE]
            cursor = starts[-1] + BLOCKS_A_CALL
            pages = await asyncio.gather(*(self._registered(start, head) for start in starts))
            for start, addresses in zip(starts, pages, strict=True):
                found |= dict.fromkeys(addresses)
                # What no reorganisation changes is never read again, also if the rest fails.
                if start + BLOCKS_A_CALL <= head - _UNSETTLED_BLOCKS:
                    self._known, self._cursor = dict(found), start + BLOCKS_A_CALL
            if time.monotonic() - said > _SAY_SECONDS:
                said = time.monotonic()
                _log.warning("looking for the providers of this market: block %d of %d", min(cursor, head), head)
                self._keep()
        if self._cursor:
            self._keep()
        return list(found)

    async def _registered(self, start: int, head: int) -> list[str]:
        last = min(head, start + BLOCKS_A_CALL - 1)
        logs = await self._contracts.get_logs([("ProviderManager", "ProviderWaitingForApproval")], start, last)
        return [to_checksum_address("0x" + log["data"][-40:]) for log in logs]

    async def _open(self, folder: Path) -> Path:
        """The file of this market on this very chain, which is read."""
        chain = (await self._contracts.first_block())[2:18] or str(await self._contracts.chain_id())
        path = folder / f"providers-{chain}-{self._contracts.address('ProviderManager')[2:].lower()}.json"
        try:
            kept = json.loads(read_private(path))
            self._known, self._cursor = dict.fromkeys(map(to_checksum_address, kept["providers"])), int(kept["cursor"])
        except (OSError, ValueError, KeyError, TypeError):
            # There is none yet, or it is damaged: the chain has it all.
            pass
        return path

    def _keep(self) -> None:
        # A node that has not kept old blocks may answer that there is nothing in them: that is no news to keep.
        if self._path is None or not self._known:
            return
        try:
            write_private(self._path, json.dumps({"cursor": self._cursor, "providers": list(self._known)}))
        except OSError as error:
            _log.debug("what is known of the providers could not be kept: %s", error)
