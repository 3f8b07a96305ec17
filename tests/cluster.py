"""Real Slurm clusters for tests, as a pytest plugin: each with a name, a state folder and ports of its own.

A test that leaves the cluster as it found it takes the fixture ``slurm_cluster``; one that breaks things, or needs other
options, opens ``new_cluster(...)``.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "integration" / "slurm-cluster"
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "slurmdbd", "mariadbd", "sshd")


@dataclass(frozen=True)
class SlurmCluster:
    """A cluster of integration/slurm-cluster, up or not."""

    state: Path

    @property
    def conf(self) -> Path:
        """The value of SLURM_CONF."""
        return self.state / "etc/slurm.conf"

    @property
    def name(self) -> str:
        """The name of the cluster, with which its nodes' names start."""
        lines = (self.state / "etc/cluster.settings").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)["NAME"]

    def script(self, name: str, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run up, status or down; what it said is in the failure."""
        done = subprocess.run(
            [SCRIPTS / name, self.state, *options], capture_output=True, text=True, timeout=120, check=False
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def up(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Start what isn't running."""
        return self.script("up", *options)

    def down(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Stop everything."""
        return self.script("down", *options)

    def status(self) -> dict[str, Any]:
        """What status --json tells."""
        status: dict[str, Any] = json.loads(self.script("status", "--json", check=False).stdout)
        return status

    def pids(self) -> dict[str, int]:
        """The daemons by name: munged, mariadbd, slurmdbd, slurmctld, slurmd/NODE, sshd."""
        return {daemon["name"]: daemon["pid"] for daemon in self.status()["daemons"]}

    def kill_daemon(self, name: str, signal_number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to the daemon of that name, and return its pid when it has ended, if the signal ends it."""
        pid = self.pids()[name]
        os.kill(pid, signal_number)
        if signal_number in {signal.SIGKILL, signal.SIGTERM}:
            wait_until_gone(pid)
        return pid

    def run(self, *command: str | Path, **options: Any) -> str:
        """Run a command against this cluster that must succeed, and return what it prints. Options: see attempt."""
        done = self.attempt(*command, **options)
        assert done.returncode == 0, f"{command} exited with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def attempt(
        self,
        *command: str | Path,
        account: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | Path = "/",
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command against this cluster, as root or as an account, with nothing else of the caller's environment."""
        return subprocess.run(
            command,
            env={"PATH": os.environ["PATH"], "SLURM_CONF": str(self.conf), **(env or {})},
            cwd=cwd,
            user=account,
            group=account,
            extra_groups=None if account is None else [],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def submit(self, script: str, *options: str, **how: Any) -> str:
        """Submit a line of shell, and return the job's id."""
        return self.run("sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={script}", **how)

    def field(self, job: str, name: str) -> str:
        """One field of scontrol show job."""
        shown = self.run("scontrol", "-o", "show", "job", job)
        return dict(part.split("=", 1) for part in shown.split() if "=" in part)[name]

    def wait(self, job: str, *states: str, seconds: float = 20) -> str:
        """Wait until the job has one of these states, and return it."""
        end = time.monotonic() + seconds
        while (state := self.field(job, "JobState")) not in states:
            assert time.monotonic() < end, f"job {job} is {state}, not {states}"
            time.sleep(0.05)
        return state

    def ssh(self, *command: str, account: str = "root", program: str = "ssh", stdin: str = "") -> str:
        """What a command prints that runs in a login of the cluster's SSH server; sftp is a program too."""
        login = self.status()["ssh"]
        options = {
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "UserKnownHostsFile": login["known_hosts"],
            "StrictHostKeyChecking": "yes",
            "Port": login["port"],
        }
        done = subprocess.run(
            [
                *(program, "-F", "none", "-i", login["key"]),
                *(part for key, value in options.items() for part in ("-o", f"{key}={value}")),
                *(f"{account}@{login['host']}", *command),
            ],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def leftovers(self, name: str) -> list[str]:
        """Processes, mounts and cgroups that mention this cluster."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            for file in ("cmdline", "environ"):
                try:
                    command, content = (entry / "comm").read_text().strip(), (entry / file).read_bytes()
                except OSError:
                    continue
                if str(self.state).encode() in content:
                    found.append(f"{entry}/{file}: {command}")
        found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(self.state) in line]
        found += [line for line in Path("/proc/net/unix").read_text().splitlines() if str(self.state) in line]
        found += [root for root, _, _ in os.walk("/sys/fs/cgroup") if f"{name}-" in root]
        return found


def wait_until_gone(pid: int) -> None:
    """Without an init that reaps, a killed daemon stays as a zombie for a while: that is gone enough."""
    end = time.monotonic() + 10
    while _is_alive(pid):
        assert time.monotonic() < end, f"process {pid} lives on"
        time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def cluster_place() -> Iterator[SlurmCluster]:
    """A cluster that is not up yet; whatever became of it is stopped and removed at the end."""
    # Not tmp_path: the directories above it are closed to the accounts that run jobs, and long.
    directory = Path(tempfile.mkdtemp(prefix="sct-", dir="/tmp"))
    directory.chmod(0o755)
    cluster = SlurmCluster(directory / "c")
    try:
        yield cluster
    finally:
        cluster.down("--purge")
        shutil.rmtree(directory)


@contextmanager
def new_cluster(*options: str) -> Iterator[SlurmCluster]:
    """A cluster of the test's own, up with these options."""
    with cluster_place() as cluster:
        cluster.up(*options)
        yield cluster


@pytest.fixture(scope="session")
def slurm_host() -> None:
    """This host can run a cluster; otherwise the test is skipped with the reason."""
    if os.getuid() != 0:
        pytest.skip("a Slurm cluster needs root")
    if missing := [program for program in _PROGRAMS if shutil.which(program) is None]:
        pytest.skip(f"{', '.join(missing)} missing: integration/setup")


@pytest.fixture(scope="session")
def slurm_account(slurm_host: None) -> Iterator[str]:
    """An account without any rights, as those that run jobs; it has a shell, so it can log in."""
    name = f"sct-{uuid.uuid4().hex[:8]}"
    # The password that matches nothing: an account without one counts as locked for sshd.
    options = ["--system", "--user-group", "--no-create-home", "--home-dir=/", "--shell=/bin/sh", "--password=*"]
    subprocess.run(["useradd", *options, name], check=True)
    yield name
    subprocess.run(["userdel", name], check=True)


@pytest.fixture(scope="session")
def slurm_cluster(slurm_host: None) -> Iterator[SlurmCluster]:
    """One cluster for all tests that leave it as they found it: two nodes of 2 CPUs and a GPU, accounting, SSH."""
    with new_cluster("--nodes=2", "--cpus=2", "--gpus=1", "--ssh") as cluster:
        yield cluster
