"""The connection to an Ethereum node: JSON-RPC over HTTP with bounded retries."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientConnectionError, ClientConnectorError, ClientError, ClientResponseError, ClientTimeout
from eth_abi.codec import ABICodec
from eth_abi.decoding import StringDecoder
from eth_abi.registry import BaseEquals
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_delay, wait_exponential_jitter
from web3 import AsyncHTTPProvider, AsyncWeb3
from web3._utils.abi import build_strict_registry

from deepsquare.errors import ConnectionFailedError, DeepSquareError


def _lenient_codec() -> ABICodec:
    registry = build_strict_registry()
    registry.unregister_decoder("string")
    registry.register_decoder(
        BaseEquals("string"),  # type: ignore[no-untyped-call]
        StringDecoder(handle_string_errors="replace"),  # type: ignore[no-untyped-call]
        label="string",
    )
    return ABICodec(registry)


CODEC = _lenient_codec()
"""Decodes what contracts answer. Texts come from strangers: bytes that are no UTF-8 are replaced, and stop nobody's work."""

_log = logging.getLogger(__name__)

RETRY_SECONDS = 20.0
_TELL_AT_ATTEMPT = 4
REQUEST_TIMEOUT_SECONDS = 30.0


class RpcError(DeepSquareError):
    """The node answered a request with a JSON-RPC error; `data` is the revert data where there are some."""

    def __init__(self, code: int, message: str, data: str | None) -> None:
        super().__init__(f"the node answered: {message} (code {code})")
        self.code, self.message, self.data = code, message, data


def display_url(url: str) -> str:
    """Scheme, host and port of a URL, without the path and the user info that often hold an API key."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}"


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, ClientResponseError):
        return error.status == 429 or error.status >= 500
    return isinstance(error, (ClientConnectionError, TimeoutError))


class RetryingProvider(AsyncHTTPProvider):
    """An HTTP provider that retries every method: reads change nothing, and a signed transaction sent twice is one."""

    def __init__(self, url: str, *, retry_seconds: float = RETRY_SECONDS) -> None:
        super().__init__(
            url,
            request_kwargs={"timeout": ClientTimeout(total=REQUEST_TIMEOUT_SECONDS)},
            exception_retry_configuration=None,
        )
        self._url = url
        self._retry_seconds = retry_seconds

    async def _make_request(self, method: Any, request_data: bytes) -> bytes:
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception(_is_transient),
                wait=wait_exponential_jitter(multiplier=0.1, max=3),
                stop=stop_after_delay(self._retry_seconds),
                before_sleep=self._tell,
                reraise=True,
            ):
                with attempt:
                    return await super()._make_request(method, request_data)
        except (ClientError, TimeoutError, OSError) as error:
            raise ConnectionFailedError(
                f"the chain at {display_url(self._url)} can't be reached ({_reason(error)}). Is the node running? For a local "
                "grid: deepsquare grid status"
            ) from None
        raise AssertionError("unreachable: tenacity returns or raises")

    def _tell(self, state: RetryCallState) -> None:
        """Say why it takes long, once a request, when it is clear that it does."""
        if state.attempt_number == _TELL_AT_ATTEMPT and state.outcome is not None:
            reason = _reason(state.outcome.exception())
            _log.warning(
                "the chain at %s can't be reached (%s); trying for %.0f s",
                display_url(self._url),
                reason,
                self._retry_seconds,
            )


def _reason(error: BaseException | None) -> str:
    if isinstance(error, ClientResponseError):
        return f"HTTP status {error.status}"
    if isinstance(error, ClientConnectorError):
        return error.strerror or "no connection"
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__


def connect(url: str, *, retry_seconds: float = RETRY_SECONDS) -> AsyncWeb3[RetryingProvider]:
    """A web3 client of the node at `url`; nothing is sent yet. `retry_seconds` bounds the retries of one request."""
    w3 = AsyncWeb3(RetryingProvider(url, retry_seconds=retry_seconds))
    w3.codec = CODEC
    return w3


async def request(w3: AsyncWeb3[Any], method: str, *params: Any) -> Any:
    """Send one JSON-RPC request and return its result.

    Raises:
        RpcError: the node answered with an error.
        ConnectionFailedError: the node can't be reached.
    """
    response = await w3.provider.make_request(method, list(params))
    if "error" in response:
        error: Any = response["error"]
        if isinstance(error, str):
            raise RpcError(-1, error, None)
        data = error.get("data")
        if isinstance(data, dict):
            # Hardhat's.
            data = data.get("data")
        # Nethermind and OpenEthereum put a word before it.
        data = data.removeprefix("Reverted ") if isinstance(data, str) else None
        raise RpcError(error.get("code", -1), error.get("message", ""), data)
    return response.get("result")
