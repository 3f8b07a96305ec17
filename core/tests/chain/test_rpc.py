"""Nodes that fail in the ways of nodes: answers late, too much asked, restarts, lagging, of another chain, blocks taken back."""

from __future__ import annotations

import asyncio
import json
import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientSession, web
from deepsquare.chain import rpc
from deepsquare.chain.market import Market
from deepsquare.chain.rpc import RpcError, connect, request, split_urls
from deepsquare.chain.types import JobStatus
from deepsquare.chain.watch import JobWatch
from deepsquare.errors import ConfigError, ConnectionFailedError
from eth_utils import keccak

from core.tests.chain.conftest import Parties
from core.tests.chain.test_market import DEFINITION, MINUTE, NAME

Fault = Callable[[str], Any]


class FaultyProxy:
    """In front of a real node: what `fault` answers to a method is the answer, and None means the node's own."""

    def __init__(self) -> None:
        self.url = ""
        self.fault: Fault = lambda method: None
        self.asked: list[str] = []


@asynccontextmanager
async def faulty(url: str) -> AsyncIterator[FaultyProxy]:
    proxy = FaultyProxy()
    async with ClientSession() as session:

        async def answer(asked: web.Request) -> web.StreamResponse:
            body = await asked.read()
            call = json.loads(body)
            proxy.asked.append(call["method"])
            fault = proxy.fault(call["method"])
            if isinstance(fault, int):
                return web.Response(status=fault)
            if isinstance(fault, float):
                await asyncio.sleep(fault)
            elif isinstance(fault, dict):
                return web.json_response({"jsonrpc": "2.0", "id": call["id"], **fault})
            elif fault == "broken off":
                assert asked.transport is not None
                asked.transport.close()
                return web.Response()
            async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
                if fault == "answer lost":
                    await response.read()
                    assert asked.transport is not None
                    asked.transport.close()
                return web.Response(body=await response.read(), content_type="application/json")

        app = web.Application()
        app.router.add_post("/", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield proxy
        finally:
            await runner.cleanup()


@pytest.fixture
async def proxy(parties: Parties) -> AsyncIterator[FaultyProxy]:
    async with faulty(parties.url) as made:
        yield made


@pytest.fixture
async def second(parties: Parties) -> AsyncIterator[FaultyProxy]:
    async with faulty(parties.url) as made:
        yield made


def times(count: int, fault: Any) -> Fault:
    """A fault for the first requests."""
    left = [fault] * count
    return lambda method: left.pop() if left else None


BUSY = {"error": {"code": -32005, "message": "limit exceeded"}}
FAULTS = [429, 500, 503, "broken off", BUSY]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_what_passes_is_tried_again(proxy: FaultyProxy, fault: Any) -> None:
    w3 = connect(proxy.url)
    proxy.fault = times(3, fault)
    assert int(await request(w3, "eth_chainId"), 16) == 179188
    assert len(proxy.asked) == 4
    await w3.provider.disconnect()


async def test_an_answer_that_does_not_come_is_asked_for_again(
    proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "REQUEST_TIMEOUT_SECONDS", 0.2)
    w3 = connect(proxy.url)
    proxy.fault = times(2, 1.0)
    assert int(await request(w3, "eth_chainId"), 16) == 179188
    await w3.provider.disconnect()


async def test_requests_that_are_cancelled_hold_up_no_others(parties: Parties) -> None:
    w3 = parties.customer.w3
    for turns in range(30):
        requests = [asyncio.create_task(request(w3, "eth_blockNumber")) for _ in range(20)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for one in requests:
            one.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        assert await asyncio.wait_for(request(w3, "eth_blockNumber"), 20)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_what_lasts_is_said(proxy: FaultyProxy, fault: Any) -> None:
    w3 = connect(proxy.url, retry_seconds=0.3)
    proxy.fault = lambda method: fault
    with pytest.raises(ConnectionFailedError, match=r"can't be reached \((HTTP status \d+|it is asked too much|\w+)\)"):
        await request(w3, "eth_chainId")
    await w3.provider.disconnect()


@pytest.mark.parametrize("fault", [*FAULTS, "answer lost"], ids=str)
async def test_a_purchase_through_a_failing_node_is_one(parties: Parties, proxy: FaultyProxy, fault: Any) -> None:
    sender = parties.customer._signer()
    before = len(await parties.customer.jobs_of(parties.customer.account))
    w3, sender._w3 = sender._w3, connect(proxy.url)
    failing = times(2, fault)
    proxy.fault = lambda method: failing(method) if method == "eth_sendRawTransaction" else None
    try:
        job_id = await parties.customer.request_job(DEFINITION, MINUTE, NAME)
    finally:
        await sender._w3.provider.disconnect()
        sender._w3 = w3
    assert len(await parties.customer.jobs_of(parties.customer.account)) == before + 1
    await parties.customer.cancel_job(job_id)


async def test_the_next_node_is_asked_and_kept(proxy: FaultyProxy, second: FaultyProxy) -> None:
    w3 = connect(f"{proxy.url}, {second.url}")
    await request(w3, "eth_chainId")
    assert not second.asked
    proxy.fault = lambda method: 503
    for _ in range(3):
        await request(w3, "eth_blockNumber")
    # Once to see whether it is of the same chain.
    assert second.asked == ["eth_chainId"] + 3 * ["eth_blockNumber"]
    proxy.fault = lambda method: None
    second.fault = lambda method: 503
    await request(w3, "eth_blockNumber")
    assert proxy.asked[-1] == "eth_blockNumber"
    await w3.provider.disconnect()


async def test_a_node_of_another_chain_is_left_out(
    proxy: FaultyProxy, second: FaultyProxy, caplog: pytest.LogCaptureFixture
) -> None:
    w3 = connect(f"{proxy.url},{second.url}")
    await request(w3, "eth_chainId")
    second.fault = lambda method: {"result": "0x1"}
    failing = times(2, 503)
    proxy.fault = failing
    assert await request(w3, "eth_blockNumber") != "0x1"
    assert "is of chain 1: it is left out" in caplog.text
    assert second.asked == ["eth_chainId"]
    await w3.provider.disconnect()


@pytest.mark.parametrize(
    "text", ["", "ws://127.0.0.1:1", "http://a.example,,http://b.example", "127.0.0.1:8545", "http://"]
)
def test_what_is_no_url_of_a_node_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="rpc_url has"):
        split_urls(text)


def test_a_key_in_a_url_is_not_told() -> None:
    with pytest.raises(ConfigError) as caught:
        split_urls("ftp://me:secret@node.example/v3/KEY")
    assert "secret" not in str(caught.value)
    assert "KEY" not in str(caught.value)


async def test_a_chain_that_takes_blocks_back(parties: Parties) -> None:
    customer = parties.customer
    job_id = await customer.request_job(DEFINITION, MINUTE, NAME)
    changes = JobWatch(customer, None, from_block=await customer.block_number()).changes()
    assert await anext(changes) == {job_id}
    w3 = customer.w3
    snapshot = await request(w3, "evm_snapshot")
    await customer.cancel_job(job_id)
    assert await anext(changes) == {job_id}
    record = await customer.get_job(job_id)
    assert record is not None
    assert record.status is JobStatus.CANCELLED
    # The block of the cancel is another one now, at the same height.
    await request(w3, "evm_revert", snapshot)
    await request(w3, "evm_mine")
    assert await asyncio.wait_for(anext(changes), 10) == {job_id}
    record = await customer.get_job(job_id)
    assert record is not None
    assert record.status is JobStatus.PENDING
    # Before the wallet's next transaction, what was taken back is handed in again.
    await customer.approve(10**22)
    record = await customer.get_job(job_id)
    assert record is not None
    assert record.status is JobStatus.CANCELLED
    await changes.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("code", "message", "data", "is_revert"),
    [
        (3, "execution reverted", "0x", True),
        (-32000, "execution reverted", None, True),
        (-32603, "VM Exception while processing transaction: reverted", None, True),
        (-32015, "VM execution error.", "0x08c379a0", True),
        (-32015, "VM execution error.", None, True),
        (-32015, "VM execution error.", "OutOfGas", False),
        (-32015, "VM execution error.", "Bad instruction", False),
        (-32000, "out of gas", "0x", False),
        (3, "invalid argument: upstream overloaded", None, False),
    ],
)
def test_a_contracts_refusal_is_no_failure_of_the_node(
    code: int, message: str, data: str | None, is_revert: bool
) -> None:
    assert RpcError(code, message, data).is_revert is is_revert


@pytest.mark.parametrize(
    "answer",
    [
        {"error": {"code": -32000, "message": "out of gas", "data": "0x"}},
        {"error": {"code": 3, "message": "overloaded"}},
        {"error": {"code": 3, "message": "execution reverted", "data": "0x1234"}},
        {"error": {"code": -32000, "message": None}},
        {"result": "0x"},
        {"result": None},
    ],
)
async def test_a_market_is_of_version_1_2_only_if_it_says_so(
    parties: Parties, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    known = "0x" + keccak(text="EXTENSIONS()").hex()[:8]
    real = rpc.RetryingProvider._post

    async def failing(self: Any, url: str, request_data: bytes) -> bytes:
        call = json.loads(request_data)
        if call["method"] == "eth_call" and call["params"][0]["data"].startswith(known):
            return json.dumps({"jsonrpc": "2.0", "id": call["id"], **answer}).encode()
        return await real(self, url, request_data)

    monkeypatch.setattr(rpc.RetryingProvider, "_post", failing)
    with pytest.raises((RpcError, ConfigError)):
        await Market.open(proxy.url, parties.customer.address("MetaScheduler"))


async def test_ranges_that_are_too_wide_for_a_node_are_asked_for_in_parts(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    market = await Market.open(parties.url, parties.customer.address("MetaScheduler"))
    head = await market.block_number()
    events = [("JobRepository", "JobCreated"), ("ProviderManager", "ProviderWaitingForApproval")]
    whole, widths = await market.get_logs(events, 0, head), []
    real = rpc.RetryingProvider._post

    async def narrow(self: Any, url: str, request_data: bytes) -> bytes:
        call = json.loads(request_data)
        if call["method"] == "eth_getLogs":
            wanted = call["params"][0]
            widths.append(int(wanted["toBlock"], 16) - int(wanted["fromBlock"], 16) + 1)
            if widths[-1] > 10:
                # The code is that of a node that is asked too much, too.
                error = {"code": -32005, "message": "query returned more than 10000 results"}
                return json.dumps({"jsonrpc": "2.0", "id": call["id"], "error": error}).encode()
        return await real(self, url, request_data)

    monkeypatch.setattr(rpc.RetryingProvider, "_post", narrow)
    try:
        assert await market.get_logs(events, 0, head) == whole
        before = len(widths)
        await market.get_logs(events, 0, head)
        assert max(widths[before:]) <= 20
    finally:
        await market.close()
    with pytest.raises(ConnectionFailedError, match="is closed"):
        await market.block_number()


async def test_addresses_of_nodes_are_in_no_log(parties: Parties, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for url in (parties.url, parties.ws_url):
            parts = urlsplit(url)
            secret = f"{parts.scheme}://user:hidden1@{parts.netloc}/v3/HIDDEN2"
            if parts.scheme == "http":
                w3 = connect(secret)
                with suppress(RpcError, ConnectionFailedError):
                    await request(w3, "eth_blockNumber")
                assert "hidden" not in repr(w3.provider).lower() + str(w3.provider).lower()
                await w3.provider.disconnect()
            else:
                watch = JobWatch(parties.customer, secret, from_block=await parties.customer.block_number()).news()
                await anext(watch)
                await asyncio.sleep(0.5)
                await watch.aclose()
    # That one is the server's, which runs here, too.
    said = "\n".join(record.getMessage() for record in caplog.records if record.name != "aiohttp.access")
    assert "hidden" not in said.lower()
    assert b64encode(b"user:hidden1").decode() not in said
