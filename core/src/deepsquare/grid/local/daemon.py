"""The process behind `deepsquare grid up`: starts the chain and the services, and runs until it gets SIGTERM."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

from deepsquare import contexts
from deepsquare.chain.deploy import deploy
from deepsquare.chain.rpc import connect, request
from deepsquare.chain.transactions import Sender
from deepsquare.chain.wallet import Wallet
from deepsquare.credits import WEI_PER_CREDIT
from deepsquare.errors import DeepSquareError, GridError
from deepsquare.files import write_private
from deepsquare.grid.config import GridConfig
from deepsquare.grid.keys import make_key, open_key
from deepsquare.grid.local.anvil import anvil
from deepsquare.grid.services import SERVICES, approve, log_to_stderr, open_market

_log = logging.getLogger(__name__)

_SUPPLY = 10**9 * WEI_PER_CREDIT
_CUSTOMER_CREDITS = 10_000 * WEI_PER_CREDIT
# For fees; the chain's own coin has no other use on a local grid.
_COINS = 10**4 * 10**18
_FEWEST_COINS = 10**3 * 10**18
_HEALTHY_SECONDS = 30.0


class _Progress:
    """Tells the process that waits for the grid how far it is, a JSON line each, on a pipe."""

    def __init__(self, descriptor: int | None) -> None:
        self._pipe = None if descriptor is None else os.fdopen(descriptor, "w", buffering=1)

    def say(self, kind: str, text: str) -> None:
        _log.info("%s", text)
        if self._pipe is not None:
            try:
                self._pipe.write(json.dumps({"kind": kind, "text": text}) + "\n")
            except BrokenPipeError:
                # Whoever started the grid has gone; the grid stays.
                self._pipe = None

    def close(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


async def run(config: GridConfig, progress: _Progress, without: frozenset[str]) -> None:
    """Run the grid until cancelled; services named in `without` are left to the caller."""
    async with AsyncExitStack() as stack:
        chain = await stack.enter_async_context(anvil(config.state, port=config.ports.chain, chain_id=config.chain_id))
        progress.say("step", f"chain {config.chain_id} at {config.rpc_url}")
        await _set_up_chain(config, progress)
        tasks: list[asyncio.Task[None]] = []
        try:
            for name in ("logger", "sbatch-api", "metascheduler", "supervisor"):
                if name not in without:
                    tasks.append(await _start(name, config))
                    progress.say("step", f"{name} is up")
            if "supervisor" not in without:
                provider = open_key(config.state, "provider").address
                await approve(config, provider)
                progress.say("step", f"provider {provider} is approved")
            progress.say("ready", f"the grid is up, context {config.context}")
            progress.close()
            await chain.wait()
            raise GridError(f"the local chain has ended; its log is {config.state / 'log' / 'anvil.log'}")
        finally:
            for task in reversed(tasks):
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


async def _start(name: str, config: GridConfig) -> asyncio.Task[None]:
    """Start a service, wait until it works, and from then on start it again whenever it fails."""
    up = asyncio.Event()

    async def body() -> None:
        while True:
            began = time.monotonic()
            try:
                await SERVICES[name](config, up.set)
            except Exception:
                if not up.is_set():
                    raise
                _log.exception("the service %s failed; starting it again", name)
            # Not at once, and not for ever at full speed, when it fails at each start.
            await asyncio.sleep(1 if time.monotonic() - began > _HEALTHY_SECONDS else _HEALTHY_SECONDS)

    task = asyncio.create_task(body(), name=name)
    waiter = asyncio.create_task(up.wait())
    await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        waiter.cancel()
        task.result()
        raise GridError(f"the service {name} ended at once")
    return task


async def _set_up_chain(config: GridConfig, progress: _Progress) -> None:
    """Deploy the contracts once; give the grid's accounts coins, and the customer's wallet credits, an allowance and a context."""
    admin, provider, scheduler = (make_key(config.state, name) for name in ("admin", "provider", "metascheduler"))
    customer = _customer_wallet(config)
    w3 = connect(config.rpc_url)
    try:
        for wallet in (admin, provider, scheduler, customer):
            if int(await request(w3, "eth_getBalance", wallet.address, "latest"), 16) < _FEWEST_COINS:
                await request(w3, "anvil_setBalance", wallet.address, hex(_COINS))
        deployed = (
            config.metascheduler is not None
            and await request(w3, "eth_getCode", config.metascheduler, "latest") != "0x"
        )
        if config.metascheduler is not None and not deployed:
            # On another chain, job 1 would be taken for the job 1 that the journals and the logs know.
            raise GridError(
                f"the chain in {config.state / 'chain'} has lost the contracts of this grid. Put its state.json back, or start "
                f"anew: move {config.state} away"
            )
        if not deployed:
            sender = Sender(w3, admin, lock_folder=config.state / "locks")
            deployment = await deploy(w3, sender, supply=_SUPPLY, scheduler=scheduler.address)
            config.metascheduler = deployment.metascheduler
            config.save()
            progress.say("step", f"contracts deployed, MetaScheduler at {deployment.metascheduler}")
    finally:
        await w3.provider.disconnect()
    async with open_market(config, "admin") as market:
        if await market.balance_of(customer.address) == 0:
            await market.transact("Credit", "transfer", customer.address, _CUSTOMER_CREDITS)
    assert config.metascheduler is not None
    await _allow(config, customer)
    contexts.save(
        contexts.Context(
            name=config.context,
            chain_id=config.chain_id,
            rpc_url=config.rpc_url,
            ws_url=config.ws_url,
            metascheduler=config.metascheduler,
            sbatch_url=f"http://{config.sbatch_endpoint}/graphql",
            sbatch_grpc=config.sbatch_endpoint,
            logger_grpc=config.logger_endpoint,
            account=customer.address,
            wallet=config.context,
        )
    )
    if contexts.current() is None:
        contexts.use(config.context)
    progress.say("step", f"customer {customer.address} has credits and an allowance")


def _customer_wallet(config: GridConfig) -> Wallet:
    """The customer's wallet, made at the first time; its password lies beside it, so that the first steps ask for none."""
    keystore = contexts.wallet_file(config.context)
    password_file = keystore.with_suffix(".password")
    if not keystore.exists():
        password = secrets.token_urlsafe(24)
        write_private(password_file, password + "\n")
        return Wallet.create(keystore, password)
    return Wallet.open(keystore, password_file.read_text().rstrip("\n"))


async def _allow(config: GridConfig, customer: Wallet) -> None:
    from deepsquare.chain.market import Market

    assert config.metascheduler is not None
    market = await Market.open(
        config.rpc_url, config.metascheduler, wallet=customer, lock_folder=contexts.home() / "locks"
    )
    try:
        if await market.allowance_of(customer.address) == 0:
            await market.approve(_CUSTOMER_CREDITS)
    finally:
        await market.close()


def main() -> int:
    """Run with: python -m deepsquare.grid.local.daemon STATE [--progress FD] [--without NAME]..."""
    arguments = sys.argv[1:]
    state, rest = Path(arguments[0]), arguments[1:]
    options = list(zip(rest[::2], rest[1::2], strict=True))
    descriptor = next((int(value) for key, value in options if key == "--progress"), None)
    without = frozenset(value for key, value in options if key == "--without")
    log_to_stderr()
    progress = _Progress(descriptor)
    config = GridConfig.load(state)
    assert config is not None, "grid up writes the settings first"

    async def serve() -> None:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        await run(config, progress, without)

    try:
        asyncio.run(serve())
    except asyncio.CancelledError:
        _log.info("the grid is down")
        return 0
    except DeepSquareError as error:
        _log.error("%s", error)
        progress.say("error", str(error))
        return 1
    except Exception as error:
        _log.exception("the grid failed")
        progress.say("error", f"{type(error).__name__}: {error} (a traceback is in {state / 'log' / 'grid.log'})")
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # At once: all is closed by now, and the threads of gRPC must not hold up what waits for this process's end.
    os._exit(code)
