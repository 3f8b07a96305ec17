"""Hands workflows to the sbatch API."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_delay, wait_exponential_jitter

from deepsquare.chain.wallet import Wallet
from deepsquare.errors import ApiError, ConnectionFailedError
from deepsquare.wire.messages import (
    CUSTOMER_HEADER,
    SIGNATURE_HEADER,
    SUBMIT_MUTATION,
    TIMESTAMP_HEADER,
    submit_text,
)

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 20.0
_TELL_AT_ATTEMPT = 4
_TIMEOUT_SECONDS = 30.0


class WorkflowRejectedError(ApiError):
    """The sbatch API found the workflow not valid; `problems` has a line for each field."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("the workflow is not valid:\n" + "\n".join(f"  {problem}" for problem in problems))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems,)


def open_http() -> httpx.AsyncClient:
    """What `submit_workflow` uses for many workflows: it keeps its connections, and has read the system's CAs once."""
    return httpx.AsyncClient(timeout=_TIMEOUT_SECONDS)


async def submit_workflow(
    url: str, workflow: Mapping[str, Any], wallet: Wallet, *, http: httpx.AsyncClient | None = None
) -> str:
    """Submit a workflow, signed by the customer; the sbatch API keeps its script.

    Connections that fail and answers that tell of a passing trouble (5xx, 429) are retried for 20 seconds, in which a
    service is restarted. A retry after a lost answer leaves a second script behind, which nobody can use and which is forgotten.

    Args:
        url: the address of the GraphQL endpoint.
        workflow: a `Job` of the schema `wire/sbatch.graphql`.
        wallet: the customer's.
        http: a client to use; it is not closed.

    Returns:
        The script's id, for the job's `batch_location_hash`.

    Raises:
        WorkflowRejectedError: the workflow is not valid.
        ApiError: the API refused for another reason.
        ConnectionFailedError: it can't be reached, also after the retries.
    """
    body = json.dumps({"query": SUBMIT_MUTATION, "variables": {"job": workflow}}).encode()
    async with AsyncExitStack() as stack:
        client = http if http is not None else await stack.enter_async_context(open_http())
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception(_is_passing),
                wait=wait_exponential_jitter(multiplier=0.1, max=3),
                stop=stop_after_delay(_RETRY_SECONDS),
                before_sleep=lambda state: _tell(url, state),
                reraise=True,
            ):
                with attempt:
                    # Signed at each attempt: the time of signing is a part of what is signed.
                    response = await client.post(url, content=body, headers=_headers(wallet, body))
                    if _is_passing_status(response.status_code):
                        response.raise_for_status()
        except httpx.InvalidURL as error:
            raise ApiError(f"{url!r} is not the address of an sbatch API: {error}") from None
        except httpx.HTTPStatusError as error:
            raise ConnectionFailedError(
                f"the sbatch API at {_origin(url)} answers {error.response.status_code}, also after "
                f"{_RETRY_SECONDS:.0f} s of retries. Nothing was bought"
            ) from None
        except httpx.HTTPError as error:
            # Without the cause: it carries the request, and with that the workflow.
            raise ConnectionFailedError(
                f"the sbatch API at {_origin(url)} can't be reached: {error or type(error).__name__}. Nothing was bought. "
                "For a local grid: deepsquare grid status"
            ) from None
    return _script_id(response)


def _tell(url: str, state: RetryCallState) -> None:
    """Say why it takes long, once a request, when it is clear that it does."""
    if state.attempt_number == _TELL_AT_ATTEMPT:
        _log.warning("the sbatch API at %s can't be reached; trying for %.0f s", _origin(url), _RETRY_SECONDS)


def _headers(wallet: Wallet, body: bytes) -> dict[str, str]:
    timestamp = int(time.time())
    return {
        "content-type": "application/json",
        CUSTOMER_HEADER: wallet.address,
        TIMESTAMP_HEADER: str(timestamp),
        SIGNATURE_HEADER: "0x" + wallet.sign_message(submit_text(wallet.address, body, timestamp)).hex(),
    }


def _is_passing_status(status: int) -> bool:
    return status >= 500 or status == 429


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, httpx.TransportError | httpx.HTTPStatusError) and not isinstance(
        error, httpx.UnsupportedProtocol
    )


def _origin(url: str) -> str:
    """The address without what could be a secret in it."""
    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.netloc.decode()}"


def _script_id(response: httpx.Response) -> str:
    """What the API answered, as a result or an exception."""
    try:
        answer = response.json()
        errors = answer.get("errors") or []
        if not errors:
            return str(answer["data"]["submit"])
        invalid = [str(error["message"]) for error in errors if _kind(error) == "validation"]
        messages = [str(error["message"]) for error in errors]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ApiError(
            f"the answer ({response.status_code}) is not that of an sbatch API: is {_origin(str(response.url))} one?"
        ) from None
    if invalid and len(invalid) == len(messages):
        raise WorkflowRejectedError(invalid)
    raise ApiError("the sbatch API refused the workflow: " + "; ".join(messages))


def _kind(error: Mapping[str, Any]) -> Any:
    return (error.get("extensions") or {}).get("type")
