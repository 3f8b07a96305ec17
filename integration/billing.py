"""The ideas of funding with real numbers, on a local grid of its own; `integration/demo-billing` runs it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Literal

from deepsquare import AutoTopUp, Client, JobStatus
from deepsquare.chain.types import JobRecord, parse_job_id
from deepsquare.credits import format_credits, to_wei
from deepsquare.grid.config import GridConfig
from deepsquare.grid.services import open_market
from deepsquare.workflow import from_dict

_COMMAND = Path(sys.executable).parent / "deepsquare"
_WORK = "sleep 170; echo the work is done"
_LOOK_SECONDS = 1.0
_WORKFLOW = from_dict(
    {
        "resources": {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 50, "gpus": 0},
        "enableLogging": True,
        "steps": [{"run": {"command": _WORK}}],
    }
)


@dataclass(frozen=True, slots=True)
class Case:
    """One way to pay for the work, and what is to come of it."""

    name: str
    by: Literal["grid", "client"]
    """Who adds more."""
    cap_minutes: int
    """How much, in minutes' worth; 0: nothing."""
    ends: JobStatus
    locks_minutes: int
    """The minutes' worth that are locked at its end."""


# The longest first, as few may fit the machine at once.
_CASES = (
    Case("top-ups by the grid", "grid", 5, JobStatus.FINISHED, 4),
    Case("top-ups by the client", "client", 5, JobStatus.FINISHED, 4),
    Case("no top-ups", "grid", 0, JobStatus.OUT_OF_CREDITS, 1),
    Case("a cap of one minute", "grid", 1, JobStatus.OUT_OF_CREDITS, 2),
)


def say(text: str) -> None:
    """Print one step."""
    print(f"\n==> {text}", flush=True)


@contextmanager
def own_grid() -> Iterator[GridConfig]:
    """A grid on the local scheduler, with a home of its own, that leaves nothing behind."""
    state = Path(tempfile.mkdtemp(prefix="deepsquare-billing-"))
    # The account of the jobs must be able to pass.
    state.chmod(0o711)
    os.environ["DEEPSQUARE_HOME"] = str(state / "home")
    for variable in [name for name in os.environ if name.startswith("DEEPSQUARE_") and name != "DEEPSQUARE_HOME"]:
        del os.environ[variable]
    try:
        subprocess.run([_COMMAND, "grid", "up", "--state", state, "--scheduler", "local"], check=True)
        config = GridConfig.load(state)
        assert config is not None
        yield config
    finally:
        subprocess.run([_COMMAND, "grid", "down", "--state", state], check=False)
        shutil.rmtree(state, ignore_errors=True)


async def buy(client: Client, case: Case, minute: Decimal) -> bytes:
    """Buy the work with one minute's credits, and return the job's id."""
    top_up = None
    if case.cap_minutes:
        pieces = timedelta(minutes=1) if case.by == "client" else None
        top_up = AutoTopUp(case.cap_minutes * minute, slice=pieces, by=case.by)
    job = await client.submit(_WORKFLOW, credits=minute, name=case.name, auto_top_up=top_up)
    return parse_job_id(job.id)


async def follow(client: Client, jobs: dict[bytes, Case], minute: int) -> list[JobRecord]:
    """Print what becomes of jobs until all are at their end."""
    begin = time.monotonic()
    seen: dict[bytes, tuple[JobStatus, int]] = {}
    while True:
        records = [record for record in await client.market.get_jobs(list(jobs)) if record is not None]
        for record in records:
            now = (record.status, record.max_cost)
            if seen.get(record.job_id) != now:
                seen[record.job_id] = now
                after = f"{time.monotonic() - begin:5.0f} s"
                name = jobs[record.job_id].name
                print(f"{after}  {name:<22}{record.status.name:<16}paid: {record.max_cost // minute} min", flush=True)
        if all(record.status.is_cold for record in records):
            return records
        await asyncio.sleep(_LOOK_SECONDS)


def wrong(job: JobRecord, case: Case, minute: int) -> str:
    """What is not as it should be of a job that has ended; empty if all is."""
    if job.status is not case.ends:
        return f"{case.name}: it ended {job.status.name}, not {case.ends.name}"
    if job.max_cost != case.locks_minutes * minute:
        return f"{case.name}: it locked {job.max_cost} wei, not {case.locks_minutes} minutes' worth"
    if job.status is JobStatus.OUT_OF_CREDITS and job.final_cost != job.max_cost:
        return f"{case.name}: it ran out of credits with {job.max_cost - job.final_cost} wei left"
    return ""


async def show(config: GridConfig) -> list[str]:
    """Buy, follow, add up; what is wrong."""
    async with open_market(config, "admin") as market:
        # The shortest slices that the contract takes, for a short demo; the default is an hour.
        await market.transact("Constants", "setTopUpSliceDurationMin", 1)
    async with Client() as client:
        (offer,) = await client.estimate(_WORKFLOW)
        minute = to_wei(offer.cost_per_minute)
        before = await client.market.balance_of(client.account)
        say(
            f"work of three minutes, bought with one minute's credits ({format_credits(minute)}), in {len(_CASES)} ways"
        )
        jobs = {await buy(client, case, offer.cost_per_minute): case for case in _CASES}
        ended = await follow(client, jobs, minute)
        after = await client.market.balance_of(client.account)
    say("what each locked, was billed and got back, in credits")
    _print_row("", "ENDED", "LOCKED", "BILLED", "REFUNDED")
    for job in ended:
        amounts = (job.max_cost, job.final_cost, job.max_cost - job.final_cost)
        _print_row(jobs[job.job_id].name, job.status.name, *map(format_credits, amounts))
    billed = sum(job.final_cost for job in ended)
    print(f"The bills are {billed} wei together; the wallet has {before - after} wei less than before.")
    problems = [text for job in ended if (text := wrong(job, jobs[job.job_id], minute))]
    return problems + ([] if before - after == billed else ["the wallet did not pay the sum of the bills"])


def _print_row(name: str, ended: str, *amounts: str) -> None:
    print(f"{name:<22}{ended:<16}" + "".join(f"{amount:>10}" for amount in amounts))


def main() -> int:
    """The demo's exit code: 0 if all is as it should be."""
    say("starting a local grid, whose top-ups come in slices of a minute")
    with own_grid() as config:
        problems = asyncio.run(show(config))
        say("deepsquare cost --check")
        if subprocess.run([_COMMAND, "cost", "--check"], check=False).returncode != 0:
            problems.append("deepsquare cost --check found something")
        say("stopping the grid")
    print("\n".join(f"WRONG: {problem}" for problem in problems) or "All of it adds up.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
