"""The blocking client in the surroundings that engines put it in. The chain is real, the sbatch API's answer is not."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from deepsquare.chain.types import JobStatus
from deepsquare.client.blocking import BlockingClient
from deepsquare.client.client import Client
from deepsquare.errors import ConfigError

from core.tests.chain.conftest import Parties
from core.tests.client.test_keys import LIMIT, client, count, workflow

__all__ = ["client"]

ROOT = Path(__file__).resolve().parents[3]
HEAD = """
import asyncio, os, signal, sys, threading
from datetime import timedelta
from deepsquare.client import client as client_module
from deepsquare.client.blocking import BlockingClient
from deepsquare.errors import ConfigError
from core.tests.client.test_keys import stand_in, workflow

client_module.submit_workflow = stand_in
LIMIT = timedelta(minutes=5)
"""

FORK = """
def buy(client):
    return client.submit(workflow(), time_limit=LIMIT).id

before = BlockingClient("grid")
print(buy(before), flush=True)
child = os.fork()
if child == 0:
    try:
        before.jobs()
    except ConfigError as error:
        print(error, flush=True)
    with BlockingClient("grid") as own:
        print(buy(own), flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(buy(before), flush=True)
before.close()
"""

ON_KILL = """
with BlockingClient("grid") as client:
    job = client.submit(workflow(), time_limit=LIMIT)
    signal.signal(signal.SIGTERM, lambda *_: client.cancel([job.id]))
    print(job.id, flush=True)
    print(job.wait().status.name, flush=True)
"""


async def run(script: str) -> list[str]:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", HEAD + script],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
async def blocking(client: Client) -> AsyncIterator[BlockingClient]:
    made = await asyncio.to_thread(BlockingClient, "grid")
    yield made
    await asyncio.to_thread(made.close)


async def test_threads_share_a_client(parties: Parties, blocking: BlockingClient) -> None:
    before = await count(parties)

    def buy(number: int) -> str:
        job = blocking.submit(workflow(), time_limit=LIMIT, key=f"thread {number % 4}")
        assert blocking.jobs([job.id])[0].status is JobStatus.PENDING
        return job.id

    def work() -> list[str]:
        with ThreadPoolExecutor(4) as threads:
            return list(threads.map(buy, range(8)))

    ids = await asyncio.to_thread(work)
    assert len(set(ids)) == 4
    assert await count(parties) == before + 4
    await asyncio.to_thread(blocking.cancel, ids)


async def test_each_thread_may_have_a_client_of_its_own(parties: Parties, client: Client) -> None:
    before = await count(parties)

    def buy(_: int) -> str:
        with BlockingClient("grid") as own:
            return own.submit(workflow(), time_limit=LIMIT).id

    def work() -> list[str]:
        with ThreadPoolExecutor(4) as threads:
            return list(threads.map(buy, range(8)))

    ids = await asyncio.to_thread(work)
    assert len(set(ids)) == 8
    assert await count(parties) == before + 8
    await client.cancel(ids)


async def test_inside_the_thread_of_a_foreign_loop(blocking: BlockingClient, client: Client) -> None:
    """It blocks that loop, as blocking code does, but works."""
    jobs = []

    async def foreign() -> None:
        jobs.append(blocking.submit(workflow(), time_limit=LIMIT))

    thread = threading.Thread(target=lambda: asyncio.run(foreign()))
    thread.start()
    await asyncio.to_thread(thread.join, 60)
    assert (await client.job(jobs[0].id).info()).status is JobStatus.PENDING
    await client.cancel([jobs[0].id])


async def test_a_child_makes_a_client_of_its_own_and_the_parents_works_on(parties: Parties, client: Client) -> None:
    before = await count(parties)
    first, refusal, second, third = await run(FORK)
    assert "made before a fork" in refusal
    assert len({first, second, third}) == 3
    assert await count(parties) == before + 3
    await client.cancel([first, second, third])


async def test_a_signal_handler_may_cancel_what_the_main_thread_waits_for(client: Client) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HEAD + ON_KILL, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    job_id = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip()
    process.terminate()
    assert (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip() == "CANCELLED"
    assert await process.wait() == 0
    assert (await client.job(job_id).info()).status is JobStatus.CANCELLED


def test_a_client_from_before_a_fork_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    made = BlockingClient.__new__(BlockingClient)
    made._pid = -1
    with pytest.raises(ConfigError, match="made before a fork"):
        made._call(asyncio.sleep, 0)
