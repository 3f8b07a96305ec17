"""A purchase whose answer is lost is found again, or said to be unknown: never bought twice without a word."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from deepsquare import contexts
from deepsquare.chain.contracts import Head
from deepsquare.chain.errors import InsufficientFunds
from deepsquare.chain.rpc import RpcError
from deepsquare.chain.transactions import Sent, UnminedError
from deepsquare.chain.types import Hardware, JobDefinition, JobRecord, JobStatus, Prices, Provider
from deepsquare.chain.wallet import Wallet
from deepsquare.client import client as module
from deepsquare.client import purchases
from deepsquare.client.blocking import BlockingClient
from deepsquare.client.client import Client
from deepsquare.client.job import JobInfo
from deepsquare.client.logs import LogLine
from deepsquare.errors import (
    ConfigError,
    ConnectionFailedError,
    PurchaseUnknownError,
    TransactionError,
    UnknownJobError,
)
from deepsquare.workflow import from_dict

WORKFLOW = from_dict(
    {
        "resources": {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 1, "gpus": 0},
        "steps": [{"run": {"command": "true"}}],
    }
)
JOB = (7).to_bytes(32, "big")
AWAY = ConnectionFailedError("the chain can't be reached")


class FakeMarket:
    """A market that signs, and then does what the test says."""

    extended = True
    account = "0x1"

    def __init__(
        self, outcome: BaseException | None, settled: bytes | BaseException = AWAY, *, is_on_chain: bool = False
    ):
        self.outcome, self.settled, self.is_on_chain = outcome, settled, is_on_chain
        self.signs = True
        self.signed = asyncio.Event()
        self.block: asyncio.Event | None = None

    async def providers(self) -> list[Provider]:
        return [Provider("0x1", Hardware((0,), (8,), (8000,)), Prices(1, 1, 1), (), False)]

    async def balance_of(self, _: str) -> int:
        return 10**18

    async def allowance_of(self, _: str) -> int:
        return 10**18

    async def request_job(
        self, definition: Any, locked: int, name: bytes, *, before_send: Callable[[Sent], None], **_: Any
    ) -> bytes:
        self.location = definition.batch_location_hash
        if self.signs:
            before_send(Sent(b"\1" * 32, b"raw"))
        if self.block is not None:
            self.signed.set()
            await self.block.wait()
        if self.outcome is not None:
            raise self.outcome
        return JOB

    async def pages_of(self, _: str) -> AsyncIterator[list[Any]]:
        if self.is_on_chain:
            yield [SimpleNamespace(job_id=JOB, definition=SimpleNamespace(batch_location_hash=self.location))]

    async def settle_request(self, sent: Sent) -> list[bytes]:
        assert sent.raw == b"raw"
        if isinstance(self.settled, BaseException):
            raise self.settled
        return [self.settled]

    async def close(self) -> None: ...


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("DEEPSQUARE_HOME", str(tmp_path))
    monkeypatch.setenv("DEEPSQUARE_WALLET_PASSWORD", "secret")
    monkeypatch.delenv("DEEPSQUARE_PRIVATE_KEY", raising=False)
    monkeypatch.setattr(purchases, "SETTLE_SECONDS", 0.2)

    async def submit_workflow(*_: Any, **__: Any) -> str:
        return "location"

    monkeypatch.setattr(module, "submit_workflow", submit_workflow)
    wallet = Wallet.create(tmp_path / "wallets" / "w.json", "secret", scrypt_n=2)
    context = contexts.Context(
        name="c",
        chain_id=1,
        rpc_url="http://127.0.0.1:1",
        metascheduler="0x" + "1" * 40,
        sbatch_url="http://127.0.0.1:1/graphql",
        sbatch_grpc="127.0.0.1:1",
        logger_grpc="127.0.0.1:1",
        account=wallet.address,
        wallet="w",
    )
    contexts.save(context)
    return Client("c")


async def buy(client: Client, market: FakeMarket) -> str:
    client._market = market  # type: ignore[assignment]
    return (await client.submit(WORKFLOW, time_limit=timedelta(minutes=1))).id


@pytest.mark.parametrize(
    "lost",
    [AWAY, RpcError(-1, "busy", None), UnminedError("in no block"), TransactionError("refused"), ValueError("html")],
)
async def test_a_job_that_is_on_chain_is_the_one_that_was_bought(client: Client, lost: Exception) -> None:
    assert int(await buy(client, FakeMarket(lost, is_on_chain=True)), 16) == 7


async def test_the_chain_is_asked_again_until_it_answers(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purchases, "SETTLE_SECONDS", 10)
    market = FakeMarket(AWAY, settled=AWAY)
    asyncio.get_running_loop().call_later(0.1, setattr, market, "is_on_chain", True)
    assert int(await buy(client, market), 16) == 7


async def test_a_journal_that_fails_does_not_lose_the_job(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full_disk(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(client._journal, "bought", full_disk)
    assert int(await buy(client, FakeMarket(None)), 16) == 7
    assert "disk is full" in caplog.text


async def test_a_purchase_in_flight_outlives_the_call_and_close_waits_for_it(client: Client) -> None:
    market = FakeMarket(None)
    market.block = asyncio.Event()
    call = asyncio.create_task(buy(client, market))
    await market.signed.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    noted: list[str] = []
    client._journal.bought = lambda jobs: noted.extend(jobs.values())  # type: ignore[method-assign]
    closing = asyncio.create_task(client.close())
    await asyncio.sleep(0)
    assert not closing.done()
    market.block.set()
    await closing
    assert [int(job_id, 16) for job_id in noted] == [7]


async def test_the_same_transaction_is_sent_once_more(client: Client) -> None:
    assert int(await buy(client, FakeMarket(AWAY, settled=JOB)), 16) == 7


def test_an_interrupt_of_the_blocking_client_does_not_cut_a_purchase_off(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    market = FakeMarket(None)
    market.block = block = asyncio.Event()
    client._market = market  # type: ignore[assignment]
    noted: list[str] = []
    client._journal.bought = lambda jobs: noted.extend(jobs.values())  # type: ignore[method-assign]

    async def opened(*_: object) -> Client:
        return client

    monkeypatch.setattr(BlockingClient, "_open", staticmethod(opened))

    def interrupt() -> None:
        while not market.signed.is_set():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    blocking = BlockingClient()
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        blocking.submit(WORKFLOW, time_limit=timedelta(minutes=1))
    thread.join()
    assert noted == []

    async def mine() -> None:
        block.set()

    blocking._call(mine)
    blocking.close()
    assert [int(job_id, 16) for job_id in noted] == [7]


@pytest.mark.parametrize(
    "settled", [AWAY, RpcError(-1, "busy", None), UnminedError("in no block"), TransactionError("nonce too low")]
)
async def test_what_cannot_be_known_is_said(client: Client, settled: BaseException) -> None:
    with pytest.raises(PurchaseUnknownError, match=r"may have been bought.*deepsquare job list") as caught:
        await buy(client, FakeMarket(AWAY, settled=settled))
    assert caught.value.location_hash == "location"


async def test_a_transaction_that_the_node_never_took_bought_nothing(client: Client) -> None:
    with pytest.raises(TransactionError, match="no coins") as caught:
        await buy(client, FakeMarket(TransactionError("no coins"), settled=TransactionError("nonce too low")))
    assert not isinstance(caught.value, PurchaseUnknownError)


async def test_a_refusal_of_the_contract_bought_nothing(client: Client) -> None:
    with pytest.raises(InsufficientFunds):
        await buy(client, FakeMarket(InsufficientFunds(1, 2), settled=JOB))


async def test_a_refusal_that_is_learnt_later_bought_nothing(client: Client) -> None:
    with pytest.raises(InsufficientFunds):
        await buy(client, FakeMarket(AWAY, settled=InsufficientFunds(1, 2)))


async def test_before_anything_is_signed_an_error_is_what_it_is(client: Client) -> None:
    market = FakeMarket(AWAY, settled=JOB)
    market.signs = False
    with pytest.raises(ConnectionFailedError):
        await buy(client, market)


async def test_a_wallet_of_another_account_is_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts.save(client.context.model_copy(update={"account": "0x" + "2" * 40}))
    with pytest.raises(ConfigError, match="correct the context"):
        Client("c")
    monkeypatch.setenv("DEEPSQUARE_PRIVATE_KEY", "0x" + "01" * 32)
    assert Client("c").account != client.account


RECORD = JobRecord(
    job_id=JOB,
    status=JobStatus.RUNNING,
    customer="0x1",
    provider="0x2",
    definition=JobDefinition(1, 1, 1, 0, "location"),
    max_cost=1,
    final_cost=0,
    pending_top_up=0,
    delegate_spending_authority=False,
    submit_time=1,
    start_time=1,
    end_time=0,
    block_number_state_change=1,
    job_name=b"a\x1b[2Jb".ljust(32, b"\0"),
    has_cancel_request=False,
    last_error="\x1b]0;title\x07gone\n" + "x" * 1000,
    exit_code=0,
)


class WatchedMarket(FakeMarket):
    blocks = 0

    async def block_number(self) -> int:
        self.blocks += 1
        await asyncio.sleep(0.01)
        if self.outcome is not None:
            raise self.outcome
        return 1

    async def head(self) -> Head:
        return Head(1, "0x1", 0)

    async def get_logs(self, *_: Any) -> list[Any]:
        return []

    async def get_jobs(self, ids: list[bytes]) -> list[Any]:
        return [RECORD if job == JOB else None for job in ids]


async def test_many_watches_at_once_share_one_watcher(client: Client) -> None:
    client._market = WatchedMarket(None)  # type: ignore[assignment]
    await asyncio.gather(*(client._watching.start() for _ in range(5)))
    watchers = [task for task in asyncio.all_tasks() if "_dispatch" in repr(task.get_coro())]
    assert len(watchers) == 1
    await client.close()
    assert all(task.done() for task in watchers)


async def test_close_lets_nobody_wait_for_a_watcher(client: Client) -> None:
    client._market = WatchedMarket(None)  # type: ignore[assignment]
    watcher = client._watching
    waiting = asyncio.create_task(watcher.start())
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(ConfigError, match="the client is closed"):
        await asyncio.wait_for(waiting, 5)
    with pytest.raises(ConfigError, match="the client is closed"):
        await watcher.start()


@pytest.mark.parametrize("follow", [True, False])
async def test_the_output_of_a_job_that_is_none_is_an_error_at_once(client: Client, follow: bool) -> None:
    client._market = WatchedMarket(None)  # type: ignore[assignment]

    async def read() -> list[Any]:
        return [line async for line in client.logs("99999", follow=follow)]

    with pytest.raises(UnknownJobError):
        await asyncio.wait_for(read(), 5)
    await client.close()


class FakeLogs:
    """A log that has one line, and no more until the job is at its end."""

    async def read(
        self, job_id: str, *, follow: bool, ended: asyncio.Event | None, trouble: Any
    ) -> AsyncIterator[LogLine]:
        assert int(job_id, 16) == 7
        assert len(job_id) == 66
        yield LogLine(0, b"first")
        if follow:
            assert ended is not None
            await ended.wait()

    async def close(self) -> None: ...


async def test_following_the_output_ends_with_the_error_that_ends_the_watch(client: Client) -> None:
    client._market = WatchedMarket(RpcError(-1, "pruned", None))  # type: ignore[assignment]
    client._output._logs = FakeLogs()  # type: ignore[assignment]
    lines = client.logs("7")
    assert (await anext(lines)).data == b"first"
    with pytest.raises(RpcError, match="pruned"):
        await asyncio.wait_for(anext(lines), 5)
    await client.close()


def test_what_others_write_in_a_job_is_safe_for_a_terminal_and_short() -> None:
    info = JobInfo.of(RECORD)
    assert info.name == "ab"
    assert info.error.startswith("gone\\x0axxx")
    assert len(info.error) == 501
