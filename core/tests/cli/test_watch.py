"""`deepsquare job watch` on a real chain, whose other parties the test plays."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from deepsquare.chain.types import JobStatus
from deepsquare.client.client import Client
from deepsquare.client.logs import LogLine, LogReader

from core.tests.chain.conftest import Parties
from core.tests.client.test_keys import client, finish, workflow

__all__ = ["client"]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no logger; one would have this line of each job."""

    async def read(*_: Any, **__: Any) -> AsyncIterator[LogLine]:
        yield LogLine(1, b"a line\x1b[2J of output")

    monkeypatch.setattr(LogReader, "read", read)


@pytest.mark.usefixtures("lines")
async def test_states_and_output_of_one_until_its_end(
    cli: Callable[..., Any], parties: Parties, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPSQUARE_CONTEXT", "grid")
    job = await client.submit(workflow(), credits=5)
    looked, jobs = threading.Event(), Client.jobs

    async def noting(self: Client, *arguments: Any) -> Any:
        found = await jobs(self, *arguments)
        looked.set()
        return found

    monkeypatch.setattr(Client, "jobs", noting)
    watching = asyncio.create_task(asyncio.to_thread(cli, "job", "watch", job.id))
    assert await asyncio.to_thread(looked.wait, 60)
    await finish(parties, job.id, JobStatus.FINISHED)
    said = await watching
    assert said.code == 0
    told = said.out.splitlines()
    assert told[0].startswith("[PENDING]")
    assert "a line of output" in told
    assert told[-1].startswith("[FINISHED] billed ")


async def test_of_many_the_states_alone(
    cli: Callable[..., Any], parties: Parties, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPSQUARE_CONTEXT", "grid")
    jobs = [await client.submit(workflow(), credits=5, labels={"n": str(n)}) for n in range(2)]
    for job, status in zip(jobs, (JobStatus.FINISHED, JobStatus.FAILED), strict=True):
        await finish(parties, job.id, status)
    ids = [job.id for job in jobs]
    # A job that is named twice is one.
    said = await asyncio.to_thread(cli, "job", "watch", *ids, ids[0])
    assert said.code == 3
    assert [line.split()[1] for line in said.out.splitlines()] == ["[FINISHED]", "[FAILED]"]
    told = json.loads((await asyncio.to_thread(cli, "job", "watch", *ids, "--json")).out)
    assert [(job["id"], job["labels"]) for job in told] == [(ids[0], {"n": "0"}), (ids[1], {"n": "1"})]


async def test_what_is_no_job_is_said(cli: Callable[..., Any], client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSQUARE_CONTEXT", "grid")
    assert (await asyncio.to_thread(cli, "job", "watch", "soon")).code == 2
    said = await asyncio.to_thread(cli, "job", "watch", "0xfffff", "0xffffe")
    assert said.code == 1
    assert "0xfffff" in said.err
