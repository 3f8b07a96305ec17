"""Ships the output of jobs to the grid logger."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence

from grpc import aio
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from deepsquare.chain.wallet import Wallet
from deepsquare.errors import ApiError, ConnectionFailedError
from deepsquare.wire import logger_v1alpha1_pb2 as pb
from deepsquare.wire.channels import FATAL_CODES, describe, open_channel
from deepsquare.wire.logger_v1alpha1_pb2_grpc import LoggerAPIStub
from deepsquare.wire.messages import (
    MAX_LINE_BYTES,
    PROVIDER_METADATA,
    SIGNATURE_METADATA,
    TIMESTAMP_HEADER,
    write_text,
)

_ATTEMPTS = 6
_MAX_WAIT_SECONDS = 5.0
_CALL_SECONDS = 60.0


class LogWriter:
    """Writes the logs of one provider's jobs, all of them over one connection."""

    def __init__(self, endpoint: str, wallet: Wallet, tls: bool = False) -> None:
        """`endpoint` is host:port; `wallet` is the provider's."""
        self._endpoint = endpoint
        self._wallet = wallet
        self._tls = tls
        self._channel: aio.Channel | None = None

    async def close(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def write(self, job_id: str, customer: str, lines: Sequence[tuple[bytes, int, int]]) -> None:
        """Write lines into a job's log; when this returns, the logger has stored them.

        May be repeated with the same lines, and is when a connection fails: the logger ignores those whose offset it has
        passed. Only lines whose offset is 0 can be stored twice.

        Args:
            job_id: the job's id, 0x and 64 hex digits.
            customer: the address of the job's customer.
            lines: of each its bytes without the newline, the time (unix, ns) at which it was seen, and the byte offset in
                the job's output just behind it, newline included, or 0 when it is not known. Long ones are split.

        Raises:
            ApiError: the logger refuses.
            ConnectionFailedError: the logger can't be reached, also after retries.
        """
        if not lines:
            return
        if self._channel is None:
            self._channel = open_channel(self._endpoint, tls=self._tls)
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception(_may_pass),
                stop=stop_after_attempt(_ATTEMPTS),
                wait=wait_random_exponential(multiplier=0.2, max=_MAX_WAIT_SECONDS),
                reraise=True,
            ):
                with attempt:
                    await LoggerAPIStub(self._channel).Write(
                        _requests(job_id, customer.lower(), lines),
                        metadata=self._signature(job_id),
                        timeout=_CALL_SECONDS,
                    )
        except aio.AioRpcError as error:
            if error.code() in FATAL_CODES:
                raise ApiError(f"the grid logger at {self._endpoint} refuses: {describe(error)}") from None
            raise ConnectionFailedError(
                f"the grid logger at {self._endpoint} can't be reached: {describe(error)}"
            ) from None

    def _signature(self, name: str) -> tuple[tuple[str, str | bytes], ...]:
        timestamp = int(time.time())
        return (
            (PROVIDER_METADATA, self._wallet.address),
            (TIMESTAMP_HEADER, str(timestamp)),
            (SIGNATURE_METADATA, self._wallet.sign_message(write_text(self._wallet.address, name, timestamp))),
        )


async def _requests(name: str, user: str, lines: Sequence[tuple[bytes, int, int]]) -> AsyncIterator[pb.WriteRequest]:
    for data, timestamp, offset in lines:
        for piece, end in split(data, offset):
            yield pb.WriteRequest(log_name=name, user=user, data=piece, timestamp=timestamp, offset=end)


def split(data: bytes, offset: int) -> list[tuple[bytes, int]]:
    """The pieces of a line that one message can hold, each with the offset behind it; the last has the line's own."""
    ends = [*range(MAX_LINE_BYTES, len(data), MAX_LINE_BYTES), len(data)]
    starts = [0, *ends[:-1]]
    # Counted back from the line's end: whether that includes a newline doesn't matter then.
    return [(data[start:end], offset and offset - (len(data) - end)) for start, end in zip(starts, ends, strict=True)]


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, aio.AioRpcError) and error.code() not in FATAL_CODES
