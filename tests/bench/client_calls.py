"""What a submission asks of the node and of the sbatch API: the calls of each method, and the connections that are opened."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta

from client_market import WORKFLOW, Counts, counting, stage, table
from deepsquare import Client
from deepsquare.client.orders import Submission
from deepsquare.workflow import from_dict

from tests.old_market import version_1_2

LIMIT = timedelta(minutes=1)
# On contracts of version 1.2 each purchase under a key reads all of the customer's jobs.
BATCHES = {"extended": 50, "version 1.2": 10}
_NODE, _API = "new connections to the node", "new connections to the sbatch API"


async def columns_of(client: Client, market: str, node: Counts, api: Counts, runs: int) -> dict[str, Counter[str]]:
    """What each kind of submission asks for, in the mean of some."""
    columns: dict[str, Counter[str]] = {}
    workflow = from_dict(WORKFLOW)
    batch = BATCHES[market]

    async def count(what: str, work: Callable[[int], Awaitable[object]], times: int = runs, of: int = 1) -> None:
        node.clear()
        api.clear()
        for number in range(times):
            await work(number)
        asked = Counter(node.calls)
        asked["POST to the sbatch API"] = api.calls["POST"]
        asked[_NODE], asked[_API] = len(node.connections), len(api.connections)
        columns[what] = Counter({name: calls / times / of for name, calls in asked.items()})

    async def submit(key: str | None) -> object:
        return await client.submit(workflow, time_limit=LIMIT, key=key)

    async def submit_batch(prefix: str | None) -> None:
        keys = [None if prefix is None else f"{prefix} {number}" for number in range(batch)]
        found = await client.submit_many([Submission(workflow, time_limit=LIMIT, key=key) for key in keys])
        for one in found:
            if isinstance(one, Exception):
                raise one

    # The first one learns what the chain is.
    await count("the first", lambda _: submit(None), 1)
    await count("`submit`", lambda _: submit(None))
    await count("with a new key", lambda number: submit(f"{market} {number}"))
    await count("with a known key", lambda number: submit(f"{market} {number}"))
    await count(f"a job of {batch} together", lambda _: submit_batch(None), 1, batch)
    await count(f"a job of {batch} with keys", lambda _: submit_batch(f"{market} batch"), 1, batch)
    return columns


async def measure(*, jobs: int, runs: int) -> None:
    """Count on a market of its own, and print the tables.

    Args:
        jobs: how many the customer has before.
        runs: how many submissions of each kind are counted.
    """
    async with stage() as on, version_1_2(on.url) as old_url, counting(on.sbatch_url) as (api_url, api):
        async with Client() as client:
            workflow = from_dict(WORKFLOW)
            await client.submit_many([Submission(workflow, time_limit=LIMIT) for _ in range(jobs)])
        # The old one first, where the customer's jobs count.
        for market, url in (("version 1.2", old_url), ("extended", on.url)):
            async with counting(url) as (node_url, node):
                on.keep_context("counted", rpc_url=node_url, sbatch_url=api_url)
                async with Client("counted") as client:
                    opening = Counter[str](node.calls) + Counter({_NODE: len(node.connections)})
                    columns = {"opening a client": opening, **await columns_of(client, market, node, api, runs)}
            _print(f"{market}, a customer of {jobs} jobs and more", columns)


def _print(title: str, columns: dict[str, Counter[str]]) -> None:
    names = sorted(
        {name for column in columns.values() for name in column}, key=lambda name: (not _is_call(name), name)
    )
    rows: list[tuple[object, ...]] = [
        (name, *(f"{column[name]:.4g}" for column in columns.values()))
        for name in names
        if any(column[name] for column in columns.values())
    ]
    sums = (sum(calls for name, calls in column.items() if _is_call(name)) for column in columns.values())
    rows.append(("**all calls of the node**", *(f"{calls:.4g}" for calls in sums)))
    table(title, *columns, rows=rows)


def _is_call(name: str) -> bool:
    return name.startswith("eth_")


def run(quick: bool) -> None:
    """Count, and print."""
    asyncio.run(measure(jobs=20 if quick else 100, runs=2 if quick else 5))
