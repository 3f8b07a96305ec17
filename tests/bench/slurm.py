"""What Slurm's adapter and the private cluster take: starting and stopping, submitting, looking at many jobs, hearing of an end.

    .venv/bin/python tests/bench/slurm.py [--runs 7] [--many 200] [--queued 1000]

Starts clusters and grids of its own (root, Slurm), prints tables in Markdown, and stops them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from deepsquare.grid.supervisor.accounts import SharedAccount  # noqa: E402
from deepsquare.grid.supervisor.hosts.base import Host  # noqa: E402
from deepsquare.grid.supervisor.hosts.local import LocalHost, own_account  # noqa: E402
from deepsquare.grid.supervisor.hosts.ssh import SshAddress, SshHost  # noqa: E402
from deepsquare.grid.supervisor.schedulers.base import BatchJob  # noqa: E402
from deepsquare.grid.supervisor.schedulers.slurm import Slurm  # noqa: E402

from tests.cluster import SlurmCluster, new_cluster  # noqa: E402

BIN = Path(sys.executable).parent
ACCOUNT = "nobody"
_SCRIPT = "#!/bin/sh\ntrue\n"


def main() -> None:
    """Measure everything, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="repetitions of what is short")
    parser.add_argument("--many", type=int, default=200, help="jobs submitted at once")
    parser.add_argument("--queued", type=int, default=1000, help="jobs in the queue for one look")
    parser.add_argument("--delays", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.delays:
        print_delays(options.delays)
        return
    print(start_and_stop(options.runs))
    with new_cluster("--nodes", "2", "--cpus", "32", "--ssh") as cluster:
        print(asyncio.run(submitting(cluster, options.many)))
        print(asyncio.run(looking(cluster, options.queued, options.runs)))
    print(hearing(options.runs))


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [f"\n## {title}\n", f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def start_and_stop(runs: int) -> str:
    """`up` and `down` of two nodes, with accounting and without, and `up` of one that is up."""
    rows = []
    for words, options in (("with accounting", []), ("without", ["--no-accounting"])):
        first, again, down = [], [], []
        for _ in range(runs):
            with tempfile.TemporaryDirectory(prefix="scb-", dir="/tmp") as folder:
                Path(folder).chmod(0o755)
                state = f"{folder}/c"
                scripts = REPOSITORY / "integration" / "slurm-cluster"
                first.append(seconds_of([scripts / "up", state, "--nodes", "2", *options]))
                again.append(seconds_of([scripts / "up", state]))
                down.append(seconds_of([scripts / "down", state, "--purge"]))
        rows.append([words, *(f"{statistics.median(times):.1f}" for times in (first, again, down))])
    return table("Start and stop of two nodes, medians (s)", ["", "up", "up again", "down"], rows)


def seconds_of(command: Sequence[str | Path]) -> float:
    begin = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - begin


@contextmanager
def adapters(cluster: SlurmCluster) -> Iterator[dict[str, Host]]:
    ssh = cluster.status()["ssh"]
    address = SshAddress(
        ssh["host"], user=ssh["user"], port=ssh["port"], key=Path(ssh["key"]), known_hosts=Path(ssh["known_hosts"])
    )
    yield {"here": LocalHost(), "over SSH": SshHost(address)}


async def submitting(cluster: SlurmCluster, many: int) -> str:
    """Jobs a second of a shell loop, and of the adapter with everything that a round submits at once."""
    account = own_account(ACCOUNT)
    loop = (
        f"for i in $(seq {many}); do sbatch --parsable --output=/dev/null --chdir=/ --time=1 --mem=1M --wrap true; done"
    )
    environment = {"PATH": os.environ["PATH"], "SLURM_CONF": str(cluster.conf)}
    begin = time.monotonic()
    subprocess.run(
        ["sh", "-c", loop],
        check=True,
        capture_output=True,
        cwd="/",
        env=environment,
        user=account.uid,
        group=account.gid,
    )
    plain = many / (time.monotonic() - begin)
    rows = [["sbatch in a shell loop", f"{plain:.0f}", "1.0"]]
    with adapters(cluster) as hosts:
        for words, host in hosts.items():
            scheduler = Slurm(host, SharedAccount(account), mark="bench", slurm_conf=str(cluster.conf))
            begin = time.monotonic()
            limit = asyncio.Semaphore(16)

            async def one(number: int, scheduler: Slurm = scheduler, limit: asyncio.Semaphore = limit) -> None:
                async with limit:
                    await scheduler.submit(job(number))

            await asyncio.gather(*(one(number) for number in range(many)))
            rate = many / (time.monotonic() - begin)
            rows.append([f"adapter {words}, 16 at once", f"{rate:.0f}", f"{rate / plain:.1f}"])
            await host.close()
    cluster.run("scancel", f"--user={ACCOUNT}")
    return table(f"Submitting {many} jobs", ["", "jobs a second", "ratio"], rows)


def job(number: int) -> BatchJob:
    return BatchJob(
        name=f"0x{number:064x}",
        script=_SCRIPT,
        minutes=1,
        tasks=1,
        cpus_per_task=1,
        mem_per_cpu_mb=1,
        gpus=0,
        account=own_account(ACCOUNT),
        output=Path("/dev/null"),
        variables={},
    )


async def looking(cluster: SlurmCluster, queued: int, runs: int) -> str:
    """One look at many jobs: the adapter's, beside one squeue a job."""
    account = own_account(ACCOUNT)
    environment = {"PATH": os.environ["PATH"], "SLURM_CONF": str(cluster.conf)}
    array = ["sbatch", "--parsable", "--output=/dev/null", "--chdir=/", "--begin=now+1day", "--wrap", "true"]
    for _ in range(queued):
        subprocess.run(array, check=True, capture_output=True, env=environment, user=account.uid, group=account.gid)
    ids = cluster.run("squeue", "--noheader", "--format=%A").split()
    sample = ids[:50]
    begin = time.monotonic()
    for slurm_id in sample:
        subprocess.run(["squeue", "--noheader", f"--jobs={slurm_id}"], check=True, capture_output=True, env=environment)
    naive = (time.monotonic() - begin) / len(sample) * queued
    rows = [[f"{queued} x squeue (from {len(sample)})", f"{naive:.2f}", "1"]]
    with adapters(cluster) as hosts:
        for words, host in hosts.items():
            scheduler = Slurm(host, SharedAccount(account), mark="bench", slurm_conf=str(cluster.conf))
            await scheduler.states()
            times = [await timed(scheduler.states) for _ in range(runs)]
            median = statistics.median(times)
            assert len(await scheduler.states()) >= queued
            rows.append([f"one look of the adapter {words}", f"{median:.3f}", f"1/{naive / median:.0f}"])
            await host.close()
    cluster.run("scancel", f"--user={ACCOUNT}")
    return table(f"A look at {queued} jobs in the queue, median (s)", ["", "seconds", "ratio"], rows)


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    begin = time.monotonic()
    await call()
    return time.monotonic() - begin


def hearing(runs: int) -> str:
    """From the last act of a job to its end on chain, as the client sees it."""
    rows = []
    baseline = None
    cases = (("every 5 s", 5.0, False), ("every 0.5 s", 0.5, False), ("every 5 s, and epilog", 5.0, True))
    for words, poll, hooked in cases:
        times = delays_with(poll, hooked=hooked, runs=runs)
        median = statistics.median(times)
        baseline = baseline or median
        rows.append([words, f"{median:.2f}", f"{max(times):.2f}", f"{median / baseline:.2f}"])
    return table("From a job's end to the chain (s)", ["the supervisor looks", "median", "longest", "ratio"], rows)


def delays_with(poll: float, *, hooked: bool, runs: int) -> list[float]:
    """What `print_delays` measures on a grid and a cluster of their own."""
    with tempfile.TemporaryDirectory(prefix="scb-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        state = Path(folder) / "g"
        hook = ["--epilog", str(state / "supervisor" / "epilog")] if hooked else []
        with new_cluster("--cpus", "4", *hook) as cluster:
            environment = os.environ | {"DEEPSQUARE_HOME": f"{folder}/home", "PATH": f"{BIN}:{os.environ['PATH']}"}

            def run(*command: str | Path) -> str:
                done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
                return done.stdout

            run("deepsquare", "grid", "up", "--state", state, "--slurm-conf", cluster.conf, "--poll", str(poll))
            try:
                return [float(text) for text in run(sys.executable, __file__, "--delays", str(runs)).split()]
            finally:
                run("deepsquare", "grid", "down", "--state", state)


def print_delays(runs: int) -> None:
    """Print, for each of some jobs, the seconds from its last act until the client sees its end."""
    from deepsquare import Client
    from deepsquare.workflow import from_dict

    workflow = from_dict(
        {
            "resources": {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 50, "gpus": 0},
            "enableLogging": True,
            # Of different lengths, so that ends meet the looks at any moment.
            "steps": [{"run": {"command": "sleep 1.$((RANDOM % 10)); date +%s.%N"}}],
        }
    )

    async def measure() -> None:
        async with Client() as client:
            for _ in range(runs):
                bought = await client.submit(workflow, time_limit=timedelta(minutes=1))
                async for info in client.watch([bought.id]):
                    if info.status.is_cold:
                        break
                seen = time.time()
                (line,) = await client.log_tail(bought.id, 1)
                found = re.fullmatch(r"\d+\.\d+", line)
                assert found is not None, line
                print(seen - float(line), flush=True)

    asyncio.run(measure())


if __name__ == "__main__":
    main()
