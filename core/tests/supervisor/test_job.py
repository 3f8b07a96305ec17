"""One job of the supervisor's in situations that real parts can't be brought into at will: all around it is a double."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest
from deepsquare.chain.errors import ContractError
from deepsquare.chain.types import JobDefinition, JobReport, JobStatus
from deepsquare.errors import ConnectionFailedError, GridError, SchedulerError
from deepsquare.grid.supervisor import job as module
from deepsquare.grid.supervisor.hosts.base import Account
from deepsquare.grid.supervisor.job import Services, SupervisedJob
from deepsquare.grid.supervisor.journal import Entry, Stage, SupervisorJournal
from deepsquare.grid.supervisor.reports import Reports
from deepsquare.grid.supervisor.schedulers.base import BatchState, NotSubmittedError, Phase

ID = (5).to_bytes(32, "big")
NAME = "0x" + ID.hex()
PROVIDER = "0xProvider"
RUNNING = BatchState(
    scheduler_id="17",
    phase=Phase.RUNNING,
    start_time=1000,
    end_time=0,
    exit_code=0,
    signal=0,
    reason="RUNNING",
    minutes=10,
    uid=1001,
    submitted_at=990,
)
COMPLETED = replace(RUNNING, phase=Phase.COMPLETED, end_time=1100, ran_seconds=70, reason="COMPLETED")


class World:
    """Chain, scheduler, spool and logger in one."""

    account = PROVIDER

    def __init__(self) -> None:
        self.reports: list[tuple[JobStatus, int, str]] = []
        self.refused: list[bytes] = []
        self.cancelled: list[str] = []
        self.cleared: list[tuple[int, str, str]] = []
        self.limits: list[int] = []
        self.submitted: list[Any] = []
        self.shipped: list[bytes] = []
        self.output = b""
        self.seen_size: int | None = None
        self.fails: dict[str, Exception] = {}

    def _fail(self, what: str) -> None:
        if what in self.fails:
            raise self.fails[what]

    # the chain
    async def report(self, reports: Sequence[JobReport]) -> dict[bytes, ContractError]:
        self.reports += [(report.status, report.seconds, report.error) for report in reports]
        return {}

    async def cost_per_minute_of(self, record: Any) -> int:
        return 1

    async def refuse_job(self, job_id: bytes) -> None:
        self.refused.append(job_id)

    # the scheduler
    async def submit(self, job: Any) -> str:
        self._fail("submit")
        self.submitted.append(job)
        return "17"

    async def cancel(self, scheduler_id: str) -> None:
        self.cancelled.append(scheduler_id)

    async def set_time_limit(self, scheduler_id: str, minutes: int) -> None:
        self._fail("set_time_limit")
        self.limits.append(minutes)

    # accounts and folders
    async def of(self, customer: str) -> Account:
        self._fail("of")
        return Account("somebody", 1001, 1001)

    async def admit(self, account: Account) -> None: ...

    # the spool
    async def create(self, name: str, owner: Account) -> PurePosixPath:
        return PurePosixPath("/spool") / name

    async def size(self, name: str) -> int:
        return len(self.output) if self.seen_size is None else self.seen_size

    async def read(self, name: str, offset: int, *, final: bool) -> list[tuple[bytes, int, int]]:
        return [(self.output[offset:].rstrip(b"\n"), 1, len(self.output))] if self.output[offset:] else []

    async def remove(self, name: str) -> None: ...

    def path(self, name: str) -> PurePosixPath:
        return PurePosixPath("/spool") / name

    async def is_full(self) -> bool:
        return False

    # the rest
    async def clear(self, uid: int, name: str, scheduler_id: str) -> None:
        self.cleared.append((uid, name, scheduler_id))

    async def fetch_script(self, job_id: bytes, location: str, customer: str) -> str:
        return "#!/bin/bash\n"

    async def ship(self, job_id: bytes, customer: str, lines: Sequence[tuple[bytes, int, int]]) -> None:
        self._fail("ship")
        self.shipped += [line for line, _, _ in lines]


def record(**fields: Any) -> Any:
    definition = JobDefinition(ntasks=1, cpus_per_task=1, mem_per_cpu_mb=1, gpus=0, batch_location_hash="x")
    known = {"job_id": ID, "provider": PROVIDER, "customer": "0xCustomer", "definition": definition, "max_cost": 10}
    return SimpleNamespace(
        **known | {"status": JobStatus.RUNNING, "has_cancel_request": False, "start_time": 1000} | fields
    )


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SupervisorJournal]:
    made = SupervisorJournal(tmp_path / "journal.db")
    yield made
    made.close()


@pytest.fixture
def follow(world: World, journal: SupervisorJournal):
    def start(**fields: Any) -> SupervisedJob:
        known = {"stage": Stage.SUBMITTED, "customer": "0xCustomer", "minutes": 10, "scheduler_id": "17"}
        entry = Entry(ID, **known | {"uid": 1001, "since": 1000} | fields)
        journal.save(entry)
        parts: Any = dict.fromkeys(("market", "scheduler", "accounts", "folders", "spool"), world)
        services = Services(
            **parts,
            reports=Reports(parts["market"]),
            ws_url=None,
            fetch_script=world.fetch_script,
            ship_lines=world.ship,
            variables={},
        )
        return SupervisedJob(entry, services, journal, given=lambda _: None)

    return start


async def step(job: SupervisedJob, seen: Any, state: BatchState | None) -> None:
    await job.step(seen, job.find([(NAME, state)] if state else []), accounting_away=False)


async def test_what_cannot_be_read_from_the_chain_is_not_ended(follow, world: World) -> None:
    job = follow()
    await step(job, None, RUNNING)
    assert (world.cancelled, world.reports, job.is_done) == ([], [], False)


async def test_the_end_of_the_output_arrives_though_its_size_seems_old(follow, world: World) -> None:
    job = follow()
    world.output, world.seen_size = b"the result\n", 0
    await step(job, record(), RUNNING)
    assert world.shipped == []
    await step(job, record(), COMPLETED)
    assert world.shipped == [b"the result"]
    assert world.reports == [(JobStatus.FINISHED, 70, "")]


async def test_more_credits_prolong_a_job_though_their_notice_was_lost_and_the_logger_is_away(
    follow, world: World
) -> None:
    job = follow()
    world.output, world.fails["ship"] = b"line\n", ConnectionFailedError("no logger")
    for max_cost in (10, 30):
        with pytest.raises(ConnectionFailedError):
            await step(job, record(max_cost=max_cost), RUNNING)
    assert world.limits == [30]


async def test_output_goes_on_though_slurm_does_not_let_us_prolong(follow, world: World) -> None:
    job = follow()
    job.topped_up = True
    world.output, world.fails["set_time_limit"] = b"line\n", SchedulerError("no")
    await step(job, record(max_cost=30), RUNNING)
    assert world.shipped == [b"line"]


async def test_a_logger_that_hangs_holds_up_nobody_for_long(
    follow, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    async def hang(*_: Any) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(world, "ship", hang)
    monkeypatch.setattr(module, "_SHIP_SECONDS", 0.05)
    job = follow()
    world.output = b"line\n"
    with pytest.raises(ConnectionFailedError, match="took no output"):
        await step(job, record(), RUNNING)


async def test_an_end_that_accounting_told_once_is_remembered(follow, world: World) -> None:
    job = follow()
    world.output, world.fails["ship"] = b"line\n", ConnectionFailedError("no logger")
    with pytest.raises(ConnectionFailedError):
        await step(job, record(), COMPLETED)
    world.fails.clear()
    await step(job, record(), None)
    assert world.reports == [(JobStatus.FINISHED, 70, "")]


@pytest.mark.parametrize(
    ("changes", "is_ours"),
    [
        ({}, True),
        ({"uid": 1002}, False),
        ({"submitted_at": 100}, False),
        ({"is_foreign": True}, False),
        ({"uid": -1, "submitted_at": 0}, True),
    ],
)
@pytest.mark.parametrize("knows_id", [True, False])
def test_whose_a_job_of_the_scheduler_is(follow, changes: dict[str, Any], is_ours: bool, knows_id: bool) -> None:
    job = follow(scheduler_id="17" if knows_id else "")
    if knows_id and "is_foreign" in changes:
        # Its own mark a job can change, and its id not.
        is_ours = True
    assert (job.find([(NAME, replace(RUNNING, **changes))]) is not None) is is_ours


async def test_an_older_job_with_the_same_number_is_not_ours(follow, world: World) -> None:
    older = replace(COMPLETED, submitted_at=980)
    # Seen before: then its time is known to the second.
    job = follow()
    await step(job, record(), RUNNING)
    assert job.find([(NAME, older)]) is None
    assert job.find([(NAME, replace(older, submitted_at=990))]) is not None
    # Never seen: then by its name, which is another job's.
    assert follow().find([("0x" + "0" * 63 + "4", older)]) is None
    assert follow().find([("renamed", older)]) is not None


@pytest.mark.parametrize(
    ("state", "reported"),
    [
        (replace(COMPLETED, start_time=1000, end_time=9999, ran_seconds=61), (JobStatus.FINISHED, 61, "")),
        (replace(COMPLETED, ran_seconds=0), (JobStatus.FINISHED, 1, "")),
        (
            replace(COMPLETED, phase=Phase.CANCELLED, ran_seconds=0),
            (JobStatus.CANCELLED, 0, "cancelled at the provider"),
        ),
        (
            replace(COMPLETED, phase=Phase.CANCELLED, ran_seconds=5),
            (JobStatus.CANCELLED, 5, "cancelled at the provider"),
        ),
    ],
)
async def test_what_is_billed_is_what_ran(follow, world: World, state: BatchState, reported: Any) -> None:
    await step(follow(), record(), state)
    assert world.reports == [reported]


@pytest.mark.parametrize("what", ["of", "submit"])
async def test_trouble_of_the_host_is_tried_again_and_then_the_job_is_given_back(
    follow, world: World, journal: SupervisorJournal, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    job = follow(stage=Stage.CLAIMED, scheduler_id="", uid=-1, since=0)
    world.fails[what] = GridError("no directory") if what == "of" else NotSubmittedError("no controller")
    with pytest.raises(NotSubmittedError):
        await step(job, record(status=JobStatus.SCHEDULED), None)
    assert journal.get(ID) is not None
    assert journal.get(ID).stage is Stage.CLAIMED
    monkeypatch.setattr(module, "_NOT_SUBMITTED_SECONDS", 0)
    await step(job, record(status=JobStatus.SCHEDULED), None)
    assert (world.refused, world.reports, job.is_done) == ([ID], [], True)
    # The market may give it to the same provider again.
    assert journal.get(ID) is None


async def test_what_is_submitted_is_journalled_before(follow, world: World, journal: SupervisorJournal) -> None:
    job = follow(stage=Stage.CLAIMED, scheduler_id="", uid=-1, since=0)
    world.fails["submit"] = SchedulerError("the connection broke")
    with pytest.raises(SchedulerError):
        await step(job, record(status=JobStatus.SCHEDULED), None)
    known = journal.get(ID)
    assert (known.stage, known.uid, known.since > 0) == (Stage.SUBMITTING, 1001, True)
