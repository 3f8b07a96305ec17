"""What the contracts store, as Python types. Ids are 32 bytes, money is wei, times are unix seconds (0 = unset)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

ZERO_ADDRESS = "0x" + "0" * 40
UNLIMITED = 2**256 - 1
"""The number that contracts take for "no limit"."""


class JobStatus(IntEnum):
    """The states of a job on chain: hot from PENDING to RUNNING, cold (final) from CANCELLED on."""

    PENDING = 0
    META_SCHEDULED = 1
    SCHEDULED = 2
    RUNNING = 3
    CANCELLED = 4
    FINISHED = 5
    FAILED = 6
    OUT_OF_CREDITS = 7
    PANICKED = 8

    @property
    def is_hot(self) -> bool:
        """The job is not at its end yet."""
        return self <= JobStatus.RUNNING

    @property
    def is_cold(self) -> bool:
        """The job is at its end; its status never changes again."""
        return not self.is_hot


@dataclass(frozen=True, slots=True)
class Label:
    """A key and value of a provider or of a job's use."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Prices:
    """A provider's prices in wei a minute: of one GPU, of one CPU, of one MB of memory."""

    gpu: int
    cpu: int
    mem: int


@dataclass(frozen=True, slots=True)
class Hardware:
    """A provider's nodes; each list has one number a node, memory in MB."""

    gpus: tuple[int, ...]
    cpus: tuple[int, ...]
    mem_mb: tuple[int, ...]

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return len(self.cpus)

    def encode(self) -> tuple[Any, ...]:
        """The struct ProviderHardware as web3 takes it."""
        return (self.nodes, list(self.gpus), list(self.cpus), list(self.mem_mb))


@dataclass(frozen=True, slots=True)
class Provider:
    """A registered provider."""

    address: str
    hardware: Hardware
    prices: Prices
    labels: tuple[Label, ...]
    is_banned: bool

    @classmethod
    def decode(cls, value: Sequence[Any]) -> Provider:
        """From the struct Provider as web3 returns it."""
        address, (_, gpus, cpus, mem), (gpu, cpu, memory), labels, banned = value
        return cls(
            address=address,
            hardware=Hardware(tuple(gpus), tuple(cpus), tuple(mem)),
            prices=Prices(gpu, cpu, memory),
            labels=tuple(Label(*label) for label in labels),
            is_banned=banned,
        )


@dataclass(frozen=True, slots=True)
class JobDefinition:
    """What a job needs: `ntasks` tasks with CPUs, memory (MB a CPU), and GPUs for the whole job."""

    ntasks: int
    cpus_per_task: int
    mem_per_cpu_mb: int
    gpus: int
    batch_location_hash: str
    storage_type: int = 4
    uses: tuple[Label, ...] = ()
    affinity: tuple[tuple[Label, bytes], ...] = ()

    def encode(self) -> tuple[Any, ...]:
        """The struct JobDefinition as web3 takes it."""
        return (
            self.gpus,
            self.mem_per_cpu_mb,
            self.cpus_per_task,
            self.ntasks,
            self.batch_location_hash,
            self.storage_type,
            [(use.key, use.value) for use in self.uses],
            [((label.key, label.value), op) for label, op in self.affinity],
        )

    @classmethod
    def decode(cls, value: Sequence[Any]) -> JobDefinition:
        """From the struct JobDefinition as web3 returns it."""
        gpus, mem, cpus, ntasks, location, storage, uses, affinity = value
        return cls(
            ntasks=ntasks,
            cpus_per_task=cpus,
            mem_per_cpu_mb=mem,
            gpus=gpus,
            batch_location_hash=location,
            storage_type=storage,
            uses=tuple(Label(*use) for use in uses),
            affinity=tuple((Label(*label), bytes(op)) for label, op in affinity),
        )

    def cost_per_minute(self, prices: Prices) -> int:
        """What a minute of this job costs, in wei, by the contract's formula (`Tools.convertDurationToCredit`)."""
        cpus = self.ntasks * self.cpus_per_task
        return cpus * prices.cpu + cpus * self.mem_per_cpu_mb * prices.mem + self.gpus * prices.gpu

    def fits(self, hardware: Hardware) -> bool:
        """Whether the nodes, all of them empty, could hold the job: each task on one node, GPUs wherever they are."""
        memory = self.cpus_per_task * self.mem_per_cpu_mb
        places = sum(
            min(cpus // self.cpus_per_task, mem // memory)
            for cpus, mem in zip(hardware.cpus, hardware.mem_mb, strict=True)
        )
        return places >= self.ntasks and sum(hardware.gpus) >= self.gpus


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as the chain has it."""

    job_id: bytes
    status: JobStatus
    customer: str
    provider: str
    definition: JobDefinition
    max_cost: int
    final_cost: int
    pending_top_up: int
    delegate_spending_authority: bool
    submit_time: int
    start_time: int
    end_time: int
    block_number_state_change: int
    job_name: bytes
    has_cancel_request: bool
    last_error: str
    exit_code: int

    @classmethod
    def decode(cls, value: Sequence[Any]) -> JobRecord:
        """From the struct Job as web3 returns it."""
        job_id, status, customer, provider, definition, cost, time, name, cancel, error, exit_code = value
        return cls(
            job_id=bytes(job_id),
            status=JobStatus(status),
            customer=customer,
            provider=provider,
            definition=JobDefinition.decode(definition),
            max_cost=cost[0],
            final_cost=cost[1],
            pending_top_up=cost[2],
            delegate_spending_authority=cost[3],
            submit_time=time[0],
            start_time=time[1],
            end_time=time[2],
            block_number_state_change=time[4],
            job_name=bytes(name),
            has_cancel_request=cancel,
            last_error=error,
            exit_code=exit_code,
        )


@dataclass(frozen=True, slots=True)
class JobReport:
    """What a provider reports of a job.

    Args:
        job_id: the job.
        status: its new status; a cold one bills `seconds` and refunds the rest.
        seconds: the time that it ran.
        error: the reason of a failure, for the customer; public.
        exit_code: Slurm's raw wait status, exit code x 256 + signal.
    """

    job_id: bytes
    status: JobStatus
    seconds: int = 0
    error: str = ""
    exit_code: int = 0

    @property
    def started_minutes(self) -> int:
        """The minutes that contracts know which bill no seconds."""
        return -(-self.seconds // 60)


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job to buy for `locked` wei.

    Args:
        definition: what it needs.
        locked: the credits to lock, in wei.
        job_name: its public name, 32 bytes.
        delegate_spending_authority: whether the meta-scheduler may top it up from the customer's allowance.
        delegate_cap: how much such top-ups may add in all, in wei; None: the allowance is the only bound.
        key: the customer's own name for the purchase, 32 bytes; the same key never buys a second job. Zeros: none.
    """

    definition: JobDefinition
    locked: int
    job_name: bytes
    delegate_spending_authority: bool = False
    delegate_cap: int | None = None
    key: bytes = bytes(32)

    def encode(self) -> tuple[Any, ...]:
        """The struct JobRequest as web3 takes it."""
        cap = UNLIMITED if self.delegate_cap is None else self.delegate_cap
        return (
            self.definition.encode(),
            self.locked,
            self.job_name,
            self.delegate_spending_authority,
            cap,
            self.key,
        )


def to_hex(job_id: bytes) -> str:
    """A job id as clients print it: 0x and 64 hex digits."""
    return "0x" + job_id.hex()


def parse_job_id(text: str | int) -> bytes:
    """The 32 bytes of a job id: 0x-hex of any length up to 64 digits, or a decimal number, since ids count up.

    Raises:
        ValueError: it is neither.
    """
    try:
        text = str(text)
        number = int(text, 16) if text[:2].lower() == "0x" else int(text, 10)
        return number.to_bytes(32, "big")
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a job id: write 0x and hex digits, or the job's number") from None
