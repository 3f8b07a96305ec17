"""Checks of what a grid on this machine needs: its process, its scheduler, its account, its disk, its keys."""

from __future__ import annotations

import asyncio
import pwd
import shutil
from pathlib import Path

from deepsquare.checks import Check, Checks, check
from deepsquare.errors import ConfigError, GridError
from deepsquare.grid.config import GridConfig
from deepsquare.grid.keys import open_key
from deepsquare.grid.local.cluster import trouble_with_slurm
from deepsquare.grid.local.control import running_pid
from deepsquare.grid.services import open_cluster

_LEAST_FREE_BYTES = 1 << 30
_KEYS = ("admin", "metascheduler", "provider")


async def operator_checks(state: Path, context: str | None = None) -> Checks:
    """Check the grid in a state folder, when there is one; `context` is the one that was checked before."""
    try:
        config = GridConfig.load(state)
    except ConfigError as error:
        yield Check("grid", False, str(error))
        return
    if config is None:
        return
    if context is not None and context != config.context:
        yield Check(
            "grid",
            True,
            f"the one in {state}, checked from here on, has the context {config.context}, not {context}; "
            f"to check the two together: deepsquare doctor --context {config.context}",
        )
    yield _process(state)

    async def scheduler() -> str:
        trouble = None
        if config.scheduler == "slurm" and config.ssh is None:
            trouble = await asyncio.to_thread(trouble_with_slurm, config)
        if trouble is not None:
            raise GridError(f"{trouble}; start it, or what the grid has of its own: deepsquare grid up --state {state}")
        async with open_cluster(config) as opened:
            hardware = await opened.scheduler.probe()
        where = "" if config.ssh is None else f" on {config.ssh.host}"
        return (
            f"{config.scheduler}{where}, {hardware.nodes} node(s), {sum(hardware.cpus)} CPUs, {sum(hardware.mem_mb)} MB"
        )

    async def account() -> str:
        if config.account_command is not None:
            return f"jobs run as accounts that {config.account_command} makes"
        try:
            if config.ssh is None:
                pwd.getpwnam(config.account)
        except KeyError:
            raise GridError(f"{config.account} does not exist: deepsquare grid up --state {state} makes it") from None
        return f"jobs run as {config.account}"

    async def disk() -> str:
        free = shutil.disk_usage(state).free
        if free < _LEAST_FREE_BYTES:
            raise GridError(f"only {free >> 20} MB are free below {state}: make room, or jobs and their output fail")
        return f"{free >> 30} GB are free below {state}"

    async def programs() -> str:
        wanted = {"git": "modules"}
        if config.scheduler == "local":
            # Jobs of Slurm find those of their nodes.
            apptainer = str(config.apptainer or "apptainer")
            wanted |= {"curl": "data over http", apptainer: "containers", "unshare": "networks and users of steps"}
        missing = [f"without {name} no {what}" for name, what in wanted.items() if shutil.which(name) is None]
        return "; ".join(missing) or f"{', '.join(wanted)} are installed"

    async def keys() -> str:
        for name in _KEYS:
            await asyncio.to_thread(open_key, state, name)
        return f"in {state / 'keys'}, for their owner alone"

    for part, look in (
        ("scheduler", scheduler),
        ("account", account),
        ("programs", programs),
        ("disk", disk),
        ("keys", keys),
    ):
        # Between `down` and `up` there is no account, and no cluster.
        if running_pid(state) is not None or part in ("programs", "disk", "keys"):
            yield await check(part, look)


def _process(state: Path) -> Check:
    pid = running_pid(state)
    if pid is not None:
        return Check("grid", True, f"up, process {pid}")
    if (state / "grid.pid").exists():
        return Check("grid", False, f"it was killed; go on where it was: deepsquare grid up --state {state}")
    return Check("grid", False, f"down; start it: deepsquare grid up --state {state}")
