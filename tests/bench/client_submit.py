"""How many jobs are bought in a second: one by one, by many processes with one wallet, together; beside bare transactions."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

from aiohttp import ClientSession
from client_market import CHAIN_ID, SPAWN, WORKFLOW, Stage, stage, table
from deepsquare import Client
from deepsquare.chain.artifacts import artifact
from deepsquare.chain.types import JobDefinition, JobRecord
from deepsquare.chain.wallet import Wallet
from deepsquare.client.orders import Submission
from deepsquare.workflow import from_dict

PROCESSES = 16
LOCKED = 10**18
LIMIT = timedelta(minutes=1)
_LOOK_SECONDS = 0.02


async def bought_alone(client: Client, count: int) -> list[str]:
    """Buy jobs one after the other."""
    workflow = from_dict(WORKFLOW)
    return [(await client.submit(workflow, time_limit=LIMIT)).id for _ in range(count)]


async def bought_together(client: Client, count: int) -> list[str]:
    """Buy jobs with one call."""
    found = await client.submit_many([Submission(from_dict(WORKFLOW), time_limit=LIMIT) for _ in range(count)])
    for one in found:
        if isinstance(one, Exception):
            raise one
    return [one.id for one in found if not isinstance(one, Exception)]


# ------------------------------------------------------------------ many processes


def _buyer(parent: Connection) -> None:
    """A process that opens a client, and buys as many jobs as it is told, again and again."""

    async def buy() -> None:
        async with Client() as client:
            # The first one learns what the chain is.
            parent.send((0.0, await bought_alone(client, 1)))
            while count := await asyncio.to_thread(parent.recv):
                used = time.process_time()
                ids = await bought_alone(client, count)
                parent.send((time.process_time() - used, ids))

    asyncio.run(buy())


@asynccontextmanager
async def buyers(count: int) -> AsyncIterator[tuple[list[Connection], list[str]]]:
    """Processes that are ready to buy, and the jobs that they bought to become so."""
    pipes = [SPAWN.Pipe() for _ in range(count)]
    processes = [SPAWN.Process(target=_buyer, args=(theirs,), daemon=True) for _, theirs in pipes]
    for process in processes:
        process.start()
    for _, theirs in pipes:
        theirs.close()
    ours = [mine for mine, _ in pipes]
    try:
        yield ours, [job_id for _, ids in await _answers(ours) for job_id in ids]
        for pipe in ours:
            pipe.send(0)
    finally:
        for pipe in ours:
            pipe.close()
        for process in processes:
            await asyncio.to_thread(process.join, 10)
            process.terminate()


async def _answers(pipes: list[Connection]) -> list[tuple[float, list[str]]]:
    return list(await asyncio.gather(*(asyncio.to_thread(pipe.recv) for pipe in pipes)))


# ------------------------------------------------------------------ bare transactions


class Bare:
    """Signed requests of jobs that only have to be handed to the node, of an account of their own."""

    def __init__(self, on: Stage, wallet: Wallet, session: ClientSession) -> None:
        self._on, self.wallet, self._session = on, wallet, session
        self._nonce = 0
        definition = JobDefinition(1, 1, 50, 0, "u3LX9nkPg").encode()
        contract = on.w3.eth.contract(abi=artifact("MetaScheduler")["abi"])
        self._data = contract.encode_abi("requestNewJob", args=[definition, LOCKED, b"job".ljust(32, b"\0"), False])

    async def prepare(self) -> None:
        """Learn where the account's nonces begin."""
        self._nonce = int(await self._ask("eth_getTransactionCount", self.wallet.address, "latest"), 16)

    def signed(self, count: int) -> list[str]:
        """Some more transactions, raw and in 0x-hex."""
        raws = []
        for nonce in range(self._nonce, self._nonce + count):
            fields = {
                **{"to": self._on.metascheduler, "data": self._data, "value": 0, "gas": 250_000, "nonce": nonce},
                **{"chainId": CHAIN_ID, "type": 2, "maxFeePerGas": 10**12, "maxPriorityFeePerGas": 10**9},
            }
            raws.append("0x" + self.wallet.sign_transaction(fields)[0].hex())
        self._nonce += count
        return raws

    async def one_by_one(self, raws: list[str]) -> None:
        """Hand each in when the one before is in a block."""
        for raw in raws:
            await self._mined(await self._ask("eth_sendRawTransaction", raw))

    async def pipelined(self, raws: list[str]) -> None:
        """Hand them in without waiting, and wait for the last one's block."""
        for raw in raws:
            last = await self._ask("eth_sendRawTransaction", raw)
        await self._mined(last)

    async def _mined(self, digest: str) -> None:
        pause = 0.001
        while await self._ask("eth_getTransactionReceipt", digest) is None:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LOOK_SECONDS)

    async def _ask(self, method: str, *params: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        async with self._session.post(self._on.url, json=body) as response:
            answer = await response.json()
        assert "error" not in answer, answer
        return answer["result"]


# ------------------------------------------------------------------ all of it


class Lost(SystemExit):
    """A job was lost, or bought twice."""


def check(records: list[JobRecord], told: list[str]) -> None:
    """Whether the chain has exactly the jobs that the client told of, each for a script of its own."""
    there = {"0x" + record.job_id.hex() for record in records}
    scripts = {record.definition.batch_location_hash for record in records}
    asked, known = len(told), {_full(job_id) for job_id in told}
    if len(known) != asked or there != known or len(scripts) != len(records):
        raise Lost(
            f"{asked} jobs were to be bought and {len(known)} different ids were told, but the chain has {len(there)} of "
            f"{len(scripts)} different scripts; {len(known - there)} are lost, {len(there - known)} nobody knows of"
        )


def _full(job_id: str) -> str:
    return f"0x{int(job_id, 16):064x}"


async def measure(block_seconds: int, *, rounds: int, alone: int, each: int, many: int, bare: int) -> None:
    """Buy on a market of its own, and print the table.

    Args:
        block_seconds: the time between blocks; 0 means a block for each transaction, at once.
        rounds: how often everything is done in turn; medians are told.
        alone: jobs bought one by one in a round.
        each: jobs of each of the processes.
        many: jobs of one `submit_many`.
        bare: bare transactions, without waiting; one by one there are as many as jobs.
    """
    rates: dict[str, list[float]] = {}
    used: dict[str, list[float]] = {}
    counts: dict[str, int] = {}
    told: list[str] = []

    async def timed(what: str, count: int, work: Callable[[], Coroutine[Any, Any, float | None]]) -> None:
        cpu, began = time.process_time(), time.perf_counter()
        of_others = await work()
        took = time.perf_counter() - began
        cpu = time.process_time() - cpu if of_others is None else of_others
        rates.setdefault(what, []).append(count / took)
        used.setdefault(what, []).append(cpu / count)
        counts[what] = counts.get(what, 0) + count

    async with stage() as on, ClientSession() as session:
        wallet = Wallet.from_key(bytes([9]) * 32)
        await on.fund(wallet)
        plain = Bare(on, wallet, session)
        await plain.prepare()
        async with Client() as client, buyers(PROCESSES) as (pipes, first):
            told += first
            told += await bought_alone(client, 1)
            await on.mine_each(block_seconds)

            async def by_processes() -> float:
                for pipe in pipes:
                    pipe.send(each)
                answers = await _answers(pipes)
                told.extend(job_id for _, ids in answers for job_id in ids)
                return sum(cpu for cpu, _ in answers)

            async def by(buy: Callable[[Client, int], Coroutine[Any, Any, list[str]]], count: int) -> None:
                told.extend(await buy(client, count))

            for _ in range(rounds):
                singles, stream = plain.signed(alone), plain.signed(bare)
                await timed("bare, one by one", alone, lambda raws=singles: plain.one_by_one(raws))
                await timed("bare, without waiting", bare, lambda raws=stream: plain.pipelined(raws))
                await timed("`submit`, one by one", alone, lambda: by(bought_alone, alone))
                await timed(f"`submit` in {PROCESSES} processes", PROCESSES * each, by_processes)
                await timed(f"`submit_many` of {many}", many, lambda: by(bought_together, many))
            await on.mine_each(0)
        bought = await on.admin.jobs_of(client.account)
        check(bought, told)
        bare_jobs = len(await on.admin.jobs_of(wallet.address))
        if bare_jobs != rounds * (alone + bare):
            raise Lost(f"of {rounds * (alone + bare)} bare requests {bare_jobs} bought a job")

    slow, quick = (statistics.median(rates[name]) for name in ("bare, one by one", "bare, without waiting"))
    rows: list[tuple[object, ...]] = []
    for what, found in rates.items():
        rate, cpu = statistics.median(found), 1000 * statistics.median(used[what])
        rows.append((what, f"{rate:.1f}", f"{rate / slow:.2f}", f"{rate / quick:.2f}", f"{cpu:.1f}", counts[what]))
    title = f"a block each {block_seconds} s" if block_seconds else "a block for each transaction"
    table(
        title, "jobs a second", "to bare, one by one", "to bare, without waiting", "CPU a job (ms)", "jobs", rows=rows
    )
    print(f"\n{len(bought)} jobs on the chain of {len(told)} that were told of: none lost, none double", flush=True)


def run(quick: bool) -> None:
    """Measure on both kinds of chain."""
    if quick:
        asyncio.run(measure(0, rounds=1, alone=10, each=2, many=60, bare=50))
        asyncio.run(measure(1, rounds=1, alone=3, each=2, many=60, bare=50))
        return
    asyncio.run(measure(0, rounds=3, alone=50, each=10, many=200, bare=400))
    asyncio.run(measure(1, rounds=3, alone=8, each=5, many=200, bare=400))
