"""What the client's benchmark runs on: a chain, a market with one provider, an sbatch API, and a home folder with one customer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, WSMsgType, web
from deepsquare import contexts
from deepsquare.chain.artifacts import artifact
from deepsquare.chain.deploy import deploy
from deepsquare.chain.market import Market
from deepsquare.chain.rpc import connect, request
from deepsquare.chain.transactions import Sender
from deepsquare.chain.types import Hardware, Label, Prices
from deepsquare.chain.wallet import Wallet
from deepsquare.grid.local.toolchain import find_anvil
from deepsquare.grid.sbatch_api import SbatchApi
from eth_utils import function_signature_to_4byte_selector
from eth_utils.abi import abi_to_signature

from tests.ports import free_port

CHAIN_ID = 179188
PASSWORD = "of the benchmark"
PRICES = Prices(gpu=85 * 10**17, cpu=95 * 10**16, mem=8 * 10**13)
WORKFLOW = {
    "resources": {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 50, "gpus": 0},
    "steps": [{"run": {"command": "true"}}],
}
CREDITS = 10**26

SPAWN = multiprocessing.get_context("spawn")
"""Children that share nothing with this process, as the user's own processes."""

_CONTRACTS = ("MetaScheduler", "Credit", "ProviderManager", "ProviderJobQueues", "JobRepository")
_FUNCTIONS = {
    "0x" + function_signature_to_4byte_selector(abi_to_signature(entry)).hex(): entry["name"]
    for name in _CONTRACTS
    for entry in artifact(name)["abi"]
    if entry["type"] == "function"
}


@dataclass
class Stage:
    """A market that is open, as its parties see it. The customer's are the home folder and the contexts in it."""

    folder: Path
    url: str
    sbatch_url: str
    metascheduler: str
    admin: Market
    scheduler: Market
    provider: Market

    @property
    def w3(self) -> Any:
        """The node."""
        return self.admin.w3

    async def mine_each(self, seconds: int) -> None:
        """Make a block each so many seconds from now on, and none in between; 0: one at once for each transaction."""
        await request(self.w3, "evm_setIntervalMining", seconds)
        if not seconds:
            await request(self.w3, "evm_setAutomine", True)

    async def fund(self, wallet: Wallet) -> None:
        """Give an account coins and credits, all of which the market may lock."""
        await request(self.w3, "anvil_setBalance", wallet.address, hex(10**24))
        await self.admin.transact("Credit", "transfer", wallet.address, CREDITS)
        market = await Market.open(self.url, self.metascheduler, wallet=wallet, lock_folder=self.folder / "locks")
        await market.approve(CREDITS)
        await market.close()

    def keep_context(self, name: str, **fields: str | None) -> None:
        """Write another context of the customer, whose fields are the market's own but for these."""
        contexts.save(contexts.load("bench").model_copy(update={"name": name, **fields}))


@asynccontextmanager
async def stage(*, scrypt_n: int = 2) -> AsyncIterator[Stage]:
    """A market of its own, whose customer's home folder is this process's.

    Args:
        scrypt_n: the cost of opening the customer's keystore; low where that is not what is measured.
    """
    with tempfile.TemporaryDirectory(prefix="deepsquare-bench-") as name:
        folder = Path(name)
        os.environ |= {"DEEPSQUARE_HOME": str(folder / "home"), "DEEPSQUARE_WALLET_PASSWORD": PASSWORD}
        for variable in ("DEEPSQUARE_PRIVATE_KEY", "DEEPSQUARE_CONTEXT"):
            os.environ.pop(variable, None)
        async with _chain() as url, _market(folder, url) as made:
            customer = Wallet.create(contexts.home() / "wallets" / "customer.json", PASSWORD, scrypt_n=scrypt_n)
            await made.fund(customer)
            async with _sbatch_api(folder, url, made.metascheduler) as sbatch_url:
                contexts.save(
                    contexts.Context(
                        name="bench",
                        chain_id=CHAIN_ID,
                        rpc_url=url,
                        ws_url=url.replace("http", "ws"),
                        metascheduler=made.metascheduler,
                        sbatch_url=sbatch_url,
                        sbatch_grpc="127.0.0.1:1",
                        logger_grpc="127.0.0.1:1",
                        account=customer.address,
                        wallet="customer",
                    )
                )
                contexts.use("bench")
                yield replace(made, sbatch_url=sbatch_url)


@asynccontextmanager
async def _chain() -> AsyncIterator[str]:
    """The URL of a chain that keeps nothing on disk."""
    port = free_port()
    program = await asyncio.to_thread(find_anvil, print)
    process = await asyncio.create_subprocess_exec(
        program,
        *("--port", str(port), "--chain-id", str(CHAIN_ID), "--gas-limit", "60000000", "--accounts", "0", "--quiet"),
        stdin=asyncio.subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def _market(folder: Path, url: str) -> AsyncIterator[Stage]:
    w3 = connect(url)
    names = ("admin", "scheduler", "provider")
    wallets = {name: Wallet.from_key(bytes([number]) * 32) for number, name in enumerate(names, start=1)}
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(w3.provider.disconnect)
        for wallet in wallets.values():
            await request(w3, "anvil_setBalance", wallet.address, hex(10**24))
        sender = Sender(w3, wallets["admin"], lock_folder=folder / "locks")
        stack.callback(sender.close)
        made = await deploy(w3, sender, supply=10**28, scheduler=wallets["scheduler"].address)
        parties = {}
        for name, wallet in wallets.items():
            parties[name] = await Market.open(url, made.metascheduler, wallet=wallet, lock_folder=folder / "locks")
            stack.push_async_callback(parties[name].close)
        await parties["provider"].register(Hardware((0,), (64,), (10**6,)), PRICES, [Label("os", "linux")])
        await parties["admin"].transact("ProviderManager", "approve", parties["provider"].account)
        yield Stage(folder, url, "", made.metascheduler, **parties)


@asynccontextmanager
async def _sbatch_api(folder: Path, url: str, metascheduler: str) -> AsyncIterator[str]:
    """The GraphQL URL of an sbatch API in a process of its own, as a grid's is."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_serve, args=(folder, url, metascheduler, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield f"http://127.0.0.1:{await asyncio.to_thread(ours.recv)}/graphql"
    finally:
        ours.close()
        await asyncio.to_thread(process.join)


def _serve(folder: Path, url: str, metascheduler: str, parent: Connection) -> None:
    async def serve() -> None:
        market = await Market.open(url, metascheduler)
        async with SbatchApi(chain=market, state_dir=folder / "sbatch", logger_endpoint="127.0.0.1:1") as api:
            parent.send(api.port)
            with contextlib.suppress(EOFError):
                await asyncio.to_thread(parent.recv)
        await market.close()

    asyncio.run(serve())


class Counts:
    """What went through a counting proxy."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.connections: set[tuple[str, int]] = set()

    def clear(self) -> None:
        """Forget everything."""
        self.calls.clear()
        self.connections.clear()

    def add(self, body: str | bytes) -> None:
        """Count the calls of a JSON-RPC request, of eth_call each function."""
        asked = json.loads(body)
        for call in asked if isinstance(asked, list) else [asked]:
            method = call.get("method", "POST")
            if method == "eth_call":
                data = call["params"][0].get("data") or call["params"][0].get("input") or ""
                method += " " + _FUNCTIONS.get(data[:10], data[:10])
            self.calls[method] += 1


@asynccontextmanager
async def counting(url: str) -> AsyncIterator[tuple[str, Counts]]:
    """The URL of a proxy in front of what is at `url`, and what it counts: requests over HTTP and over WebSocket.

    New connections are counted once they ask for something.
    """
    counts = Counts()
    async with ClientSession() as session:

        async def answer(asked: web.Request) -> web.StreamResponse:
            assert asked.transport is not None
            counts.connections.add(asked.transport.get_extra_info("peername"))
            if asked.headers.get("Upgrade", "").lower() == "websocket":
                return await relay(asked)
            body = await asked.read()
            counts.add(body)
            headers = {
                name: value for name, value in asked.headers.items() if name.lower() not in ("host", "content-length")
            }
            async with session.post(url, data=body, headers=headers) as response:
                return web.Response(
                    body=await response.read(), status=response.status, content_type=response.content_type
                )

        async def relay(asked: web.Request) -> web.WebSocketResponse:
            down = web.WebSocketResponse()
            await down.prepare(asked)
            async with session.ws_connect(url.replace("http", "ws")) as up:

                async def notify() -> None:
                    async for message in up:
                        if message.type is WSMsgType.TEXT:
                            await down.send_str(message.data)

                notifying = asyncio.create_task(notify())
                async for message in down:
                    # web3 writes binary frames.
                    if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                        counts.add(message.data)
                        await (up.send_str if message.type is WSMsgType.TEXT else up.send_bytes)(message.data)
                notifying.cancel()
                await asyncio.gather(notifying, return_exceptions=True)
            return down

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        # A watcher that is ended leaves its connection half open; nobody waits for it.
        runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}", counts
        finally:
            await runner.cleanup()


def table(*header: str, rows: list[tuple[object, ...]]) -> None:
    """Print a table in Markdown."""
    print(f"\n| {' | '.join(header)} |\n{'|---' * len(header)}|")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |", flush=True)
