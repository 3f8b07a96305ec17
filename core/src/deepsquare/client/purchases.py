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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from filelock import AsyncFileLock
from tenacity import AsyncRetrying, retry_if_exception, wait_exponential_jitter

from deepsquare.chain.batches import pages_of_requests
from deepsquare.chain.errors import ContractError
from deepsquare.chain.transactions import NonceTakenError, Sent, is_refusal
from deepsquare.chain.types import JobDefinition, JobRecord, JobRequest, JobStatus, parse_job_id, to_hex
from deepsquare.client.names import Names
from deepsquare.errors import KeyUsedError, PurchaseUnknownError, TransactionError

if TYPE_CHECKING:
    from deepsquare.chain.market import Market
    from deepsquare.chain.wallet import Wallet
    from deepsquare.client.journal import Entry, Journal
    from deepsquare.workflow import Workflow

# How long the answer to a purchase is looked for, and among how many of the customer's jobs.
SETTLE_SECONDS = 60.0
_NEWEST_JOBS = 100
# Where the market sells one at a time.
_BUYS_AT_ONCE = 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a job is bought for: a key, which purchase under it, and the workflow's digest."""

    key: str
    generation: int
    digest: str


@dataclass(frozen=True, slots=True)
class Purchase:
    """A job to buy for `locked` wei.

    Args:
        definition: with the location that the sbatch API gave to the script.
        locked: wei.
        job_name: 32 bytes.
        labels: the caller's own names for it, for the journal.
        purpose: what it is bought for, where that has a key.
        delegate_cap: what the meta-scheduler may add later, in wei; None if it may not. Contracts of version 1.2 keep no cap.
    """

    definition: JobDefinition
    locked: int
    job_name: bytes
    labels: Mapping[str, str]
    purpose: Purpose | None = None
    delegate_cap: int | None = None
    name: str | None = None
    """The public name, where the caller gave one."""

    @property
    def location(self) -> str:
        """What the script's id says on chain."""
        return self.definition.batch_location_hash


_How: TypeAlias = Callable[[Sequence[Purchase], Callable[[Sent], None]], Awaitable[list[bytes]]]


def digest_of(workflow: Workflow, *, result: bool = False) -> str:
    """What tells whether two submissions are the same: the workflow, and whether its result is wanted."""
    text = json.dumps(workflow.to_dict(), sort_keys=True) + ("\nresult" if result else "")
    return hashlib.sha256(text.encode()).hexdigest()


class Purchases:
    """The purchases of one customer on one market."""

    def __init__(self, market: Market, wallet: Wallet, journal: Journal, *, context: str, lock_folder: Path) -> None:
        """`context` is the grid's name in the journal."""
        self._market, self._wallet, self._journal = market, wallet, journal
        self._context, self._lock_folder = context, lock_folder
        self._names = Names(market, journal, context=context, customer=wallet.address)
        self._secret: bytes | None = None

    # ------------------------------------------------------------------ keys

    def chain_key(self, key: str, generation: int) -> bytes:
        """The 32 bytes on chain of a key's generation: the same from each machine that has the wallet."""
        return self._derived(generation.to_bytes(8, "big") + key.encode())

    def result_tag(self, key: str, generation: int) -> str:
        """The tag of the result of a key's generation: the same from each machine that has the wallet."""
        return self._derived(b"result" + generation.to_bytes(8, "big") + key.encode()).hex()[:32]

    def _derived(self, text_of: bytes) -> bytes:
        if self._secret is None:
            # Signatures are deterministic (RFC 6979), and this text is signed for nothing else.
            text = (
                f"DeepSquare: the names of my purchases on the market {self._market.address('MetaScheduler').lower()}"
            )
            self._secret = hashlib.sha256(self._wallet.sign_message(text.encode())).digest()
        return hashlib.sha256(self._secret + text_of).digest()

    @asynccontextmanager
    async def alone(self, keys: Iterable[str]) -> AsyncIterator[None]:
        """Nobody else on this machine buys under the keys meanwhile.

        Keys share a bounded number of locks. They are taken in order: of two that want some of the same, one waits for the
        other, and not each for the other.
        """
        owner = f"{self._context} {self._wallet.address}"
        names = {hashlib.sha256(f"{owner} {key}".encode()).hexdigest()[:2] for key in keys}
        of_owner = hashlib.sha256(owner.encode()).hexdigest()[:16]
        self._lock_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with AsyncExitStack() as locks:
            for name in sorted(names):
                path = self._lock_folder / f"keys-{of_owner}-{name}.lock"
                await locks.enter_async_context(AsyncFileLock(path, mode=0o600))
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
            record = await self._market.get_job(job_id)
            if record is None:
                raise PurchaseUnknownError("", f"the node does not know the job {to_hex(job_id)} yet")
            found, generation = record, number

    async def _tagged(self, key: str, generation: int, found: JobRecord | None) -> tuple[JobRecord | None, int]:
        """As `_last`, on contracts of version 1.2: there a job without a name of its own has its key's tag for a name."""
        await self._names.refresh()
        while True:
            number = generation if found is None else generation + 1
            record = await self._names.find(self.tag(key, number))
            if record is None:
                return found, generation
            found, generation = record, number

    def tag(self, key: str, generation: int) -> bytes:
        """The public name by which a job of a key is known again on contracts that take no keys."""
        return self.chain_key(key, generation)[:12].hex().encode().ljust(32, b"\0")

    async def _settled(self, entry: Entry) -> JobRecord | None:
        """The job of a purchase of before; None if it bought nothing, and never will."""
        if entry.job_id is not None:
            record = await self._market.get_job(parse_job_id(entry.job_id))
            # Else the node is behind its peers, or the chain took the purchase back.
            return record if _is_of(entry, record) else await self._again(entry)
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
        self._journal.bought({entry.location_hash: job_id})
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
        if entry.raw_transaction is None or entry.transaction_hash is None:
            raise PurchaseUnknownError(
                entry.location_hash, "another machine bought it, and the node does not know it yet"
            )
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

    async def buy(self, purchase: Purchase) -> str:
        """Buy a job, and return its id.

        Raises:
            ContractError: the contract refused; nothing was bought.
            TransactionError: the node refused; nothing was bought.
            PurchaseUnknownError: it was sent, and its answer was lost for good.
        """
        self._intend(purchase)
        (bought,) = await self._pay([purchase], self._buy_one)
        if isinstance(bought, Exception):
            raise bought
        return bought

    async def buy_many(self, purchases: Sequence[Purchase]) -> list[str | Exception]:
        """Buy many jobs, with as few transactions as the market can; for each, in their order, its id or why it was not bought."""
        with self._journal.transaction():
            for purchase in purchases:
                self._intend(purchase)
        if not self._market.extended:
            limit = asyncio.Semaphore(_BUYS_AT_ONCE)

            async def buy(purchase: Purchase) -> str | Exception:
                async with limit:
                    return (await self._each([purchase], self._buy_one))[0]

            return list(await asyncio.gather(*map(buy, purchases)))
        found: list[str | Exception] = []
        start = 0
        for page in pages_of_requests([self._request(purchase) for purchase in purchases]):
            found += await self._each(purchases[start : start + len(page)], self._buy_together)
            start += len(page)
        return found

    def _intend(self, purchase: Purchase) -> None:
        purpose = purchase.purpose
        self._journal.intend(
            location_hash=purchase.location,
            context=self._context,
            customer=self._wallet.address,
            labels=purchase.labels,
            locked=purchase.locked,
            name=purchase.name,
            key=None if purpose is None else purpose.key,
            generation=None if purpose is None else purpose.generation,
            digest=None if purpose is None else purpose.digest,
        )

    def _request(self, purchase: Purchase) -> JobRequest:
        purpose = purchase.purpose
        return JobRequest(
            purchase.definition,
            purchase.locked,
            purchase.job_name,
            purchase.delegate_cap is not None,
            purchase.delegate_cap,
            bytes(32) if purpose is None else self.chain_key(purpose.key, purpose.generation),
        )

    async def _buy_one(self, purchases: Sequence[Purchase], before_send: Callable[[Sent], None]) -> list[bytes]:
        (purchase,) = purchases
        delegate = purchase.delegate_cap is not None
        if self._market.extended and (purchase.purpose is not None or delegate):
            return await self._buy_together(purchases, before_send)
        return [
            await self._market.request_job(
                purchase.definition,
                purchase.locked,
                purchase.job_name,
                delegate_spending_authority=delegate,
                before_send=before_send,
            )
        ]

    async def _buy_together(self, purchases: Sequence[Purchase], before_send: Callable[[Sent], None]) -> list[bytes]:
        return await self._market.request_jobs([self._request(one) for one in purchases], before_send=before_send)

    async def _each(self, purchases: Sequence[Purchase], how: _How) -> list[str | Exception]:
        """Buy some jobs, by halves if they are refused together: one that is refused spoils no other."""
        try:
            return await self._pay(purchases, how)
        except ContractError as error:
            if len(purchases) == 1:
                return [error]
            middle = len(purchases) // 2
            return [*await self._each(purchases[:middle], how), *await self._each(purchases[middle:], how)]
        except Exception as error:
            # Of a page of many, that is no reason to forget what others have bought.
            return [error] * len(purchases)

    async def _pay(self, purchases: Sequence[Purchase], how: _How) -> list[str | Exception]:
        """Buy some jobs with one transaction.

        Raises:
            DeepSquareError: nothing was bought.
        """
        signed: list[Sent] = []

        def journal(sent: Sent) -> None:
            self._journal.signed([purchase.location for purchase in purchases], sent.hash, sent.raw)
            signed.append(sent)

        try:
            bought: list[str | Exception] = [to_hex(job_id) for job_id in await how(purchases, journal)]
        except ContractError:
            raise
        except Exception as error:
            # Whatever it was: once it is signed, it may have been carried out.
            if not signed:
                raise
            if len(purchases) == 1:
                bought = [await self._settle(purchases[0].location, signed[-1], error)]
            else:
                settling = (self._settled_or_not(purchase, signed[-1], error) for purchase in purchases)
                bought = list(await asyncio.gather(*settling))
        made = {one.location: job_id for one, job_id in zip(purchases, bought, strict=True) if isinstance(job_id, str)}
        try:
            self._journal.bought(made)
        except sqlite3.Error as error:
            # The jobs are bought, and their location hashes are in the journal: only the short way to them is missing.
            _log.warning("the journal could not note the jobs %s: %s", ", ".join(made.values()), error)
        return bought

    async def _settled_or_not(self, purchase: Purchase, sent: Sent, error: Exception) -> str | Exception:
        try:
            return await self._settle(purchase.location, sent, error)
        except Exception as failure:
            return failure

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
                        return await self._on_chain(location) or await self._of_request(location, sent)
        except ContractError:
            raise
        except TransactionError as refusal:
            # Only a node that gave an answer each time is believed: after a lost one, it may be waiting to be carried out.
            if is_refusal(refusal) and (error is None or is_refusal(error)):
                raise (error or refusal) from None
            if isinstance(refusal, NonceTakenError) and refusal.is_final:
                # That is proven, whatever was lost before.
                raise TransactionError(f"nothing was bought: {refusal}. Submit it again") from None
        except TimeoutError:
            pass
        raise PurchaseUnknownError(location, str(error) or type(error).__name__) from None

    async def _of_request(self, location: str, sent: Sent) -> str:
        """The job of a location among those that a transaction bought."""
        ids = await self._market.settle_request(sent)
        if len(ids) > 1:
            records = await self._market.get_jobs(ids)
            ids = [record.job_id for record in records if record and record.definition.batch_location_hash == location]
        if not ids:
            raise TransactionError("the transaction was carried out, and did not buy this job")
        return to_hex(ids[0])

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


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, Exception) and not isinstance(error, TransactionError)
