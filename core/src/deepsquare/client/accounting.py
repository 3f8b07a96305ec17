"""Whether the money adds up: jobs, balances and the Transfer events of the credit token, to the wei."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deepsquare.chain.types import JobRecord, to_hex
from deepsquare.client.ledger import Transfer, read_ledger
from deepsquare.credits import from_wei
from deepsquare.errors import DeepSquareError

if TYPE_CHECKING:
    from deepsquare.chain.market import Market

_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked."""

    what: str
    ok: bool
    detail: str


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
    ledger = await read_ledger(market, head)
    by_transaction, opened, closed = ledger.by_transaction(), ledger.opened, ledger.closed
    records = await market.jobs_of(customer)
    house = market.address("MetaScheduler")
    topped_up: dict[bytes, int] = defaultdict(int)
    for top_up in ledger.top_ups:
        topped_up[top_up.job_id] += top_up.amount
    wrong: list[str] = []
    # A transaction can buy many jobs, and end many, also other customers'.
    for transaction, group in _grouped(records, opened).items():
        bought = sum(record.max_cost - topped_up[record.job_id] for record in group)
        moved = _moved(by_transaction.get(transaction, ()), customer, house)
        if moved != bought:
            wrong.append(f"{_named(group)}: locked {from_wei(bought)}, but {from_wei(moved)} was transferred")
    ended = [record for record in records if record.status.is_cold]
    for transaction, group in _grouped(ended, closed).items():
        billed, locked = sum(r.final_cost for r in group), sum(r.max_cost for r in group)
        refunded = _moved(by_transaction.get(transaction, ()), house, customer)
        if locked != billed + refunded:
            wrong.append(
                f"{_named(group)}: locked {from_wei(locked)} is not billed {from_wei(billed)} + refunded {from_wei(refunded)}"
            )
    others = [job_id for job_id, transaction in closed.items() if transaction in {closed[r.job_id] for r in ended}]
    all_ended = [record for record in await market.get_jobs(others) if record is not None]
    for transaction, group in _grouped(all_ended, closed).items():
        for provider in {record.provider for record in group}:
            billed = sum(record.final_cost for record in group if record.provider == provider)
            paid = _moved(by_transaction.get(transaction, ()), house, provider)
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
        total = sum(t.value for t in ledger.transfers if t.target == address) - sum(
            t.value for t in ledger.transfers if t.source == address
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


def _moved(transfers: Iterable[Transfer], source: str, target: str) -> int:
    return sum(t.value for t in transfers if t.source == source and t.target == target)


def _grouped(records: Iterable[JobRecord], transactions: dict[bytes, str]) -> dict[str, list[JobRecord]]:
    groups: dict[str, list[JobRecord]] = defaultdict(list)
    for record in records:
        groups[transactions[record.job_id]].append(record)
    return groups


def _named(records: Iterable[JobRecord]) -> str:
    return ", ".join(to_hex(record.job_id) for record in records)
