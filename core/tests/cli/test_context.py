"""`deepsquare context add`: what is typed is checked, and the node is asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from deepsquare import contexts
from deepsquare.chain.wallet import Wallet
from deepsquare.client.new_context import check_endpoint, check_url
from deepsquare.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st

from core.tests.chain.conftest import Parties
from core.tests.cli.conftest import Said

MARKET = "0xD5738FC200E9814A097F03FE01a91D7265C1e235"
AWAY = "http://127.0.0.1:1"

Cli = Callable[..., Said]


@pytest.fixture
def wallet(home: Path, monkeypatch: pytest.MonkeyPatch) -> Wallet:
    # A node that is away is tried again for a while.
    monkeypatch.setattr("deepsquare.client.new_context._ANSWER_SECONDS", 0.1)
    return Wallet.create(contexts.wallet_file("w"), "secret", scrypt_n=2)


def options(**changes: str | None) -> list[str]:
    """The options of a context that is right, with some changed or left out."""
    values: dict[str, str | None] = {
        "rpc-url": AWAY,
        "metascheduler": MARKET,
        "sbatch-url": "https://api.example/graphql",
        "logger-grpc": "logs.example:443",
        "wallet": "w",
    }
    values |= {key.replace("_", "-"): value for key, value in changes.items()}
    return [part for key, value in values.items() if value is not None for part in (f"--{key}", value)]


async def test_the_node_tells_the_chain(cli: Cli, wallet: Wallet, parties: Parties) -> None:
    market = parties.customer.address("MetaScheduler")

    async def add(name: str, *more: str, **changes: str) -> Said:
        arguments = options(rpc_url=parties.url, metascheduler=market, **changes)
        return await asyncio.to_thread(cli, "context", "add", name, *arguments, *more)

    said = await add("prod", ws_url=parties.ws_url, logger_grpc="[::1]:50")
    assert (said.code, f"chain 179188, account {wallet.address}; it is in use" in said.out) == (0, True), said
    assert contexts.load_file("prod") == contexts.Context(
        name="prod",
        chain_id=179188,
        rpc_url=parties.url,
        ws_url=parties.ws_url,
        metascheduler=market,
        sbatch_url="https://api.example/graphql",
        sbatch_grpc="api.example:443",
        logger_grpc="[::1]:50",
        account=wallet.address,
        wallet="w",
    )
    assert "it is not in use yet" in (await add("other")).out
    listed = json.loads(cli("context", "list", "--json").out)
    assert [(one["name"], one["wallet"], one["current"]) for one in listed] == [
        ("other", "w", False),
        ("prod", "w", True),
    ]

    assert "--chain-id is 1, but the node is of chain 179188" in (await add("wrong", "--chain-id", "1")).err
    said = await asyncio.to_thread(cli, "context", "add", "wrong", *options(rpc_url=parties.url))
    assert f"there is no contract at {MARKET}" in said.err
    assert contexts.names() == ["other", "prod"]


def test_without_a_node_the_chain_has_to_be_told(cli: Cli, wallet: Wallet) -> None:
    code, _, err = cli("context", "add", "prod", *options())
    assert (code, "say which chain it is: --chain-id" in err) == (1, True)
    assert contexts.names() == []
    assert cli("context", "add", "prod", *options(), "--chain-id", "7").code == 0
    assert contexts.load("prod").chain_id == 7

    code, _, err = cli("context", "add", "prod", *options(), "--chain-id", "8")
    assert (code, "already: choose another name, or say --replace" in err) == (1, True)
    assert contexts.load("prod").chain_id == 7
    assert cli("context", "add", "prod", *options(), "--chain-id", "8", "--replace").code == 0
    assert contexts.load("prod").chain_id == 8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rpc_url": "ftp://x"}, "--rpc-url is 'ftp://x', which is not a URL of the form http://HOST[:PORT] or https:"),
        ({"rpc_url": "node.example/v3/the-api-key"}, "--rpc-url is 'node.example', which is not a URL"),
        ({"rpc_url": "http://me:the-api-key@:1"}, "--rpc-url is 'http://:1'"),
        ({"ws_url": "http://x"}, "--ws-url is 'http://x', which is not a URL of the form ws://HOST[:PORT] or wss:"),
        ({"sbatch_url": "https://x:99999/graphql"}, "--sbatch-url is 'https://x:99999'"),
        ({"logger_grpc": "logs.example"}, "--logger-grpc is 'logs.example', which is not of the form HOST:PORT"),
        ({"sbatch_grpc": "http://x:1"}, "--sbatch-grpc is 'http://x:1', which is not"),
        ({"metascheduler": MARKET.replace("a91D", "A91D")}, "checksum (EIP-55) is wrong"),
        ({"metascheduler": "0x12"}, "--metascheduler is '0x12', which is not an address"),
        ({"wallet": "nobody"}, "there is no wallet 'nobody'. There are: w"),
        ({"wallet": "../w"}, "can't be the name of a wallet"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(
    cli: Cli, home: Path, wallet: Wallet, changes: dict[str, str], words: str
) -> None:
    code, _, err = cli("context", "add", "prod", *options(**changes), "--chain-id", "1")
    assert (code, words in err) == (1, True), err
    assert "the-api-key" not in err
    assert not (home / "contexts").exists()


def test_the_environments_market_is_checked_too(cli: Cli, wallet: Wallet, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("context", "add", "prod", *options(), "--chain-id", "7").code == 0
    monkeypatch.setenv("DEEPSQUARE_METASCHEDULER", MARKET.replace("a91D", "A91D"))
    with pytest.raises(ConfigError, match=r"^DEEPSQUARE_METASCHEDULER is .* checksum"):
        contexts.load()


@given(st.text())
def test_any_text_is_a_url_and_an_endpoint_or_refused(text: str) -> None:
    for check in (partial(check_url, text, "http", field="--x"), partial(check_endpoint, text, field="--x")):
        said = ""
        try:
            said = check()
        except ConfigError as error:
            said = str(error)
        assert said == text or said.startswith("--x is ")
