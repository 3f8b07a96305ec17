"""A real grid for the tests: real chain, real Slurm, a state folder, ports and an account of its own."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import SlurmCluster

REPOSITORY = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
_LOG_LINES = 200
SERVICES = ("logger", "sbatch-api", "metascheduler", "supervisor")
CLUSTER = REPOSITORY / "integration" / "slurm-cluster"


def seconds_billed(job: Mapping[str, Any], minutes: int) -> float:
    """The seconds that a job's bill is for, when what it locked buys so many minutes."""
    return round(float(Decimal(job["billed"]) * 60 * minutes / Decimal(job["locked"])), 3)


@dataclass
class Grid:
    """The grid under test; its supervisor is a process of its own, so that it can be killed."""

    state: Path
    environment: dict[str, str]
    supervisor: subprocess.Popen[str] | None = field(default=None)
    shared: Path | None = None
    """Where jobs have their folders, when it is not below `state`."""
    cluster: SlurmCluster | None = None
    """The cluster that it uses, when it is not its own."""
    nodes: int = 1
    cpus: int = os.cpu_count() or 1
    """Of each node."""

    @property
    def jobs_folder(self) -> Path:
        return self.shared or self.state / "jobs"

    @property
    def slurm_conf(self) -> Path:
        return self.cluster.conf if self.cluster else self.state / "slurm" / "etc" / "slurm.conf"

    def accounts(self) -> set[str]:
        """Whom its jobs run as: one account, or one for each customer."""
        database_file = self.state / "supervisor" / "accounts.db"
        if not database_file.exists():
            return {self.json("grid", "status", "--state", self.state)["account"]}
        with closing(sqlite3.connect(database_file)) as database:
            return {name for (name,) in database.execute("SELECT name FROM accounts")}

    def slurm(self, *command: str | Path, check: bool = True) -> str:
        """Run one of Slurm's commands as the cluster's operator."""
        return str(self.run(*command, env={"SLURM_CONF": str(self.slurm_conf)}, check=check).stdout)

    def run(
        self,
        *command: str | Path,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        timeout: float = 300,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command with the grid's environment."""
        result = subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            env=self.environment | dict(env or {}),
            timeout=timeout,
            check=False,
            **options,
        )
        if check and result.returncode != 0:
            pytest.fail(f"{command} exited with {result.returncode}\n{result.stdout}\n{result.stderr}")
        return result

    def cli(self, *arguments: str | Path, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the deepsquare command."""
        return self.run(BIN / "deepsquare", *arguments, check=check, **options)

    def json(self, *arguments: str | Path) -> Any:
        """What the deepsquare command prints with --json."""
        return json.loads(self.cli(*arguments, "--json").stdout)

    def serve(self, service: str) -> subprocess.Popen[str]:
        """Run one service in a process of its own, and return when it works."""
        path = self.state / "log" / f"{service}.log"
        with path.open("a") as log:
            process = subprocess.Popen(
                [BIN / "deepsquare", "grid", "serve", service, "--state", self.state],
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert process.stdout is not None
        assert "is up" in process.stdout.readline(), path.read_text()[-3000:]
        return process

    def start_supervisor(self) -> None:
        self.supervisor = self.serve("supervisor")

    def kill_supervisor(self) -> None:
        assert self.supervisor is not None
        self.supervisor.send_signal(signal.SIGKILL)
        self.supervisor.wait()

    def kill_daemon(self) -> None:
        """Kill the process of the chain's keeper and of all services at once."""
        os.kill(int((self.state / "grid.pid").read_text()), signal.SIGKILL)

    def submit(self, command: str, *options: str, cpus: int = 1, memory_mb: int = 100, **run_options: Any) -> Any:
        """Submit a shell command with `--json` and return what is printed, whatever the exit code."""
        workflow = {
            "resources": {"tasks": 1, "cpusPerTask": cpus, "memPerCpu": memory_mb, "gpus": 0},
            "enableLogging": True,
            "steps": [{"name": "test", "run": {"command": command}}],
        }
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(workflow, file)
            file.flush()
            result = self.cli("submit", file.name, "--json", *options, check=False, **run_options)
        assert result.stdout, result.stderr
        return json.loads(result.stdout)

    def wait(self, job_id: str, *statuses: str, seconds: float = 60) -> Any:
        """Wait until a job has one of the statuses."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            job = self.json("job", "show", job_id)
            if job["status"] in statuses:
                return job
            time.sleep(0.2)
        pytest.fail(f"the job {job_id} is not {statuses} after {seconds} s: {job}")

    def until(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Wait until something is so."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not come to be"
            time.sleep(0.1)

    def logs(self, job_id: str) -> list[str]:
        return self.cli("job", "logs", job_id).stdout.splitlines()

    def output(self, job_id: str) -> list[str]:
        """The lines that the steps of a failed job wrote, without the reports of the failure."""
        lines = self.logs(job_id)
        reports = [line for line in lines if re.fullmatch(r"srun: error: \S+: task \d+: .+|deepsquare: steps.+", line)]
        assert reports, lines
        return [line for line in lines if line not in reports]


def account_exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def open_folder(prefix: str) -> Path:
    # Jobs run as another account, which can't enter pytest's own temporary folders.
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    folder.chmod(0o711)
    return folder


@pytest.fixture(scope="session")
def runtime() -> Iterator[Path]:
    """The Python environment of Snakemake jobs, made as the demo makes it."""
    folder = open_folder("deepsquare-runtime-")
    subprocess.run([REPOSITORY / "integration" / "setup", "runtime", folder / "env"], check=True)
    yield folder / "env"
    shutil.rmtree(folder)


@contextmanager
def new_grid() -> Iterator[Grid]:
    """A grid that is not up yet; whatever of it runs at the end is stopped."""
    if os.geteuid() != 0:
        pytest.fail("these tests run jobs as accounts of their own, which only root can do: run them as root")
    state = open_folder("deepsquare-test-")
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("DEEPSQUARE_", "SLURM_", "SBATCH_"))
    }
    environment |= {
        "DEEPSQUARE_HOME": str(state / "home"),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
    }
    made = Grid(state, environment)
    try:
        yield made
    finally:
        if made.supervisor is not None:
            made.supervisor.terminate()
            made.supervisor.wait()
        made.cli("grid", "down", "--state", state)
        shutil.rmtree(state)


@contextmanager
def running_grid(runtime: Path | None, *options: str | Path) -> Iterator[Grid]:
    """A grid that is up, with a supervisor of its own process."""
    with new_grid() as made:
        brings = [] if runtime is None else ["--runtime", runtime]
        up = ["grid", "up", "--state", made.state, *options, *brings, "--without", "supervisor"]
        made.cli(*up, cwd=made.state)
        made.start_supervisor()
        made.cli("grid", "approve", "--state", made.state)
        yield made


@pytest.fixture(scope="session")
def slurm_grid(runtime: Path) -> Iterator[Grid]:
    """A grid on a real Slurm cluster of its own."""
    with running_grid(runtime, "--cluster", CLUSTER) as made:
        yield made


@pytest.fixture(scope="session")
def local_grid(runtime: Path) -> Iterator[Grid]:
    """A grid on the local scheduler."""
    with running_grid(runtime, "--scheduler", "local") as made:
        yield made


@contextmanager
def grid_over_ssh(runtime: Path | None, cluster: SlurmCluster) -> Iterator[Grid]:
    """A grid that drives a cluster over SSH, and gives each customer an account."""
    status = cluster.status()
    ssh, nodes = status["ssh"], status["nodes"]
    shared = open_folder("deepsquare-shared-")
    options = ["--ssh", f"{ssh['user']}@{ssh['host']}:{ssh['port']}", "--ssh-key", ssh["key"]]
    options += ["--ssh-known-hosts", ssh["known_hosts"], "--slurm-conf", cluster.conf]
    options += ["--account-command", CLUSTER / "make-account", "--shared-folder", shared]
    with running_grid(runtime, *options) as made:
        made.shared, made.cluster, made.nodes, made.cpus = shared, cluster, len(nodes), nodes[0]["cpus"]
        yield made
        accounts = made.accounts()
    for account in accounts:
        subprocess.run(["userdel", "--remove", account], check=True, capture_output=True)
    shutil.rmtree(shared)


@pytest.fixture(scope="session")
def ssh_grid(runtime: Path, slurm_cluster: SlurmCluster) -> Iterator[Grid]:
    """A grid that drives a cluster of several nodes over SSH."""
    with grid_over_ssh(runtime, slurm_cluster) as made:
        yield made


@pytest.fixture
def grid(slurm_grid: Grid) -> Grid:
    """The grid that tests use which don't say which: Slurm is what runs in production."""
    return slurm_grid


@pytest.fixture
def second_grid() -> Iterator[Grid]:
    """A grid for one test, which is to start it."""
    with new_grid() as made:
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure comes with what the services said."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for grid in item.funcargs.values():
            if isinstance(grid, Grid):
                for log in sorted((grid.state / "log").glob("*.log")):
                    report.sections.append(
                        (str(log), "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:]))
                    )
    return report
