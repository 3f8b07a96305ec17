"""Deploys the contracts and wires their roles; the deployer becomes the administrator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eth_utils import keccak, to_checksum_address
from web3 import AsyncWeb3

from deepsquare.chain.artifacts import artifact
from deepsquare.chain.transactions import Sender

_SCHEDULER_ROLE = keccak(text="METASCHEDULER_ROLE")
_CONTRACT_ROLE = keccak(text="METASCHEDULER_CONTRACT_ROLE")


@dataclass(frozen=True, slots=True)
class Deployment:
    """The addresses of a market."""

    metascheduler: str
    credit: str
    constants: str
    provider_manager: str
    provider_job_queues: str
    jobs: str


async def deploy(w3: AsyncWeb3[Any], sender: Sender, *, supply: int, scheduler: str) -> Deployment:
    """Deploy a market.

    Args:
        w3: the node.
        sender: the deployer and administrator, who gets the credits.
        supply: credits to mint at first, in wei.
        scheduler: the address of the meta-scheduler's account, which may assign, top up and panic jobs.

    Raises:
        TransactionError: a deployment or a grant failed; what was deployed before it is of no use.
    """

    async def create(name: str, *arguments: Any) -> str:
        parts = artifact(name)
        contract = w3.eth.contract(abi=parts["abi"], bytecode=parts["bytecode"])
        receipt = await sender.transact(None, str(contract.constructor(*arguments).data_in_transaction))
        return to_checksum_address(receipt["contractAddress"])

    async def call(name: str, address: str, function: str, *arguments: Any) -> None:
        contract = w3.eth.contract(address=to_checksum_address(address), abi=artifact(name)["abi"])
        await sender.transact(address, contract.encode_abi(function, args=list(arguments)))

    credit = await create("Credit", supply)
    constants = await create("Constants")
    provider_manager = await create("ProviderManager")
    jobs = await create("JobRepository")
    provider_job_queues = await create("ProviderJobQueues", jobs)
    metascheduler = await create("MetaScheduler", credit, constants, provider_manager, provider_job_queues, jobs)
    # The contracts write into one another through the MetaScheduler alone.
    await call("JobRepository", jobs, "grantRole", _SCHEDULER_ROLE, metascheduler)
    await call("ProviderManager", provider_manager, "grantRole", _CONTRACT_ROLE, metascheduler)
    await call("ProviderJobQueues", provider_job_queues, "transferOwnership", metascheduler)
    # Whoever writes the record of jobs can make the market pay: from now on nobody can be given that right.
    await call("JobRepository", jobs, "renounceRole", bytes(32), sender.wallet.address)
    # The administrator approves and bans providers; the meta-scheduler only moves jobs.
    await call("ProviderManager", provider_manager, "grantRole", _SCHEDULER_ROLE, sender.wallet.address)
    await call("MetaScheduler", metascheduler, "grantRole", _SCHEDULER_ROLE, to_checksum_address(scheduler))
    return Deployment(metascheduler, credit, constants, provider_manager, provider_job_queues, jobs)
