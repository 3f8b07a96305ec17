"""Sending transactions: each nonce used once, also by many processes; stuck ones replaced; reverts as exceptions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import rlp
from filelock import AsyncFileLock
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random
from web3 import AsyncWeb3

from deepsquare.chain.errors import decode_revert
from deepsquare.chain.nonces import NonceBook
from deepsquare.chain.rpc import ATTEMPTS, RpcError, request
from deepsquare.chain.wallet import Wallet
from deepsquare.errors import PurchaseUnknownError, TransactionError

# A call's cost can grow between its estimate and its block, when others change the same storage.
_GAS_MARGIN = 1.25
_GAS_NOISE = 1 << 14
_PRIORITY_FEE_WEI = 1_000_000_000
# The most that a unit of gas may cost, unless told otherwise.
_MAX_FEE_WEI = 1_000 * 10**9
# Nodes take a replacement that pays a tenth more; this is more than that, also after rounding.
_REPLACEMENT = 1.125
_STUCK_SECONDS = 30.0
# For how long a transaction that a node has lost is handed in again; then its nonce is used for another.
_RESEND_SECONDS = 600.0
# Of another machine with the same wallet.
_CONFLICTS = 8

# What nodes say, without anything but letters: geth and its kin, Erigon, Nethermind, Besu, anvil.
_KNOWN = ("alreadyknown", "alreadyimported", "knowntransaction", "alreadyexists")
_NONCE_USED = ("noncetoolow", "oldnonce", "nonceistoolow")
_NONCE_WAITS = ("replacementtransactionunderpriced", "couldnotreplaceexisting", "replacementnotallowed")
# What a node says when it certainly has not taken a transaction. Anything else may be a proxy's that does not know.
_REFUSED = (
    *("insufficientfunds", "underpriced", "feetoolow", "feecaplessthan", "lessthanblockbasefee", "intrinsicgas"),
    *("gaslimit", "poolisfull", "poolfull", "noncetoohigh", "invalidsender", "invalidtransaction", "chainid", "rlp"),
)
# Nodes keep the state of some more blocks than that.
_KNOWN_BLOCKS = 120

_FIRST_LEGACY_BYTE = 0xC0

_log = logging.getLogger(__name__)


class UnminedError(TransactionError):
    """The transaction was sent but is in no block; it may still be carried out."""


class NonceTakenError(TransactionError):
    """Another transaction of the same wallet has the nonce of this one.

    It is carried out already if `is_final`, and this one never is; else it waits, and very likely will be.
    """

    def __init__(self, text: str, *, is_final: bool) -> None:
        self.is_final = is_final
        super().__init__(text)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), is_final=self.is_final), self.args


class _OutOfGasError(TransactionError):
    """What the call costs has grown since it was estimated; nothing was changed but for the fee."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A transaction that is on its way: its hash and its raw bytes, enough to find it or to send it again."""

    hash: bytes
    raw: bytes
    fields: dict[str, Any] | None = field(default=None, repr=False, compare=False)
    """What was signed, for a replacement; None for one of another process."""


class Sender:
    """Signs and sends the transactions of one wallet.

    A nonce is chosen and used under a lock on a file that all processes of this machine share, from the node's pending count and
    from what was sent before (`NonceBook`). Transactions that a node has lost are handed in again, so that no gap holds up what
    comes after it; one that waits for long is replaced by itself with a higher fee.

    Several machines with one wallet take each other's nonces now and then. Then all but one of them choose another and sign
    again: correct, but slower than one machine.
    """

    def __init__(
        self,
        w3: AsyncWeb3[Any],
        wallet: Wallet,
        *,
        lock_folder: Path,
        timeout: float = 120.0,
        max_fee_wei: int | None = None,
    ) -> None:
        """`timeout` is the time in seconds to wait for a receipt, `max_fee_wei` the most to pay for a unit of gas
        (1,000 gwei when left out).

        The folder has the wallet's lock, and the record of its transactions.
        """
        self._w3, self.wallet, self._timeout = w3, wallet, timeout
        self._max_fee = max_fee_wei or _MAX_FEE_WEI
        lock_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = lock_folder
        self._lock = asyncio.Lock()
        self._file_lock = AsyncFileLock(lock_folder / f"nonce-{wallet.address.lower()}.lock", mode=0o600)
        self._chain_id = 0
        self._book: NonceBook | None = None

    def close(self) -> None:
        """Close the record of transactions."""
        if self._book is not None:
            self._book.close()

    async def transact(
        self, to: str | None, data: str, *, before_send: Callable[[Sent], None] | None = None
    ) -> dict[str, Any]:
        """Send a call and return its receipt (JSON-RPC form with hex strings).

        Args:
            to: the contract's address, or None to deploy one.
            data: the call data as 0x-hex.
            before_send: called with each signed transaction before it leaves, to journal it; when it raises, nothing is sent. Of
                several at most one is carried out: a later one replaces those before it.

        Raises:
            ContractError: the contract refuses; nothing was sent, or it was carried out in vain.
            UnminedError: it may have been carried out, or may still be.
            TransactionError: it was not carried out.
            ConnectionFailedError: the node can't be reached.
        """
        async for attempt in AsyncRetrying(
            # Only what is proven not to have been carried out is signed once more.
            retry=retry_if_exception(
                lambda e: isinstance(e, _OutOfGasError) or (isinstance(e, NonceTakenError) and e.is_final)
            ),
            stop=stop_after_attempt(_CONFLICTS),
            wait=wait_random(0, 1),
            reraise=True,
        ):
            with attempt:
                return await self.wait(await self.send(to, data, before_send=before_send), before_send=before_send)
        raise AssertionError("unreachable: tenacity returns or raises")

    async def send(self, to: str | None, data: str, *, before_send: Callable[[Sent], None] | None = None) -> Sent:
        """Like `transact`, but return once the node has taken the transaction."""
        # Not under the lock, for which all processes of the wallet wait: somebody may have to type a password.
        await asyncio.to_thread(self.wallet.unseal)
        call = {"from": self.wallet.address, "data": data} | ({} if to is None else {"to": to})
        book = await self._open_book()
        try:
            gas = int(await request(self._w3, "eth_estimateGas", call, "pending"), 16)
        except RpcError as error:
            raise self._explain(error) from None
        fees = self._checked(await self._fees())
        fields: dict[str, Any] = {
            "data": data,
            "value": 0,
            # What isn't used is not paid. By chance, so that two machines which do the same at once don't sign the same
            # transaction, of which each would think that it is its own.
            "gas": int(gas * _GAS_MARGIN) + secrets.randbelow(_GAS_NOISE),
            "chainId": self._chain_id,
            **fees,
        }
        if to is not None:
            fields["to"] = to
        least = 0
        async with self._lock, self._file_lock:
            for _ in range(_CONFLICTS):
                fields["nonce"] = max(least, await self._nonce(book))
                try:
                    return await self._sign_and_send(book, fields, before_send)
                except NonceTakenError as error:
                    if not error.is_final:
                        # Another node may have it.
                        raise
                    _log.info("%s; choosing another", error)
                    # The node may not count it yet.
                    least = fields["nonce"] + 1
        raise TransactionError(
            f"{_CONFLICTS} nonces of {self.wallet.address} in a row were taken by others before they could be used: do many "
            "machines send with this wallet? Give each a wallet of its own"
        )

    async def _open_book(self) -> NonceBook:
        if self._book is None:
            chain_id = int(await request(self._w3, "eth_chainId"), 16)
            first = await request(self._w3, "eth_getBlockByNumber", "0x0", False)
            self._chain_id = chain_id
            chain = first["hash"] if first else str(chain_id)
            self._book = NonceBook(self._folder / "transactions.db", chain, self.wallet.address)
        return self._book

    async def _sign_and_send(
        self, book: NonceBook, fields: dict[str, Any], before_send: Callable[[Sent], None] | None
    ) -> Sent:
        raw, digest = self.wallet.sign_transaction(fields)
        sent = Sent(digest, raw, dict(fields))
        if before_send is not None:
            before_send(sent)
        book.use(fields["nonce"], raw)
        try:
            sent = await self._hand_in(sent, is_new=True)
        except UnminedError:
            raise
        except TransactionError as error:
            if isinstance(error, NonceTakenError) and not error.is_final:
                raise
            # The node won't have it, and nobody else is to get it.
            book.free(fields["nonce"])
            raise
        book.taken(fields["nonce"])
        return sent

    async def _nonce(self, book: NonceBook) -> int:
        """The nonce to use next; what a node must have before it is handed in again."""
        counted = int(await request(self._w3, "eth_getTransactionCount", self.wallet.address, "pending"), 16)
        used = book.used(counted)
        nonce = counted
        while nonce in used:
            one = used[nonce]
            # What no node has said to have may never have been sent: what comes now takes its place, and one is carried out.
            if not one.is_taken or one.age > _RESEND_SECONDS or not await self._has_again(one.raw):
                break
            nonce += 1
        return nonce

    async def _has_again(self, raw: bytes) -> bool:
        """Hand in a transaction that the node lacks; whether its nonce is taken."""
        try:
            await request(self._w3, "eth_sendRawTransaction", "0x" + raw.hex())
        except RpcError as error:
            return _says(error, (*_KNOWN, *_NONCE_USED, *_NONCE_WAITS))
        _log.info("the node had lost a transaction of %s, which was sent again", self.wallet.address)
        return True

    async def resend(self, sent: Sent) -> Sent:
        """Hand a signed transaction to the node once more; one that it has already, or has carried out, is no error.

        Returns:
            It, or the one that was carried out in its place: the same call of the same nonce at another fee.

        Raises:
            NonceTakenError: another call has its nonce.
            ContractError: the contract refuses.
            UnminedError: whether the node has it can't be known.
            TransactionError: the node does not take it.
        """
        return await self._hand_in(sent, is_new=False)

    async def _hand_in(self, sent: Sent, *, is_new: bool) -> Sent:
        ATTEMPTS.set(0)
        try:
            await request(self._w3, "eth_sendRawTransaction", "0x" + sent.raw.hex())
        except RpcError as error:
            # The first answer to the first request is about this very transaction; a later one may be, too, if an answer was lost.
            is_first = is_new and ATTEMPTS.get() <= 1
            # Each kind of node has words of its own for one that it has. Those not understood here, it is asked for it.
            if _says(error, _KNOWN) or await self._has(sent):
                return sent
            if _says(error, _NONCE_USED):
                carried_out = None if is_first else await self._carried_out(sent)
                if carried_out is not None:
                    return carried_out
                raise self._taken(sent, is_final=True) from None
            if _says(error, _NONCE_WAITS):
                raise self._taken(sent, is_final=is_first) from None
            if (error.is_revert and is_first) or _says(error, _REFUSED):
                raise self._explain(error) from None
            raise UnminedError(
                f"the node's answer to the transaction 0x{sent.hash.hex()} is not understood ({error.message}). It may be carried "
                "out: look it up before you try again"
            ) from None
        return sent

    async def is_decided(self, sent: Sent) -> bool:
        """Whether the nonce of a transaction is used up: it is carried out, or never will be."""
        nonce, _ = _nonce_and_call(sent.raw)
        return await self._count("latest") > nonce

    async def _carried_out(self, sent: Sent) -> Sent | None:
        """Of a nonce that is used up: the same call, if it was carried out at any fee; None if another one was.

        Proven by the block in which the nonce was used, since a receipt that is not there may only be late.

        Raises:
            UnminedError: it can't be told.
        """
        nonce, call = _nonce_and_call(sent.raw)
        try:
            taken = await self._transaction_of(nonce)
        except RpcError as error:
            # It has not the state of so long ago.
            _log.debug("the block of nonce %d can't be found: %s", nonce, error)
            taken = None
        if taken is None:
            raise UnminedError(
                f"the nonce of the transaction 0x{sent.hash.hex()} is used, and whether by it can't be told. Look it up before you "
                "try again"
            )
        if ((taken["to"] or "").lower(), taken["input"].lower()) != call:
            return None
        return Sent(bytes.fromhex(taken["hash"][2:]), sent.raw)

    async def _transaction_of(self, nonce: int) -> dict[str, Any] | None:
        """The own transaction with a nonce, looked for in the newest blocks."""
        last = int(await request(self._w3, "eth_blockNumber"), 16)
        first = max(0, last - _KNOWN_BLOCKS)
        if await self._count(hex(last)) <= nonce or (first > 0 and await self._count(hex(first)) > nonce):
            return None
        # The first block after which the count is above it.
        while first < last:
            middle = (first + last) // 2
            if await self._count(hex(middle)) > nonce:
                last = middle
            else:
                first = middle + 1
        block = await request(self._w3, "eth_getBlockByNumber", hex(first), True)
        account = self.wallet.address.lower()
        for transaction in block["transactions"] if block else ():
            if transaction["from"].lower() == account and int(transaction["nonce"], 16) == nonce:
                found: dict[str, Any] = transaction
                return found
        return None

    async def _count(self, block: str) -> int:
        return int(await request(self._w3, "eth_getTransactionCount", self.wallet.address, block), 16)

    async def _has(self, sent: Sent) -> bool:
        """Whether the node has a transaction, waiting or carried out."""
        return await self._receipt(sent.hash) is not None or await self._found(sent.hash) is not None

    async def wait(self, sent: Sent, *, before_send: Callable[[Sent], None] | None = None) -> dict[str, Any]:
        """The receipt of a transaction, when it is there; after a while without one it is replaced with a higher fee.

        Raises:
            ContractError: it was carried out but the contract refused it.
            NonceTakenError: another one took its nonce.
            UnminedError: there is no receipt in time.
        """
        versions = [sent]
        end = time.monotonic() + self._timeout
        look_at = time.monotonic() + _STUCK_SECONDS
        pause = 0.02
        while True:
            for version in reversed(versions):
                receipt = await self._receipt(version.hash)
                if receipt is not None:
                    if int(receipt["status"], 16) != 1:
                        raise await self._refused(version, receipt)
                    return receipt
            now = time.monotonic()
            if now >= end:
                raise UnminedError(
                    f"the transaction 0x{versions[-1].hash.hex()} was sent but is in no block after {self._timeout:.0f} s. It may "
                    "still be carried out: look it up before you try again"
                )
            if now >= look_at:
                look_at = now + _STUCK_SECONDS
                await self._push(versions, before_send)
            await asyncio.sleep(min(pause, max(end - now, 0)))
            pause = min(pause * 2, 1.0)

    async def _push(self, versions: list[Sent], before_send: Callable[[Sent], None] | None) -> None:
        """See to a transaction that has waited for long: replace it, or find that its nonce is another's."""
        newest = versions[-1]
        nonce, _ = _nonce_and_call(newest.raw)
        if await self._count("latest") > nonce:
            with contextlib.suppress(UnminedError):
                carried_out = await self._carried_out(newest)
                if carried_out is None:
                    raise self._taken(newest, is_final=True)
                if carried_out.hash not in {version.hash for version in versions}:
                    versions.append(carried_out)
            return
        if newest.fields is None:
            # Signed by another process.
            return
        fees = self._raised(newest.fields, await self._fees())
        if fees is None:
            _log.warning(
                "the transaction 0x%s waits; a higher fee would be above %s gwei, the most that is allowed",
                newest.hash.hex(),
                self._max_fee / 10**9,
            )
            with contextlib.suppress(TransactionError):
                # Some nodes forget what waits for a cheaper block.
                await self.resend(newest)
            return
        book = await self._open_book()
        async with self._lock, self._file_lock:
            raw, digest = self.wallet.sign_transaction(newest.fields | fees)
            replacement = Sent(digest, raw, newest.fields | fees)
            if before_send is not None:
                before_send(replacement)
            # Whatever the node says to it: of the two, one is carried out.
            versions.append(replacement)
            book.use(nonce, raw)
            try:
                await self.resend(replacement)
            except TransactionError as error:
                # Usually the one before is just being carried out.
                _log.info("the replacement 0x%s was not taken: %s", digest.hex(), error)
            book.taken(nonce)
        _log.warning("the transaction 0x%s waits; sent again with a higher fee", newest.hash.hex())

    def _taken(self, sent: Sent, *, is_final: bool) -> NonceTakenError:
        return NonceTakenError(
            f"another transaction of {self.wallet.address} took the nonce of 0x{sent.hash.hex()}, which "
            + ("is not carried out" if is_final else "very likely is not carried out"),
            is_final=is_final,
        )

    async def _receipt(self, digest: bytes) -> dict[str, Any] | None:
        receipt: dict[str, Any] | None = await request(self._w3, "eth_getTransactionReceipt", "0x" + digest.hex())
        return receipt

    async def _found(self, digest: bytes) -> dict[str, Any] | None:
        """A transaction that waits or was carried out."""
        found: dict[str, Any] | None = await request(self._w3, "eth_getTransactionByHash", "0x" + digest.hex())
        return found

    # ------------------------------------------------------------------ fees

    async def _fees(self) -> dict[str, int]:
        """The fee's fields of a transaction at today's prices."""
        block = await request(self._w3, "eth_getBlockByNumber", "latest", False)
        if block.get("baseFeePerGas") is None:
            return {"gasPrice": int(await request(self._w3, "eth_gasPrice"), 16)}
        # Twice the base fee lasts for six full blocks; what isn't used is not paid.
        base_fee = int(block["baseFeePerGas"], 16)
        return {"maxFeePerGas": 2 * base_fee + _PRIORITY_FEE_WEI, "maxPriorityFeePerGas": _PRIORITY_FEE_WEI, "type": 2}

    def _checked(self, fees: dict[str, int]) -> dict[str, int]:
        """Fees below the ceiling.

        Raises:
            TransactionError: today's are above it.
        """
        if fees.get("gasPrice", 0) <= self._max_fee and fees.get("maxFeePerGas", 0) <= 2 * self._max_fee:
            return {name: min(value, self._max_fee) for name, value in fees.items()}
        price = fees.get("gasPrice") or fees["maxFeePerGas"] / 2
        raise TransactionError(
            f"gas costs about {price / 10**9:.3g} gwei now, and max_fee_gwei allows {self._max_fee / 10**9:g}: wait until the "
            "chain is cheaper, or raise it (DEEPSQUARE_MAX_FEE_GWEI, or max_fee_gwei in the context's file)"
        )

    def _raised(self, before: dict[str, Any], today: dict[str, int]) -> dict[str, int] | None:
        """The fields of a fee that replaces one; None if it would be above the ceiling."""
        raised = {
            name: value if name == "type" else max(value, math.ceil(before[name] * _REPLACEMENT))
            for name, value in today.items()
            if name in before
        }
        most = raised.get("maxFeePerGas", raised.get("gasPrice", 0))
        return None if not most or most > self._max_fee else raised

    # ------------------------------------------------------------------ refusals

    async def _refused(self, sent: Sent, receipt: dict[str, Any]) -> Exception:
        failed = TransactionError(f"the transaction 0x{sent.hash.hex()} was carried out but failed")
        transaction = await self._found(sent.hash)
        if transaction is None:
            return failed
        # The receipt doesn't tell the reason; the same call on the state before its block does.
        call = {"from": transaction["from"], "to": transaction["to"], "data": transaction["input"]}
        try:
            await request(self._w3, "eth_call", call, hex(int(receipt["blockNumber"], 16) - 1))
        except RpcError as error:
            return self._explain(error)
        # A contract that calls another keeps a 64th back.
        if int(receipt["gasUsed"], 16) >= int(transaction["gas"], 16) * 9 // 10:
            return _OutOfGasError(f"the transaction 0x{sent.hash.hex()} ran out of gas: try again")
        return failed

    def _explain(self, error: RpcError) -> Exception:
        if error.is_revert:
            return decode_revert(error.data, error.message)
        if "insufficient funds" in error.message.lower():
            return TransactionError(
                f"the account {self.wallet.address} can't pay the fee of the transaction; send it some of the chain's own coin"
            )
        return TransactionError(f"the node did not take the transaction: {error.message}")


def is_refusal(error: BaseException) -> bool:
    """Whether it says that a transaction is not carried out, and never will be; else nobody knows."""
    if isinstance(error, NonceTakenError):
        return error.is_final
    return isinstance(error, TransactionError) and not isinstance(error, UnminedError | PurchaseUnknownError)


def _nonce_and_call(raw: bytes) -> tuple[int, tuple[str, str]]:
    """The nonce of a signed transaction, and its target and data as 0x-hex (EIP-2718: typed ones begin with their type)."""
    fields: list[bytes] = rlp.decode(raw[1:] if raw[0] < _FIRST_LEGACY_BYTE else raw)
    # Typed: chain id, nonce, two fees, gas, to, value, data. Legacy: nonce, fee, gas, to, value, data.
    nonce, to, data = (
        (fields[1], fields[5], fields[7]) if raw[0] < _FIRST_LEGACY_BYTE else (fields[0], fields[3], fields[5])
    )
    return int.from_bytes(nonce, "big"), ("0x" + to.hex() if to else "", "0x" + data.hex())


def _says(error: RpcError, words: tuple[str, ...]) -> bool:
    message = re.sub(r"[^a-z]", "", error.message.lower())
    return any(word in message for word in words)
