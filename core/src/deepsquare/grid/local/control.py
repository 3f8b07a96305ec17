"""Starting, stopping and looking at a local grid, from outside of its process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from deepsquare.errors import GridError
from deepsquare.grid.config import GridConfig, Ports
from deepsquare.grid.local.accounts import account_name, make_account, remove_account

# The chain id of DeepSquare's public test network, which its clients expect.
CHAIN_ID = 179188
_PREFERRED_PORTS = Ports(chain=8545, sbatch_api=4480, logger=4481)
_STOP_SECONDS = 60.0

Report = Callable[[str], None]
"""Called with a line of progress."""


NO_FORK_HANDLERS = {"GRPC_ENABLE_FORK_SUPPORT": "false"}
"""Environment of services: they start programs, but never fork to use gRPC, whose handlers write a line for each program."""


def default_state() -> Path:
    """The state folder: `$DEEPSQUARE_STATE`, /var/lib/deepsquare for root, else the user's state folder."""
    if folder := os.environ.get("DEEPSQUARE_STATE"):
        return Path(folder).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/deepsquare")
    from platformdirs import user_state_path

    return user_state_path("deepsquare")


@dataclass(frozen=True, slots=True)
class Settings:
    """What `deepsquare grid up` was asked for; None means as before, or the default."""

    state: Path
    context: str | None = None
    cluster: Path | None = None
    slurm_conf: Path | None = None
    partition: str | None = None
    account: str | None = None
    runtime: Path | None = None
    without: frozenset[str] = frozenset()


def up(settings: Settings, report: Report) -> GridConfig:
    """Start the grid and return when it works; one that runs already is left alone.

    Raises:
        GridError: it can't be started; what was started is stopped again.
    """
    state = settings.state
    if os.geteuid() != 0:
        raise GridError(
            "only root can start a grid on Slurm, since jobs run as an account of their own: sudo deepsquare grid up"
        )
    _check_folder(state)
    try:
        with FileLock(state / "up.lock", timeout=0, mode=0o600):
            config = GridConfig.load(state)
            if config is not None and running_pid(state) is not None:
                report(f"the grid in {state} is up already (context {config.context})")
                return config
            return _start(settings, config, report)
    except Timeout:
        raise GridError(f"another `deepsquare grid up` or `down` is at work on {state}; wait for it") from None


def _start(settings: Settings, config: GridConfig | None, report: Report) -> GridConfig:
    from deepsquare.grid.local.anvil import stop_stale

    state = settings.state
    # Before ports are chosen: what a killed grid left behind still has them.
    stop_stale(state)
    config = _configure(settings, config)
    cluster_started = account_made = False
    try:
        if config.cluster is not None:
            report("starting the private Slurm cluster")
            # After a killed grid it is still there, with customers' jobs in it.
            cluster_started = not _cluster_is_up(config.cluster, state)
            config.slurm_conf = _cluster_up(config.cluster, state)
        _check_slurm(config)
        account_made = make_account(config.account)
        config.made_account = config.made_account or account_made
        if account_made:
            report(f"account {config.account} made, jobs run as it")
        _make_jobs_folder(config)
        config.save()
        _start_daemon(config, settings.without, report)
    except BaseException:
        if cluster_started and config.cluster is not None:
            subprocess.run([config.cluster / "down", state / "slurm"], check=False, capture_output=True)
        if account_made:
            remove_account(config.account)
        raise
    return config


def down(state: Path, report: Report) -> None:
    """Stop the grid, its cluster and its account; the state stays, and with it the chain.

    Raises:
        GridError: something did not stop.
    """
    config = GridConfig.load(state) if state.exists() else None
    if config is None:
        report(f"there is no grid in {state}")
        return
    try:
        with FileLock(state / "up.lock", timeout=0, mode=0o600):
            pid = running_pid(state)
            if pid is not None:
                os.kill(pid, signal.SIGTERM)
                _wait_for_end(pid, state)
                report("chain and services stopped")
            else:
                from deepsquare.grid.local.anvil import stop_stale

                stop_stale(state)
            (state / "grid.pid").unlink(missing_ok=True)
            if config.cluster is not None:
                _script(config.cluster / "down", str(state / "slurm"))
                report("private Slurm cluster stopped")
            if config.made_account:
                # The next account may get another number: what this one leaves must not become another's.
                shutil.rmtree(config.jobs_folder, ignore_errors=True)
                remove_account(config.account)
                config.made_account = False
                config.save()
                report(f"account {config.account} removed")
    except Timeout:
        raise GridError(f"another `deepsquare grid up` or `down` is at work on {state}; wait for it") from None


def running_pid(state: Path) -> int | None:
    """The process id of the running grid, or None."""
    try:
        pid = int((state / "grid.pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    # The number may be another program's by now.
    return pid if b"deepsquare.grid.local.daemon" in command and str(state).encode() in command else None


def _check_folder(state: Path) -> None:
    if any(character.isspace() or character in ",%" for character in str(state)):
        raise GridError(
            f"the state folder {state} has a space, comma or % in its path, which Slurm can't take; choose another"
        )
    try:
        state.mkdir(mode=0o711, parents=True, exist_ok=True)
        (state / "log").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise GridError(
            f"the state folder {state} can't be made: {error.strerror}; choose another with --state"
        ) from None
    for folder in (state, *state.parents):
        if not folder.stat().st_mode & 0o001:
            raise GridError(
                f"the state folder {state} can't be reached by the account of the jobs, since {folder} is closed to others; "
                "choose another with --state"
            )


def _configure(settings: Settings, config: GridConfig | None) -> GridConfig:
    if config is None:
        config = GridConfig(
            state=settings.state,
            chain_id=CHAIN_ID,
            ports=_ports(settings.state),
            account=settings.account or account_name(settings.state),
        )
    for name in ("context", "cluster", "slurm_conf", "partition", "runtime", "account"):
        value = getattr(settings, name)
        if value is not None:
            setattr(config, name, value)
    for name, port in config.ports.model_dump().items():
        setattr(config.ports, name, port if _is_free(port) else _free_port())
    return config


def _ports(state: Path) -> Ports:
    """The usual ports for the usual grid; another one beside it must not take them away."""
    if state == default_state():
        return _PREFERRED_PORTS.model_copy()
    return Ports(chain=_free_port(), sbatch_api=_free_port(), logger=_free_port())


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _cluster_is_up(folder: Path, state: Path) -> bool:
    try:
        return subprocess.run([folder / "status", state / "slurm"], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def _cluster_up(folder: Path, state: Path) -> Path:
    output = _script(folder / "up", str(state / "slurm"))
    for line in output.splitlines():
        name, _, value = line.partition("=")
        if name == "SLURM_CONF":
            return Path(value)
    raise GridError(f"{folder / 'up'} did not say where the cluster's SLURM_CONF is")


def _script(program: Path, *arguments: str) -> str:
    try:
        return subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout
    except OSError as error:
        raise GridError(f"{program} can't be run: {error.strerror}") from None
    except subprocess.CalledProcessError as error:
        raise GridError(f"{program} failed: {error.stderr.strip() or f'exit code {error.returncode}'}") from None


def _check_slurm(config: GridConfig) -> None:
    if shutil.which("sbatch") is None:
        raise GridError("Slurm is not installed here: apt-get install slurm-wlm munge")
    environment = os.environ | ({"SLURM_CONF": str(config.slurm_conf)} if config.slurm_conf else {})
    answer = subprocess.run(
        ["sinfo", "--noheader", f"--partition={config.partition}", "--format=%P"],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    if answer.returncode != 0 or not answer.stdout.strip():
        reason = answer.stderr.strip() or f"it has no partition {config.partition!r}"
        raise GridError(
            f"Slurm can't be used: {reason}. Name a working cluster with --slurm-conf and --partition, or start a private one "
            "with --cluster integration/slurm-cluster"
        )


def _make_jobs_folder(config: GridConfig) -> None:
    import pwd

    entry = pwd.getpwnam(config.account)
    config.jobs_folder.mkdir(mode=0o700, exist_ok=True)
    os.chown(config.jobs_folder, entry.pw_uid, entry.pw_gid)


def _start_daemon(config: GridConfig, without: Iterable[str], report: Report) -> None:
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "deepsquare.grid.local.daemon", str(config.state), "--progress", str(writing)]
    for name in sorted(without):
        command += ["--without", name]
    with (config.state / "log" / "grid.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | NO_FORK_HANDLERS,
            cwd="/",
            pass_fds=(writing,),
            start_new_session=True,
        )
    os.close(writing)
    (config.state / "grid.pid").write_text(f"{process.pid}\n")
    try:
        with os.fdopen(reading) as lines:
            for line in lines:
                message = json.loads(line)
                report(message["text"])
                if message["kind"] == "ready":
                    return
                if message["kind"] == "error":
                    break
    except BaseException:
        process.terminate()
        process.wait(timeout=_STOP_SECONDS)
        raise
    process.wait(timeout=_STOP_SECONDS)
    (config.state / "grid.pid").unlink(missing_ok=True)
    raise GridError(f"the grid did not start; its log is {config.state / 'log' / 'grid.log'}")


def _wait_for_end(pid: int, state: Path) -> None:
    until = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < until:
        if running_pid(state) != pid or Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.05)
    raise GridError(f"the grid (process {pid}) did not stop in {_STOP_SECONDS:.0f} s; see {state / 'log' / 'grid.log'}")
