"""Transactions on a real node whose blocks the test makes: each nonce once, nothing stuck, no fee above the ceiling."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from deepsquare.chain import transactions
from deepsquare.chain.rpc import RpcError, connect, request
from deepsquare.chain.transactions import NonceTakenError, Sender, Sent, UnminedError
from deepsquare.chain.wallet import Wallet
from deepsquare.errors import TransactionError
from deepsquare.grid.local.toolchain import find_anvil

from tests.ports import free_port

TO = "0x000000000000000000000000000000000000dEaD"
WALLET = Wallet.from_key(b"\7" * 32)
GWEI = 10**9


@asynccontextmanager
async def node(*options: str) -> AsyncIterator[Any]:
    port = free_port()
    program = await asyncio.to_thread(find_anvil, print)
    process = await asyncio.create_subprocess_exec(
        program, "--port", str(port), "--accounts", "0", "--quiet", *options, stdin=asyncio.subprocess.DEVNULL
    )
    w3 = connect(f"http://127.0.0.1:{port}")
    w3.port = port  # type: ignore[attr-defined]
    try:
        await request(w3, "anvil_setBalance", WALLET.address, hex(10**22))
        yield w3
    finally:
        await w3.provider.disconnect()
        process.terminate()
        await process.wait()


@pytest.fixture
async def w3() -> AsyncIterator[Any]:
    """A node that makes blocks when the test says so."""
    async with node() as made:
        await request(made, "evm_setAutomine", False)
        yield made


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "_STUCK_SECONDS", 0.1)


def sender(w3: Any, folder: Path, **options: Any) -> Sender:
    return Sender(w3, WALLET, lock_folder=folder, **options)


async def mine(w3: Any, blocks: int = 1) -> None:
    for _ in range(blocks):
        await request(w3, "evm_mine")


async def mined(w3: Any) -> int:
    return int(await request(w3, "eth_getTransactionCount", WALLET.address, "latest"), 16)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def test_what_the_node_has_lost_is_sent_again_before_what_comes_after_it(w3: Any, tmp_path: Path) -> None:
    here = sender(w3, tmp_path)
    lost = [await here.send(TO, "0x01"), await here.send(TO, "0x02")]
    for one in lost:
        await request(w3, "anvil_dropTransaction", "0x" + one.hash.hex())
    # Another process of this machine.
    third = await sender(w3, tmp_path).send(TO, "0x03")
    await mine(w3)
    for one in (*lost, third):
        await here.wait(one)
    assert await mined(w3) == 3


async def test_the_nonce_of_what_was_never_sent_is_used_again(w3: Any, tmp_path: Path) -> None:
    here = sender(w3, tmp_path)

    def killed(_: Sent) -> None:
        raise KeyboardInterrupt

    await here.send(TO, "0x01")
    with pytest.raises(KeyboardInterrupt):
        await here.send(TO, "0x02", before_send=killed)
    # The same with a line about it in the record.
    book = await here._open_book()
    book.use(1, b"signed, and never sent")
    sent = await sender(w3, tmp_path).send(TO, "0x03")
    assert sent.fields is not None
    assert sent.fields["nonce"] == 1
    await mine(w3)
    await here.wait(sent)


async def test_what_was_lost_long_ago_is_not_sent_again(
    w3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = sender(w3, tmp_path)
    lost = await here.send(TO, "0x01")
    await request(w3, "anvil_dropTransaction", "0x" + lost.hash.hex())
    monkeypatch.setattr(transactions, "_RESEND_SECONDS", 0)
    sent = await here.send(TO, "0x02")
    await mine(w3)
    await here.wait(sent)
    with pytest.raises(NonceTakenError) as caught:
        await here.resend(lost)
    assert caught.value.is_final


async def test_a_chain_that_begins_anew_gets_nothing_of_the_one_before(tmp_path: Path) -> None:
    for time in ("1790000000", "1790000001"):
        async with node("--chain-id", "4711", "--timestamp", time) as w3:
            await sender(w3, tmp_path).transact(TO, "0x01")
            assert await mined(w3) == 1


@pytest.mark.usefixtures("soon")
async def test_what_waits_for_long_is_replaced_with_a_higher_fee(
    w3: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Sent] = []
    transaction = asyncio.create_task(sender(w3, tmp_path).transact(TO, "0x01", before_send=seen.append))
    await until(lambda: seen)
    await request(w3, "anvil_setNextBlockBaseFeePerGas", hex(50 * GWEI))
    # Of its own fee it would never be carried out.
    await mine(w3)
    await until(lambda: len(seen) > 1)
    await request(w3, "evm_setAutomine", True)
    await mine(w3)
    receipt = await transaction
    assert receipt["transactionHash"] in {"0x" + one.hash.hex() for one in seen[1:]}
    first, second = (one.fields for one in seen[:2])
    assert first is not None
    assert second is not None
    assert second["nonce"] == first["nonce"]
    assert second["maxFeePerGas"] >= max(100 * GWEI, 1.1 * first["maxFeePerGas"])
    assert "with a higher fee" in caplog.text
    assert await mined(w3) == 1


@pytest.mark.usefixtures("soon")
async def test_no_fee_is_above_the_ceiling(w3: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    here = sender(w3, tmp_path, timeout=1.0, max_fee_wei=3 * GWEI)
    sent = await here.send(TO, "0x01")
    assert sent.fields is not None
    assert sent.fields["maxFeePerGas"] <= 3 * GWEI
    await request(w3, "anvil_setNextBlockBaseFeePerGas", hex(50 * GWEI))
    await mine(w3)
    with pytest.raises(UnminedError, match="may still be carried out"):
        await here.wait(sent)
    assert "above 3.0 gwei, the most that is allowed" in caplog.text
    with pytest.raises(TransactionError, match=r"gas costs about \d+.* gwei now, and max_fee_gwei allows 3: wait"):
        await here.send(TO, "0x02")


@pytest.mark.usefixtures("soon")
async def test_on_a_chain_without_base_fees(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with node("--hardfork", "berlin") as w3:
        await request(w3, "evm_setAutomine", False)
        seen: list[Sent] = []
        transaction = asyncio.create_task(sender(w3, tmp_path).transact(TO, "0x01", before_send=seen.append))
        await until(lambda: len(seen) > 1)
        await mine(w3)
        await transaction
        first, second = (one.fields for one in seen[:2])
        assert first is not None
        assert second is not None
        assert second["gasPrice"] >= 1.1 * first["gasPrice"]
        assert await mined(w3) == 1


async def test_two_machines_with_one_wallet(tmp_path: Path) -> None:
    async with node() as w3:
        machines = [sender(w3, tmp_path / name) for name in ("here", "there")]
        await asyncio.gather(*(machine.transact(TO, f"0x{n:02x}") for machine in machines for n in range(20)))
        assert await mined(w3) == 40


@pytest.mark.usefixtures("soon")
async def test_a_nonce_that_another_machine_took_meanwhile(w3: Any, tmp_path: Path) -> None:
    seen: list[Sent] = []
    transaction = asyncio.create_task(sender(w3, tmp_path).transact(TO, "0x01", before_send=seen.append))
    await until(lambda: seen)
    fields = seen[0].fields
    assert fields is not None
    raw, _ = WALLET.sign_transaction(
        fields | {"data": "0x02", "maxFeePerGas": 100 * GWEI, "maxPriorityFeePerGas": 50 * GWEI}
    )
    await request(w3, "anvil_dropTransaction", "0x" + seen[0].hash.hex())
    await request(w3, "eth_sendRawTransaction", "0x" + raw.hex())
    await request(w3, "evm_setAutomine", True)
    await mine(w3)
    receipt = await transaction
    assert receipt["transactionHash"] == "0x" + seen[-1].hash.hex()
    assert seen[-1].fields is not None
    assert seen[-1].fields["nonce"] == fields["nonce"] + 1
    assert await mined(w3) == 2


_PROCESS = """
import asyncio, sys
from pathlib import Path
from deepsquare.chain.rpc import connect
from deepsquare.chain.transactions import Sender
from deepsquare.chain.wallet import Wallet

async def main():
    w3 = connect(sys.argv[1])
    sender = Sender(w3, Wallet.from_key(bytes([7]) * 32), lock_folder=Path(sys.argv[2]))
    await asyncio.gather(*(sender.transact(sys.argv[3], "0x01") for _ in range(10)))
    await w3.provider.disconnect()

asyncio.run(main())
"""


async def test_many_processes_with_one_wallet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with node() as w3:
        url = f"http://127.0.0.1:{w3.port}"
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", _PROCESS, url, str(tmp_path), TO], stderr=subprocess.PIPE, text=True
            )
            for _ in range(4)
        ]
        for process in processes:
            _, errors = await asyncio.to_thread(process.communicate)
            assert process.returncode == 0, errors
        assert await mined(w3) == 40


async def test_the_record_is_private(w3: Any, tmp_path: Path) -> None:
    await sender(w3, tmp_path).send(TO, "0x01")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


async def test_of_two_versions_the_one_that_was_carried_out_is_found(w3: Any, tmp_path: Path) -> None:
    """The journal has the later one, which came too late."""
    here = sender(w3, tmp_path)
    first = await here.send(TO, "0x01")
    assert first.fields is not None
    raw, digest = WALLET.sign_transaction(first.fields | {"maxFeePerGas": 100 * GWEI})
    await mine(w3, 3)
    found = await here.resend(Sent(digest, raw))
    assert found.hash == first.hash
    assert (await here.wait(found))["transactionHash"] == "0x" + first.hash.hex()


@pytest.mark.usefixtures("soon")
async def test_the_same_while_it_is_waited_for(w3: Any, tmp_path: Path) -> None:
    here = sender(w3, tmp_path)
    first = await here.send(TO, "0x01")
    assert first.fields is not None
    raw, digest = WALLET.sign_transaction(first.fields | {"maxFeePerGas": 100 * GWEI})
    await mine(w3)
    receipt = await asyncio.wait_for(here.wait(Sent(digest, raw)), 20)
    assert receipt["transactionHash"] == "0x" + first.hash.hex()


@pytest.mark.parametrize("legacy", [True, False])
async def test_what_another_call_took_is_told_for_certain(w3: Any, tmp_path: Path, legacy: bool) -> None:
    here = sender(w3, tmp_path)
    await mine(w3, 200)
    first = await here.send(TO, "0x01")
    assert first.fields is not None
    await mine(w3, 20)
    fields = first.fields | {"data": "0x02"}
    if legacy:
        fields = {
            name: value
            for name, value in fields.items()
            if name not in ("maxFeePerGas", "maxPriorityFeePerGas", "type")
        }
        fields["gasPrice"] = GWEI
    raw, digest = WALLET.sign_transaction(fields)
    with pytest.raises(NonceTakenError) as caught:
        await here.resend(Sent(digest, raw))
    assert caught.value.is_final
    await mine(w3, 200)
    # Too long ago.
    with pytest.raises(UnminedError, match="can't be told"):
        await here.resend(Sent(digest, raw))


async def test_a_lost_answer_and_late_receipts_are_no_reason_to_sign_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node() as w3:
        late = 200

        async def lagging(w3: Any, method: str, *arguments: Any) -> Any:
            nonlocal late
            answer = await request(w3, method, *arguments)
            if method == "eth_sendRawTransaction":
                transactions.ATTEMPTS.set(2)
                raise RpcError(-32000, "nonce too low", None)
            if method in ("eth_getTransactionReceipt", "eth_getTransactionByHash") and late:
                late -= 1
                return None
            return answer

        monkeypatch.setattr(transactions, "request", lagging)
        monkeypatch.setattr(transactions.asyncio, "sleep", no_pause(asyncio.sleep))
        seen: list[Sent] = []
        await sender(w3, tmp_path).transact(TO, "0x01", before_send=seen.append)
        assert len(seen) == 1
        assert await mined(w3) == 1


def no_pause(sleep: Any) -> Any:
    async def pause(_: float) -> None:
        await sleep(0)

    return pause


@pytest.mark.parametrize("words", ["upstream request timed out", "Internal error", ""])
async def test_an_answer_that_says_nothing_is_no_refusal(
    w3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    async def proxy(w3: Any, method: str, *arguments: Any) -> Any:
        if method == "eth_sendRawTransaction":
            raise RpcError(-32603, words, None)
        return await request(w3, method, *arguments)

    monkeypatch.setattr(transactions, "request", proxy)
    with pytest.raises(UnminedError, match="look it up before you try again"):
        await sender(w3, tmp_path).send(TO, "0x01")
