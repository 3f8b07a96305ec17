"""A purchase whose answer is lost is found again, or said to be unknown: never bought twice without a word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from deepsquare import contexts
from deepsquare.chain.errors import InsufficientFunds
from deepsquare.chain.transactions import Sent, UnminedError
from deepsquare.chain.types import Hardware, Prices, Provider
from deepsquare.chain.wallet import Wallet
from deepsquare.client import client as module
from deepsquare.client.client import Client
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

    def __init__(
        self, outcome: BaseException | None, settled: bytes | BaseException = AWAY, *, is_on_chain: bool = False
    ):
        self.outcome, self.settled, self.is_on_chain = outcome, settled, is_on_chain
        self.signs = True

    async def providers(self) -> list[Provider]:
        return [Provider("0x1", Hardware((0,), (8,), (8000,)), Prices(1, 1, 1), (), False)]

    async def balance_of(self, _: str) -> int:
        return 10**18

    async def allowance_of(self, _: str) -> int:
        return 10**18

    async def request_job(
        self, definition: Any, locked: int, name: bytes, *, before_send: Callable[[Sent], None]
    ) -> bytes:
        self.location = definition.batch_location_hash
        if self.signs:
            before_send(Sent(b"\1" * 32, b"raw"))
        if self.outcome is not None:
            raise self.outcome
        return JOB

    async def job_ids_of(self, _: str) -> list[bytes]:
        return [JOB] if self.is_on_chain else []

    async def get_jobs(self, ids: list[bytes]) -> list[Any]:
        return [
            SimpleNamespace(job_id=job, definition=SimpleNamespace(batch_location_hash=self.location)) for job in ids
        ]

    async def settle_request(self, sent: Sent) -> bytes:
        assert sent.raw == b"raw"
        if isinstance(self.settled, BaseException):
            raise self.settled
        return self.settled

    async def close(self) -> None: ...


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("DEEPSQUARE_HOME", str(tmp_path))
    monkeypatch.setenv("DEEPSQUARE_WALLET_PASSWORD", "secret")
    monkeypatch.setattr(module, "_SETTLE_SECONDS", 0.2)

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


async def test_a_job_that_is_on_chain_is_the_one_that_was_bought(client: Client) -> None:
    assert int(await buy(client, FakeMarket(AWAY, is_on_chain=True)), 16) == 7


async def test_the_same_transaction_is_sent_once_more(client: Client) -> None:
    assert int(await buy(client, FakeMarket(AWAY, settled=JOB)), 16) == 7


@pytest.mark.parametrize("settled", [AWAY, UnminedError("in no block")])
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


async def test_before_anything_is_signed_an_error_is_what_it_is(client: Client) -> None:
    market = FakeMarket(AWAY, settled=JOB)
    market.signs = False
    with pytest.raises(ConnectionFailedError):
        await buy(client, market)


async def test_a_wallet_of_another_account_is_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts.save(client.context.model_copy(update={"account": "0x" + "2" * 40}))
    with pytest.raises(ConfigError, match="correct the context"):
        Client("c")


class WatchedMarket(FakeMarket):
    blocks = 0

    async def block_number(self) -> int:
        self.blocks += 1
        await asyncio.sleep(0.01)
        return 1

    async def get_logs(self, *_: Any) -> list[Any]:
        return []

    async def get_jobs(self, ids: list[bytes]) -> list[Any]:
        return [None for _ in ids]


async def test_many_watches_at_once_share_one_watcher(client: Client) -> None:
    client._market = WatchedMarket(None)  # type: ignore[assignment]
    await asyncio.gather(*(client._ensure_watcher() for _ in range(5)))
    watchers = [task for task in asyncio.all_tasks() if "_dispatch" in repr(task.get_coro())]
    assert len(watchers) == 1
    await client.close()
    assert all(task.done() for task in watchers)


@pytest.mark.parametrize("follow", [True, False])
async def test_the_output_of_a_job_that_is_none_is_an_error_at_once(client: Client, follow: bool) -> None:
    client._market = WatchedMarket(None)  # type: ignore[assignment]

    async def read() -> list[Any]:
        return [line async for line in client.logs("99999", follow=follow)]

    with pytest.raises(UnknownJobError):
        await asyncio.wait_for(read(), 5)
    await client.close()
