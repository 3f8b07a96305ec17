"""The market's contracts from Python: finding them, reads, transactions, and the events of a receipt."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, Self

from eth_abi.exceptions import DecodingError
from eth_utils import keccak, to_checksum_address
from web3 import AsyncWeb3
from web3.contract import AsyncContract

from deepsquare.chain.artifacts import artifact
from deepsquare.chain.errors import ContractError, decode_revert
from deepsquare.chain.rpc import CODEC, RETRY_SECONDS, RpcError, connect, request
from deepsquare.chain.transactions import Sender, Sent
from deepsquare.chain.wallet import Wallet
from deepsquare.errors import ConfigError

# What most nodes let through in one eth_getLogs.
BLOCKS_A_CALL = 2000
# What the market's contracts have beside version 1.2, as `MetaScheduler.EXTENSIONS` counts it.
_EXTENSIONS = 2


class Head(NamedTuple):
    """The latest block of a chain."""

    number: int
    hash: str
    timestamp: int
    """Unix seconds."""


class Contracts:
    """One deployment of the contracts, seen by one account (or by none, for reading).

    `extended` says whether the market has what DeepSquare's contracts of version 1.2 have not: forms for many jobs in one
    transaction, bills by the second, pages of whole jobs.
    """

    def __init__(
        self, w3: AsyncWeb3[Any], contracts: dict[str, AsyncContract], sender: Sender | None, *, extended: bool
    ) -> None:
        self.w3, self._contracts, self._sender, self.extended = w3, contracts, sender, extended
        self._blocks_a_call = BLOCKS_A_CALL
        self._first_block: str | None = None
        self.cache_folder: Path | None = None
        """Where what the chain never changes may be kept for other processes."""

    @classmethod
    async def open(
        cls,
        rpc_url: str,
        metascheduler: str,
        *,
        wallet: Wallet | None = None,
        lock_folder: Path | None = None,
        chain_id: int | None = None,
        retry_seconds: float = RETRY_SECONDS,
        max_fee_wei: int | None = None,
        cache_folder: Path | None = None,
    ) -> Self:
        """Find the other contracts through the MetaScheduler's getters.

        Args:
            rpc_url: the node's JSON-RPC URL.
            metascheduler: the address of the MetaScheduler.
            wallet: who signs transactions; None can only read.
            lock_folder: where the wallet's lock and the record of its transactions live; needed with a wallet.
            chain_id: the chain that the node must be of; None means any.
            retry_seconds: for how long a request is tried again while the node can't be reached.
            max_fee_wei: the most to pay for a unit of gas; 1,000 gwei when left out.
            cache_folder: where what the chain never changes may be kept for other processes; None keeps nothing.

        Raises:
            ConfigError: the node is of another chain, or there is no such contract at that address.
            ConnectionFailedError: the node can't be reached.
        """
        w3 = connect(rpc_url, retry_seconds=retry_seconds)
        address = to_checksum_address(metascheduler)
        try:
            found_id = int(await request(w3, "eth_chainId"), 16)
            if chain_id not in (None, found_id):
                raise ConfigError(
                    f"the node is of chain {found_id}, but the context names chain {chain_id}; correct the context or the RPC "
                    "URL (deepsquare context show)"
                )
            if await request(w3, "eth_getCode", address, "latest") in (None, "0x"):
                raise ConfigError(
                    f"there is no contract at {address}: the context names another chain or another market "
                    "(deepsquare context show)"
                )
            main = w3.eth.contract(address=address, abi=artifact("MetaScheduler")["abi"])
            contracts = {"MetaScheduler": main}
            for getter, name in (
                ("credit", "Credit"),
                ("constants", "Constants"),
                ("providerManager", "ProviderManager"),
                ("providerJobQueues", "ProviderJobQueues"),
                ("jobs", "JobRepository"),
            ):
                try:
                    found = await _view(w3, main, getter)
                except (ContractError, RpcError):
                    raise ConfigError(
                        f"the contract at {address} is no MetaScheduler; correct the context (deepsquare context show)"
                    ) from None
                contracts[name] = w3.eth.contract(address=found, abi=artifact(name)["abi"])
            extensions = await _extensions(w3, main)
            if extensions not in (None, _EXTENSIONS):
                raise ConfigError(
                    f"the market at {address} is of another version ({extensions}) than this program knows ({_EXTENSIONS}): "
                    "install the program of its version, or, for a grid of your own, deploy the contracts anew"
                )
            extended = extensions is not None
            sender = None
            if wallet is not None:
                assert lock_folder is not None, "a wallet needs a folder for the lock on its nonces"
                sender = Sender(w3, wallet, lock_folder=lock_folder, max_fee_wei=max_fee_wei)
        except BaseException:
            await w3.provider.disconnect()
            raise
        opened = cls(w3, contracts, sender, extended=extended)
        opened.cache_folder = cache_folder
        return opened

    async def close(self) -> None:
        """Close the connection to the node."""
        await self.w3.provider.disconnect()
        if self._sender is not None:
            self._sender.close()

    # ------------------------------------------------------------------ plumbing

    def address(self, name: str) -> str:
        """The address of a contract: "MetaScheduler", "Credit", "JobRepository", ..."""
        return str(self._contracts[name].address)

    @property
    def account(self) -> str:
        """The address that signs.

        Raises:
            ConfigError: this market was opened for reading only.
        """
        return self._signer().wallet.address

    def _signer(self) -> Sender:
        if self._sender is None:
            raise ConfigError("no wallet: this needs an account that can sign")
        return self._sender

    async def read(self, name: str, function: str, *arguments: Any) -> Any:
        """Call a view function of a contract on the latest block.

        Raises:
            ContractError: the contract refuses.
            RpcError: the node can't carry the call out, or there is no such contract.
            ConnectionFailedError: the node can't be reached.
        """
        return await _view(self.w3, self._contracts[name], function, *arguments)

    async def transact(
        self, name: str, function: str, *arguments: Any, before_send: Callable[[Sent], None] | None = None
    ) -> dict[str, Any]:
        """Send a transaction to a contract's function and return its receipt; errors as `Sender.transact`."""
        contract = self._contracts[name]
        data = contract.encode_abi(function, args=list(arguments))
        return await self._signer().transact(str(contract.address), data, before_send=before_send)

    def events(self, receipt: dict[str, Any], name: str, event: str) -> list[tuple[Any, ...]]:
        """The arguments, in order, of each event of a contract in a receipt (events without indexed arguments only)."""
        topic, types = self._event(name, event)
        address = self.address(name).lower()
        return [
            CODEC.decode(types, bytes.fromhex(log["data"][2:]))
            for log in receipt["logs"]
            if log["address"].lower() == address and log["topics"][0] == topic
        ]

    def topic(self, name: str, event: str) -> str:
        """The first topic of an event, as 0x-hex."""
        return self._event(name, event)[0]

    def _event(self, name: str, event: str) -> tuple[str, list[str]]:
        entry = next(e for e in artifact(name)["abi"] if e["type"] == "event" and e["name"] == event)
        types = [_canonical(argument) for argument in entry["inputs"]]
        return "0x" + keccak(text=f"{event}({','.join(types)})").hex(), types

    async def get_logs(self, events: Iterable[tuple[str, str]], from_block: int, to_block: int) -> list[dict[str, Any]]:
        """The logs of some events (contract, event) in a range of blocks, both ends included, oldest first.

        Nodes limit the range, or the number of logs: what is too much at once is asked for in parts.
        """
        pairs = list(events)
        wanted = {
            "address": sorted({self.address(name) for name, _ in pairs}),
            "topics": [[self.topic(name, event) for name, event in pairs]],
        }
        found: list[dict[str, Any]] = []
        # What was too much may have been so for a while only.
        start, size = from_block, min(2 * self._blocks_a_call, BLOCKS_A_CALL)
        while start <= to_block:
            end = min(start + size - 1, to_block)
            try:
                found += await request(self.w3, "eth_getLogs", {"fromBlock": hex(start), "toBlock": hex(end), **wanted})
            except RpcError:
                size = (end - start + 1) // 2
                if not size:
                    raise
                continue
            # Parts that worked are the next ones' size.
            self._blocks_a_call = size
            start = end + 1
        return found

    async def chain_id(self) -> int:
        """The number of the chain."""
        return int(await request(self.w3, "eth_chainId"), 16)

    async def block_number(self) -> int:
        """The number of the latest block."""
        return int(await request(self.w3, "eth_blockNumber"), 16)

    async def head(self) -> Head:
        """The latest block."""
        block = await request(self.w3, "eth_getBlockByNumber", "latest", False)
        return Head(int(block["number"], 16), block["hash"], int(block["timestamp"], 16))

    async def first_block(self) -> str:
        """The hash of the chain's first block: chains that were begun anew may share all other names."""
        if self._first_block is None:
            block = await request(self.w3, "eth_getBlockByNumber", "0x0", False)
            # Some nodes keep new blocks only.
            self._first_block = str(block["hash"]) if block else ""
        return self._first_block


async def _view(w3: AsyncWeb3[Any], contract: AsyncContract, function: str, *arguments: Any) -> Any:
    """What a view function answers; several values come as a tuple."""
    answer = await _eth_call(w3, contract, function, *arguments)
    entry = next(part for part in contract.abi if part["type"] == "function" and part["name"] == function)
    types = [_canonical(dict(output)) for output in entry["outputs"]]
    try:
        values = CODEC.decode(types, answer)
    except DecodingError:
        raise RpcError(-1, f"{contract.address} has no function {function} that answers as it should", None) from None
    return values[0] if len(values) == 1 else values


async def _eth_call(w3: AsyncWeb3[Any], contract: AsyncContract, function: str, *arguments: Any) -> bytes:
    # web3's own way asks for the chain's id, twice, with each call.
    data = contract.encode_abi(function, args=list(arguments))
    try:
        answer = await request(w3, "eth_call", {"to": str(contract.address), "data": data}, "latest")
    except RpcError as error:
        if error.is_revert:
            raise decode_revert(error.data, error.message) from None
        raise
    try:
        return bytes.fromhex(answer.removeprefix("0x"))
    except (AttributeError, ValueError):
        raise RpcError(-1, "something that is no answer of eth_call", None) from None


async def _extensions(w3: AsyncWeb3[Any], main: AsyncContract) -> int | None:
    """What the market's contracts have beside version 1.2; None if nothing: then they revert without a reason.

    Anything else is no answer. Whoever took such a market for one of version 1.2 would not put keys on chain.
    """
    try:
        answer = await request(
            w3, "eth_call", {"to": str(main.address), "data": main.encode_abi("EXTENSIONS")}, "latest"
        )
        return int(answer, 16)
    except RpcError as error:
        if error.is_revert and error.data in (None, "0x", "revert"):
            return None
        raise
    except (TypeError, ValueError):
        # "0x", for example, of a node that has not the contract yet.
        raise RpcError(-1, "nothing that EXTENSIONS of a MetaScheduler answers", None) from None


def _canonical(argument: dict[str, Any]) -> str:
    kind: str = argument["type"]
    if kind.startswith("tuple"):
        return "(" + ",".join(_canonical(part) for part in argument["components"]) + ")" + kind[5:]
    return kind
