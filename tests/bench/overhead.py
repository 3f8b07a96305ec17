"""What the grid costs in time: `true` through the grid beside plain sbatch on the same Slurm, alternating in one run.

    .venv/bin/python tests/bench/overhead.py [--runs 7] [--many 100]

Starts a grid of its own (root, Slurm), prints a table in Markdown, and stops the grid.
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
from datetime import timedelta
from pathlib import Path
from typing import Any

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


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="alternating single runs, at least 5")
    parser.add_argument("--many", type=int, default=100, help="jobs at once")
    arguments = parser.parse_args()
    state = Path(tempfile.mkdtemp(prefix="deepsquare-bench-", dir="/tmp"))
    state.chmod(0o711)
    os.environ["DEEPSQUARE_HOME"] = str(state / "home")
    grid = [str(BIN / "deepsquare"), "grid"]
    try:
        up = [*grid, "up", "--state", str(state), "--cluster", str(REPOSITORY / "integration" / "slurm-cluster")]
        subprocess.run(up, check=True)
        from deepsquare.grid.config import GridConfig

        config = GridConfig.load(state)
        assert config is not None
        account, conf = config.account, str(config.slurm_conf)
        plain, bought, stages, ids = [], [], [], []
        for _ in range(arguments.runs):
            plain.append(plain_sbatch(account, conf, 1))
            took, seen, job_ids = asyncio.run(through_the_grid(1))
            bought.append(took)
            stages += seen
            ids += job_ids
        count, gas = asyncio.run(gas_of(ids))
        many_plain = plain_sbatch(account, conf, arguments.many)
        many_grid, _, _ = asyncio.run(through_the_grid(arguments.many))
        single, single_plain = statistics.median(bought), statistics.median(plain)
        print("\n| what | plain sbatch | through the grid | ratio |\n|---|---|---|---|")
        print(
            f"| one `true`, median of {arguments.runs} (s) | {single_plain:.2f} | {single:.2f} | {single / single_plain:.2f} |"
        )
        print(
            f"| {arguments.many} `true` at once (s) | {many_plain:.1f} | {many_grid:.1f} | {many_grid / many_plain:.2f} |"
        )
        print("\n| seen by the client, median seconds after submit |  |\n|---|---|")
        for name in ("BOUGHT", "META_SCHEDULED", "SCHEDULED", "RUNNING", "FINISHED"):
            times = [stage[name] for stage in stages if name in stage]
            if times:
                print(f"| {name} | {statistics.median(times):.2f} |")
        print(f"\n{count} transactions a job\n\n| transaction | gas |\n|---|---|")
        for name, used in gas.items():
            print(f"| {name} | {used:,} |")
        print(f"| whole life | {sum(gas.values()):,} |")
    finally:
        subprocess.run([*grid, "down", "--state", str(state)], check=False)
        shutil.rmtree(state, ignore_errors=True)


if __name__ == "__main__":
    main()
