"""Making the context of a grid that exists: what is typed is checked, and the node is asked which chain it is of."""

from __future__ import annotations

from decimal import Decimal
from urllib.parse import SplitResult, urlsplit

from deepsquare import wallets
from deepsquare.chain.address import parse_address
from deepsquare.chain.market import Market
from deepsquare.contexts import Context, check_name
from deepsquare.errors import ConfigError, ConnectionFailedError

_ANSWER_SECONDS = 5.0


def check_url(text: str, *schemes: str, field: str) -> str:
    """A URL, as it is.

    Raises:
        ConfigError: its scheme is none of `schemes`, it has no host, or its port is none; the text names `field`, and of the
            URL no more than scheme, host and port, since the rest may be an API key.
    """
    wanted = " or ".join(f"{scheme}://HOST[:PORT]" for scheme in schemes)
    parts = _split(text)
    if parts is None or parts.scheme not in schemes or not parts.hostname or any(map(str.isspace, text)):
        raise ConfigError(f"{field} is {_without_secrets(text)!r}, which is not a URL of the form {wanted}")
    return text


def check_endpoint(text: str, *, field: str) -> str:
    """The host and port of a gRPC service, as they are.

    Raises:
        ConfigError: it is not of the form HOST:PORT; the text names `field`.
    """
    parts = _split("//" + text)
    if parts is None or not parts.hostname or not parts.port or parts.netloc != text or "@" in text or " " in text:
        raise ConfigError(
            f"{field} is {_without_secrets(text)!r}, which is not of the form HOST:PORT: write for example grid.example:443"
        )
    return text


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        # Parsed only when it is looked at.
        _ = parts.port
    except ValueError:
        return None
    return parts


def _without_secrets(url: str) -> str:
    scheme, mark, rest = url.rpartition("://")
    return scheme + mark + rest.partition("/")[0].partition("?")[0].rpartition("@")[2]


async def new_context(
    name: str,
    *,
    rpc_url: str,
    ws_url: str | None,
    metascheduler: str,
    sbatch_url: str,
    sbatch_grpc: str | None,
    logger_grpc: str,
    wallet: str,
    chain_id: int | None,
    max_fee_gwei: Decimal | None = None,
) -> Context:
    """The context of a grid, checked; nothing is written.

    Args:
        name: what it shall be called.
        rpc_url: the node's JSON-RPC, http or https; several with commas in between, best first.
        ws_url: the node's WebSocket, ws or wss, if it has one.
        metascheduler: the contract's address.
        sbatch_url: the GraphQL URL of the sbatch API.
        sbatch_grpc: host:port of the sbatch API for providers; None means where `sbatch_url` is.
        logger_grpc: host:port of the grid logger.
        wallet: the name of a wallet of this machine.
        chain_id: the chain's number; None means what the node says.
        max_fee_gwei: the most to pay for a unit of gas.

    Raises:
        ConfigError: a value is wrong, there is no such wallet, the node is of another chain than `chain_id`, or has no such
            market.
        ConnectionFailedError: the node can't be reached, and `chain_id` is None.
    """
    check_name(name)
    for url in rpc_url.split(","):
        check_url(url.strip(), "http", "https", field="--rpc-url")
    if ws_url is not None:
        check_url(ws_url, "ws", "wss", field="--ws-url")
    check_url(sbatch_url, "http", "https", field="--sbatch-url")
    if sbatch_grpc is None:
        parts = urlsplit(sbatch_url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        host = parts.netloc.rpartition("@")[2].removesuffix(f":{parts.port}")
        sbatch_grpc = f"{host}:{port}"
    try:
        market = parse_address(metascheduler, field="--metascheduler")
    except ValueError as error:
        raise ConfigError(str(error)) from None
    context = Context(
        name=name,
        chain_id=chain_id or 0,
        rpc_url=rpc_url,
        ws_url=ws_url,
        metascheduler=market,
        sbatch_url=sbatch_url,
        sbatch_grpc=check_endpoint(sbatch_grpc, field="--sbatch-grpc"),
        logger_grpc=check_endpoint(logger_grpc, field="--logger-grpc"),
        account=wallets.address_of(wallet),
        wallet=wallet,
        max_fee_gwei=max_fee_gwei,
    )
    try:
        found = await _chain_of(context)
    except ConnectionFailedError as error:
        if chain_id is None:
            raise ConnectionFailedError(f"{error} Or say which chain it is: --chain-id") from None
        return context
    if chain_id not in (None, found):
        raise ConfigError(f"--chain-id is {chain_id}, but the node is of chain {found}: correct it, or --rpc-url")
    return context.model_copy(update={"chain_id": found})


async def _chain_of(context: Context) -> int:
    """The chain of a context's node, which has to have its market."""
    market = await Market.open(context.rpc_url, context.metascheduler, retry_seconds=_ANSWER_SECONDS)
    try:
        return await market.chain_id()
    finally:
        await market.close()
