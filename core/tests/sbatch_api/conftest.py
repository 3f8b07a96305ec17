"""An sbatch API on a free port, and who takes part: a customer, a thief, a provider."""

import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest
from deepsquare.chain.types import JobDefinition, JobRecord, JobStatus
from deepsquare.chain.wallet import Wallet
from deepsquare.errors import ConnectionFailedError
from deepsquare.grid.sbatch_api import SbatchApi


@dataclass
class InMemoryChain:
    """The reads of the chain that the sbatch API needs, from a dictionary."""

    jobs: dict[bytes, JobRecord] = field(default_factory=dict)
    is_down: bool = False

    async def get_job(self, job_id: bytes) -> JobRecord | None:
        return (await self.get_jobs([job_id]))[0]

    async def get_jobs(self, job_ids) -> list[JobRecord | None]:
        if self.is_down:
            raise ConnectionFailedError("the chain is down")
        return [self.jobs.get(job_id) for job_id in job_ids]

    async def pages_of(self, customer: str) -> AsyncIterator[list[JobRecord]]:
        if self.is_down:
            raise ConnectionFailedError("the chain is down")
        for job in list(self.jobs.values())[::-1]:
            if job.customer == customer:
                yield [job]

    def buy(self, script_id: str, customer: Wallet, provider: Wallet) -> str:
        """A job with this script, assigned to the provider."""
        job_id = secrets.token_bytes(32)
        self.jobs[job_id] = JobRecord(
            job_id=job_id,
            status=JobStatus.SCHEDULED,
            customer=customer.address,
            provider=provider.address,
            definition=JobDefinition(1, 1, 1, 0, script_id),
            max_cost=0,
            final_cost=0,
            pending_top_up=0,
            delegate_spending_authority=False,
            submit_time=int(time.time()),
            start_time=0,
            end_time=0,
            block_number_state_change=0,
            job_name=bytes(32),
            has_cancel_request=False,
            last_error="",
            exit_code=0,
        )
        return "0x" + job_id.hex()

    def end(self, job_id: str) -> None:
        key = bytes.fromhex(job_id[2:])
        self.jobs[key] = replace(self.jobs[key], status=JobStatus.FINISHED)


def new_wallet() -> Wallet:
    return Wallet.from_key(secrets.token_bytes(32))


@pytest.fixture
def chain():
    return InMemoryChain()


@pytest.fixture
def customer():
    return new_wallet()


@pytest.fixture
def thief():
    return new_wallet()


@pytest.fixture
def provider():
    return new_wallet()


@pytest.fixture
async def api(chain, tmp_path):
    async with SbatchApi(chain=chain, state_dir=tmp_path / "sbatch", logger_endpoint="logs.example:443") as service:
        yield service


@pytest.fixture
def url(api):
    return f"http://127.0.0.1:{api.port}/graphql"


@pytest.fixture
def endpoint(api):
    return f"127.0.0.1:{api.port}"


@pytest.fixture
def workflow():
    return {
        "resources": {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 64, "gpus": 0},
        "enableLogging": True,
        "steps": [{"name": "greet", "run": {"command": "echo the-secret-of-the-job"}}],
    }
