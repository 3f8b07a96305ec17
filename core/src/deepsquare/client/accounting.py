"""Whether the money adds up: jobs, balances and the Transfer events of the credit token, to the wei."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eth_utils import keccak, to_checksum_address

from deepsquare.chain.market import BLOCKS_A_CALL
from deepsquare.chain.rpc import request
from deepsquare.chain.types import JobStatus, to_hex
from deepsquare.credits import from_wei
from deepsquare.errors import DeepSquareError

if TYPE_CHECKING:
    from deepsquare.chain.market import Market

# Transfer(address indexed from, address indexed to, uint256 value), of ERC-20 (EIP-20)
_TRANSFER = "0x" + keccak(text="Transfer(address,address,uint256)").hex()
_TOP_UPS = {keccak(text=function)[:4] for function in ("topUpJob(bytes32,uint256)", "topUpJobDelegate(bytes32)")}
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked."""

    what: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class _Transfer:
    transaction: str
    source: str
    target: str
    value: int


async def check(market: Market, customer: str) -> list[Check]:
    """Hold a customer's jobs against the token's events, all of it read at one block.

    Raises:
        DeepSquareError: the chain moved on each time before everything was read.
    """
    for _ in range(_ATTEMPTS):
        head = await market.block_number()
        checks = await _check(market, customer, head)
        if await market.block_number() == head:
            return checks
    raise DeepSquareError("the chain moves on too fast to read all of it at one block; try again when fewer jobs run")


async def _check(market: Market, customer: str, head: int) -> list[Check]:
    """Hold a customer's jobs against the token's events.

    For each job: what its purchase and its top-ups moved into the market is what the job says it locked, and that is billed
    + refunded, where refunded is what its last transaction moved back. And for the customer, the providers and the market:
    the balance is the sum of all their transfers.
    """
    transfers = await _transfers(market, head)
    by_transaction: dict[str, list[_Transfer]] = defaultdict(list)
    for transfer in transfers:
        by_transaction[transfer.transaction].append(transfer)
    records = [record for record in await market.get_jobs(await market.job_ids_of(customer)) if record is not None]
    opened, closed = await _transactions_of_jobs(market, head)
    house = market.address("MetaScheduler")
    topped_up = await _top_ups(market, {t.transaction for t in transfers if t.target == house} - set(opened.values()))
    checks = []
    wrong: list[str] = []
    cold = 0
    for record in records:
        bought_in = [opened[record.job_id], *topped_up[record.job_id]]
        locked = sum(_moved(by_transaction[transaction], customer, house) for transaction in bought_in)
        if locked != record.max_cost:
            wrong.append(
                f"{to_hex(record.job_id)}: locked {from_wei(record.max_cost)}, but {from_wei(locked)} was transferred"
            )
        if record.status.is_hot:
            continue
        cold += 1
        last = by_transaction[closed[record.job_id]]
        refunded = _moved(last, house, customer)
        if locked != record.final_cost + refunded:
            wrong.append(
                f"{to_hex(record.job_id)}: locked {from_wei(locked)} is not billed {from_wei(record.final_cost)} + refunded "
                f"{from_wei(refunded)}"
            )
        paid = _moved(last, house, record.provider)
        if paid > record.final_cost:
            wrong.append(
                f"{to_hex(record.job_id)}: the provider got {from_wei(paid)} of a bill of {from_wei(record.final_cost)}"
            )
    checks.append(
        Check(
            "locked = billed + refunded",
            not wrong,
            "; ".join(wrong) or f"for each of {cold} ended job(s); {len(records) - cold} still hot",
        )
    )
    providers = {record.provider for record in records if int(record.provider, 16)}
    accounts = [("wallet", customer), *(("provider", address) for address in sorted(providers)), ("contract", house)]
    for role, address in accounts:
        balance = await market.balance_of(address)
        total = sum(t.value for t in transfers if t.target == address) - sum(
            t.value for t in transfers if t.source == address
        )
        detail = f"{address}: {balance} wei"
        checks.append(
            Check(
                f"{role}'s balance = its transfers",
                balance == total,
                detail if balance == total else f"{detail}, but {total}",
            )
        )
    return checks


def _moved(transfers: list[_Transfer], source: str, target: str) -> int:
    return sum(t.value for t in transfers if t.source == source and t.target == target)


async def _transfers(market: Market, head: int) -> list[_Transfer]:
    logs = await _all_logs(market, {"address": market.address("Credit"), "topics": [_TRANSFER]}, head)
    return [
        _Transfer(log["transactionHash"], _address(log["topics"][1]), _address(log["topics"][2]), int(log["data"], 16))
        for log in logs
    ]


async def _transactions_of_jobs(market: Market, head: int) -> tuple[dict[bytes, str], dict[bytes, str]]:
    """For each job the transactions that made it and that ended it."""
    created, moved = (market.topic("JobRepository", event) for event in ("JobCreated", "JobTransitionEvent"))
    logs = await _all_logs(market, {"address": market.address("JobRepository"), "topics": [[created, moved]]}, head)
    opened, closed = {}, {}
    for log in logs:
        data = bytes.fromhex(log["data"][2:])
        if log["topics"][0] == created:
            opened[data[:32]] = log["transactionHash"]
        elif JobStatus(data[95]).is_cold:
            closed[data[:32]] = log["transactionHash"]
    return opened, closed


async def _top_ups(market: Market, transactions: Iterable[str]) -> dict[bytes, list[str]]:
    """For each job the transactions, of those given, that topped it up: no event says so, but their first argument is the job."""
    found: dict[bytes, list[str]] = defaultdict(list)
    for transaction in sorted(transactions):
        data = bytes.fromhex((await request(market.w3, "eth_getTransactionByHash", transaction))["input"][2:])
        if data[:4] in _TOP_UPS:
            found[data[4:36]].append(transaction)
    return found


async def _all_logs(market: Market, query: dict[str, Any], head: int) -> list[dict[str, Any]]:
    logs: list[dict[str, Any]] = []
    for start in range(0, head + 1, BLOCKS_A_CALL):
        window = {"fromBlock": hex(start), "toBlock": hex(min(head, start + BLOCKS_A_CALL - 1))}
        logs += await request(market.w3, "eth_getLogs", query | window)
    return logs


def _address(topic: str) -> str:
    return to_checksum_address("0x" + topic[-40:])
