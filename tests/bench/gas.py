"""What a job's life costs in gas, call by call, alone and in batches; beside the floor that no implementation can go below.

The floor of a transaction counts what the chain charges for what the interface demands: the transaction itself and its data, each
storage word that it reads and writes, its events, and the first touch of each contract that the interface keeps apart. What is left
is computation and memory.

Usage: .venv/bin/python tests/bench/gas.py
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepsquare.chain.deploy import deploy
from deepsquare.chain.market import Market
from deepsquare.chain.rpc import connect, request
from deepsquare.chain.transactions import Sender
from deepsquare.chain.types import UNLIMITED, Hardware, JobDefinition, JobRequest, JobStatus, Label, Prices
from deepsquare.chain.wallet import Wallet
from deepsquare.grid.local.toolchain import find_anvil

BATCH = 50
PAGE = 1000
CHAIN_ID = 179188
PRICES = Prices(gpu=85 * 10**17, cpu=95 * 10**16, mem=8 * 10**13)
# One label and a short name, as a purchase has them; the location is as long as DeepSquare's own are.
DEFINITION = JobDefinition(2, 3, 2000, 4, "u3LX9nkPg", uses=(Label("os", "linux"),))
NAME = b"job".ljust(32, b"\0")
LOCKED = 10**20

_TRANSACTION = 21_000
_ZERO_BYTE, _OTHER_BYTE = 4, 16
_FIRST_TOUCH, _TOUCH = 2_600, 100


@dataclass(frozen=True)
class Cost:
    """The gas of a transaction, and its floor."""

    what: str
    gas: int
    floor: int


async def floor(w3: Any, receipt: dict[str, Any]) -> int:
    """The gas that the chain charges for a transaction's data, storage, events, and first touches of contracts."""
    transaction = await request(w3, "eth_getTransactionByHash", receipt["transactionHash"])
    data = bytes.fromhex(transaction["input"][2:])
    total = _TRANSACTION + sum(_OTHER_BYTE if byte else _ZERO_BYTE for byte in data)
    trace = await request(w3, "debug_traceTransaction", receipt["transactionHash"], {"disableMemory": True})
    touched = {int(transaction["to"], 16)}
    refund = 0
    for step in trace["structLogs"]:
        operation = step["op"]
        if operation in ("SLOAD", "SSTORE") or operation.startswith("LOG"):
            total += step["gasCost"]
            refund = int(step.get("refund", 0) or refund)
        elif operation in ("CALL", "STATICCALL"):
            target = int(step["stack"][-2], 16) if isinstance(step["stack"][-2], str) else int(step["stack"][-2])
            total += _TOUCH if target in touched else _FIRST_TOUCH
            touched.add(target)
    return total - min(refund, total // 5)


class Bench:
    """Runs lives of jobs and keeps what they cost."""

    def __init__(self, w3: Any, parties: dict[str, Market]) -> None:
        self._w3, self._parties = w3, parties

    async def _send(self, costs: list[Cost], what: str, party: str, function: str, *arguments: Any) -> dict[str, Any]:
        receipt = await self._parties[party].transact("MetaScheduler", function, *arguments)
        costs.append(Cost(what, int(receipt["gasUsed"], 16), await floor(self._w3, receipt)))
        return receipt

    async def one(self) -> list[Cost]:
        """One job's life, each step in a transaction of its own."""
        costs: list[Cost] = []
        customer, provider = self._parties["customer"], self._parties["provider"]
        job = await self._send(costs, "request", "customer", "requestNewJob", DEFINITION.encode(), LOCKED, NAME, False)
        ((job_id, _),) = customer.events(job, "MetaScheduler", "NewJobRequestEvent")
        await self._send(costs, "assign", "scheduler", "metaSchedule", job_id, provider.account)
        await self._send(costs, "claim", "provider", "claimNextJob")
        await self._send(costs, "running", "provider", "providerSetJobStatus", job_id, JobStatus.RUNNING, 0, "", 0)
        await self._send(costs, "finished", "provider", "providerSetJobStatus", job_id, JobStatus.FINISHED, 1, "", 0)
        return costs

    async def many(self) -> list[Cost]:
        """Many jobs' lives, each step of all of them in one transaction."""
        costs: list[Cost] = []
        customer, provider = self._parties["customer"], self._parties["provider"]
        requests = [JobRequest(DEFINITION, LOCKED, NAME).encode()] * BATCH
        bought = await self._send(costs, "request", "customer", "requestNewJobs", requests)
        ids = [event[0] for event in customer.events(bought, "MetaScheduler", "NewJobRequestEvent")]
        await self._send(
            costs, "assign", "scheduler", "metaScheduleMany", [(job_id, provider.account, UNLIMITED) for job_id in ids]
        )
        await self._send(costs, "claim", "provider", "claimNextJobs", BATCH)
        for what, status in (("running", JobStatus.RUNNING), ("finished", JobStatus.FINISHED)):
            reports = [(job_id, status, 60, "", 0) for job_id in ids]
            await self._send(costs, what, "provider", "providerSetJobStatuses", reports)
        return [Cost(cost.what, cost.gas // BATCH, cost.floor // BATCH) for cost in costs]

    async def read(self) -> tuple[int, int, float]:
        """Jobs read by one call, its gas, and its seconds."""
        customer = self._parties["customer"]
        while int(await customer.read("JobRepository", "jobIdCounter")) < PAGE:
            await customer.request_jobs([JobRequest(DEFINITION, LOCKED, NAME)] * BATCH)
        contract = self._w3.eth.contract(
            address=customer.address("JobRepository"), abi=customer._contracts["JobRepository"].abi
        )
        everything = ("0x" + "0" * 40, "0x" + "0" * 40, 0)
        data = contract.encode_abi("getPage", args=[everything, 0, PAGE])
        call = {"to": contract.address, "data": data, "gas": hex(10**9)}
        gas = int(await request(self._w3, "eth_estimateGas", call), 16)
        began = time.perf_counter()
        page, _ = await customer.read("JobRepository", "getPage", everything, 0, PAGE)
        return len(page), gas, time.perf_counter() - began


def table(title: str, costs: list[Cost]) -> None:
    """Print the steps and their sum."""
    print(f"\n| {title} | gas | floor | ratio |\n|---|---|---|---|")
    total = Cost("all of it", sum(cost.gas for cost in costs), sum(cost.floor for cost in costs))
    for cost in [*costs, total]:
        print(f"| {cost.what} | {cost.gas:,} | {cost.floor:,} | {cost.gas / cost.floor:.2f} |")


@asynccontextmanager
async def traced(port: int) -> AsyncIterator[None]:
    """A chain that remembers each step of its transactions."""
    arguments = ("--port", str(port), "--chain-id", str(CHAIN_ID), "--gas-limit", str(60_000_000), "--quiet")
    program = await asyncio.to_thread(find_anvil, print)
    process = await asyncio.create_subprocess_exec(
        program, *arguments, "--steps-tracing", stdin=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def main() -> None:
    """Deploy a market on a chain of its own, and print the tables."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        state = Path(folder)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        url = f"http://127.0.0.1:{port}"
        async with traced(port):
            w3 = connect(url)
            names = ("admin", "scheduler", "provider", "customer")
            wallets = {name: Wallet.from_key(bytes([number]) * 32) for number, name in enumerate(names, start=1)}
            for wallet in wallets.values():
                await request(w3, "anvil_setBalance", wallet.address, hex(10**22))
            sender = Sender(w3, wallets["admin"], lock_folder=state / "locks")
            made = await deploy(w3, sender, supply=10**27, scheduler=wallets["scheduler"].address)
            parties = {
                name: await Market.open(url, made.metascheduler, wallet=wallet, lock_folder=state / "locks")
                for name, wallet in wallets.items()
            }
            await parties["admin"].transact("Credit", "transfer", parties["customer"].account, 10**26)
            await parties["customer"].approve(10**26)
            await parties["provider"].register(Hardware((8,), (64,), (10**6,)), PRICES, [Label("os", "linux")])
            await parties["admin"].transact("ProviderManager", "approve", parties["provider"].account)
            bench = Bench(w3, parties)
            # The first of a customer and a provider makes words that later ones only change.
            await bench.one()
            table("one job, alone", await bench.one())
            await bench.many()
            table(f"one job of {BATCH} together", await bench.many())
            jobs, gas, seconds = await bench.read()
            print(f"\n{jobs} jobs in one call: {gas:,} gas, {seconds:.2f} s with decoding")
            for market in parties.values():
                await market.close()
            await w3.provider.disconnect()


if __name__ == "__main__":
    asyncio.run(main())
