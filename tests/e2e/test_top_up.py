"""Top-ups by the grid, from a customer's allowance: a job with too few credits runs for as long as its customer's cap allows."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest
from deepsquare.grid.config import GridConfig
from deepsquare.grid.services import open_market

from tests.conftest import CLUSTER, Grid, running_grid

pytestmark = pytest.mark.slurm

# One minute's credits, and a cap of so many minutes on what the grid may add; prints the job's id, and what a minute costs.
BUY = """
import asyncio, sys
from deepsquare import Client, contexts
from deepsquare.chain.types import JobDefinition, JobRequest, to_hex
from deepsquare.client.sbatch import submit_workflow
from deepsquare.credits import from_wei

async def main(command, cap):
    workflow = {
        "resources": {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 50, "gpus": 0},
        "enableLogging": True,
        "steps": [{"run": {"command": command}}],
    }
    async with Client() as client:
        location = await submit_workflow(client.context.sbatch_url, workflow, contexts.open_wallet(client.context))
        definition = JobDefinition(1, 1, 50, 0, location)
        (provider,) = await client.market.providers()
        minute = definition.cost_per_minute(provider.prices)
        request = JobRequest(definition, minute, bytes(32), True, cap * minute)
        print(to_hex((await client.market.request_jobs([request]))[0]), from_wei(minute))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.fixture(params=["slurm", "local"])
async def grid(request: pytest.FixtureRequest) -> AsyncIterator[Grid]:
    """A grid without a meta-scheduler yet, whose slices are the shortest: they leave the least time to prolong a job."""
    options = ["--cluster", CLUSTER] if request.param == "slurm" else ["--scheduler", "local"]
    with running_grid(None, *options, "--without", "metascheduler") as made:
        config = GridConfig.load(made.state)
        assert config is not None
        async with open_market(config, "admin") as market:
            await market.transact("Constants", "setTopUpSliceDurationMin", 1)
        yield made


def buy(grid: Grid, command: str, cap_minutes: int) -> tuple[str, Decimal]:
    job_id, minute = grid.run(sys.executable, "-c", BUY, command, str(cap_minutes)).stdout.split()
    return job_id, Decimal(minute)


def test_a_job_outlives_its_credits_up_to_its_cap_and_not_longer(grid: Grid) -> None:
    """With two meta-schedulers at once, of which one is killed after the first slice."""
    killed, other = grid.serve("metascheduler"), grid.serve("metascheduler")
    try:
        finishes, minute = buy(grid, "sleep 100; echo in time", 5)
        capped, _ = buy(grid, "sleep 400; echo too late", 1)
        grid.until(lambda: Decimal(grid.json("job", "show", finishes)["locked"]) == 2 * minute)
        killed.kill()

        finished = grid.wait(finishes, "FINISHED", "OUT_OF_CREDITS", seconds=180)
        stopped = grid.wait(capped, "FINISHED", "OUT_OF_CREDITS", seconds=180)
    finally:
        for process in (killed, other):
            process.kill()
            process.wait()

    assert (finished["status"], grid.logs(finishes)) == ("FINISHED", ["in time"])
    assert Decimal(finished["locked"]) >= 3 * minute > Decimal(finished["billed"]) >= 100 * minute / 60
    assert Decimal(finished["billed"]) + Decimal(finished["refunded"]) == Decimal(finished["locked"])
    # Its own minute and the cap's, all of it used.
    assert (stopped["status"], "too late" in grid.logs(capped)) == ("OUT_OF_CREDITS", False)
    assert Decimal(stopped["locked"]) == Decimal(stopped["billed"]) == 2 * minute
    assert "WRONG" not in grid.cli("cost", "--check").stdout
