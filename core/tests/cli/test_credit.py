"""`deepsquare credit`: balances without a password, and transfers that are checked and asked for before anything is sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from deepsquare import contexts
from deepsquare.chain.types import ZERO_ADDRESS
from deepsquare.client.transfer import transfer
from deepsquare.errors import ConnectionFailedError, TransactionError

from core.tests.chain.conftest import Parties
from core.tests.cli.conftest import Said

FRIEND = "0xD5738FC200E9814A097F03FE01a91D7265C1e235"


@pytest.fixture
def credit(
    cli: Callable[..., Said], home: Path, parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Said]:
    """Run `deepsquare credit` as the customer."""
    monkeypatch.setenv("DEEPSQUARE_PRIVATE_KEY", "04" * 32)
    contexts.save(parties.context("local"))
    contexts.use("local")
    return lambda *arguments, **options: cli("credit", *arguments, **options)


async def test_a_transfer_prints_its_hash_and_moves_the_credits(credit: Callable[..., Said], parties: Parties) -> None:
    async def balance() -> Decimal:
        shown = json.loads((await asyncio.to_thread(credit, "balance", "--json")).out)
        assert shown["account"] == parties.customer.account
        return Decimal(shown["balance"])

    before, theirs = await balance(), await parties.customer.balance_of(FRIEND)
    said = await asyncio.to_thread(credit, "transfer", FRIEND.lower(), "12.5", "--yes")
    assert said.code == 0, said
    receipt = await parties.customer.w3.eth.get_transaction_receipt(said.out.strip())
    assert receipt["status"] == 1
    assert await balance() == before - Decimal("12.5")
    assert await parties.customer.balance_of(FRIEND) == theirs + 12_500_000_000_000_000_000
    assert f"balance  {before - Decimal('12.5'):f}" in (await asyncio.to_thread(credit, "balance")).out
    shown = json.loads((await asyncio.to_thread(credit, "transfer", FRIEND, "1", "-y", "--json")).out)
    assert shown | {"transaction": ""} == {
        "transaction": "",
        "from": parties.customer.account,
        "to": FRIEND,
        "amount": "1",
    }


async def test_what_can_not_be_meant_is_refused_before_anything_is_sent(
    credit: Callable[..., Said], parties: Parties
) -> None:
    sent = await parties.customer.w3.eth.get_transaction_count(parties.customer.account)
    for to, amount, code, words in (
        (parties.customer.account, "1", 1, "which is your own address"),
        (parties.customer.address("Credit"), "1", 1, "the contract Credit: credits that are sent to it are lost"),
        (ZERO_ADDRESS, "1", 2, "zero address"),
        (FRIEND.replace("a91D", "A91D"), "1", 2, "checksum (EIP-55) is wrong"),
        ("friend", "1", 2, "TO is 'friend', which is not an address"),
        (FRIEND, "0", 1, "AMOUNT is 0"),
        (FRIEND, "abc", 2, "AMOUNT is 'abc', which is not a number"),
        (FRIEND, "999999999", 1, "999,999,999.0000 credits are to be transferred, but"),
    ):
        said = await asyncio.to_thread(credit, "transfer", to, amount, "--yes")
        assert (said.code, words in said.err) == (code, True), said
    said = await asyncio.to_thread(credit, "transfer", FRIEND, "1")
    assert (said.code, "say --yes" in said.err) == (2, True), said
    assert await parties.customer.w3.eth.get_transaction_count(parties.customer.account) == sent


async def test_a_question_is_asked_with_both_addresses_and_the_answer_counts(
    credit: Callable[..., Said], parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepsquare.cli.credit._is_terminal", lambda: True)
    theirs = await parties.customer.balance_of(FRIEND)
    said = await asyncio.to_thread(credit, "transfer", FRIEND.lower(), "2.50", input="n\n")
    assert said.code == 1
    assert f"Transfer 2.5 credits from {parties.customer.account} to {FRIEND}?" in said.err
    assert await parties.customer.balance_of(FRIEND) == theirs
    said = await asyncio.to_thread(credit, "transfer", FRIEND, "2.5", input="y\n")
    assert (said.code, said.out.splitlines()[-1][:2]) == (0, "0x")
    assert await parties.customer.balance_of(FRIEND) == theirs + 2_500_000_000_000_000_000


async def test_a_transfer_whose_answer_is_lost_is_said_to_be_unknown(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = type(parties.customer).transfer

    async def lost(*arguments: object, **options: object) -> None:
        await really(*arguments, **options)  # type: ignore[arg-type]
        raise ConnectionFailedError("the chain can't be reached")

    monkeypatch.setattr(type(parties.customer), "transfer", lost)
    with pytest.raises(TransactionError, match=r"the transfer 0x[0-9a-f]{64} may have been carried out"):
        await transfer(parties.customer, FRIEND, 1)

    async def unsent(*_: object, **__: object) -> None:
        raise ConnectionFailedError("the chain can't be reached")

    monkeypatch.setattr(type(parties.customer), "transfer", unsent)
    with pytest.raises(ConnectionFailedError):
        await transfer(parties.customer, FRIEND, 1)
