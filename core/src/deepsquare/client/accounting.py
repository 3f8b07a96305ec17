"""Whether the money adds up: jobs, balances and the Transfer events of the credit token, to the wei."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eth_utils import keccak, to_checksum_address

from deepsquare.chain.market import BLOCKS_A_CALL
from deepsquare.chain.rpc import request
from deepsquare.chain.types import JobRecord, JobStatus, to_hex
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

    For the jobs of each transaction: what their purchase and top-ups moved into the market is what they say they locked, and
    that is billed + refunded, where refunded is what their last transaction moved back. And for the customer, the providers and
    the market:
    the balance is the sum of all their transfers.
    """
    transfers = await _transfers(market, head)
    by_transaction: dict[str, list[_Transfer]] = defaultdict(list)
    for transfer in transfers:
        by_transaction[transfer.transaction].append(transfer)
    records = await market.jobs_of(customer)
    opened, closed = await _transactions_of_jobs(market, head)
    house = market.address("MetaScheduler")
    topped_up = await _top_ups(market, by_transaction, opened, head)
    wrong: list[str] = []
    # A transaction can buy many jobs, and end many, also other customers'.
    for transaction, group in _grouped(records, opened).items():
        bought = sum(record.max_cost - topped_up[record.job_id] for record in group)
        moved = _moved(by_transaction[transaction], customer, house)
        if moved != bought:
            wrong.append(f"{_named(group)}: locked {from_wei(bought)}, but {from_wei(moved)} was transferred")
    ended = [record for record in records if record.status.is_cold]
    for transaction, group in _grouped(ended, closed).items():
        billed, locked = sum(r.final_cost for r in group), sum(r.max_cost for r in group)
        refunded = _moved(by_transaction[transaction], house, customer)
        if locked != billed + refunded:
            wrong.append(
                f"{_named(group)}: locked {from_wei(locked)} is not billed {from_wei(billed)} + refunded {from_wei(refunded)}"
            )
    others = [job_id for job_id, transaction in closed.items() if transaction in {closed[r.job_id] for r in ended}]
    all_ended = [record for record in await market.get_jobs(others) if record is not None]
    for transaction, group in _grouped(all_ended, closed).items():
        for provider in {record.provider for record in group}:
            billed = sum(record.final_cost for record in group if record.provider == provider)
            paid = _moved(by_transaction[transaction], house, provider)
            if paid > billed:
                wrong.append(f"{_named(group)}: the provider got {from_wei(paid)} of a bill of {from_wei(billed)}")
    checks = [
        Check(
            "locked = billed + refunded",
            not wrong,
            "; ".join(wrong) or f"for each of {len(ended)} ended job(s); {len(records) - len(ended)} still hot",
        )
    ]
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


async def _top_ups(
    market: Market, by_transaction: dict[str, list[_Transfer]], opened: dict[bytes, str], head: int
) -> dict[bytes, int]:
    """For each job what was added to it, in wei."""
    found: dict[bytes, int] = defaultdict(int)
    house = market.address("MetaScheduler")
    if market.extended:
        query = {"address": house, "topics": [market.topic("MetaScheduler", "JobToppedUp")]}
        for log in await _all_logs(market, query, head):
            found[bytes.fromhex(log["topics"][1][2:])] += int(log["data"], 16)
        return found
    # On contracts of version 1.2 no event says so, but the first argument of these functions is the job.
    paid = {
        transaction for transaction, transfers in by_transaction.items() if any(t.target == house for t in transfers)
    }
    for transaction in sorted(paid - set(opened.values())):
        data = bytes.fromhex((await request(market.w3, "eth_getTransactionByHash", transaction))["input"][2:])
        if data[:4] in _TOP_UPS:
            found[data[4:36]] += sum(t.value for t in by_transaction[transaction] if t.target == house)
    return found


def _grouped(records: Iterable[JobRecord], transactions: dict[bytes, str]) -> dict[str, list[JobRecord]]:
    groups: dict[str, list[JobRecord]] = defaultdict(list)
    for record in records:
        groups[transactions[record.job_id]].append(record)
    return groups


def _named(records: Iterable[JobRecord]) -> str:
    return ", ".join(to_hex(record.job_id) for record in records)


async def _all_logs(market: Market, query: dict[str, Any], head: int) -> list[dict[str, Any]]:
    logs: list[dict[str, Any]] = []
    for start in range(0, head + 1, BLOCKS_A_CALL):
        window = {"fromBlock": hex(start), "toBlock": hex(min(head, start + BLOCKS_A_CALL - 1))}
        logs += await request(market.w3, "eth_getLogs", query | window)
    return logs


def _address(topic: str) -> str:
    return to_checksum_address("0x" + topic[-40:])
