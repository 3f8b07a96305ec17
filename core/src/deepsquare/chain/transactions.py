"""Sending transactions: nonces handed out one after the other, also across processes; reverts as exceptions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import AsyncFileLock
from tenacity import AsyncRetrying, retry_if_result, stop_after_delay, wait_exponential_jitter
from web3 import AsyncWeb3

from deepsquare.chain.errors import decode_revert
from deepsquare.chain.rpc import RpcError, request
from deepsquare.chain.wallet import Wallet
from deepsquare.errors import TransactionError

# A call's cost can grow between its estimate and its block, when others change the same storage.
_GAS_MARGIN = 1.25
_PRIORITY_FEE_WEI = 1_000_000_000


class UnminedError(TransactionError):
    """The transaction was sent but is in no block; it may still be carried out."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A transaction that is on its way: its hash and its raw bytes, enough to find it or to send it again."""

    hash: bytes
    raw: bytes


class Sender:
    """Signs and sends the transactions of one wallet.

    Nonces come from the node's pending count, read and used under a lock on a file that all processes of this machine share, so
    that two processes with one wallet never take the same one.
    """

    def __init__(self, w3: AsyncWeb3[Any], wallet: Wallet, *, lock_folder: Path, timeout: float = 120.0) -> None:
        """`timeout` is the time in seconds to wait for a transaction's receipt."""
        self._w3, self.wallet, self._timeout = w3, wallet, timeout
        lock_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = asyncio.Lock()
        self._file_lock = AsyncFileLock(lock_folder / f"nonce-{wallet.address.lower()}.lock", mode=0o600)
        self._chain_id: int | None = None

    async def transact(
        self, to: str | None, data: str, *, before_send: Callable[[Sent], None] | None = None
    ) -> dict[str, Any]:
        """Send a call and return its receipt (JSON-RPC form with hex strings).

        Args:
            to: the contract's address, or None to deploy one.
            data: the call data as 0x-hex.
            before_send: called with the signed transaction before it leaves, to journal it; when it raises, nothing is sent.

        Raises:
            ContractError: the contract refuses; nothing was sent, or it was carried out in vain.
            TransactionError: not carried out in time.
            ConnectionFailedError: the node can't be reached.
        """
        return await self.wait(await self.send(to, data, before_send=before_send))

    async def send(self, to: str | None, data: str, *, before_send: Callable[[Sent], None] | None = None) -> Sent:
        """Like `transact`, but return once the node has taken the transaction."""
        call = {"from": self.wallet.address, "data": data} | ({} if to is None else {"to": to})
        async with self._lock, self._file_lock:
            if self._chain_id is None:
                self._chain_id = int(await request(self._w3, "eth_chainId"), 16)
            try:
                gas = int(await request(self._w3, "eth_estimateGas", call, "pending"), 16)
            except RpcError as error:
                raise self._explain(error) from None
            nonce = int(await request(self._w3, "eth_getTransactionCount", self.wallet.address, "pending"), 16)
            transaction = {
                "data": data,
                "value": 0,
                "nonce": nonce,
                "gas": int(gas * _GAS_MARGIN),
                "chainId": self._chain_id,
                **await self._fees(),
            } | ({} if to is None else {"to": to})
            raw, digest = self.wallet.sign_transaction(transaction)
            sent = Sent(digest, raw)
            if before_send is not None:
                before_send(sent)
            await self.resend(sent)
            return sent

    async def resend(self, sent: Sent) -> None:
        """Hand a signed transaction to the node; one that it has already, or has carried out, is no error."""
        try:
            await request(self._w3, "eth_sendRawTransaction", "0x" + sent.raw.hex())
        except RpcError as error:
            # Each kind of node has words of its own for one that it has. Those not understood here, it is asked for it.
            has_it = any(text in error.message.lower() for text in ("already known", "already imported"))
            if not has_it and await self._receipt(sent.hash) is None and await self._found(sent.hash) is None:
                raise self._explain(error) from None

    async def wait(self, sent: Sent) -> dict[str, Any]:
        """The receipt of a transaction, when it is there.

        Raises:
            ContractError: it was carried out but the contract refused it.
            UnminedError: there is no receipt in time.
        """
        receipt: dict[str, Any] | None = await AsyncRetrying(
            retry=retry_if_result(lambda found: found is None),
            wait=wait_exponential_jitter(multiplier=0.02, max=1, jitter=0.02),
            stop=stop_after_delay(self._timeout),
            retry_error_callback=lambda state: None,
        )(self._receipt, sent.hash)
        if receipt is None:
            raise UnminedError(
                f"the transaction 0x{sent.hash.hex()} was sent but is in no block after {self._timeout:.0f} s. It may still "
                "be carried out: look it up before you try again"
            )
        if int(receipt["status"], 16) != 1:
            raise await self._refused(sent)
        return receipt

    async def _receipt(self, digest: bytes) -> dict[str, Any] | None:
        receipt: dict[str, Any] | None = await request(self._w3, "eth_getTransactionReceipt", "0x" + digest.hex())
        return receipt

    async def _found(self, digest: bytes) -> dict[str, Any] | None:
        """A transaction that waits or was carried out."""
        found: dict[str, Any] | None = await request(self._w3, "eth_getTransactionByHash", "0x" + digest.hex())
        return found

    async def _fees(self) -> dict[str, int]:
        block = await request(self._w3, "eth_getBlockByNumber", "latest", False)
        if block.get("baseFeePerGas") is None:
            return {"gasPrice": int(await request(self._w3, "eth_gasPrice"), 16)}
        # Twice the base fee lasts for six full blocks; what isn't used is not paid.
        base_fee = int(block["baseFeePerGas"], 16)
        return {"maxFeePerGas": 2 * base_fee + _PRIORITY_FEE_WEI, "maxPriorityFeePerGas": _PRIORITY_FEE_WEI, "type": 2}

    async def _refused(self, sent: Sent) -> Exception:
        # The receipt doesn't tell the reason; the same call on the state before its block does.
        transaction = await self._found(sent.hash)
        if transaction is None:
            return TransactionError(f"the transaction 0x{sent.hash.hex()} was carried out but failed")
        call = {"from": transaction["from"], "to": transaction["to"], "data": transaction["input"]}
        try:
            await request(self._w3, "eth_call", call, hex(int(transaction["blockNumber"], 16) - 1))
        except RpcError as error:
            return self._explain(error)
        return TransactionError(f"the transaction 0x{sent.hash.hex()} was carried out but failed")

    def _explain(self, error: RpcError) -> Exception:
        if error.data or "revert" in error.message:
            return decode_revert(error.data, error.message)
        if "insufficient funds" in error.message.lower():
            return TransactionError(
                f"the account {self.wallet.address} can't pay the fee of the transaction; send it some of the chain's own coin"
            )
        return TransactionError(f"the node did not take the transaction: {error.message}")
