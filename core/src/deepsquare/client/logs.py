"""Reads the output of jobs from the grid logger."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import grpc
from grpc import aio

from deepsquare.chain.wallet import Wallet
from deepsquare.client.text import sanitize
from deepsquare.errors import ApiError, ConnectionFailedError
from deepsquare.wire import logger_v1alpha1_pb2 as pb
from deepsquare.wire.channels import FATAL_CODES, describe, open_channel
from deepsquare.wire.logger_v1alpha1_pb2_grpc import LoggerAPIStub
from deepsquare.wire.messages import LINES_METADATA, SKIP_METADATA, SKIPPED_METADATA, read_text

_log = logging.getLogger(__name__)
T = TypeVar("T")

# How long a reader goes on trying while the logger can't be reached.
GIVE_UP_SECONDS = 120.0
_MAX_WAIT_SECONDS = 10.0
_TELL_AFTER_FAILURES = 2
# A logger that does not say how many lines it has, as DeepSquare's, has given them all when it is silent for so long.
_QUIET_SECONDS = 2.0
# How long a logger may take to say it. DeepSquare's sends nothing, not even headers, while a log is empty.
_HEADER_SECONDS = 10.0

_ReadCall = aio.UnaryStreamCall[pb.ReadRequest, pb.ReadResponse]


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a job's output, and the time (unix, ns) at which the provider saw it. The bytes are untrusted."""

    timestamp_ns: int
    data: bytes


class LogReader:
    """Reads the logs of one customer's jobs, all of them over one connection."""

    def __init__(self, endpoint: str, wallet: Wallet, tls: bool = False) -> None:
        """`endpoint` is host:port; with `tls` the server's certificate is checked against the system's CAs."""
        self._endpoint = endpoint
        self._wallet = wallet
        self._tls = tls
        self._channel: aio.Channel | None = None
        self._counts_lines = False

    async def close(self) -> None:
        """Close the connection; reads that are running end with a `ConnectionFailedError`."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def read(
        self,
        job_id: str,
        *,
        follow: bool,
        ended: asyncio.Event | None = None,
        trouble: Callable[[str], None] | None = None,
    ) -> AsyncIterator[LogLine]:
        """The lines of a job's log, each once and in order, also when the connection breaks in between.

        Without `follow` the iteration ends with the last line that is stored now. With it, lines are given as they come
        until `ended` is set and everything stored by then was given; without `ended`, for ever. Set `ended` when the chain
        says that the job is cold: providers ship a job's output before they report its end.

        Args:
            job_id: the job's id, 0x and 64 hex digits.
            follow: wait for lines that are not written yet.
            ended: tells that no more lines will be written.
            trouble: told in words each time that the connection has failed and is tried again.

        Raises:
            ApiError: the logger refuses, for example because the job is another customer's.
            ConnectionFailedError: the logger can't be reached for two minutes.
        """
        received = 0
        patience = _Patience(self._endpoint, trouble)
        while True:
            draining = not follow or (ended is not None and ended.is_set())
            lines = self._drain(job_id, received) if draining else self._live(job_id, received, ended)
            try:
                async with contextlib.aclosing(lines):
                    async for line in lines:
                        received += 1
                        patience.renew()
                        yield line
            except _BrokenError as error:
                await patience.wait(error)
            else:
                if draining:
                    return

    async def tail(self, job_id: str, lines: int) -> list[str]:
        """The last `lines` lines that are stored now, made safe for a terminal.

        Raises:
            ApiError: the logger refuses, for example because the job is another customer's.
            ConnectionFailedError: the logger can't be reached for two minutes.
        """
        if lines <= 0:
            return []
        patience = _Patience(self._endpoint)
        while True:
            last: deque[str] = deque(maxlen=lines)
            try:
                async for line in self._drain(job_id, -lines):
                    last.append(sanitize(line.data))
            except _BrokenError as error:
                await patience.wait(error)
            else:
                return list(last)

    async def times(self, job_id: str) -> tuple[datetime, datetime] | None:
        """When the provider saw the first and the last line that are stored now; None when there is none.

        Of a logger that can leave lines out, no others are read.

        Raises:
            ApiError: the logger refuses, for example because the job is another customer's.
            ConnectionFailedError: the logger can't be reached for two minutes.
        """
        patience = _Patience(self._endpoint)
        while True:
            last: LogLine | None = None
            try:
                async with contextlib.aclosing(self._drain(job_id, 0)) as lines:
                    first = await anext(lines, None)
                if first is not None:
                    async for line in self._drain(job_id, -1):
                        last = line
            except _BrokenError as error:
                await patience.wait(error)
            else:
                return None if first is None or last is None else (_time(first), _time(last))

    async def _live(self, job_id: str, skip: int, ended: asyncio.Event | None) -> AsyncGenerator[LogLine]:
        """The lines behind the first `skip` ones, until `ended` is set."""
        ending = None if ended is None else asyncio.create_task(ended.wait())
        call = self._call(job_id, skip)
        try:
            response = await self._next(call, until=ending)
            if response is None:
                return
            stored = await self._stored(call)
            to_drop = skip - (stored.skipped if stored else 0)
            while response is not None:
                if to_drop > 0:
                    to_drop -= 1
                else:
                    yield LogLine(response.timestamp, response.data)
                response = await self._next(call, until=ending)
        finally:
            call.cancel()
            if ending is not None:
                ending.cancel()

    async def _drain(self, job_id: str, skip: int) -> AsyncGenerator[LogLine]:
        """The lines that are stored now, without the first `skip` ones; a negative `skip` allows to give only the last."""
        call = self._call(job_id, skip)
        try:
            if not await self._answers(call):
                return
            stored = await self._stored(call)
            left = stored.lines - stored.skipped if stored else None
            to_drop = skip - (stored.skipped if stored else 0)
            while left is None or left > 0:
                response = await self._next(call, seconds=_QUIET_SECONDS if left is None else None)
                if response is None:
                    return
                if left is not None:
                    left -= 1
                if to_drop > 0:
                    to_drop -= 1
                else:
                    yield LogLine(response.timestamp, response.data)
        finally:
            call.cancel()

    def _call(self, job_id: str, skip: int) -> _ReadCall:
        if self._channel is None:
            self._channel = open_channel(self._endpoint, tls=self._tls)
        timestamp = int(time.time())
        request = pb.ReadRequest(
            address=self._wallet.address,
            log_name=job_id,
            timestamp=timestamp,
            signed_hash=self._wallet.sign_message(read_text(self._wallet.address, job_id, timestamp)),
        )
        return LoggerAPIStub(self._channel).Read(request, metadata=((SKIP_METADATA, str(skip)),))

    async def _answers(self, call: _ReadCall) -> bool:
        """Wait for the call's headers; False when the logger is there, but has nothing to say of this log.

        Raises:
            _BrokenError: the connection failed.
            ApiError: the logger refuses.
        """
        connecting = asyncio.ensure_future(call.wait_for_connection())
        try:
            await asyncio.wait({connecting}, timeout=_HEADER_SECONDS)
            if connecting.done():
                _result(connecting)
                return True
        finally:
            connecting.cancel()
        assert self._channel is not None
        if self._counts_lines or self._channel.get_state() is not grpc.ChannelConnectivity.READY:
            raise _BrokenError(f"no answer in {_HEADER_SECONDS:.0f} s")
        return False

    async def _stored(self, call: _ReadCall) -> _Stored | None:
        """What a logger of ours says at the begin of a read."""
        metadata = dict(await call.initial_metadata())
        try:
            stored = _Stored(int(metadata[LINES_METADATA]), int(metadata[SKIPPED_METADATA]))
        except (KeyError, ValueError):
            return None
        self._counts_lines = True
        return stored

    async def _next(
        self, call: _ReadCall, *, until: asyncio.Future[Any] | None = None, seconds: float | None = None
    ) -> pb.ReadResponse | None:
        """The next message, or None when `until` is done or nothing came for so many seconds.

        Raises:
            _BrokenError: the connection failed, or the logger ended the stream.
            ApiError: the logger refuses.
        """
        reading = asyncio.ensure_future(call.read())
        try:
            waited = {reading} if until is None else {reading, until}
            await asyncio.wait(waited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                return None
            response = _result(reading)
        finally:
            reading.cancel()
        if not isinstance(response, pb.ReadResponse):
            raise _BrokenError("the logger ended the stream")
        return response


@dataclass(frozen=True, slots=True)
class _Stored:
    """How many lines a log has, and how many of them the logger leaves out."""

    lines: int
    skipped: int


class _BrokenError(Exception):
    """The connection failed in a way that may pass."""


class _Patience:
    """Waits between attempts, longer each time, until two minutes have passed without success."""

    def __init__(self, endpoint: str, trouble: Callable[[str], None] | None = None) -> None:
        self._endpoint, self._trouble = endpoint, trouble
        self._since: float | None = None
        self._failures = 0

    def renew(self) -> None:
        """It works again."""
        self._since, self._failures = None, 0

    async def wait(self, error: _BrokenError) -> None:
        """Sleep, or raise `ConnectionFailedError` when it has been enough."""
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since > GIVE_UP_SECONDS:
            raise ConnectionFailedError(self._words(error)) from None
        if self._trouble is not None:
            self._trouble(self._words(error))
        elif self._failures == _TELL_AFTER_FAILURES:
            _log.warning("%s; trying for %.0f s", self._words(error), GIVE_UP_SECONDS)
        self._failures += 1
        longest = min(_MAX_WAIT_SECONDS, 0.2 * 2 ** min(self._failures, 10))
        # At random, so that all the readers of a logger that comes back don't come back at once.
        await asyncio.sleep(longest * (0.5 + secrets.randbelow(501) / 1000))

    def _words(self, error: _BrokenError) -> str:
        return f"the grid logger at {self._endpoint} can't be reached: {error}"


def _time(line: LogLine) -> datetime:
    return datetime.fromtimestamp(line.timestamp_ns // 10**9, UTC)


def _result(done: asyncio.Future[T]) -> T:
    """The result of a gRPC operation; what it raises is sorted into what may pass and what may not."""
    if done.cancelled():
        raise ConnectionFailedError("the log reader was closed")
    try:
        return done.result()
    except aio.AioRpcError as error:
        if error.code() in FATAL_CODES:
            raise ApiError(f"the grid logger refuses: {describe(error)}") from None
        raise _BrokenError(describe(error)) from None
