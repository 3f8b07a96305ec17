"""One key, one job, whatever is killed in between and from whichever machine. The chain is real, the sbatch API's answer is not."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from deepsquare import contexts
from deepsquare.chain.market import Assignment
from deepsquare.chain.rpc import request
from deepsquare.chain.types import UNLIMITED, JobReport, JobStatus, parse_job_id, to_hex
from deepsquare.client import client as client_module
from deepsquare.client import names
from deepsquare.client.client import Client
from deepsquare.client.journal import Journal
from deepsquare.errors import ConfigError, KeyUsedError, PurchaseUnknownError, UnknownJobError
from deepsquare.workflow import ResultError, WorkflowError, from_dict

from core.tests.chain.conftest import Parties
from core.tests.chain.test_market import DEFINITION, MINUTE

LIMIT = timedelta(minutes=5)


def workflow(command: str = "true") -> Any:
    return from_dict(
        {
            "resources": {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 1000, "gpus": 0},
            "steps": [{"run": {"command": command}}],
        }
    )


def set_up(home: Path, parties: Parties) -> None:
    """A machine of the customer's: its wallet, and nothing else."""
    os.environ["DEEPSQUARE_HOME"] = str(home)
    os.environ["DEEPSQUARE_PRIVATE_KEY"] = "0x" + "04" * 32
    contexts.save(parties.context("grid"))


async def stand_in(*_: Any, **__: Any) -> str:
    """For the sbatch API: a location of its own for each submission."""
    return os.urandom(6).hex()


@pytest.fixture
async def client(parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    monkeypatch.setenv("DEEPSQUARE_HOME", "")
    monkeypatch.setenv("DEEPSQUARE_PRIVATE_KEY", "")
    monkeypatch.setattr(client_module, "submit_workflow", stand_in)
    set_up(tmp_path / "first", parties)
    async with Client("grid") as client:
        yield client


async def count(parties: Parties) -> int:
    return len(await parties.customer.jobs_of(parties.customer.account))


async def finish(parties: Parties, job_id: str, status: JobStatus) -> None:
    job = parse_job_id(job_id)
    assert not await parties.scheduler.meta_schedule([Assignment(job, parties.provider.account, UNLIMITED)])
    await parties.provider.claim_jobs(1)
    assert not await parties.provider.report([JobReport(job, JobStatus.RUNNING)])
    assert not await parties.provider.report([JobReport(job, status, 60)])


async def test_a_key_gives_its_job_until_that_failed_or_was_delivered(parties: Parties, client: Client) -> None:
    assert await client.find("run") is None
    first = await client.submit(workflow(), time_limit=LIMIT, key="run")
    before = await count(parties)
    assert (await client.submit(workflow(), time_limit=LIMIT, key="run")).id == first.id
    await finish(parties, first.id, JobStatus.FAILED)

    second = await client.submit(workflow(), time_limit=LIMIT, key="run")
    assert second.id != first.id
    await finish(parties, second.id, JobStatus.FINISHED)
    again = await client.submit(workflow(), time_limit=LIMIT, key="run")
    assert again.id == second.id
    again.deliver()

    third = await client.submit(workflow(), time_limit=LIMIT, key="run")
    assert third.id not in (first.id, second.id)
    assert await count(parties) == before + 2
    found = await client.find("run")
    assert found is not None
    assert found.id == third.id
    other = await client.submit(workflow(), time_limit=LIMIT, key="another")
    assert other.id != third.id


async def test_another_workflow_under_a_key_in_use_is_refused(parties: Parties, client: Client) -> None:
    first = await client.submit(workflow("one"), time_limit=LIMIT, key="shared")
    before = await count(parties)
    with pytest.raises(KeyUsedError, match="bought for another workflow"):
        await client.submit(workflow("two"), time_limit=LIMIT, key="shared")
    assert await count(parties) == before
    await first.cancel()
    assert (await client.submit(workflow("two"), time_limit=LIMIT, key="shared")).id != first.id


async def test_another_machine_finds_the_job(parties: Parties, client: Client, tmp_path: Path) -> None:
    first = await client.submit(workflow(), time_limit=LIMIT, key="travels")
    before = await count(parties)
    set_up(tmp_path / "second", parties)
    async with Client("grid") as elsewhere:
        assert (await elsewhere.submit(workflow(), time_limit=LIMIT, key="travels")).id == first.id
        await finish(parties, first.id, JobStatus.FINISHED)
        job = await elsewhere.submit(workflow(), time_limit=LIMIT, key="travels")
        assert job.id == first.id
        job.deliver()
        second = await elsewhere.submit(workflow(), time_limit=LIMIT, key="travels")
    found = await client.find("travels")
    assert found is not None
    assert found.id == second.id != first.id
    assert await count(parties) == before + 1


async def test_results_are_known_by_the_same_tag_on_each_machine(
    parties: Parties, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await client.submit(workflow(), time_limit=LIMIT, key="tag", result=True)
    location = (await job.info()).location_hash
    tag = client.purchases.result_tag("tag", 0)
    assert client._journal.tag_of(location) == tag
    assert tag not in client.purchases.chain_key("tag", 0).hex()
    set_up(tmp_path / "second", parties)
    async with Client("grid") as other:
        with pytest.raises(KeyUsedError):
            # As it does not ask for the same.
            await client.submit(workflow(), time_limit=LIMIT, key="tag")
        assert (await other.submit(workflow(), time_limit=LIMIT, key="tag", result=True)).id == job.id
        assert other._journal.tag_of(location) == tag
    await job.cancel()


async def test_what_can_send_no_result_is_not_bought(parties: Parties, client: Client) -> None:
    before = await count(parties)
    silent = from_dict(workflow().to_dict() | {"enableLogging": False})
    with pytest.raises(WorkflowError, match="the result travels with the log"):
        await client.submit(silent, time_limit=LIMIT, result=True)
    job = await client.submit(workflow(), time_limit=LIMIT)
    assert await count(parties) == before + 1
    await job.cancel()
    with pytest.raises(ResultError, match="not submitted with result=True"):
        await job.result()


async def test_a_node_that_is_behind_makes_no_key_buy_again(
    parties: Parties, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await client.submit(workflow(), time_limit=LIMIT, key="behind")
    before, get_job, behind = await count(parties), client.market.get_job, 2

    async def lagging(job_id: bytes) -> Any:
        nonlocal behind
        behind -= 1
        return None if behind >= 0 else await get_job(job_id)

    monkeypatch.setattr(client.market, "get_job", lagging)
    try:
        again = await client.submit(workflow(), time_limit=LIMIT, key="behind")
    except PurchaseUnknownError:
        # On chain is a job, of which the node knows nothing yet.
        assert parties.customer.extended
        behind = 0
        again = await client.submit(workflow(), time_limit=LIMIT, key="behind")
    assert (again.id, again.adopted) == (job.id, True)
    assert await count(parties) == before
    await job.cancel()


async def test_names_on_chain_are_read_once(parties: Parties, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the contract knows no keys, a customer of long standing has many jobs to look among."""
    first = await client.submit(workflow(), time_limit=LIMIT, key="old")
    for number in range(3):
        await client.submit(workflow(), time_limit=LIMIT, key=f"newer {number}")
    asked: list[int] = [0]
    names_of = client.market.names_of

    async def counting(job_ids: Sequence[bytes]) -> Any:
        asked.append(len(job_ids))
        return await names_of(job_ids)

    await client.find("old")
    await request(parties.admin.w3, "anvil_mine", hex(names._UNSETTLED_BLOCKS))
    monkeypatch.setattr(client.market, "names_of", counting)
    found = await client.find("old")
    assert found is not None
    assert found.id == first.id
    assert max(asked) <= 1
    await client.submit(workflow(), time_limit=LIMIT, key="newest")
    await client.find("newest")
    assert max(asked) <= 1


async def test_a_name_that_was_noted_is_held_against_the_chain(parties: Parties, client: Client) -> None:
    one = await client.submit(workflow(), time_limit=LIMIT, key="held one")
    two = await client.submit(workflow(), time_limit=LIMIT, key="held two")
    assert await client.find("held one")
    # As if the chain had given the ids the other way round meanwhile.
    tags = {job.id: client.purchases.tag(key, 0) for job, key in ((one, "held two"), (two, "held one"))}
    for job_id, tag in tags.items():
        client._journal._db.execute("UPDATE job_names SET name = ?, seen_at = 0 WHERE job_id = ?", (tag, job_id))
    client._journal._db.execute("DELETE FROM submissions")
    found = await client.find("held one")
    assert found is not None
    assert found.id == one.id


async def test_jobs_are_found_by_their_name_and_labels(client: Client) -> None:
    jobs = {}
    for name, sample, run in [("align", "A", "1"), ("align", "B", "1"), (None, "A", "2")]:
        labels = {"sample": sample, "run": run, "it's": 'a "quote"'}
        job = await client.submit(workflow(), time_limit=LIMIT, name=name, labels=labels)
        jobs[job.id] = name, sample, run

    async def found(**wanted: Any) -> list[Any]:
        return [jobs[info.id] for info in await client.find_by(**wanted)]

    assert await found(name="align") == [("align", "A", "1"), ("align", "B", "1")]
    assert await found(labels={"sample": "A"}) == [("align", "A", "1"), (None, "A", "2")]
    assert await found(name="align", labels={"run": "1", "sample": "B"}) == [("align", "B", "1")]
    assert len(await found(labels={"it's": 'a "quote"'})) == 3
    assert await found(labels={"sample": "C"}) == await found(name="ali") == []
    with pytest.raises(ValueError, match="give a name or labels"):
        await client.find_by()
    # One that the chain has lost for good spoils none of the others.
    client._journal._db.execute(
        "UPDATE submissions SET job_id = ?, raw_transaction = NULL WHERE job_id = ?", ("0x" + "f" * 64, job.id)
    )
    assert await found(labels={"sample": "A"}) == [("align", "A", "1")]


async def test_many_at_once_buy_one(parties: Parties, client: Client) -> None:
    before = await count(parties)
    jobs = await asyncio.gather(*(client.submit(workflow(), time_limit=LIMIT, key="crowd") for _ in range(8)))
    assert len({job.id for job in jobs}) == 1
    assert await count(parties) == before + 1


async def test_what_stands_on_chain_names_nothing(parties: Parties, client: Client) -> None:
    job = await client.submit(workflow(), time_limit=LIMIT, key="secret-project/run-7")
    record = await parties.customer.get_job(parse_job_id(job.id))
    assert record is not None
    assert b"secret" not in record.job_name
    keys = {client.purchases.chain_key("secret-project/run-7", number) for number in range(3)}
    assert len(keys) == 3


VICTIM = """
import asyncio, os, signal, sys
from datetime import timedelta
from deepsquare.chain import transactions
from deepsquare.chain.market import Market
from deepsquare.client import client as client_module, journal
from core.tests.client.test_keys import stand_in, workflow

step = sys.argv[1]

def dies(owner, name, after=False):
    function = getattr(owner, name)
    def sync(*arguments, **options):
        if after:
            function(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)
    async def asynchronous(*arguments, **options):
        if after:
            await function(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, asynchronous if asyncio.iscoroutinefunction(function) else sync)

client_module.submit_workflow = stand_in
{
    "script stored": lambda: dies(journal.Journal, "intend"),
    "intent noted": lambda: dies(journal.Journal, "intend", after=True),
    "signed": lambda: dies(journal.Journal, "signed"),
    "signed and noted": lambda: dies(journal.Journal, "signed", after=True),
    "sent": lambda: dies(transactions.Sender, "_hand_in", after=True),
    "carried out": lambda: dies(journal.Journal, "bought"),
    "bought and noted": lambda: dies(journal.Journal, "bought", after=True),
}[step]()

async def main():
    async with client_module.Client("grid") as client:
        await client.submit(workflow(), time_limit=timedelta(minutes=5), key=step)

asyncio.run(main())
"""

STEPS = ["script stored", "intent noted", "signed", "signed and noted", "sent", "carried out", "bought and noted"]


@pytest.mark.parametrize("step", STEPS)
async def test_killed_at_any_step_there_is_one_job(parties: Parties, client: Client, step: str) -> None:
    before = await count(parties)
    root = Path(__file__).resolve().parents[3]
    victim = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", VICTIM, step], cwd=root, check=False, capture_output=True, text=True
    )
    assert victim.returncode == -signal.SIGKILL, victim.stderr
    job = await client.submit(workflow(), time_limit=LIMIT, key=step)
    assert await count(parties) == before + 1
    assert (await client.submit(workflow(), time_limit=LIMIT, key=step)).id == job.id
    assert await count(parties) == before + 1


def test_a_journal_of_before_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with sqlite3.connect(path) as old:
        old.execute(
            "CREATE TABLE submissions (location_hash TEXT PRIMARY KEY, context TEXT NOT NULL, customer TEXT NOT NULL, "
            "labels TEXT NOT NULL, locked TEXT NOT NULL, created_at REAL NOT NULL, transaction_hash TEXT, "
            "raw_transaction BLOB, job_id TEXT) STRICT"
        )
        old.execute("INSERT INTO submissions VALUES ('l', 'c', '0x1', '{\"a\": \"b\"}', '1', 1.0, NULL, NULL, '0x2')")
    for _ in range(2):
        journal = Journal(path)
        assert journal.labels("c", "0x1") == {"l": {"a": "b"}}
        assert not journal.is_delivered("c", "0x1", "0x2")
        journal.close()


def test_a_journal_of_later_is_left_alone(tmp_path: Path) -> None:
    Journal(tmp_path / "journal.db").close()
    with sqlite3.connect(tmp_path / "journal.db") as db:
        db.execute("PRAGMA user_version = 1000")
    with pytest.raises(ConfigError, match=r"a newer version of deepsquare.* upgrade this one"):
        Journal(tmp_path / "journal.db")


async def test_what_was_signed_before_an_upgrade_is_settled_after_it(
    parties: Parties, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await count(parties)
    monkeypatch.setattr(client._journal, "bought", lambda *_: None)
    job = await client.submit(workflow(), time_limit=LIMIT, key="upgraded")
    with sqlite3.connect(tmp_path / "first" / "journal.db") as db:
        for table in ("raises", "transactions", "job_names"):
            db.execute(f"DROP TABLE {table}")
        db.execute("ALTER TABLE submissions DROP COLUMN name")
        db.execute("PRAGMA user_version = 5")
    async with Client("grid") as upgraded:
        again = await upgraded.submit(workflow(), time_limit=LIMIT, key="upgraded")
        assert (again.id, again.adopted) == (job.id, True)
    assert await count(parties) == before + 1


async def test_a_purchase_that_the_chain_took_back_is_made_again(parties: Parties, client: Client) -> None:
    w3 = parties.customer.w3
    await parties.admin.transact("Credit", "transfer", parties.provider.account, 10**19)
    await parties.provider.approve(10**19)
    snapshot = await request(w3, "evm_snapshot")
    job = await client.submit(workflow(), credits=100, key="taken back")
    bought = job.id
    changes = client.watch([job.id])
    assert (await anext(changes)).status is JobStatus.PENDING
    await request(w3, "evm_revert", snapshot)
    # Its id is another's by now.
    taken = await parties.provider.request_job(DEFINITION, MINUTE, b"\1" * 32)
    assert to_hex(taken) == bought
    info = await job.info()
    assert info.id == job.id != bought
    again = await client.submit(workflow(), credits=100, key="taken back")
    assert (again.id, again.adopted) == (job.id, True)
    await client.cancel([job.id])
    assert (await asyncio.wait_for(anext(changes), 30)).status is JobStatus.CANCELLED


async def test_a_purchase_whose_nonce_was_taken_is_gone_and_its_key_buys_anew(parties: Parties, client: Client) -> None:
    snapshot = await request(parties.customer.w3, "evm_snapshot")
    job = await client.submit(workflow(), credits=100, key="taken")
    await request(parties.customer.w3, "evm_revert", snapshot)
    # By another machine with the same wallet.
    await parties.customer.approve(10**22)
    with pytest.raises(UnknownJobError):
        await job.info()
    again = await client.submit(workflow(), credits=100, key="taken")
    assert not again.adopted
    await again.cancel()


async def test_a_journal_of_another_market_is_not_this_ones(
    parties: Parties, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grid made anew gives the same ids again."""
    job = await client.submit(workflow(), credits=100, labels={"name": "mine"})
    assert client.labels()[(await job.info()).location_hash] == {"name": "mine"}
    monkeypatch.setattr(client, "_grid", lambda: "eip155:1:0xanother")
    assert client.labels() == {}
    await job.cancel()
