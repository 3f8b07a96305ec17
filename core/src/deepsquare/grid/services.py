"""Each service of a grid, built from the grid's settings and run until cancelled."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath

from filelock import FileLock, Timeout

from deepsquare.chain.market import Market
from deepsquare.chain.types import Label, Prices, to_hex
from deepsquare.chain.wallet import Wallet
from deepsquare.compiler import LATE_BOUND
from deepsquare.errors import ConfigError
from deepsquare.files import write_private
from deepsquare.grid.config import GridConfig
from deepsquare.grid.keys import open_key
from deepsquare.grid.logger import GridLogger
from deepsquare.grid.metascheduler.metascheduler import MetaScheduler
from deepsquare.grid.sbatch_api import SbatchApi
from deepsquare.grid.supervisor.accounts import Accounts, OwnAccounts, SharedAccount
from deepsquare.grid.supervisor.folders import JobFolders
from deepsquare.grid.supervisor.hosts.base import Host
from deepsquare.grid.supervisor.hosts.local import LocalHost
from deepsquare.grid.supervisor.job import Services
from deepsquare.grid.supervisor.labels import detect_labels
from deepsquare.grid.supervisor.log_writer import LogWriter
from deepsquare.grid.supervisor.programs import provide_s5cmd
from deepsquare.grid.supervisor.reports import Reports
from deepsquare.grid.supervisor.schedulers.base import Scheduler
from deepsquare.grid.supervisor.schedulers.local.scheduler import Local
from deepsquare.grid.supervisor.schedulers.slurm import Slurm
from deepsquare.grid.supervisor.scripts import fetch_script
from deepsquare.grid.supervisor.spool import Spool
from deepsquare.grid.supervisor.supervisor import Supervisor
from deepsquare.grid.supervisor.wake import WakeUp

Ready = Callable[[], None]
"""Called once, when the service works."""


def log_to_stderr() -> None:
    """Log as services do; `deepsquare grid logs` tells their lines apart by the names of the loggers."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    for noisy in ("asyncssh", "web3", "aiohttp", "uvicorn", "httpx", "websockets"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


@asynccontextmanager
async def open_market(config: GridConfig, key: str | None) -> AsyncIterator[Market]:
    """The market, as one of the grid's accounts, or for reading only.

    Raises:
        ConfigError: the contracts are not deployed.
    """
    if config.metascheduler is None:
        raise ConfigError("the grid's contracts are not deployed yet; run `deepsquare grid up`")
    market = await Market.open(
        config.rpc_url,
        config.metascheduler,
        wallet=None if key is None else open_key(config.state, key),
        lock_folder=config.state / "locks",
    )
    try:
        yield market
    finally:
        await market.close()


async def approve(config: GridConfig, provider: str) -> bool:
    """Let a provider that has registered take jobs; whether it was waiting for that.

    Raises:
        ConfigError: it has not registered.
    """
    async with open_market(config, "admin") as market:
        if await market.read("ProviderManager", "isWaitingForApproval", provider):
            await market.transact("ProviderManager", "approve", provider)
            return True
        if await market.get_provider(provider) is None:
            raise ConfigError(f"{provider} has not registered as a provider; start its supervisor first")
        return False


async def run_logger(config: GridConfig, ready: Ready) -> None:
    """The grid logger."""
    async with AsyncExitStack() as stack:
        market = await stack.enter_async_context(open_market(config, None))
        await stack.enter_async_context(
            GridLogger(chain=market, state_dir=config.state / "logger", port=config.ports.logger)
        )
        ready()
        await asyncio.Event().wait()


async def run_sbatch_api(config: GridConfig, ready: Ready) -> None:
    """The sbatch API."""
    async with AsyncExitStack() as stack:
        market = await stack.enter_async_context(open_market(config, None))
        await stack.enter_async_context(
            SbatchApi(
                chain=market,
                state_dir=config.state / "sbatch-api",
                port=config.ports.sbatch_api,
                logger_endpoint=config.logger_endpoint,
            )
        )
        ready()
        await asyncio.Event().wait()


async def run_metascheduler(config: GridConfig, ready: Ready) -> None:
    """The meta-scheduler."""
    async with open_market(config, "metascheduler") as market:
        ready()
        await MetaScheduler(market, config.ws_url).run()


async def run_supervisor(config: GridConfig, ready: Ready) -> None:
    """The provider's supervisor."""
    wallet = open_key(config.state, "provider")
    folder = config.state / "supervisor"
    folder.mkdir(exist_ok=True)
    # Whatever the umask is: the hook of Slurm's controller passes through it.
    folder.chmod(0o711)
    lock = FileLock(folder / "lock", timeout=0, mode=0o600)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(f"another supervisor works on {folder} already; two would submit jobs twice") from None
    async with AsyncExitStack() as stack:
        stack.callback(lock.release)
        cluster = await stack.enter_async_context(open_cluster(config))
        writer = LogWriter(config.logger_endpoint, wallet)
        stack.push_async_callback(writer.close)
        market = await stack.enter_async_context(open_market(config, "provider"))
        await cluster.folders.prepare()
        if config.account_command is None:
            # Now, not with the first job: what is wrong here is wrong for all.
            for account in await cluster.accounts.all():
                await cluster.folders.admit(account)
        await _supervise(config, ready, cluster, wallet, market, writer)


@dataclass(frozen=True, slots=True)
class Cluster:
    """The machine with the batch scheduler, and what is on it."""

    host: Host
    accounts: Accounts
    folders: JobFolders
    scheduler: Scheduler


@asynccontextmanager
async def open_cluster(config: GridConfig) -> AsyncIterator[Cluster]:
    """The batch scheduler of a grid.

    Raises:
        ConfigError: the account of its jobs does not exist, or is none for jobs.
        ConnectionFailedError: its machine can't be reached.
    """
    host = open_host(config)
    try:
        folders = JobFolders(host, PurePosixPath(config.jobs_folder))
        accounts: Accounts
        if config.account_command is None:
            accounts = SharedAccount(await host.account(config.account))
        else:
            accounts = OwnAccounts(host, config.account_command, state=config.state / "supervisor" / "accounts.db")
        scheduler: Scheduler
        if config.scheduler == "local":
            scheduler = Local(config.scheduler_folder, account=config.account)
        else:
            conf = None if config.slurm_conf is None else str(config.slurm_conf)
            mark = f"deepsquare:{config.chain_id}:{config.metascheduler}"
            scheduler = Slurm(host, accounts, mark=mark, partition=config.partition, slurm_conf=conf)
        try:
            yield Cluster(host, accounts, folders, scheduler)
        finally:
            accounts.close()
    finally:
        await host.close()


def open_host(config: GridConfig) -> Host:
    """The machine on which the batch scheduler's commands run; nothing is connected yet."""
    if config.ssh is None:
        return LocalHost()
    # Heavy, and of no use to most.
    from deepsquare.grid.supervisor.hosts.ssh import SshAddress, SshHost

    ssh = config.ssh
    return SshHost(SshAddress(ssh.host, user=ssh.user, port=ssh.port, key=ssh.key, known_hosts=ssh.known_hosts))


async def _supervise(
    config: GridConfig, ready: Ready, cluster: Cluster, wallet: Wallet, market: Market, writer: LogWriter
) -> None:
    async def fetch(job_id: bytes, location_hash: str, customer: str) -> str:
        script, _ = await fetch_script(
            config.sbatch_endpoint,
            wallet=wallet,
            job_id=to_hex(job_id),
            batch_location_hash=location_hash,
            customer=customer,
        )
        return script

    async def ship(job_id: bytes, customer: str, lines: Sequence[tuple[bytes, int, int]]) -> None:
        await writer.write(to_hex(job_id), customer, lines)

    s5cmd = config.s5cmd or await provide_s5cmd(cluster.host, cluster.folders.programs)
    services = Services(
        market=market,
        reports=Reports(market),
        ws_url=config.ws_url,
        scheduler=cluster.scheduler,
        accounts=cluster.accounts,
        folders=cluster.folders,
        spool=Spool(cluster.host, cluster.folders.spool),
        fetch_script=fetch,
        ship_lines=ship,
        variables=late_bound(config, cluster.folders, s5cmd),
        poll_seconds=config.poll_seconds,
    )
    folder = config.state / "supervisor"
    supervisor = Supervisor(services, state=folder / "journal.db")
    prices = config.prices
    await supervisor.register(
        Prices(gpu=prices.gpu, cpu=prices.cpu, mem=prices.mem_mb), await _labels(config, cluster.scheduler)
    )
    wake_up = None
    if config.ssh is None and config.scheduler == "slurm" and os.geteuid() == 0:
        # An option of the operator's, who names its hook in slurm.conf. Of another account than root jobs could replace the hook,
        # which Slurm's controller runs with its own rights.
        wake_up = WakeUp(folder, supervisor.wake)
    ready()
    try:
        await supervisor.run()
    finally:
        if wake_up is not None:
            wake_up.close()


async def _labels(config: GridConfig, scheduler: Scheduler) -> list[Label]:
    """The provider's labels: detected ones, then the operator's own.

    Nodes that are all busy tell nothing of their processors: then what they told the last time is still true.
    """
    path = config.state / "supervisor" / "labels.json"
    facts = await scheduler.facts()
    detected = {label.key: label.value for label in await asyncio.to_thread(detect_labels, facts)}
    if any(node.cpuinfo for node in facts):
        write_private(path, json.dumps(detected))
    elif path.exists():
        detected = json.loads(path.read_text()) | detected
    found = {"scheduler": config.scheduler} | detected | config.labels
    return [Label(key, value) for key, value in found.items()]


def late_bound(config: GridConfig, folders: JobFolders, s5cmd: PurePath | None) -> dict[str, str]:
    """The values of the variables that scripts leave to the provider (`deepsquare.compiler`)."""
    values = folders.variables() | {
        "DEEPSQUARE_RUNTIME": config.runtime,
        "DEEPSQUARE_APPTAINER": config.apptainer,
        "DEEPSQUARE_ENROOT": config.enroot,
        "DEEPSQUARE_S5CMD": s5cmd,
        "DEEPSQUARE_BORE": config.bore,
        "DEEPSQUARE_IMAGES_ROOT": config.images,
        "DEEPSQUARE_BINDS": ":".join(map(str, config.binds)) or None,
    }
    assert values.keys() == set(LATE_BOUND)
    return {name: str(value) for name, value in values.items() if value is not None}


SERVICES: dict[str, Callable[[GridConfig, Ready], Awaitable[None]]] = {
    "logger": run_logger,
    "sbatch-api": run_sbatch_api,
    "metascheduler": run_metascheduler,
    "supervisor": run_supervisor,
}
