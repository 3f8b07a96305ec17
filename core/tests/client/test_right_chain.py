"""A client works only on the chain that its context names."""

from __future__ import annotations

from pathlib import Path

import pytest
from deepsquare import contexts
from deepsquare.chain.wallet import Wallet
from deepsquare.client.client import Client
from deepsquare.errors import ConfigError

from core.tests.chain.conftest import Parties


async def test_a_node_of_another_chain_is_refused(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPSQUARE_HOME", str(tmp_path))
    monkeypatch.setenv("DEEPSQUARE_WALLET_PASSWORD", "secret")
    monkeypatch.delenv("DEEPSQUARE_PRIVATE_KEY", raising=False)
    wallet = Wallet.create(contexts.wallet_file("w"), "secret", scrypt_n=2)
    for name, chain_id in (("right", 179188), ("wrong", 1)):
        contexts.save(
            contexts.Context(
                name=name,
                chain_id=chain_id,
                rpc_url=parties.url,
                metascheduler=parties.customer.address("MetaScheduler"),
                sbatch_url="http://127.0.0.1:1/graphql",
                sbatch_grpc="127.0.0.1:1",
                logger_grpc="127.0.0.1:1",
                # However it is spelt.
                account=wallet.address.lower(),
                wallet="w",
            )
        )
    async with Client("right") as client:
        assert await client.jobs() == []
    with pytest.raises(ConfigError, match=r"the node is of chain 179188, but the context names chain 1;.*correct"):
        async with Client("wrong"):
            pass
