from __future__ import annotations

from pathlib import Path

from deepsquare.chain.artifacts import artifact
from deepsquare.chain.rpc import CODEC
from deepsquare.chain.transactions import Sender
from deepsquare.chain.types import JobDefinition, JobStatus
from deepsquare.chain.wallet import Wallet
from eth_abi import encode

from core.tests.chain.conftest import Parties


def test_bytes_that_are_no_text_are_replaced() -> None:
    raw = encode(["bytes"], [b"\xff\xfe ok"])
    assert CODEC.decode(["string"], raw) == ("\ufffd\ufffd ok",)


async def test_a_job_whose_text_is_no_text_is_read_like_any_other(parties: Parties, tmp_path: Path) -> None:
    market = parties.customer
    definition = JobDefinition(ntasks=1, cpus_per_task=1, mem_per_cpu_mb=1, gpus=0, batch_location_hash="location")
    contract = market.w3.eth.contract(address=market.address("MetaScheduler"), abi=artifact("MetaScheduler")["abi"])
    data = contract.encode_abi("requestNewJob", args=[definition.encode(), 10**18, bytes(32), False])
    # The same call with bytes that no client of ours would send.
    hostile = data.replace(b"location".hex(), (b"\xff" * 8).hex())
    assert hostile != data
    wallet = Wallet.from_key(bytes([4]) * 32)
    sender = Sender(market.w3, wallet, lock_folder=tmp_path)
    receipt = await sender.transact(market.address("MetaScheduler"), hostile)
    ((job_id, _),) = market.events(receipt, "MetaScheduler", "NewJobRequestEvent")
    record = await market.get_job(bytes(job_id))
    assert record is not None
    assert (record.status, record.definition.batch_location_hash) == (JobStatus.PENDING, "\ufffd" * 8)
