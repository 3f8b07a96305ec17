"""What the events of the market tell of its money: one query for each range of blocks, whatever is asked of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from eth_utils import keccak, to_checksum_address

from deepsquare.chain.contracts import BLOCKS_A_CALL
from deepsquare.chain.rpc import request
from deepsquare.chain.types import JobStatus

if TYPE_CHECKING:
    from deepsquare.chain.market import Market

_TRANSFER = ("Credit", "Transfer")
_CREATED = ("JobRepository", "JobCreated")
_MOVED = ("JobRepository", "JobTransitionEvent")
# Contracts of version 1.2 have neither of these.
_CHANGED = ("JobRepository", "JobStatusChanged")
_TOPPED_UP = ("MetaScheduler", "JobToppedUp")
_TOP_UPS = {keccak(text=function)[:4] for function in ("topUpJob(bytes32,uint256)", "topUpJobDelegate(bytes32)")}


@dataclass(frozen=True, slots=True)
class Transfer:
    """Credits that went from one account to another, in wei."""

    transaction: str
    source: str
    target: str
    value: int


@dataclass(frozen=True, slots=True)
class TopUp:
    """What a transaction added to a job, in wei."""

    job_id: bytes
    transaction: str
    amount: int


@dataclass(slots=True)
class Ledger:
    """All of it, oldest first; transactions by their hashes, 0x-hex."""

    transfers: list[Transfer] = field(default_factory=list)
    opened: dict[bytes, str] = field(default_factory=dict)
    """For each job the transaction that bought it."""
    closed: dict[bytes, str] = field(default_factory=dict)
    """For each job at its end the transaction that ended it."""
    prices: dict[bytes, int] = field(default_factory=dict)
    """What a minute of a job costs, in wei, as its last assignment fixed it; contracts of version 1.2 don't tell."""
    top_ups: list[TopUp] = field(default_factory=list)

    def by_transaction(self) -> dict[str, list[Transfer]]:
        """The transfers of each transaction."""
        found: dict[str, list[Transfer]] = defaultdict(list)
        for transfer in self.transfers:
            found[transfer.transaction].append(transfer)
        return found


async def read_ledger(market: Market, head: int, *, first: int = 0, payer: str | None = None) -> Ledger:
    """What the events of some blocks tell.

    Args:
        market: the contracts.
        head: the last block to look at.
        first: the first one.
        payer: on contracts of version 1.2, which have no event of a top-up, look only for those that this account paid:
            each transaction that may be one is a call more.

    Raises:
        RpcError: the node refuses.
        ConnectionFailedError: the node can't be reached.
    """
    events = [_TRANSFER, *((_CHANGED, _TOPPED_UP) if market.extended else (_CREATED, _MOVED))]
    names = {market.topic(*event): event for event in events}
    ledger = Ledger()
    for start in range(first, head + 1, BLOCKS_A_CALL):
        for log in await market.get_logs(events, start, min(head, start + BLOCKS_A_CALL - 1)):
            _enter(ledger, names[log["topics"][0]], log)
    if not market.extended:
        ledger.top_ups = await _top_ups_of_calls(market, ledger, payer)
    return ledger


async def block_at(market: Market, head: int, timestamp: int) -> int:
    """The first block, `head` at the latest, that is not older than a unix time; it takes a few calls, also on a long chain."""
    first, last = 0, head
    while first < last:
        middle = (first + last) // 2
        block = await request(market.w3, "eth_getBlockByNumber", hex(middle), False)
        if int(block["timestamp"], 16) < timestamp:
            first = middle + 1
        else:
            last = middle
    return first


def _enter(ledger: Ledger, event: tuple[str, str], log: dict[str, Any]) -> None:
    transaction, topics, data = log["transactionHash"], log["topics"], bytes.fromhex(log["data"][2:])
    if event == _TRANSFER:
        ledger.transfers.append(Transfer(transaction, _address(topics[1]), _address(topics[2]), int.from_bytes(data)))
    elif event == _TOPPED_UP:
        ledger.top_ups.append(TopUp(bytes.fromhex(topics[1][2:]), transaction, int.from_bytes(data)))
    elif event == _CREATED:
        ledger.opened[data[:32]] = transaction
    elif event == _MOVED:
        _move(ledger, data[:32], JobStatus(data[95]), transaction)
    else:
        job_id, status = bytes.fromhex(topics[1][2:]), JobStatus(data[63])
        # The first of a job's events is that of its creation.
        ledger.opened.setdefault(job_id, transaction)
        ledger.prices[job_id] = int.from_bytes(data[64:96])
        _move(ledger, job_id, status, transaction)


def _move(ledger: Ledger, job_id: bytes, status: JobStatus, transaction: str) -> None:
    if status.is_cold:
        ledger.closed[job_id] = transaction


async def _top_ups_of_calls(market: Market, ledger: Ledger, payer: str | None) -> list[TopUp]:
    """The top-ups among the transactions that paid the market: the first argument of these functions is the job."""
    house, found = market.address("MetaScheduler"), []
    bought = set(ledger.opened.values())
    for transaction, transfers in ledger.by_transaction().items():
        paid = [t for t in transfers if t.target == house and payer in (None, t.source)]
        if not paid or transaction in bought:
            continue
        data = bytes.fromhex((await request(market.w3, "eth_getTransactionByHash", transaction))["input"][2:])
        if data[:4] in _TOP_UPS:
            found.append(TopUp(data[4:36], transaction, sum(t.value for t in paid)))
    return found


def _address(topic: str) -> str:
    return to_checksum_address("0x" + topic[-40:])
