"""A script goes from its customer to the provider that the chain chose, and to nobody else."""

import asyncio
import sqlite3
import time
from dataclasses import dataclass

import grpc
import httpx
import pytest
from deepsquare.chain.wallet import Wallet
from deepsquare.client.sbatch import submit_workflow
from deepsquare.errors import ApiError, ConnectionFailedError
from deepsquare.grid.sbatch_api import SbatchApi
from deepsquare.grid.sbatch_api.challenges import CHALLENGE_SECONDS, Challenges
from deepsquare.grid.sbatch_api.scripts import KEEP_SECONDS, ScriptStore
from deepsquare.grid.supervisor.scripts import fetch_script
from deepsquare.wire import sbatchapi_v1alpha1_pb2 as pb
from deepsquare.wire.messages import SUBMIT_MUTATION
from deepsquare.wire.sbatchapi_v1alpha1_pb2_grpc import AuthAPIStub, SBatchAPIStub
from grpc import aio


@dataclass
class RawClient:
    """The gRPC calls as a foreign supervisor makes them."""

    channel: aio.Channel

    async def challenge(self) -> bytes:
        return (await AuthAPIStub(self.channel).Challenge(pb.ChallengeRequest())).challenge

    async def get(self, challenge: bytes, signer: Wallet, **changes) -> str:
        request = {
            "signed_challenge": signer.sign_message(challenge),
            "challenge": challenge,
            "provider_address": bytes.fromhex(signer.address[2:]),
        } | changes
        return (await SBatchAPIStub(self.channel).GetSBatch(pb.GetSBatchRequest(**request))).sbatch


@pytest.fixture
async def raw(endpoint):
    async with aio.insecure_channel(endpoint) as channel:
        yield RawClient(channel)


@pytest.fixture
async def script_id(url, workflow, customer):
    return await submit_workflow(url, workflow, customer)


@pytest.fixture
def job_id(chain, script_id, customer, provider):
    return chain.buy(script_id, customer, provider)


@pytest.fixture
def names(script_id, customer, job_id):
    """The fields of a right request, but for the signature."""
    return {
        "batch_location_hash": script_id,
        "customer_address": bytes.fromhex(customer.address[2:]),
        "job_id": job_id,
    }


async def submit_unsigned(url: str, workflow: dict) -> str:
    async with httpx.AsyncClient() as http:
        response = await http.post(url, json={"query": SUBMIT_MUTATION, "variables": {"job": workflow}})
    return response.json()["data"]["submit"]


async def fetch(endpoint, provider, job_id, script_id, customer):
    return await fetch_script(
        endpoint, wallet=provider, job_id=job_id, batch_location_hash=script_id, customer=customer.address
    )


async def test_the_provider_of_the_job_gets_the_script(endpoint, provider, job_id, script_id, customer):
    script, logger = await fetch(endpoint, provider, job_id, script_id, customer)
    assert script.startswith("#!/bin/bash")
    assert "the-secret-of-the-job" in script
    assert logger == "logs.example:443"


async def test_each_submission_has_an_id_of_its_own(url, workflow, customer):
    ids = [await submit_workflow(url, workflow, customer) for _ in range(3)]
    assert len(set(ids)) == 3


async def test_both_forms_of_a_signature_are_taken(raw, provider, names):
    challenge = await raw.challenge()
    signature = provider.sign_message(challenge)
    low = signature[:64] + bytes([signature[64] - 27])
    assert await raw.get(challenge, provider, signed_challenge=low, **names)


async def test_a_challenge_works_once(raw, provider, names):
    challenge = await raw.challenge()
    assert await raw.get(challenge, provider, **names)
    with pytest.raises(aio.AioRpcError) as error:
        await raw.get(challenge, provider, **names)
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "used" in error.value.details()


async def test_of_two_uses_at_once_one_wins(raw, provider, names):
    challenge = await raw.challenge()
    results = await asyncio.gather(*(raw.get(challenge, provider, **names) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(result, str) for result in results) == 1


async def test_an_old_challenge_is_refused(raw, provider, names, monkeypatch):
    challenge = await raw.challenge()
    now = time.time()
    monkeypatch.setattr("deepsquare.grid.sbatch_api.challenges.time.time", lambda: now + CHALLENGE_SECONDS + 2)
    with pytest.raises(aio.AioRpcError) as error:
        await raw.get(challenge, provider, **names)
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    "challenge",
    [b"", b"{}", b"[" * 5000, b"\xff", b'{"message": "login"}', Challenges(b"another key").issue()],
    ids=["empty", "nothing", "deep", "no text", "no nonce", "another key"],
)
async def test_only_challenges_of_ours_count(raw, provider, names, challenge):
    with pytest.raises(aio.AioRpcError) as error:
        await raw.get(challenge, provider, **names)
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_challenge_with_other_spaces_is_another_text(raw, provider, names):
    challenge = (await raw.challenge()).replace(b": ", b":")
    with pytest.raises(aio.AioRpcError) as error:
        await raw.get(challenge, provider, **names)
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_only_the_provider_on_chain_gets_it(raw, thief, provider, names):
    with pytest.raises(aio.AioRpcError) as error:
        await raw.get(await raw.challenge(), thief, **names)
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    claims_to_be_provider = {"provider_address": bytes.fromhex(provider.address[2:])}
    with pytest.raises(aio.AioRpcError) as error:
        await raw.get(await raw.challenge(), thief, **claims_to_be_provider, **names)
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"signed_challenge": b""}, grpc.StatusCode.UNAUTHENTICATED),
        ({"signed_challenge": bytes(65)}, grpc.StatusCode.UNAUTHENTICATED),
        ({"provider_address": b""}, grpc.StatusCode.UNAUTHENTICATED),
        ({"customer_address": bytes(20)}, grpc.StatusCode.UNAUTHENTICATED),
        ({"job_id": "0x" + "00" * 32}, grpc.StatusCode.UNAUTHENTICATED),
        ({"job_id": "7"}, grpc.StatusCode.UNAUTHENTICATED),
        ({"job_id": "not hex"}, grpc.StatusCode.UNAUTHENTICATED),
        ({"batch_location_hash": "unknown"}, grpc.StatusCode.NOT_FOUND),
    ],
)
async def test_each_wrong_field_is_refused(raw, provider, names, change, code):
    with pytest.raises(aio.AioRpcError) as error:
        await raw.get(await raw.challenge(), provider, **(names | change))
    assert error.value.code() is code


async def test_a_job_with_another_script_is_refused(raw, chain, url, workflow, customer, provider, names):
    other = await submit_workflow(url, workflow, customer)
    with pytest.raises(aio.AioRpcError) as error:
        await raw.get(await raw.challenge(), provider, **(names | {"batch_location_hash": other}))
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_job_that_has_ended_needs_no_script(endpoint, chain, provider, job_id, script_id, customer):
    chain.end(job_id)
    with pytest.raises(ApiError, match="ended"):
        await fetch(endpoint, provider, job_id, script_id, customer)


async def test_a_thief_who_buys_a_job_with_the_hash_of_another_gets_nothing(endpoint, chain, script_id, thief):
    stolen = chain.buy(script_id, customer=thief, provider=thief)
    with pytest.raises(ApiError, match="another customer"):
        await fetch(endpoint, thief, stolen, script_id, thief)


async def test_an_unsigned_script_belongs_to_the_first_job_that_asks(
    endpoint, url, chain, workflow, customer, thief, provider
):
    script_id = await submit_unsigned(url, workflow)
    first = chain.buy(script_id, customer, provider)
    assert (await fetch(endpoint, provider, first, script_id, customer))[0]
    stolen = chain.buy(script_id, thief, thief)
    with pytest.raises(ApiError, match="another customer"):
        await fetch(endpoint, thief, stolen, script_id, thief)
    assert (await fetch(endpoint, provider, first, script_id, customer))[0]


async def test_an_unreachable_chain_is_no_refusal(endpoint, chain, provider, job_id, script_id, customer, monkeypatch):
    monkeypatch.setattr("deepsquare.grid.supervisor.scripts._ATTEMPTS", 2)
    chain.is_down = True
    with pytest.raises(ConnectionFailedError, match="try again"):
        await fetch(endpoint, provider, job_id, script_id, customer)


async def test_an_unreachable_api_is_reported(customer, provider, monkeypatch):
    monkeypatch.setattr("deepsquare.grid.supervisor.scripts._ATTEMPTS", 2)
    with pytest.raises(ConnectionFailedError, match=r"127\.0\.0\.1:1"):
        await fetch("127.0.0.1:1", provider, "0x" + "00" * 32, "id", customer)


async def test_scripts_and_challenges_outlive_a_restart(chain, tmp_path, workflow, customer, provider):
    def service():
        return SbatchApi(chain=chain, state_dir=tmp_path, logger_endpoint="l:1")

    async with service() as api:
        script_id = await submit_workflow(f"http://127.0.0.1:{api.port}/graphql", workflow, customer)
        async with aio.insecure_channel(f"127.0.0.1:{api.port}") as channel:
            challenge = await RawClient(channel).challenge()
    names = {
        "batch_location_hash": script_id,
        "customer_address": bytes.fromhex(customer.address[2:]),
        "job_id": chain.buy(script_id, customer, provider),
    }
    async with service() as api, aio.insecure_channel(f"127.0.0.1:{api.port}") as channel:
        assert await RawClient(channel).get(challenge, provider, **names)
    async with service() as api, aio.insecure_channel(f"127.0.0.1:{api.port}") as channel:
        with pytest.raises(aio.AioRpcError, match="used"):
            await RawClient(channel).get(challenge, provider, **names)


class TestForgetting:
    @pytest.fixture
    async def store(self, tmp_path):
        store = ScriptStore(tmp_path)
        yield store
        await store.close()

    def age(self, tmp_path, seconds):
        with sqlite3.connect(tmp_path / "scripts.sqlite") as db:
            db.execute("UPDATE scripts SET created = created - ?", (seconds,))
        db.close()

    async def test_young_scripts_stay(self, store, chain, tmp_path, customer):
        script_id = await store.add("script", customer.address)
        self.age(tmp_path, KEEP_SECONDS - 60)
        assert await store.purge(chain) == 0
        assert await store.exists(script_id)

    async def test_old_scripts_go_unless_a_hot_job_names_them(self, store, chain, tmp_path, customer, provider):
        waiting, running_out, unused, unsigned = [
            await store.add("script", owner) for owner in (*[customer.address] * 3, None)
        ]
        chain.buy(waiting, customer, provider)
        ended = chain.buy(running_out, customer, provider)
        self.age(tmp_path, KEEP_SECONDS + 60)
        assert await store.purge(chain) == 2
        kept = [await store.exists(script_id) for script_id in (waiting, running_out, unused, unsigned)]
        assert kept == [True, True, False, False]
        chain.end(ended)
        assert await store.purge(chain) == 1
        assert [await store.exists(waiting), await store.exists(running_out)] == [True, False]

    async def test_a_hot_job_is_found_behind_many_younger_ones(self, store, chain, tmp_path, customer, provider):
        waiting = await store.add("script", customer.address)
        chain.buy(waiting, customer, provider)
        for number in range(1200):
            chain.end(chain.buy(f"other {number}", customer, provider))
        self.age(tmp_path, KEEP_SECONDS + 60)
        assert await store.purge(chain) == 0

    async def test_an_unreachable_chain_forgets_nothing_of_a_customer(self, store, chain, tmp_path, customer):
        script_id = await store.add("script", customer.address)
        self.age(tmp_path, KEEP_SECONDS + 60)
        chain.is_down = True
        with pytest.raises(ConnectionFailedError):
            await store.purge(chain)
        assert await store.exists(script_id)

    async def test_the_files_are_private_and_hold_no_forgotten_script(self, chain, tmp_path):
        store = ScriptStore(tmp_path)
        await store.add("the-secret-of-the-job", None)
        self.age(tmp_path, KEEP_SECONDS + 60)
        await store.purge(chain)
        await store.close()
        assert b"the-secret" not in (tmp_path / "scripts.sqlite").read_bytes()
        assert (tmp_path / "scripts.sqlite").stat().st_mode & 0o777 == 0o600
