"""Every service is killed at random moments under twenty jobs: each job ends once, and the credits add up."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest

from tests.conftest import CLUSTER, SERVICES, Grid, seconds_billed

pytestmark = pytest.mark.slurm

JOBS = 20
KILLS = 12
_WAIT_SECONDS = 240

BUY = """
import asyncio, json, sys
from datetime import timedelta
from deepsquare import Client
from deepsquare.workflow import from_dict

def job(number):
    command = f"echo begin {number}; sleep {number % 4}; echo end {number}"
    resources = {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 50, "gpus": 0}
    return from_dict({"resources": resources, "enableLogging": True, "steps": [{"run": {"command": command}}]})

async def buy(client, number):
    bought = await client.submit(job(number), time_limit=timedelta(minutes=2), labels={"number": str(number)})
    return number, bought.id

async def main():
    async with Client() as client:
        print(json.dumps(dict(await asyncio.gather(*(buy(client, n) for n in range(int(sys.argv[1])))))))

asyncio.run(main())
"""


@pytest.mark.parametrize("scheduler", ["slurm", "local"])
def test_services_killed_under_load_neither_lose_nor_double_a_job(second_grid: Grid, scheduler: str) -> None:
    grid, state = second_grid, second_grid.state
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    options: list[str | Path] = ["--cluster", CLUSTER] if scheduler == "slurm" else ["--scheduler", "local"]
    without = [word for name in SERVICES for word in ("--without", name)]
    grid.cli("grid", "up", "--state", state, *options, *without, cwd=state)
    services = {name: grid.serve(name) for name in SERVICES}
    try:
        grid.cli("grid", "approve", "--state", state)
        buyer = subprocess.Popen(
            [sys.executable, "-c", BUY, str(JOBS)],
            env=grid.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.1, 2.0))
            name = chance.choice(SERVICES)
            services[name].kill()
            services[name].wait()
            services[name] = grid.serve(name)
        output, errors = buyer.communicate(timeout=_WAIT_SECONDS)
        assert buyer.returncode == 0, errors
        bought = {job_id: number for number, job_id in json.loads(output).items()}
        jobs = wait_for_the_end(grid)
        logs = {job["id"]: grid.logs(job["id"]) for job in jobs}
    finally:
        for service in services.values():
            service.terminate()
            service.wait()

    assert {job["id"] for job in jobs} == set(bought), "a job was bought twice, or lost"
    for job in jobs:
        number, billed, refunded = bought[job["id"]], Decimal(job["billed"]), Decimal(job["refunded"])
        assert billed + refunded == Decimal(job["locked"])
        if job["status"] == "FINISHED":
            assert logs[job["id"]] == [f"begin {number}", f"end {number}"]
            assert 1 <= seconds_billed(job, 2) <= 60
        else:
            # Cut off between its journal and the scheduler: nobody can know whether it was submitted, so nothing is billed.
            assert (job["status"], billed) == ("PANICKED", 0)
            assert logs[job["id"]] in ([], [f"begin {number}", f"end {number}"])
    assert sum(job["status"] == "FINISHED" for job in jobs) >= JOBS - KILLS
    assert "WRONG" not in grid.cli("cost", "--check").stdout


def wait_for_the_end(grid: Grid) -> list[dict[str, str]]:
    until = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < until:
        jobs: list[dict[str, str]] = grid.json("job", "list")
        if all(job["billed"] is not None for job in jobs):
            return jobs
        time.sleep(1)
    pytest.fail(f"after {_WAIT_SECONDS} s some jobs are not at their end: {jobs}")
