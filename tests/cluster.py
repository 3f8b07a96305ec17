"""A real Slurm cluster for any test: state, name, ports and keys of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "integration" / "slurm-cluster"
_SECONDS = 120


@dataclass(frozen=True)
class SlurmCluster:
    """A private cluster, by its state directory."""

    state: Path

    @property
    def conf(self) -> Path:
        return self.state / "etc" / "slurm.conf"

    def script(self, name: str, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run up, status or down; what it said is in the failure."""
        done = subprocess.run(
            [SCRIPTS / name, self.state, *options], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def up(self, *options: str) -> None:
        """Start what is missing."""
        self.script("up", *options)

    def status(self) -> Any:
        """What `status --json` tells."""
        return json.loads(self.script("status", "--json", check=False).stdout)

    def run(self, *command: str | Path, check: bool = True) -> str:
        """Run one of Slurm's commands against this cluster, as root."""
        done = subprocess.run(
            command,
            env={"PATH": os.environ["PATH"], "SLURM_CONF": str(self.conf)},
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def kill_daemon(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Kill a daemon by its name in `status`, such as slurmctld or slurmd/NODE, and wait until it is gone."""
        pid = next(daemon["pid"] for daemon in self.status()["daemons"] if daemon["name"] == name)
        os.kill(pid, number)
        end = time.monotonic() + 10
        # Without an init that reaps, a killed daemon stays as a zombie for a while: that is gone enough.
        while (stat := Path(f"/proc/{pid}/stat")).exists() and ") Z " not in stat.read_text():
            assert time.monotonic() < end, f"{name}, process {pid}, lives on"
            time.sleep(0.02)


@contextmanager
def new_cluster(*options: str) -> Iterator[SlurmCluster]:
    """A cluster that is up, made with these options of `up`."""
    if os.geteuid() != 0:
        pytest.fail("a Slurm cluster starts jobs as other accounts, which only root can do: run these tests as root")
    # Not tmp_path: the directories above it are closed to the accounts that run jobs, and its name is long.
    folder = Path(tempfile.mkdtemp(prefix="sc-", dir="/tmp"))
    folder.chmod(0o755)
    made = SlurmCluster(folder / "c")
    try:
        made.up(*options)
        yield made
    finally:
        made.script("down", "--purge")
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[SlurmCluster]:
    """Two nodes with a GPU each, accounting and an sshd; tests leave it running as they found it."""
    with new_cluster("--nodes", "2", "--cpus", "2", "--gpus", "1", "--ssh") as made:
        yield made
