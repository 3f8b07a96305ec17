"""Starting, stopping and looking at a local grid, from outside of its process."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psutil
from filelock import FileLock, Timeout

from deepsquare import contexts
from deepsquare.errors import ConfigError, DeepSquareError, GridError
from deepsquare.grid.config import FILE_NAME, GridConfig, Ports, SshConfig
from deepsquare.grid.local import cluster
from deepsquare.grid.local.accounts import account_name, make_account, remove_account
from deepsquare.grid.local.processes import recorded, wait_for_end

# The chain id of DeepSquare's public test network, which its clients expect.
CHAIN_ID = 179188
_PREFERRED_PORTS = Ports(chain=8545, sbatch_api=4480, logger=4481)
_FIRST_PORT, _PORTS = 10_000, 10_000
_STOP_SECONDS = 60.0
_NAME_CONF = ". Where a login finds Slurm by SLURM_CONF, name that file of the host's with --slurm-conf"
_ANSWER_SECONDS = 3.0

Report = Callable[[str], None]
"""Called with a line of progress."""


NO_FORK_HANDLERS = {"GRPC_ENABLE_FORK_SUPPORT": "false"}
"""Environment of services: they start programs, but never fork to use gRPC, whose handlers write a line for each program."""


def default_state() -> Path:
    """The state folder: `$DEEPSQUARE_STATE`, /var/lib/deepsquare for root, else ~/.local/state/deepsquare."""
    if folder := os.environ.get("DEEPSQUARE_STATE"):
        return Path(folder).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/deepsquare")
    # Also on macOS, whose usual place has a space in its path, which pipelines can't take.
    return Path.home() / ".local/state/deepsquare"


@dataclass(frozen=True, slots=True)
class Settings:
    """What `deepsquare grid up` was asked for; None means as before, or the default."""

    state: Path
    scheduler: Literal["slurm", "local"] | None = None
    context: str | None = None
    cluster: Path | None = None
    slurm_conf: Path | None = None
    partition: str | None = None
    ssh: SshConfig | None = None
    account: str | None = None
    account_command: str | None = None
    shared_folder: Path | None = None
    poll_seconds: float | None = None
    labels: dict[str, str] | None = None
    runtime: Path | None = None
    images: Path | None = None
    apptainer: Path | None = None
    enroot: Path | None = None
    s5cmd: Path | None = None
    bore: Path | None = None
    binds: list[Path] | None = None
    without: frozenset[str] = frozenset()


_KEPT = (
    *("context", "scheduler", "cluster", "slurm_conf", "ssh", "partition", "runtime", "account", "account_command"),
    *("shared_folder", "poll_seconds", "labels", "images", "apptainer", "enroot", "s5cmd", "bore", "binds"),
)


def up(settings: Settings, report: Report) -> GridConfig:
    """Start the grid and return when it works; one that runs already with these settings is left alone.

    Raises:
        GridError: it can't be started; what was started is stopped again. Or it runs, with other settings.
    """
    state = settings.state
    if settings.cluster is not None and os.geteuid() != 0:
        raise GridError("only root can start a private Slurm cluster: use sudo, or leave --cluster out")
    if settings.cluster is not None and settings.ssh is not None:
        raise GridError("--cluster starts a Slurm cluster here, and --ssh names one elsewhere: leave one of them out")
    if settings.cluster is not None and settings.scheduler == "local":
        raise GridError("--cluster starts a Slurm cluster, which --scheduler local doesn't use: leave one of them out")
    is_new = _make_folder(state)
    with _one_at_a_time(state):
        try:
            config = GridConfig.load(state)
            if config is not None and running_pid(state) is not None:
                _check_unchanged(settings, config, "is up already")
                report(f"the grid in {state} is up already (context {config.context})")
                return config
            if config is not None and (state / "grid.pid").exists():
                _check_unchanged(settings, config, "was killed, and its jobs may go on")
            return _start(settings, config, report)
        except BaseException:
            # Nothing of it came to be; of a cluster that may run, nothing is removed.
            if is_new and not (state / FILE_NAME).exists() and not (state / "slurm").exists():
                shutil.rmtree(state, ignore_errors=True)
            raise


@contextmanager
def _one_at_a_time(state: Path) -> Iterator[None]:
    try:
        with FileLock(state / "up.lock", timeout=0, mode=0o600):
            yield
    except Timeout:
        raise GridError(f"another `deepsquare grid up` or `down` is at work on {state}; wait for it") from None


def _check_unchanged(settings: Settings, config: GridConfig, how: str) -> None:
    differing = []
    for name in _KEPT:
        wanted, present = getattr(settings, name), getattr(config, name)
        if wanted is not None and wanted != present:
            what = name.replace("_", "-")
            differing.append(
                f"with {what} {_text(present)}, not {_text(wanted)}" if present else f"without {what} {_text(wanted)}"
            )
    if differing:
        raise GridError(
            f"the grid in {settings.state} {how}, {', and '.join(differing)}; "
            f"stop it first: deepsquare grid down --state {settings.state}"
        )


def _text(value: object) -> str:
    if isinstance(value, SshConfig):
        value = value.model_dump(exclude_none=True)
    if isinstance(value, dict):
        value = [f"{key}={item}" for key, item in value.items()]
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _start(settings: Settings, config: GridConfig | None, report: Report) -> GridConfig:
    from deepsquare.grid.local.anvil import stop_stale
    from deepsquare.grid.local.toolchain import find_anvil

    state = settings.state
    # Before ports are chosen: what a killed grid left behind still has them.
    stop_stale(state)
    find_anvil(report)
    is_new = config is None
    config = _configure(settings, config, report)
    _check_context(config)
    cluster_started = account_made = False
    try:
        if config.cluster is not None:
            report("starting the private Slurm cluster")
            # After a killed grid it is still there, with customers' jobs in it.
            cluster_started = not cluster.is_up(config.cluster, state)
            config.slurm_conf = cluster.start(config.cluster, state)
        _choose_scheduler(settings, config, is_new, report)
        if config.account_command is not None:
            if config.scheduler == "local":
                raise GridError("--account-command needs Slurm: the local scheduler runs all jobs as one account")
            report(f"each customer's jobs run as an account of their own, made by {config.account_command}")
        elif config.ssh is not None:
            report(f"jobs run as {config.account} there")
        elif os.geteuid() == 0:
            account_made = make_account(config.account)
            config.made_account = config.made_account or account_made
            report(f"jobs run as {config.account}" + (", an account made for them" if account_made else ""))
        else:
            report(
                f"jobs share your own account {config.account} and may read what you may: only root can give them another"
            )
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
    """Stop the grid, its jobs, its cluster and its account; the state stays, and with it the chain.

    Raises:
        GridError: something did not stop.
    """
    from deepsquare.grid.local.anvil import stop_stale
    from deepsquare.grid.supervisor.schedulers.local.scheduler import stop as stop_jobs

    config = GridConfig.load(state) if state.exists() else None
    if config is None:
        report(f"there is no grid in {state}")
        return
    with _one_at_a_time(state):
        process = _running(state)
        if process is not None:
            process.terminate()
            if not wait_for_end(process, _STOP_SECONDS):
                raise GridError(
                    f"the grid (process {process.pid}) did not stop in {_STOP_SECONDS:.0f} s; see {state / 'log' / 'grid.log'}"
                )
            report("chain and services stopped")
        else:
            stop_stale(state)
        (state / "grid.pid").unlink(missing_ok=True)
        stop_jobs(config.scheduler_folder)
        if config.cluster is not None:
            cluster.stop(config.cluster, state)
            report("private Slurm cluster stopped")
        if config.made_account:
            if config.cluster is None and config.scheduler == "slurm":
                # Nothing may run on as an account whose number somebody else gets.
                cluster.end_jobs(config)
            # The next account may get another number: what this one leaves must not become another's.
            for folder in _left_behind(config):
                shutil.rmtree(folder, ignore_errors=True)
            remove_account(config.account)
            config.made_account = False
            config.save()
            report(f"account {config.account} removed")


def _left_behind(config: GridConfig) -> list[Path]:
    """The folders that an account of the grid's own leaves: of a folder of the operator's, only what is the account's."""
    from deepsquare.grid.supervisor.folders import NAMES, of_account

    if config.shared_folder is None:
        return [config.jobs_folder / name for name in NAMES]
    return [config.jobs_folder / name for name in of_account(pwd.getpwnam(config.account).pw_uid)]


def running_pid(state: Path) -> int | None:
    """The process id of the running grid, or None."""
    process = _running(state)
    return None if process is None else int(process.pid)


def _running(state: Path) -> psutil.Process | None:
    return recorded(state / "grid.pid", "deepsquare.grid.local.daemon", str(state))


def _make_folder(state: Path) -> bool:
    """Make the state folder, unless it is there; whether it was made."""
    try:
        state.parent.mkdir(parents=True, exist_ok=True)
        is_new = not state.exists()
        state.mkdir(exist_ok=not is_new)
        if is_new:
            # Whatever the umask is.
            state.chmod(0o711)
        (state / "log").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise GridError(
            f"the state folder {state} can't be made: {error.strerror}; choose another with --state"
        ) from None
    if not os.access(state, os.W_OK):
        raise GridError(f"the state folder {state} belongs to somebody else; choose another with --state")
    for folder in (state, *state.parents) if os.geteuid() == 0 else ():
        if not folder.stat().st_mode & 0o001:
            raise GridError(
                f"the state folder {state} can't be reached by the account of the jobs, since {folder} is closed to others; "
                "choose another with --state"
            )
    return is_new


def _configure(settings: Settings, config: GridConfig | None, report: Report) -> GridConfig:
    if config is None:
        own = pwd.getpwuid(os.geteuid()).pw_name if os.geteuid() else account_name(settings.state)
        config = GridConfig(
            state=settings.state, chain_id=CHAIN_ID, ports=_ports(settings.state), account=settings.account or own
        )
    for name in _KEPT:
        value = getattr(settings, name)
        if value is not None:
            setattr(config, name, value)
    _find_cluster(settings, config)
    _choose_accounts(settings, config)
    for folder in config.binds:
        if any(character in ":,\n" for character in str(folder)):
            raise GridError(f"containers can't see {str(folder)!r}: its path has a colon, a comma or a line break")
    if settings.scheduler == "local":
        config.cluster = config.slurm_conf = config.ssh = None
    for name, port in config.ports.model_dump().items():
        if not _is_free(port):
            setattr(config.ports, name, _free_port(list(config.ports.model_dump().values())))
            report(
                f"port {port} is taken by another program: {name.replace('_', ' ')} gets {getattr(config.ports, name)}"
            )
    return config


def _find_cluster(settings: Settings, config: GridConfig) -> None:
    own_cluster = config.ssh is None and config.cluster is None and settings.scheduler != "local"
    if own_cluster and config.slurm_conf is None and (named := os.environ.get("SLURM_CONF")):
        # What the commands in the operator's shell use; the services don't have that shell's environment.
        config.slurm_conf = Path(named)
    if settings.ssh is not None and config.shared_folder is None:
        raise GridError(
            "--ssh needs --shared-folder: a folder that all nodes of the cluster see, for scratch and output of jobs"
        )


def _choose_accounts(settings: Settings, config: GridConfig) -> None:
    if settings.account is not None and settings.account_command is None:
        # The one or the other, whatever it was before.
        config.account_command = None
    if config.account_command is not None and config.ssh is None:
        config.account_command = _program(config.account_command)
    if settings.ssh is not None and settings.account is None and config.account_command is None:
        if settings.ssh.user in (None, "root"):
            raise GridError(
                "--ssh needs --account, the account of the cluster that jobs run as, never root; or --account-command"
            )
        assert settings.ssh.user is not None
        config.account = settings.ssh.user


def _program(command: str) -> str:
    """A program of this machine's by its whole path: the services have another working directory.

    Raises:
        GridError: there is none that can be run.
    """
    found = shutil.which(command)
    if found is None:
        raise GridError(f"the account command {command!r} is no program that can be run here: name one, by its path")
    return str(Path(found).absolute())


def _choose_scheduler(settings: Settings, config: GridConfig, is_new: bool, report: Report) -> None:
    """Slurm where there is one, else the local scheduler; what was chosen before stays.

    Raises:
        GridError: Slurm is to be used, and can't be.
    """
    names_slurm = settings.cluster or settings.slurm_conf or settings.partition or settings.ssh
    asked = settings.scheduler or ("slurm" if names_slurm else None)
    wanted = asked or (None if is_new else config.scheduler)
    trouble = None
    if wanted != "local":
        trouble = cluster.trouble_with_slurm(config) if config.ssh is None else _trouble_over_ssh(config)
    if trouble is not None and config.ssh is not None:
        raise GridError(trouble)
    if wanted == "slurm" and trouble is not None:
        raise GridError(
            f"{trouble}. Start a private cluster with --cluster integration/slurm-cluster (root, Debian's slurm-wlm and munge), "
            "name a working one with --slurm-conf and --partition, or do without: --scheduler local"
        )
    config.scheduler = wanted or ("local" if trouble else "slurm")
    if config.scheduler == "slurm":
        if any(character.isspace() or character in ",%" for character in str(config.jobs_folder)):
            raise GridError(
                f"the folder of jobs {config.jobs_folder} has a space, comma or % in its path, which Slurm can't take; choose "
                "another with --state or --shared-folder"
            )
        where = "" if config.ssh is None else f" on {config.ssh.host} over SSH"
        report(f"scheduler: Slurm{where}, partition {config.partition}")
    else:
        report(f"scheduler: local, on this machine alone ({trouble or 'as asked for'})")


def _trouble_over_ssh(config: GridConfig) -> str | None:
    from deepsquare.grid.services import open_cluster

    async def look() -> None:
        async with open_cluster(config) as opened:
            await opened.scheduler.probe()

    config.scheduler = "slurm"
    try:
        asyncio.run(look())
    except DeepSquareError as error:
        hint = "" if config.slurm_conf or "configuration source" not in str(error) else _NAME_CONF
        return f"{error}{hint}"
    return None


def _check_context(config: GridConfig) -> None:
    """Whether the name of the context may be written.

    Raises:
        GridError: it is another grid's, which is there.
    """
    if config.context not in contexts.names():
        return
    try:
        present = contexts.load(config.context)
    except ConfigError:
        # Damaged: it is written anew.
        return
    if present.metascheduler == config.metascheduler:
        return
    chain = urlsplit(present.rpc_url)
    if chain.hostname in ("127.0.0.1", "localhost") and not _has_code(present):
        return
    raise GridError(
        f"the context {config.context} belongs to another grid, with its chain at {chain.hostname}:{chain.port}: choose another "
        "name with --context, or stop that grid first"
    )


def _has_code(context: contexts.Context) -> bool:
    import httpx

    question = {"jsonrpc": "2.0", "id": 1, "method": "eth_getCode", "params": [context.metascheduler, "latest"]}
    try:
        answer = httpx.post(context.rpc_url, json=question, timeout=_ANSWER_SECONDS).json()
        return bool(answer.get("result", "0x") != "0x")
    except (httpx.HTTPError, ValueError, AttributeError):
        return False


def _ports(state: Path) -> Ports:
    """The usual ports for the usual grid; another one beside it must not take them away."""
    if state == default_state():
        return _PREFERRED_PORTS.model_copy()
    chosen: list[int] = []
    for _ in range(3):
        chosen.append(_free_port(chosen))
    chain, sbatch_api, logger = chosen
    return Ports(chain=chain, sbatch_api=sbatch_api, logger=logger)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _free_port(chosen: Collection[int]) -> int:
    """A port that nobody has, and not one of those chosen before.

    It is none of those that the system gives to connections as they come: until a service listens, one could have it.
    """
    while True:
        port = _FIRST_PORT + secrets.randbelow(_PORTS)
        if port not in chosen and _is_free(port):
            return port


def _start_daemon(config: GridConfig, without: Iterable[str], report: Report) -> None:
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "deepsquare.grid.local.daemon", str(config.state), "--progress", str(writing)]
    for name in sorted(without):
        command += ["--without", name]
    log_path = config.state / "log" / "grid.log"
    with log_path.open("ab") as log:
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
    reason = "it ended without a word"
    try:
        with os.fdopen(reading) as lines:
            for line in lines:
                message = json.loads(line)
                if message["kind"] == "error":
                    reason = message["text"]
                    break
                report(message["text"])
                if message["kind"] == "ready":
                    return
    except BaseException:
        process.terminate()
        process.wait(timeout=_STOP_SECONDS)
        raise
    process.wait(timeout=_STOP_SECONDS)
    (config.state / "grid.pid").unlink(missing_ok=True)
    raise GridError(f"the grid did not start: {reason} (log: {log_path})")
