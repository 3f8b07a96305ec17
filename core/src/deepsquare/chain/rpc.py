"""The connection to one or more Ethereum nodes of a chain: JSON-RPC over HTTP with bounded retries."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from contextvars import ContextVar
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from aiohttp import (
    ClientConnectionError,
    ClientConnectorError,
    ClientError,
    ClientResponseError,
    ClientSession,
    ClientTimeout,
    TCPConnector,
)
from eth_abi.codec import ABICodec
from eth_abi.decoding import AddressDecoder, StringDecoder
from eth_abi.registry import BaseEquals
from eth_utils import to_checksum_address
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    stop_all,
    wait_exponential_jitter,
)
from web3 import AsyncHTTPProvider, AsyncWeb3
from web3._utils.abi import build_strict_registry
from web3.types import RPCEndpoint

from deepsquare.errors import ConfigError, ConnectionFailedError, DeepSquareError


class _AddressDecoder(AddressDecoder):
    # Of many jobs' customers and providers few differ.
    decoder_fn = staticmethod(lru_cache(4096)(to_checksum_address))


def _lenient_codec() -> ABICodec:
    registry = build_strict_registry()
    registry.unregister_decoder("address")
    registry.register_decoder(BaseEquals("address"), _AddressDecoder, label="address")  # type: ignore[no-untyped-call]
    registry.unregister_decoder("string")
    registry.register_decoder(
        BaseEquals("string"),  # type: ignore[no-untyped-call]
        StringDecoder(handle_string_errors="replace"),  # type: ignore[no-untyped-call]
        label="string",
    )
    return ABICodec(registry)


CODEC = _lenient_codec()
"""Decodes what contracts answer; addresses get their checksum.

Texts come from strangers: bytes that are no UTF-8 are replaced, and stop nobody's work.
"""

_log = logging.getLogger(__name__)

RETRY_SECONDS = 20.0
_CONNECTIONS = 32
_TELL_AT_ATTEMPT = 4
REQUEST_TIMEOUT_SECONDS = 30.0
_PAUSE = wait_exponential_jitter(multiplier=0.1, max=3)
# Codes of nodes that are asked too much: EIP-1474's, and those of some that let many share a node.
_BUSY = re.compile(rb'"code":\s*(-32005|-32016|429)\b')
_LONGEST_ERROR = 2000
# What was asked for is too much, and will be.
_TOO_WIDE = re.compile(rb"(?i)results|range")
# Of Nethermind and OpenEthereum, whose text says only that the call failed.
_FAILED_CALL = -32015
_MACHINE_FAILED = re.compile(r"bad|invalid|stack|static|access|other|precompile")


ATTEMPTS: ContextVar[int] = ContextVar("attempts", default=0)
"""How often the last request of this task was sent, until it was answered."""


class RpcError(DeepSquareError):
    """The node answered a request with a JSON-RPC error; `data` is the revert data where there are some."""

    def __init__(self, code: int, message: str, data: str | None) -> None:
        super().__init__(f"the node answered: {message} (code {code})")
        self.code, self.message, self.data = code, message, data

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.code, self.message, self.data)

    @property
    def is_revert(self) -> bool:
        """Whether a contract refused, and not the node."""
        message, data = self.message.lower(), (self.data or "").lower()
        if "out of gas" in message or "outofgas" in data.replace(" ", ""):
            return False
        failed = self.code == _FAILED_CALL and not _MACHINE_FAILED.match(data)
        return "revert" in message or data.startswith("0x") or failed


def display_url(url: str) -> str:
    """Scheme, host and port of a URL, without the path and the user info that often hold an API key."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        # What seems to be a port may be part of a password.
        return "a URL that is not one"
    if not parts.hostname:
        # What could be a secret is not repeated.
        return url if re.fullmatch(r"[\w.-]{1,12}", url) else "a URL that is not one"
    return f"{parts.scheme}://{parts.hostname}{port}"


class _BusyError(Exception):
    """The node answered that it is asked too much; some do so with HTTP status 200."""


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, ClientResponseError):
        return error.status == 429 or error.status >= 500
    return isinstance(error, (ClientConnectionError, TimeoutError, _BusyError))


def split_urls(urls: str) -> list[str]:
    """The URLs of nodes of one chain, from a text that has them with commas in between, best first.

    Raises:
        ConfigError: one is no http or https URL.
    """
    found = [url.strip() for url in urls.split(",")]
    for url in found:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"rpc_url has {display_url(url)!r}, which is no URL of a node: write http://HOST:PORT or https://HOST/..., several "
                "with commas in between"
            )
    return found


class RetryingProvider(AsyncHTTPProvider):
    """An HTTP provider that retries every method: reads change nothing, and a signed transaction sent twice is one.

    Of several nodes it asks the first that answers, and stays with it. One that turns out to be of another chain is left out.
    """

    def __init__(self, urls: Sequence[str], *, retry_seconds: float = RETRY_SECONDS) -> None:
        # web3 writes this one into its log.
        super().__init__(display_url(urls[0]))
        self._urls = list(urls)
        self._retry_seconds = retry_seconds
        self._chain_ids: dict[str, int] = {}
        self._session: ClientSession | None = None
        self._is_closed = False

    async def _make_request(self, method: Any, request_data: bytes) -> bytes:
        url = self._urls[0]
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception(_is_transient),
                # All nodes once before the first pause.
                wait=lambda state: 0.0 if state.attempt_number < len(self._urls) else _PAUSE(state),
                stop=stop_all(stop_after_delay(self._retry_seconds), stop_after_attempt(len(self._urls))),
                before_sleep=self._tell,
                reraise=True,
            ):
                url = self._urls[0]
                ATTEMPTS.set(attempt.retry_state.attempt_number)
                with attempt:
                    try:
                        return await self._ask(url, method, request_data)
                    except Exception as error:
                        if _is_transient(error):
                            self._pass_over(url)
                        raise
        except (ClientError, TimeoutError, OSError, _BusyError) as error:
            nodes = ", ".join(map(display_url, self._urls))
            raise ConnectionFailedError(
                f"the chain at {nodes} can't be reached ({_reason(error)}). Is the node running? For a local grid: "
                "deepsquare grid status"
            ) from None
        raise AssertionError("unreachable: tenacity returns or raises")

    async def _ask(self, url: str, method: Any, request_data: bytes) -> bytes:
        if self._chain_ids and url not in self._chain_ids:
            await self._check_chain(url)
        answer = await self._post(url, request_data)
        if (
            len(answer) < _LONGEST_ERROR
            and b'"error"' in answer
            and _BUSY.search(answer)
            and not _TOO_WIDE.search(answer)
        ):
            raise _BusyError
        if method == "eth_chainId":
            self._chain_ids[url] = _chain_id(answer)
        return answer

    async def _post(self, url: str, request_data: bytes) -> bytes:
        if self._is_closed:
            raise ConnectionFailedError("the connection to the chain is closed")
        # web3's own sessions make a connection for each request. That the node has closed one meanwhile is an error that passes.
        if self._session is None:
            self._session = ClientSession(
                connector=TCPConnector(limit=_CONNECTIONS),
                # Not in all: many that wait for a connection are no sign of a node that is slow.
                timeout=ClientTimeout(
                    total=None, sock_connect=REQUEST_TIMEOUT_SECONDS, sock_read=REQUEST_TIMEOUT_SECONDS
                ),
                headers=self.get_request_headers(),
                raise_for_status=True,
            )
        async with self._session.post(url, data=request_data) as response:
            return await response.read()

    async def disconnect(self) -> None:
        """Close all connections, for good."""
        self._is_closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _check_chain(self, url: str) -> None:
        """Whether a node that was not asked before is of the same chain as those that were."""
        method = RPCEndpoint("eth_chainId")
        found = _chain_id(await self._post(url, self.encode_rpc_request(method, [])))
        if found not in self._chain_ids.values():
            _log.error("the node at %s is of chain %d: it is left out", display_url(url), found)
            if url in self._urls:
                self._urls.remove(url)
            raise TimeoutError
        self._chain_ids[url] = found

    def _pass_over(self, url: str) -> None:
        """Ask the next one; of many requests that failed at once the first has done so already."""
        if len(self._urls) > 1 and self._urls[0] == url:
            self._urls.append(self._urls.pop(0))
            _log.info("asking %s instead of %s", display_url(self._urls[0]), display_url(url))

    def _tell(self, state: RetryCallState) -> None:
        """Say why it takes long, once a request, when it is clear that it does."""
        if state.attempt_number == _TELL_AT_ATTEMPT * len(self._urls) and state.outcome is not None:
            reason = _reason(state.outcome.exception())
            _log.warning(
                "the chain at %s can't be reached (%s); trying for %.0f s",
                ", ".join(map(display_url, self._urls)),
                reason,
                self._retry_seconds,
            )


def _chain_id(answer: bytes) -> int:
    try:
        return int(json.loads(answer)["result"], 16)
    except (ValueError, KeyError, TypeError):
        return 0


def _reason(error: BaseException | None) -> str:
    if isinstance(error, ClientResponseError):
        return f"HTTP status {error.status}"
    if isinstance(error, ClientConnectorError):
        return error.strerror or "no connection"
    if isinstance(error, _BusyError):
        return "it is asked too much"
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__


def connect(url: str, *, retry_seconds: float = RETRY_SECONDS) -> AsyncWeb3[RetryingProvider]:
    """A web3 client of the node at `url`, or of several with commas in between; nothing is sent yet.

    Args:
        url: as `split_urls` takes it.
        retry_seconds: the bound of the retries of one request.

    Raises:
        ConfigError: that is no URL.
    """
    w3 = AsyncWeb3(RetryingProvider(split_urls(url), retry_seconds=retry_seconds))
    w3.codec = CODEC
    return w3


async def request(w3: AsyncWeb3[Any], method: str, *params: Any) -> Any:
    """Send one JSON-RPC request and return its result.

    Raises:
        RpcError: the node answered with an error.
        ConnectionFailedError: the node can't be reached.
    """
    try:
        response = await w3.provider.make_request(method, list(params))
    except ValueError:
        raise RpcError(-1, "something that is no JSON", None) from None
    if not isinstance(response, dict):
        raise RpcError(-1, "something that is no answer of JSON-RPC", None)
    if response.get("error") is not None:
        error: Any = response["error"]
        if isinstance(error, str):
            raise RpcError(-1, error, None)
        data = error.get("data")
        if isinstance(data, dict):
            # Hardhat's.
            data = data.get("data")
        # Nethermind and OpenEthereum put a word before it.
        data = data.removeprefix("Reverted ") if isinstance(data, str) else None
        raise RpcError(error.get("code", -1), str(error.get("message") or ""), data)
    return response.get("result")
