"""A grid logger on a free port, and who takes part: a customer, a stranger, a provider."""

import secrets
from dataclasses import dataclass, field

import pytest
from deepsquare.chain.types import JobDefinition, JobRecord, JobStatus
from deepsquare.chain.wallet import Wallet
from deepsquare.grid.logger import GridLogger


@dataclass
class InMemoryChain:
    """The reads of the chain that the logger needs, from a dictionary."""

    jobs: dict[bytes, JobRecord] = field(default_factory=dict)

    async def get_job(self, job_id: bytes) -> JobRecord | None:
        return self.jobs.get(job_id)

    def add(self, customer: Wallet, provider: Wallet) -> str:
        job_id = secrets.token_bytes(32)
        self.jobs[job_id] = JobRecord(
            job_id=job_id,
            status=JobStatus.RUNNING,
            customer=customer.address,
            provider=provider.address,
            definition=JobDefinition(1, 1, 1, 0, "a-script"),
            max_cost=0,
            final_cost=0,
            pending_top_up=0,
            delegate_spending_authority=False,
            submit_time=0,
            start_time=0,
            end_time=0,
            block_number_state_change=0,
            job_name=bytes(32),
            has_cancel_request=False,
            last_error="",
            exit_code=0,
        )
        return "0x" + job_id.hex()


def new_wallet() -> Wallet:
    return Wallet.from_key(secrets.token_bytes(32))


@pytest.fixture
def chain():
    return InMemoryChain()


@pytest.fixture
def customer():
    return new_wallet()


@pytest.fixture
def stranger():
    return new_wallet()


@pytest.fixture
def provider():
    return new_wallet()


@pytest.fixture
def job_id(chain, customer, provider):
    return chain.add(customer, provider)


@pytest.fixture
async def logger(chain, tmp_path):
    async with GridLogger(chain=chain, state_dir=tmp_path / "logger") as service:
        yield service


@pytest.fixture
def endpoint(logger):
    return f"127.0.0.1:{logger.port}"
