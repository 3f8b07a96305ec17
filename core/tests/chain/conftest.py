"""A real chain with a fresh market for each module."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
from deepsquare import contexts
from deepsquare.chain.deploy import deploy
from deepsquare.chain.market import Market
from deepsquare.chain.rpc import connect
from deepsquare.chain.rpc import request as rpc
from deepsquare.chain.transactions import Sender
from deepsquare.chain.types import Hardware, Label, Prices
from deepsquare.chain.wallet import Wallet
from deepsquare.grid.local.anvil import anvil

from tests.old_market import version_1_2
from tests.ports import free_port

PRICES = Prices(gpu=8_500_000_000_000_000_000, cpu=950_000_000_000_000_000, mem=80_000_000_000_000)


@dataclass
class Parties:
    """The market as each party sees it."""

    url: str
    ws_url: str
    admin: Market
    scheduler: Market
    provider: Market
    customer: Market

    def context(self, name: str) -> contexts.Context:
        """The customer's context, without services beside the chain and without a keystore."""
        return contexts.Context(
            name=name,
            chain_id=179188,
            rpc_url=self.url,
            metascheduler=self.customer.address("MetaScheduler"),
            sbatch_url="http://127.0.0.1:1/graphql",
            sbatch_grpc="127.0.0.1:1",
            logger_grpc="127.0.0.1:1",
            account=self.customer.account,
            wallet="none",
        )


@pytest.fixture(scope="module", params=["all functions", "version 1.2"])
async def parties(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Parties]:
    state: Path = tmp_path_factory.mktemp("chain")
    (state / "log").mkdir()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    async with anvil(state, port=port, chain_id=179188):
        w3 = connect(url)
        wallets = {
            name: Wallet.from_key(bytes([number]) * 32)
            for number, name in enumerate(("admin", "scheduler", "provider", "customer"), start=1)
        }
        for wallet in wallets.values():
            await rpc(w3, "anvil_setBalance", wallet.address, hex(10**22))
        deployment = await deploy(
            w3,
            Sender(w3, wallets["admin"], lock_folder=state / "locks"),
            supply=10**27,
            scheduler=wallets["scheduler"].address,
        )
        old = request.param == "version 1.2"
        async with version_1_2(url) if old else nullcontext(url) as seen_url:
            markets = {
                name: await Market.open(seen_url, deployment.metascheduler, wallet=wallet, lock_folder=state / "locks")
                for name, wallet in wallets.items()
            }
            assert all(market.extended is not old for market in markets.values())
            made = Parties(seen_url, url.replace("http", "ws"), **markets)
            await made.admin.transact("Credit", "transfer", made.customer.account, 10**22)
            await made.customer.approve(10**22)
            await made.provider.register(Hardware((0,), (4,), (8000,)), PRICES, [Label("os", "linux")])
            await made.admin.transact("ProviderManager", "approve", made.provider.account)
            yield made
            for market in markets.values():
                await market.close()
        await w3.provider.disconnect()
