"""Slurm on this host, as `deepsquare grid up` sees it: a private cluster to start and stop, or one that is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from deepsquare.errors import GridError
from deepsquare.grid.config import GridConfig

# What a private cluster's accounting needs; it is of use, and not necessary.
_ACCOUNTING_PROGRAMS = ("slurmdbd", "mariadbd")
# A controller that is configured and away makes sinfo try for a while.
_SINFO_SECONDS = 30
_END_SECONDS = 60
_LOOK_SECONDS = 0.5


def is_up(folder: Path, state: Path) -> bool:
    """Whether the private cluster of a grid runs; `folder` has the scripts."""
    try:
        return subprocess.run([folder / "status", state / "slurm"], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def start(folder: Path, state: Path) -> Path:
    """Start the private cluster of a grid and return its slurm.conf.

    Raises:
        GridError: its script failed.
    """
    # The supervisor's hook, which its controller calls at each job's end (`deepsquare.grid.supervisor.wake`).
    options = ["--epilog", str(state / "supervisor" / "epilog")]
    if any(shutil.which(program) is None for program in _ACCOUNTING_PROGRAMS):
        options.append("--no-accounting")
    output = _script(folder / "up", str(state / "slurm"), *options)
    for line in output.splitlines():
        name, _, value = line.partition("=")
        if name == "SLURM_CONF":
            return Path(value)
    raise GridError(f"{folder / 'up'} did not say where the cluster's SLURM_CONF is")


def stop(folder: Path, state: Path) -> None:
    """Stop the private cluster of a grid.

    Raises:
        GridError: its script failed.
    """
    _script(folder / "down", str(state / "slurm"))


def end_jobs(config: GridConfig) -> None:
    """End all jobs of the grid's account on a Slurm that is not the grid's own, and wait for that.

    Raises:
        GridError: they don't end, or Slurm does not answer.
    """
    environment = os.environ | ({"SLURM_CONF": str(config.slurm_conf)} if config.slurm_conf else {})

    def run(*command: str) -> str:
        try:
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, env=environment, timeout=_SINFO_SECONDS
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise GridError(
                f"jobs of {config.account} may still run, since {command[0]} fails ({type(error).__name__}): end them with "
                f"scancel --user={config.account}, then try again"
            ) from None
        return done.stdout

    run("scancel", f"--user={config.account}")
    until = time.monotonic() + _END_SECONDS
    while run("squeue", "--noheader", f"--user={config.account}", "--format=%A"):
        if time.monotonic() > until:
            raise GridError(f"jobs of {config.account} don't end: squeue --user={config.account} shows them")
        time.sleep(_LOOK_SECONDS)


def trouble_with_slurm(config: GridConfig) -> str | None:
    """Why Slurm can't be used with these settings, or None when it can."""
    if shutil.which("sbatch") is None or shutil.which("sinfo") is None:
        return "Slurm is not installed here"
    environment = os.environ | ({"SLURM_CONF": str(config.slurm_conf)} if config.slurm_conf else {})
    try:
        answer = subprocess.run(
            ["sinfo", "--noheader", f"--partition={config.partition}", "--format=%P"],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            timeout=_SINFO_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return "Slurm is installed, but its controller does not answer"
    if answer.returncode != 0:
        # In sinfo's own words, of which the first line says what it is about.
        reason = (answer.stderr.strip().splitlines() or ["no reason given"])[0].removeprefix("sinfo: error: ")
        return f"Slurm is installed, but no cluster answers: {reason}"
    return None if answer.stdout.strip() else f"this Slurm has no partition {config.partition!r}"


def _script(program: Path, *arguments: str) -> str:
    try:
        return subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout
    except OSError as error:
        raise GridError(f"{program} can't be run: {error.strerror}") from None
    except subprocess.CalledProcessError as error:
        raise GridError(f"{program} failed: {error.stderr.strip() or f'exit code {error.returncode}'}") from None
