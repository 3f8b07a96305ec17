"""The market's contracts from Python: reads, transactions, and the events of a receipt."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eth_utils import keccak, to_checksum_address
from web3 import AsyncWeb3
from web3.contract import AsyncContract
from web3.exceptions import ContractLogicError, Web3Exception

from deepsquare.chain.artifacts import artifact
from deepsquare.chain.errors import ContractError, decode_revert
from deepsquare.chain.rpc import CODEC, RETRY_SECONDS, RpcError, connect, request
from deepsquare.chain.transactions import Sender, Sent
from deepsquare.chain.types import Hardware, JobDefinition, JobRecord, JobStatus, Label, Prices, Provider
from deepsquare.chain.wallet import Wallet
from deepsquare.errors import ConfigError, TransactionError

_log = logging.getLogger(__name__)

# Nodes limit the range of eth_getLogs; 2,000 blocks are the smallest usual limit.
BLOCKS_A_CALL = 2000
# A call has a block's gas: a job of the largest size takes about half a million of some 30 million.
_JOBS_A_CALL = 50


@dataclass(frozen=True, slots=True)
class Claim:
    """What a provider learns when it claims a job; `max_minutes` is all the time that the locked credits buy."""

    job_id: bytes
    customer: str
    max_minutes: int
    definition: JobDefinition


class Market:
    """One deployment of the contracts, seen by one account (or by none, for reading)."""

    def __init__(self, w3: AsyncWeb3[Any], contracts: dict[str, AsyncContract], sender: Sender | None) -> None:
        self.w3, self._contracts, self._sender = w3, contracts, sender
        self._provider_addresses: dict[str, None] = {}
        self._providers_cursor = 0

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
    ) -> Market:
        """Find the other contracts through the MetaScheduler's getters.

        Args:
            rpc_url: the node's JSON-RPC URL.
            metascheduler: the address of the MetaScheduler.
            wallet: who signs transactions; None can only read.
            lock_folder: where the lock on the wallet's nonces lives; needed with a wallet.
            chain_id: the chain that the node must be of; None means any.
            retry_seconds: for how long a request is tried again while the node can't be reached.

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
            if not await w3.eth.get_code(address):
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
                    found = await _call(main.functions[getter]())
                except (ContractError, RpcError):
                    raise ConfigError(
                        f"the contract at {address} is no MetaScheduler; correct the context (deepsquare context show)"
                    ) from None
                contracts[name] = w3.eth.contract(address=found, abi=artifact(name)["abi"])
            sender = None
            if wallet is not None:
                assert lock_folder is not None, "a wallet needs a folder for the lock on its nonces"
                sender = Sender(w3, wallet, lock_folder=lock_folder)
        except BaseException:
            await w3.provider.disconnect()
            raise
        return cls(w3, contracts, sender)

    async def close(self) -> None:
        """Close the connection to the node."""
        await self.w3.provider.disconnect()

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
        return await _call(self._contracts[name].functions[function](*arguments))

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

    # ------------------------------------------------------------------ reads

    async def block_number(self) -> int:
        """The number of the latest block."""
        return int(await request(self.w3, "eth_blockNumber"), 16)

    async def get_job(self, job_id: bytes) -> JobRecord | None:
        """A job, or None when there is no such job."""
        return (await self.get_jobs([job_id]))[0]

    async def get_jobs(self, job_ids: Sequence[bytes]) -> list[JobRecord | None]:
        """Many jobs with one call for each 50, in the same order; None for an id that is no job's."""
        records: list[JobRecord | None] = []
        for start in range(0, len(job_ids), _JOBS_A_CALL):
            page = await self.read("JobRepository", "getMany", list(job_ids[start : start + _JOBS_A_CALL]))
            records += [_record(job) for job in page]
        return records

    async def all_jobs(self) -> list[JobRecord]:
        """Every job of the market, oldest first."""
        return await self.jobs_after(0)

    async def jobs_after(self, number: int) -> list[JobRecord]:
        """The jobs whose id is above `number`, oldest first: ids count up from 1 to the counter."""
        counter = int(await self.read("JobRepository", "jobIdCounter"))
        records = await self.get_jobs([job.to_bytes(32, "big") for job in range(number + 1, counter + 1)])
        return [record for record in records if record is not None]

    async def job_ids_of(self, customer: str) -> list[bytes]:
        """The ids of a customer's jobs, oldest first."""
        return [bytes(job_id) for job_id in await self.read("JobRepository", "getByCustomer", customer)]

    async def cost_per_minute_of(self, job_id: bytes) -> int:
        """What a minute of the job costs, in wei, at the prices that were fixed when it was assigned; 0 before."""
        return int(await self.read("JobRepository", "costPerMinute", job_id))

    async def get_provider(self, address: str) -> Provider | None:
        """A provider that has joined the market, or None."""
        provider = Provider.decode(await self.read("ProviderManager", "getProvider", address))
        return provider if int(provider.address, 16) else None

    async def providers(self) -> list[Provider]:
        """All providers that can be given jobs, found through the events of their first registration."""
        head = await self.block_number()
        while self._providers_cursor <= head:
            last = min(head, self._providers_cursor + BLOCKS_A_CALL - 1)
            registered = [("ProviderManager", "ProviderWaitingForApproval")]
            for log in await self.get_logs(registered, self._providers_cursor, last):
                self._provider_addresses[to_checksum_address("0x" + log["data"][-40:])] = None
            self._providers_cursor = last + 1
        found = []
        for address in list(self._provider_addresses):
            if await self.read("ProviderManager", "isValidForScheduling", address):
                provider = await self.get_provider(address)
                if provider is not None:
                    found.append(provider)
        return found

    async def get_logs(self, events: Iterable[tuple[str, str]], from_block: int, to_block: int) -> list[dict[str, Any]]:
        """The logs of some events (contract, event) in a range of blocks, both ends included, oldest first."""
        pairs = list(events)
        return list(
            await request(
                self.w3,
                "eth_getLogs",
                {
                    "fromBlock": hex(from_block),
                    "toBlock": hex(to_block),
                    "address": sorted({self.address(name) for name, _ in pairs}),
                    "topics": [[self.topic(name, event) for name, event in pairs]],
                },
            )
        )

    async def balance_of(self, address: str) -> int:
        """The credits of an account, in wei."""
        return int(await self.read("Credit", "balanceOf", address))

    async def allowance_of(self, customer: str) -> int:
        """What the market may still take of a customer's credits, in wei."""
        return int(await self.read("Credit", "allowance", customer, self.address("MetaScheduler")))

    # ------------------------------------------------------------------ what customers do

    async def approve(self, amount: int) -> None:
        """Allow the market to take up to `amount` wei of the own credits (it replaces the allowance of before)."""
        await self.transact("Credit", "approve", self.address("MetaScheduler"), amount)

    async def request_job(
        self,
        definition: JobDefinition,
        locked: int,
        job_name: bytes,
        *,
        delegate_spending_authority: bool = False,
        before_send: Callable[[Sent], None] | None = None,
    ) -> bytes:
        """Buy a job for `locked` wei and return its id; see `Sender.transact` for `before_send` and the errors."""
        receipt = await self.transact(
            "MetaScheduler",
            "requestNewJob",
            definition.encode(),
            locked,
            job_name,
            delegate_spending_authority,
            before_send=before_send,
        )
        return self._requested(receipt)

    async def settle_request(self, sent: Sent) -> bytes:
        """The job of a request that was sent before, sent once more if need be: the same transaction is carried out once.

        Raises:
            ContractError: the contract refused it.
            UnminedError: it is in no block yet.
            TransactionError: the node will not take it, and has not carried it out.
        """
        await self._signer().resend(sent)
        return self._requested(await self._signer().wait(sent))

    def _requested(self, receipt: dict[str, Any]) -> bytes:
        created = self.events(receipt, "MetaScheduler", "NewJobRequestEvent")
        if not created:
            raise TransactionError("the market took the request but announced no job: it is not a DeepSquare market")
        return bytes(created[0][0])

    async def cancel_job(self, job_id: bytes) -> None:
        """Ask for the end of an own job."""
        await self.transact("MetaScheduler", "cancelJob", job_id)

    async def top_up_job(self, job_id: bytes, amount: int) -> None:
        """Lock `amount` wei more for an own job that has not ended; they buy more time."""
        await self.transact("MetaScheduler", "topUpJob", job_id, amount)

    # ------------------------------------------------------------------ what the meta-scheduler does

    async def meta_schedule(self, job_id: bytes, provider: str) -> None:
        """Assign a pending job to a provider."""
        await self.transact("MetaScheduler", "metaSchedule", job_id, provider)

    async def panic_job(self, job_id: bytes, reason: str) -> None:
        """End a job that can't be run, with a full refund."""
        await self.transact("MetaScheduler", "panicJob", job_id, reason)

    async def time_out_job(self, job_id: bytes) -> None:
        """Take a job away from a provider that did not claim it in time."""
        await self.transact("MetaScheduler", "timeoutJob", job_id)

    # ------------------------------------------------------------------ what providers do

    async def register(self, hardware: Hardware, prices: Prices, labels: Sequence[Label]) -> None:
        """Announce the own hardware and prices."""
        await self.transact(
            "ProviderManager",
            "register",
            hardware.encode(),
            (prices.gpu, prices.cpu, prices.mem),
            [(label.key, label.value) for label in labels],
        )

    async def claim_next_job(self) -> Claim | None:
        """Take the next job that is assigned to the own account; None when there is none."""
        if not await self.read("ProviderJobQueues", "hasNextClaimableJob", self.account):
            return None
        receipt = await self.transact("MetaScheduler", "claimNextJob")
        claims = self.events(receipt, "MetaScheduler", "ClaimJobEvent")
        if not claims:
            # A banned provider's claim gives the job back to the market.
            return None
        customer, _, job_id, minutes, definition = claims[0]
        return Claim(bytes(job_id), to_checksum_address(customer), minutes, JobDefinition.decode(definition))

    async def claim_next_cancelling_job(self) -> bytes | None:
        """Take the next job that its customer wants cancelled; None when there is none."""
        if not await self.read("ProviderJobQueues", "hasCancellingJob", self.account):
            return None
        receipt = await self.transact("MetaScheduler", "claimNextCancellingJob")
        return bytes(self.events(receipt, "MetaScheduler", "ClaimNextCancellingJobEvent")[0][2])

    async def claim_next_top_up_job(self) -> bytes | None:
        """Take the next job that was given more credits; None when there is none."""
        if not await self.read("ProviderJobQueues", "hasTopUpJob", self.account):
            return None
        receipt = await self.transact("MetaScheduler", "claimNextTopUpJob")
        return bytes(self.events(receipt, "MetaScheduler", "ClaimNextTopUpJobEvent")[0][0])

    async def refuse_job(self, job_id: bytes) -> None:
        """Give a claimed job back to the market."""
        await self.transact("MetaScheduler", "refuseJob", job_id)

    async def set_job_status(
        self, job_id: bytes, status: JobStatus, *, minutes: int = 0, error: str = "", exit_code: int = 0
    ) -> None:
        """Report a job's state; a cold one bills `minutes` and refunds the rest.

        Args:
            job_id: the job.
            status: its new status.
            minutes: started minutes of run time.
            error: the reason of a failure, for the customer; public.
            exit_code: Slurm's raw wait status, exit code x 256 + signal.
        """
        await self.transact("MetaScheduler", "providerSetJobStatus", job_id, status, minutes, error, exit_code)


async def _call(function: Any) -> Any:
    try:
        return await function.call()
    except ContractLogicError as error:
        data = error.data if isinstance(error.data, str) else None
        raise decode_revert(data, str(error.message or "")) from None
    except Web3Exception as error:
        raise RpcError(-1, f"{type(error).__name__}: {error.user_message or error}", None) from None


def _record(job: Sequence[Any]) -> JobRecord | None:
    if not int(job[2], 16):
        return None
    try:
        return JobRecord.decode(job)
    except ValueError as error:
        # One job that another version of the contracts knows better is no reason to see none.
        _log.warning("the job 0x%s is not understood: %s", bytes(job[0]).hex(), error)
        return None


def _canonical(argument: dict[str, Any]) -> str:
    kind: str = argument["type"]
    if kind.startswith("tuple"):
        return "(" + ",".join(_canonical(part) for part in argument["components"]) + ")" + kind[5:]
    return kind
