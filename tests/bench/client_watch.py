"""What it costs to watch jobs: calls of the node a block, and the processor's time; beside a client that watches one job."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from client_market import SPAWN, Counts, Stage, counting, stage, table
from deepsquare import Client
from deepsquare.chain.market import Assignment
from deepsquare.chain.rpc import request
from deepsquare.chain.types import UNLIMITED, JobDefinition, parse_job_id
from deepsquare.client.purchases import Purchase

LOCKED = 10**18
BLOCK_SECONDS = 1.0
# Of the watcher, after the last block: it may be at its reads yet.
_LINGER_SECONDS = 0.5


@dataclass
class Look:
    """The first look at some jobs."""

    seconds: float
    cpu: float
    calls: int


@dataclass
class Window:
    """What was seen while some blocks were made."""

    calls: float
    """A block."""
    by_method: dict[str, float]
    share: float
    """Of a core."""
    told: int
    """Changes that the client yielded."""


async def buy(count: int) -> list[str]:
    """Buy jobs, many in a transaction, whose scripts nobody needs; the journal has them as any others."""
    async with Client() as client:
        purchases = [
            Purchase(JobDefinition(1, 1, 50, 0, f"bench{number:08}"), LOCKED, b"job".ljust(32, b"\0"), {})
            for number in range(count)
        ]
        found = await client.purchases.buy_many(purchases)
        ids = [job_id for job_id in found if isinstance(job_id, str)]
        assert len(ids) == count, next(one for one in found if not isinstance(one, str))
        return ids


# ------------------------------------------------------------------ the watcher


def _watcher(context: str, ids: list[str], parent: Connection) -> None:
    """A process that looks at jobs, then watches them; it tells what that took of it, each time that it is asked."""

    async def watch() -> None:
        async with Client(context) as client:
            parent.send(None)
            await asyncio.to_thread(parent.recv)
            cpu, began = time.process_time(), time.perf_counter()
            await client.jobs(ids)
            parent.send((time.perf_counter() - began, time.process_time() - cpu))
            seen, all_seen = 0, asyncio.Event()

            async def follow() -> None:
                nonlocal seen
                async for _ in client.watch(ids):
                    seen += 1
                    if seen >= len(ids):
                        all_seen.set()

            following = asyncio.create_task(follow())
            await all_seen.wait()
            # Whoever subscribes to blocks does so by now.
            await asyncio.sleep(2 * BLOCK_SECONDS)
            while await asyncio.to_thread(parent.recv):
                parent.send((time.perf_counter(), time.process_time(), seen))
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    asyncio.run(watch())


@asynccontextmanager
async def watcher(context: str, ids: list[str], counts: Counts) -> AsyncIterator[tuple[Connection, Look]]:
    """A process that watches jobs, and its first look at them."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_watcher, args=(context, ids, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        await asyncio.to_thread(ours.recv)
        counts.clear()
        ours.send(True)
        seconds, cpu = await asyncio.to_thread(ours.recv)
        yield ours, Look(seconds, cpu, sum(counts.calls.values()))
        ours.send(False)
    finally:
        ours.close()
        await asyncio.to_thread(process.join, 10)
        process.terminate()


async def window(on: Stage, pipe: Connection, counts: Counts, blocks: int, changing: bytes | None) -> Window:
    """Watch for some blocks, in each of which one job changes, or none."""
    wall, cpu, seen = await _asked(pipe)
    counts.clear()
    due = time.perf_counter()
    for number in range(blocks):
        await _block(on, changing, number)
        due += BLOCK_SECONDS
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
    await asyncio.sleep(_LINGER_SECONDS)
    by_method = {method: calls / blocks for method, calls in counts.calls.items()}
    wall_after, cpu_after, seen_after = await _asked(pipe)
    return Window(sum(by_method.values()), by_method, (cpu_after - cpu) / (wall_after - wall), seen_after - seen)


async def _asked(pipe: Connection) -> tuple[float, float, int]:
    """The watcher's clock, the seconds of processor that it has used, and what it has yielded."""
    pipe.send(True)
    wall, cpu, seen = await asyncio.to_thread(pipe.recv)
    return wall, cpu, seen


async def _block(on: Stage, changing: bytes | None, number: int) -> None:
    if changing is None:
        await request(on.w3, "evm_mine")
    elif number % 2 == 0:
        refused = await on.scheduler.meta_schedule([Assignment(changing, on.provider.account, UNLIMITED)])
        assert not refused, refused
    else:
        # It goes back to the market, which assigns it anew.
        await on.provider.refuse_job(changing)


# ------------------------------------------------------------------ all of it


async def measure(sizes: list[int], blocks: int) -> None:
    """Watch jobs on a market of its own, and print the tables."""
    looks: dict[int, Look] = {}
    windows: dict[tuple[str, bool, int], Window] = {}
    async with stage() as on, counting(on.url) as (url, counts):
        began = time.perf_counter()
        ids = await buy(max(sizes))
        print(f"\n{len(ids)} jobs bought in {time.perf_counter() - began:.0f} s", flush=True)
        on.keep_context("websocket", rpc_url=url, ws_url=url.replace("http", "ws"))
        on.keep_context("polling", rpc_url=url, ws_url=None)
        for how in ("websocket", "polling"):
            for size in sizes:
                some = ids[-size:]
                async with watcher(how, some, counts) as (pipe, look):
                    looks.setdefault(size, look)
                    for changing in (None, parse_job_id(some[size // 2])):
                        windows[how, changing is not None, size] = await window(on, pipe, counts, blocks, changing)
    _print(sizes, blocks, looks, windows)


def _print(sizes: list[int], blocks: int, looks: dict[int, Look], windows: dict[Any, Window]) -> None:
    one = looks[sizes[0]]
    rows: list[tuple[object, ...]] = [
        (
            f"{size:,}",
            look.calls,
            f"{look.calls / one.calls:.1f}",
            f"{look.seconds:.3f}",
            f"{look.seconds / one.seconds:.1f}",
            f"{look.cpu:.3f}",
        )
        for size, look in looks.items()
    ]
    table("jobs, one `jobs()`", "calls", "ratio", "seconds", "ratio", "CPU (s)", rows=rows)
    rows = []
    for (how, changes, size), seen in windows.items():
        base = windows[how, changes, sizes[0]]
        rows.append(
            (
                f"{how}, {'one job changes with each block' if changes else 'nothing happens'}",
                f"{size:,}",
                f"{seen.calls:.2f}",
                f"{seen.calls / base.calls:.2f}",
                f"{100 * seen.share:.2f} %",
                f"{seen.share / base.share:.2f}",
                seen.told,
            )
        )
    table(
        f"{blocks} blocks, one a second",
        "jobs",
        "calls a block",
        "ratio",
        "of a core",
        "ratio",
        "changes told",
        rows=rows,
    )
    methods = sorted({method for seen in windows.values() for method in seen.by_method})
    largest = [key for key in windows if key[2] == sizes[-1]]
    table(
        f"calls a block, {sizes[-1]:,} jobs",
        *(f"{how}, {'changing' if changes else 'still'}" for how, changes, _ in largest),
        rows=[(method, *(f"{windows[key].by_method.get(method, 0):.2f}" for key in largest)) for method in methods],
    )


def run(quick: bool) -> None:
    """Watch, and print."""
    asyncio.run(measure([1, 100, 1000] if quick else [1, 1_000, 10_000], 6 if quick else 20))
