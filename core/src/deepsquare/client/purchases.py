"""Buying a job once, whatever is cut off in between: keys, generations, and purchases whose answer was lost.

A key is the caller's name for a piece of work. What is bought under it counts in generations, from 0: as long as the last one
is hot, or has finished and was not delivered, it is the job; else the next generation may be bought. On chain a key and a
generation are 32 bytes that only this customer's wallet can make, so that nobody learns what they name.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import AsyncFileLock
from tenacity import AsyncRetrying, retry_if_exception, wait_exponential_jitter

from deepsquare.chain.errors import ContractError
from deepsquare.chain.transactions import NonceTakenError, Sent, UnminedError
from deepsquare.chain.types import JobDefinition, JobRecord, JobRequest, JobStatus, parse_job_id, to_hex
from deepsquare.errors import KeyUsedError, PurchaseUnknownError, TransactionError

if TYPE_CHECKING:
    from deepsquare.chain.market import Market
    from deepsquare.chain.wallet import Wallet
    from deepsquare.client.journal import Entry, Journal
    from deepsquare.workflow import Workflow

# How long the answer to a purchase is looked for, and among how many of the customer's jobs.
SETTLE_SECONDS = 60.0
_NEWEST_JOBS = 100

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a job is bought for: a key, which purchase under it, and the workflow's digest."""

    key: str
    generation: int
    digest: str


def digest_of(workflow: Workflow) -> str:
    """What tells whether two workflows are the same."""
    return hashlib.sha256(json.dumps(workflow.to_dict(), sort_keys=True).encode()).hexdigest()


class Purchases:
    """The purchases of one customer on one market."""

    def __init__(self, market: Market, wallet: Wallet, journal: Journal, *, context: str, lock_folder: Path) -> None:
        """`context` is the grid's name in the journal."""
        self._market, self._wallet, self._journal = market, wallet, journal
        self._context, self._lock_folder = context, lock_folder
        self._secret: bytes | None = None

    # ------------------------------------------------------------------ keys

    def chain_key(self, key: str, generation: int) -> bytes:
        """The 32 bytes on chain of a key's generation: the same from each machine that has the wallet."""
        if self._secret is None:
            # Signatures are deterministic (RFC 6979), and this text is signed for nothing else.
            text = (
                f"DeepSquare: the names of my purchases on the market {self._market.address('MetaScheduler').lower()}"
            )
            self._secret = hashlib.sha256(self._wallet.sign_message(text.encode())).digest()
        return hashlib.sha256(self._secret + generation.to_bytes(8, "big") + key.encode()).digest()

    @asynccontextmanager
    async def alone(self, key: str) -> AsyncIterator[None]:
        """Nobody else on this machine buys under the key meanwhile."""
        name = hashlib.sha256(f"{self._context} {self._wallet.address} {key}".encode()).hexdigest()[:32]
        self._lock_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with AsyncFileLock(self._lock_folder / f"key-{name}.lock", mode=0o600):
            yield

    async def known(self, key: str, digest: str) -> tuple[JobRecord | None, int]:
        """The job that a submission under a key gives, or None and the generation to buy.

        A purchase of before whose answer was lost is settled first.

        Raises:
            KeyUsedError: the job under the key is another workflow's.
            PurchaseUnknownError: whether one of before was carried out can't be known yet.
        """
        entries = self._journal.of_key(self._context, self._wallet.address, key)
        record, generation = await self._last(key, entries)
        if record is None:
            return None, generation
        if not self._stands(record):
            return None, generation + 1
        mine = [entry.digest for entry in entries if entry.location_hash == record.definition.batch_location_hash]
        if any(known not in ("", digest) for known in mine):
            raise KeyUsedError(key, to_hex(record.job_id))
        self._journal.adopt(
            location_hash=record.definition.batch_location_hash,
            context=self._context,
            customer=self._wallet.address,
            locked=record.max_cost,
            key=key,
            generation=generation,
            job_id=to_hex(record.job_id),
        )
        return record, generation

    async def find(self, key: str) -> JobRecord | None:
        """The last job that was bought under a key, from whichever machine; None if none was."""
        record, _ = await self._last(key, self._journal.of_key(self._context, self._wallet.address, key))
        return record

    def deliver(self, job_id: str) -> None:
        """Note that a job's result has reached who asked for it: the next submission under its key buys anew."""
        self._journal.deliver(self._context, self._wallet.address, job_id)

    def _stands(self, record: JobRecord) -> bool:
        delivered = self._journal.is_delivered(self._context, self._wallet.address, to_hex(record.job_id))
        return record.status.is_hot or (record.status is JobStatus.FINISHED and not delivered)

    async def _last(self, key: str, entries: list[Entry]) -> tuple[JobRecord | None, int]:
        """The job of the key's last generation that was bought, and which it is; else None and the generation to buy."""
        generation = entries[-1].generation if entries else 0
        found = None
        if not self._market.extended:
            for entry in reversed(entries):
                if entry.generation == generation and found is None:
                    found = await self._settled(entry)
            return await self._tagged(key, generation, found)
        # The contract knows best: whatever is still on its way, it sells once. Other machines may have got further.
        while True:
            number = generation if found is None else generation + 1
            job_id = await self._market.job_of_key(self._wallet.address, self.chain_key(key, number))
            if job_id is None:
                return found, generation
            found, generation = await self._market.get_job(job_id), number

    async def _tagged(self, key: str, generation: int, found: JobRecord | None) -> tuple[JobRecord | None, int]:
        """As `_last`, on contracts of version 1.2: there a job without a name of its own has its key's tag for a name."""
        named = {
            record.job_name: record async for page in self._market.pages_of(self._wallet.address) for record in page
        }
        while True:
            number = generation if found is None else generation + 1
            record = named.get(self.tag(key, number))
            if record is None:
                return found, generation
            found, generation = record, number

    def tag(self, key: str, generation: int) -> bytes:
        """The public name by which a job of a key is known again on contracts that take no keys."""
        return self.chain_key(key, generation)[:12].hex().encode().ljust(32, b"\0")

    async def _settled(self, entry: Entry) -> JobRecord | None:
        """The job of a purchase of before; None if it bought nothing, and never will."""
        if entry.job_id is not None:
            return await self._market.get_job(parse_job_id(entry.job_id))
        if entry.raw_transaction is None or entry.transaction_hash is None:
            return None
        sent = Sent(bytes.fromhex(entry.transaction_hash[2:]), entry.raw_transaction)
        try:
            job_id = await self._settle(entry.location_hash, sent, None)
        except PurchaseUnknownError:
            raise
        except TransactionError as refusal:
            _log.info("the purchase of %s bought nothing: %s", entry.location_hash, refusal)
            return None
        self._journal.bought(entry.location_hash, job_id)
        return await self._market.get_job(parse_job_id(job_id))

    # ------------------------------------------------------------------ blocks that were taken back

    async def reinstate(self, job_ids: Sequence[bytes], records: Sequence[JobRecord | None]) -> list[JobRecord | None]:
        """The records of jobs, with those that this machine bought and that the chain has lost bought by the same transaction.

        A chain that takes blocks back takes jobs with it, and may give their ids to others; and a node that is behind its peers
        does not know them yet.

        Args:
            job_ids: as they were when the jobs were bought.
            records: what the chain has under these ids.

        Raises:
            PurchaseUnknownError: whether a job is there can't be known yet.
        """
        mine = self._journal.of_jobs(self._context, self._wallet.address, [to_hex(job_id) for job_id in job_ids])
        found = list(records)
        for index, job_id in enumerate(job_ids):
            entry = mine.get(to_hex(job_id))
            if entry is not None and entry.raw_transaction is not None and not _is_of(entry, records[index]):
                found[index] = await self._again(entry)
        return found

    async def _again(self, entry: Entry) -> JobRecord | None:
        assert entry.job_id is not None
        assert entry.transaction_hash is not None
        assert entry.raw_transaction is not None
        # Another process may have done it.
        record = await self._market.get_job(parse_job_id(entry.job_id))
        if _is_of(entry, record):
            return record
        _log.warning("the chain has lost the job %s; looking for its purchase", entry.job_id)
        sent = Sent(bytes.fromhex(entry.transaction_hash[2:]), entry.raw_transaction)
        try:
            job_id = await self._settle(entry.location_hash, sent, None)
        except PurchaseUnknownError:
            raise
        except TransactionError as refusal:
            _log.warning("the job %s is gone: %s", entry.job_id, refusal)
            return None
        if job_id != entry.job_id:
            self._journal.moved(entry.location_hash, job_id)
        return await self._market.get_job(parse_job_id(job_id))

    # ------------------------------------------------------------------ buying

    async def buy(
        self,
        definition: JobDefinition,
        locked: int,
        job_name: bytes,
        labels: Mapping[str, str],
        purpose: Purpose | None = None,
        *,
        delegate_cap: int | None = None,
    ) -> str:
        """Buy a job for `locked` wei, and return its id.

        Args:
            definition: with the location that the sbatch API gave to the script.
            locked: wei.
            job_name: 32 bytes.
            labels: the caller's own names for it, for the journal.
            purpose: what it is bought for, where that has a key.
            delegate_cap: what the meta-scheduler may add later, in wei; None if it may not. Contracts of version 1.2 keep no cap.

        Raises:
            ContractError: the contract refused; nothing was bought.
            TransactionError: the node refused; nothing was bought.
            PurchaseUnknownError: it was sent, and its answer was lost for good.
        """
        location = definition.batch_location_hash
        self._journal.intend(
            location_hash=location,
            context=self._context,
            customer=self._wallet.address,
            labels=labels,
            locked=locked,
            key=None if purpose is None else purpose.key,
            generation=None if purpose is None else purpose.generation,
            digest=None if purpose is None else purpose.digest,
        )
        signed: list[Sent] = []

        def journal(sent: Sent) -> None:
            self._journal.signed(location, sent.hash, sent.raw)
            signed.append(sent)

        try:
            delegate = delegate_cap is not None
            if not self._market.extended or (purpose is None and not delegate):
                bought = await self._market.request_job(
                    definition, locked, job_name, delegate_spending_authority=delegate, before_send=journal
                )
            else:
                key = bytes(32) if purpose is None else self.chain_key(purpose.key, purpose.generation)
                request = JobRequest(definition, locked, job_name, delegate, delegate_cap, key)
                (bought,) = await self._market.request_jobs([request], before_send=journal)
            job_id = to_hex(bought)
        except ContractError:
            raise
        except Exception as error:
            # Whatever it was: once it is signed, it may have been carried out.
            if not signed:
                raise
            job_id = await self._settle(location, signed[-1], error)
        try:
            self._journal.bought(location, job_id)
        except sqlite3.Error as error:
            # The job is bought, and its location hash is in the journal: only the short way to it is missing.
            _log.warning("the journal could not note the job %s: %s", job_id, error)
        return job_id

    async def _settle(self, location: str, sent: Sent, error: Exception | None) -> str:
        """The job of a purchase whose answer was lost, by `error`, or with the process that sent it.

        Raises:
            ContractError: it was carried out, and the contract refused it.
            TransactionError: the node refused it, then and now: nothing was bought.
            PurchaseUnknownError: it can't be known yet.
        """
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                async for attempt in AsyncRetrying(
                    retry=retry_if_exception(_may_pass), wait=wait_exponential_jitter(multiplier=0.5, max=5)
                ):
                    with attempt:
                        return await self._on_chain(location) or to_hex(await self._market.settle_request(sent))
        except ContractError:
            raise
        except TransactionError as refusal:
            # Only a node that gave an answer each time is believed: after a lost one, it may be waiting to be carried out.
            if _is_refusal(refusal) and (error is None or _is_refusal(error)):
                raise (error or refusal) from None
            if isinstance(refusal, NonceTakenError) and refusal.is_final:
                raise TransactionError(f"nothing was bought: {refusal}. Submit it again") from None
        except TimeoutError:
            pass
        raise PurchaseUnknownError(location, str(error) or type(error).__name__) from None

    async def _on_chain(self, location: str) -> str | None:
        """The job of a location, among the customer's newest."""
        seen = 0
        async for page in self._market.pages_of(self._wallet.address):
            for record in page:
                if record.definition.batch_location_hash == location:
                    return to_hex(record.job_id)
            seen += len(page)
            if seen >= _NEWEST_JOBS:
                break
        return None


def _is_of(entry: Entry, record: JobRecord | None) -> bool:
    return record is not None and record.definition.batch_location_hash == entry.location_hash


def _is_refusal(error: BaseException) -> bool:
    """Whether the node said that a transaction is not carried out."""
    return isinstance(error, TransactionError) and not isinstance(error, UnminedError)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, Exception) and not isinstance(error, TransactionError)
