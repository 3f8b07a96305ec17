"""What the grid costs in time: `true` through the grid beside plain sbatch on the same Slurm, alternating in one run, and through a
grid on the local scheduler.

    .venv/bin/python tests/bench/overhead.py [--runs 7] [--many 100]

Starts grids of its own (root, Slurm), prints tables in Markdown, and stops the grids.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pwd
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepsquare.grid.config import GridConfig

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
_LOOK_SECONDS = 0.05

_WORKFLOW = {
    "resources": {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 50, "gpus": 0},
    "enableLogging": True,
    "steps": [{"run": {"command": "true"}}],
}


def plain_sbatch(account: str, slurm_conf: str, count: int) -> float:
    """Seconds from the first sbatch to the end of the last of `count` jobs that run `srun true`, looked for all the time."""
    entry = pwd.getpwnam(account)
    options: dict[str, Any] = {
        "env": {"PATH": os.environ["PATH"], "SLURM_CONF": slurm_conf},
        "user": entry.pw_uid,
        "group": entry.pw_gid,
        "extra_groups": [],
        "stdout": subprocess.PIPE,
        "text": True,
    }
    command = ["sbatch", "--parsable", "--mem-per-cpu=50M", "--chdir=/", "--output=/dev/null", "--wrap", "srun true"]
    begin = time.time()
    waiting = {subprocess.run(command, check=True, **options).stdout.strip() for _ in range(count)}
    look = ["squeue", "--noheader", "--states=all", "--jobs", ",".join(waiting), "--format=%A %T"]
    while True:
        states = dict(line.split() for line in subprocess.run(look, check=True, **options).stdout.splitlines())
        if all(states[job] == "COMPLETED" for job in waiting):
            return time.time() - begin
        time.sleep(_LOOK_SECONDS)


async def through_the_grid(count: int) -> tuple[float, list[dict[str, float]], list[str]]:
    """Seconds from the first submit to the last end that the client sees; the stages of each job; the job ids."""
    from deepsquare import Client
    from deepsquare.workflow import from_dict

    workflow = from_dict(_WORKFLOW)
    async with Client() as client:
        begin = time.time()
        seen: dict[str, dict[str, float]] = {}

        async def one() -> str:
            start = time.time()
            job = await client.submit(workflow, time_limit=timedelta(minutes=1))
            seen[job.id] = {"BOUGHT": time.time() - start}
            async for info in client.watch([job.id]):
                seen[job.id].setdefault(info.status.name, time.time() - start)
            return job.id

        ids = await asyncio.gather(*(one() for _ in range(count)))
        took = time.time() - begin
        infos = await client.jobs(ids)
        assert all(info.status.name == "FINISHED" for info in infos), [info for info in infos if info.error]
        return took, [seen[job_id] for job_id in ids], list(ids)


async def gas_of(job_ids: list[str]) -> tuple[int, dict[str, int]]:
    """Transactions of one job, and the gas of each by the status that it brought about."""
    from deepsquare import Client, JobStatus
    from deepsquare.chain.rpc import request

    async with Client() as client:
        market = client.market
        logs = await market.get_logs(
            [("JobRepository", "JobCreated"), ("JobRepository", "JobTransitionEvent")], 0, await market.block_number()
        )
        wanted = {bytes.fromhex(job_id[2:]) for job_id in job_ids}
        gas: dict[str, list[int]] = {}
        for log in logs:
            data = bytes.fromhex(log["data"][2:])
            if data[:32] in wanted:
                name = JobStatus(data[95]).name if len(data) > 32 else "requested"
                receipt = await request(market.w3, "eth_getTransactionReceipt", log["transactionHash"])
                gas.setdefault(name, []).append(int(receipt["gasUsed"], 16))
        return sum(map(len, gas.values())) // len(wanted), {
            name: int(statistics.median(used)) for name, used in gas.items()
        }


@contextmanager
def grid(*options: str) -> Iterator[GridConfig]:
    """A grid of its own, whose context is the current one."""
    from deepsquare.grid.config import GridConfig

    state = Path(tempfile.mkdtemp(prefix="deepsquare-bench-", dir="/tmp"))
    state.chmod(0o711)
    os.environ["DEEPSQUARE_HOME"] = str(state / "home")
    command = [str(BIN / "deepsquare"), "grid"]
    try:
        subprocess.run([*command, "up", "--state", str(state), *options], check=True)
        config = GridConfig.load(state)
        assert config is not None
        yield config
    finally:
        subprocess.run([*command, "down", "--state", str(state)], check=False)
        shutil.rmtree(state, ignore_errors=True)


def measure(runs: int, many: int, plain: Callable[[int], float] | None) -> dict[str, Any]:
    """Single runs, alternating with plain ones where there are any, then many at once."""
    found: dict[str, Any] = {"plain": [], "bought": [], "stages": [], "ids": []}
    for _ in range(runs):
        if plain is not None:
            found["plain"].append(plain(1))
        took, seen, ids = asyncio.run(through_the_grid(1))
        found["bought"].append(took)
        found["stages"] += seen
        found["ids"] += ids
    found["gas"] = asyncio.run(gas_of(found["ids"]))
    found["many_plain"] = None if plain is None else plain(many)
    found["many"] = asyncio.run(through_the_grid(many))[0]
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="single runs of each, at least 5")
    parser.add_argument("--many", type=int, default=100, help="jobs at once")
    arguments = parser.parse_args()
    with grid("--cluster", str(REPOSITORY / "integration" / "slurm-cluster")) as config:
        account, conf = config.account, str(config.slurm_conf)
        slurm = measure(arguments.runs, arguments.many, lambda count: plain_sbatch(account, conf, count))
    with grid("--scheduler", "local"):
        local = measure(arguments.runs, arguments.many, None)

    single_plain, single = statistics.median(slurm["plain"]), statistics.median(slurm["bought"])
    single_local = statistics.median(local["bought"])
    print("\n| what | plain sbatch | grid on Slurm | ratio to plain | grid on the local scheduler | ratio to Slurm |")
    print("|---|---|---|---|---|---|")
    for what, plain, bought, here in (
        (f"one `true`, median of {arguments.runs} (s)", single_plain, single, single_local),
        (f"{arguments.many} `true` at once (s)", slurm["many_plain"], slurm["many"], local["many"]),
    ):
        print(f"| {what} | {plain:.2f} | {bought:.2f} | {bought / plain:.2f} | {here:.2f} | {here / bought:.2f} |")
    print("\n| seen by the client, median seconds after submit | on Slurm | on the local scheduler |\n|---|---|---|")
    for name in ("BOUGHT", "META_SCHEDULED", "SCHEDULED", "RUNNING", "FINISHED"):
        medians = []
        for found in (slurm, local):
            times = [stage[name] for stage in found["stages"] if name in stage]
            medians.append(f"{statistics.median(times):.2f}" if times else "-")
        print(f"| {name} | {' | '.join(medians)} |")
    count, gas = slurm["gas"]
    print(f"\n{count} transactions a job\n\n| transaction | gas |\n|---|---|")
    for name, used in gas.items():
        print(f"| {name} | {used:,} |")
    print(f"| whole life | {sum(gas.values()):,} |")


if __name__ == "__main__":
    main()
