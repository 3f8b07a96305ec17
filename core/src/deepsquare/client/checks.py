"""Checks of what a customer needs: context, wallet, chain, credits, and the grid's services."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime

import httpx

from deepsquare import contexts
from deepsquare.chain.contracts import Head
from deepsquare.chain.market import Market
from deepsquare.chain.wallet import Wallet
from deepsquare.checks import Check, Checks, check
from deepsquare.contexts import Context
from deepsquare.credits import format_credits
from deepsquare.errors import ConfigError, ConnectionFailedError
from deepsquare.wire.channels import open_channel
from deepsquare.wire.messages import FRESH_SECONDS

_ANSWER_SECONDS = 5.0
# Far below what the services allow.
_CLOCK_SECONDS = 30.0


async def customer_checks(name: str | None = None) -> Checks:
    """Check a context from its file to its services; what can't work without an earlier part is left out."""
    try:
        context = contexts.load(name)
    except ConfigError as error:
        yield Check("context", False, str(error))
        return
    yield Check("context", True, f"{context.name}, account {context.account}")
    wallet: Wallet | None = None

    async def open_wallet() -> str:
        nonlocal wallet
        keystore = contexts.wallet_file(context.wallet)
        for path in (keystore, keystore.with_suffix(".password")):
            if path.exists() and path.stat().st_mode & 0o077:
                raise ConfigError(f"{path} can be read by others; run: chmod 600 {path}")
        wallet = await asyncio.to_thread(contexts.open_wallet, context)
        return f"opens, {wallet.address}"

    yield await check("wallet", open_wallet)
    market: Market | None = None
    head: Head | None = None

    async def open_chain() -> str:
        nonlocal market, head
        market = await Market.open(
            context.rpc_url, context.metascheduler, chain_id=context.chain_id, retry_seconds=_ANSWER_SECONDS
        )
        head = await market.head()
        return f"chain {context.chain_id}, block {head.number}, market {context.metascheduler}"

    yield await check("chain", open_chain)
    if market is not None:
        try:
            for part, look in _market_checks(market, wallet.address if wallet else context.account):
                yield await check(part, look)
        finally:
            await market.close()
    yield await check("sbatch API", lambda: _sbatch_api(context))
    yield await check("clocks", lambda: _clocks(context, head))
    yield await check("logger", lambda: _logger(context))


def _market_checks(market: Market, account: str) -> list[tuple[str, Callable[[], Awaitable[str]]]]:
    async def credits() -> str:
        balance = await market.balance_of(account)
        if balance == 0:
            raise ConfigError(f"the account {account} has no credits: get some from the grid's operator")
        return f"{format_credits(balance)} credits"

    async def allowance() -> str:
        allowed = await market.allowance_of(account)
        if allowed == 0:
            raise ConfigError("the market may take none of your credits: deepsquare allowance set AMOUNT")
        return f"the market may lock {format_credits(allowed)} credits"

    async def providers() -> str:
        found = await market.providers()
        if not found:
            raise ConfigError(
                "this grid has no provider that takes jobs. On a grid of your own: deepsquare grid status, deepsquare grid approve"
            )
        cpus = max(count for provider in found for count in provider.hardware.cpus)
        memory = max(mem_mb for provider in found for mem_mb in provider.hardware.mem_mb)
        return f"{len(found)}; the largest node has {cpus} CPUs and {memory} MB"

    return [("credits", credits), ("allowance", allowance), ("providers", providers)]


async def _clocks(context: Context, head: Head | None) -> str:
    """Whether this machine's clock is that of the grid's services, which refuse what was signed at another time."""
    here = time.time()
    try:
        said = parsedate_to_datetime((await _health(context)).headers["date"]).timestamp()
    except (ConnectionFailedError, KeyError, ValueError):
        said = None
    if said is not None and abs(here - said) > _CLOCK_SECONDS:
        raise ConfigError(
            f"this machine's clock is {abs(here - said):.0f} s {'ahead of' if here > said else 'behind'} the sbatch API's, and "
            f"beyond {FRESH_SECONDS} s it refuses what you sign. Let the machine keep the time by NTP: timedatectl set-ntp true"
        )
    # A chain without a new block for long says nothing of the time; one ahead of us does.
    if head is not None and head.timestamp - here > _CLOCK_SECONDS:
        raise ConfigError(
            f"the chain's clock is {head.timestamp - here:.0f} s ahead of this machine's, so that times of jobs are shown wrong. "
            "Let the machine keep the time by NTP: timedatectl set-ntp true. A local chain may have been set ahead by hand"
        )
    if said is None and (head is None or here - head.timestamp > _CLOCK_SECONDS):
        raise ConnectionFailedError(
            "nobody tells the time: the sbatch API can't be asked, and the chain has no new block"
        )
    return f"agree within {_CLOCK_SECONDS:.0f} s"


async def _health(context: Context) -> httpx.Response:
    url = httpx.URL(context.sbatch_url)
    try:
        async with httpx.AsyncClient(timeout=_ANSWER_SECONDS) as http:
            return await http.get(url.copy_with(path="/health"))
    except httpx.HTTPError as error:
        raise ConnectionFailedError(
            f"{url.netloc.decode()} can't be reached ({type(error).__name__}). On a grid of your own: deepsquare grid status"
        ) from None


async def _sbatch_api(context: Context) -> str:
    url = httpx.URL(context.sbatch_url)
    answer = await _health(context)
    if answer.status_code != httpx.codes.OK:
        raise ConnectionFailedError(
            f"{url.netloc.decode()} answers {answer.status_code}, so it isn't well, or no sbatch API"
        )
    return f"{url.netloc.decode()} answers"


async def _logger(context: Context) -> str:
    async with open_channel(context.logger_grpc, tls=False) as channel:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await channel.channel_ready()
        except TimeoutError:
            raise ConnectionFailedError(
                f"{context.logger_grpc} can't be reached. On a grid of your own: deepsquare grid status"
            ) from None
    return f"{context.logger_grpc} answers"
