"""The grid logger as one service."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn, Self

import grpc
from grpc import aio

from deepsquare.errors import DeepSquareError, GridError
from deepsquare.grid.logger.access import Access, ForbiddenError, JobReader, Metadata, UnauthenticatedError
from deepsquare.grid.logger.live import Wakeups
from deepsquare.grid.logger.store import MAX_LOG_BYTES, Line, LogStore
from deepsquare.grid.port import no_port
from deepsquare.wire import logger_v1alpha1_pb2 as pb
from deepsquare.wire.logger_v1alpha1_pb2_grpc import LoggerAPIServicer, add_LoggerAPIServicer_to_server
from deepsquare.wire.messages import LINES_METADATA, MAX_LINE_BYTES, SKIP_METADATA, SKIPPED_METADATA

WATCH_LIST_SECONDS = 10.0
# Lines that are stored, or read, with one transaction: at most 4 MiB of them.
_BATCH_LINES = 64
_MAX_MESSAGE_BYTES = MAX_LINE_BYTES + 4096

_log = logging.getLogger(__name__)

WriteContext = aio.ServicerContext[pb.WriteRequest, pb.WriteResponse]
ReadContext = aio.ServicerContext[pb.ReadRequest, pb.ReadResponse]
WatchListContext = aio.ServicerContext[pb.WatchListRequest, pb.WatchListResponse]
Context = WriteContext | ReadContext | WatchListContext


class GridLogger:
    """Keeps the output of jobs, encrypted, and shows it to their customers alone.

    `state_dir` keeps the logs and their key; a service that is killed and started again with the same folder goes on
    where it was. `allow_unauthenticated_writers` lets in writers that can't sign, DeepSquare's own: whoever reaches the
    port can then write into any log. After `start`, `port` is known.
    """

    def __init__(
        self,
        *,
        chain: JobReader,
        state_dir: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        allow_unauthenticated_writers: bool = False,
        max_log_bytes: int = MAX_LOG_BYTES,
    ) -> None:
        self._access = Access(chain, allow_unauthenticated_writers=allow_unauthenticated_writers)
        self._state_dir = state_dir
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._max_log_bytes = max_log_bytes
        self._port: int | None = None
        self._running: contextlib.AsyncExitStack | None = None

    @property
    def port(self) -> int:
        """The TCP port that the service listens on.

        Raises:
            GridError: the service is not started.
        """
        if self._port is None:
            raise GridError("the grid logger is not started: it has no port yet")
        return self._port

    async def start(self) -> None:
        """Listen, and return when requests can come.

        Raises:
            OSError: the state folder can't be written.
            GridError: the port is taken.
        """
        async with contextlib.AsyncExitStack() as stack:
            store = LogStore(self._state_dir, max_log_bytes=self._max_log_bytes)
            stack.push_async_callback(store.close)
            server = aio.server(
                options=[
                    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
                    ("grpc.max_metadata_size", 16 * 1024),
                    ("grpc.max_concurrent_streams", 1000),
                    ("grpc.so_reuseport", 0),
                    # Readers of quiet logs ping every 20 s, which gRPC by default answers by hanging up.
                    ("grpc.keepalive_permit_without_calls", 1),
                    ("grpc.http2.min_ping_interval_without_data_ms", 5000),
                    # Readers that vanished without a word are noticed.
                    ("grpc.keepalive_time_ms", 60_000),
                    ("grpc.keepalive_timeout_ms", 20_000),
                ]
            )
            add_LoggerAPIServicer_to_server(_Service(self._access, store), server)
            try:
                self._port = server.add_insecure_port(self._address)
            except RuntimeError:
                raise no_port("grid logger", self._address) from None
            await server.start()
            stack.push_async_callback(server.stop, 0.2)
            self._running = stack.pop_all()

    async def stop(self) -> None:
        """Stop listening and close everything; readers are cut off and come back to a logger that is started again."""
        if self._running is not None:
            await self._running.aclose()
        self._running = self._port = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class _Service(LoggerAPIServicer):
    def __init__(self, access: Access, store: LogStore) -> None:
        self._access = access
        self._store = store
        self._wakeups = Wakeups()

    async def Write(self, request_iterator: AsyncIterator[pb.WriteRequest], context: WriteContext) -> pb.WriteResponse:
        """Store the lines of one log; the answer says that all of them are on disk."""
        first = await anext(aiter(request_iterator), None)
        if first is None:
            return pb.WriteResponse()
        async with _refusals(context):
            owner = await self._access.writer(_metadata(context), first.log_name, first.user)
        name, user = first.log_name, first.user
        batch: list[Line] = []
        arrived = asyncio.Queue[pb.WriteRequest | None](maxsize=_BATCH_LINES)
        receiving = asyncio.create_task(_receive(first, request_iterator, arrived))
        try:
            while (request := await arrived.get()) is not None:
                if problem := _problem(request, name, user):
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)
                batch.append(Line(request.data, request.timestamp, request.offset))
                # What has arrived by now shares a transaction: lines that trickle are stored at once, a flood is cheap.
                if arrived.empty() or len(batch) >= _BATCH_LINES:
                    await self._keep(owner, name, batch)
                    batch = []
            if batch:
                await self._keep(owner, name, batch)
            await receiving
        finally:
            receiving.cancel()
        return pb.WriteResponse()

    async def _keep(self, owner: str, name: str, batch: list[Line]) -> None:
        await self._store.append(owner, name, batch)
        self._wakeups.notify(owner, name)

    async def Read(self, request: pb.ReadRequest, context: ReadContext) -> None:
        """Everything stored, then everything that comes, until the reader hangs up."""
        async with _refusals(context):
            owner = await self._access.reader(request.address, request.log_name, request.timestamp, request.signed_hash)
        name = request.log_name
        stored = await self._store.count(owner, name) or 0
        skipped = _skipped(_metadata(context), stored)
        await context.send_initial_metadata(((LINES_METADATA, str(stored)), (SKIPPED_METADATA, str(skipped))))
        with self._wakeups.listen(owner, name) as wakeup:
            sent = skipped
            while True:
                wakeup.clear()
                lines = await self._store.read(owner, name, after=sent, limit=_BATCH_LINES)
                for line in lines:
                    # Waits while the reader is slower than we are: nothing piles up here.
                    await context.write(pb.ReadResponse(data=line.data, timestamp=line.timestamp_ns))
                sent += len(lines)
                if not lines:
                    await wakeup.wait()

    async def WatchList(self, request: pb.WatchListRequest, context: WatchListContext) -> None:
        """The names of the caller's logs, again and again."""
        async with _refusals(context):
            owner = self._access.lister(request.address, request.timestamp, request.signed_hash)
        while True:
            await context.write(pb.WatchListResponse(log_names=await self._store.names(owner)))
            await asyncio.sleep(WATCH_LIST_SECONDS)


async def _receive(
    first: pb.WriteRequest, rest: AsyncIterator[pb.WriteRequest], arrived: asyncio.Queue[pb.WriteRequest | None]
) -> None:
    await arrived.put(first)
    try:
        async for request in rest:
            await arrived.put(request)
    finally:
        await arrived.put(None)


def _problem(request: pb.WriteRequest, name: str, user: str) -> str | None:
    """Why a line can't be stored."""
    if (request.log_name, request.user) != (name, user):
        return "one Write call writes one log"
    if len(request.data) > MAX_LINE_BYTES:
        return f"a line has at most {MAX_LINE_BYTES} bytes: split it"
    # SQLite's integers are signed.
    return "the offset is over 2^63" if request.offset >= 2**63 else None


def _metadata(context: Context) -> Metadata:
    return [(key, value) for key, value in context.invocation_metadata() or ()]


def _skipped(metadata: Metadata, stored: int) -> int:
    """How many of the stored lines the reader does not want: the first N, or with -N all but the last N."""
    try:
        skip = int(dict(metadata).get(SKIP_METADATA, "0"))
    except ValueError:
        skip = 0
    return max(0, stored + skip) if skip < 0 else min(skip, stored)


@contextlib.asynccontextmanager
async def _refusals(context: Context) -> AsyncIterator[None]:
    """Answer the errors of the access check with their status."""
    try:
        yield
    except UnauthenticatedError as error:
        await _abort(context, grpc.StatusCode.UNAUTHENTICATED, str(error))
    except ForbiddenError as error:
        await _abort(context, grpc.StatusCode.PERMISSION_DENIED, str(error))
    except DeepSquareError as error:
        _log.warning("the chain can't be read: %s", error)
        await _abort(context, grpc.StatusCode.UNAVAILABLE, "the chain can't be read at the moment: try again")


async def _abort(context: Context, code: grpc.StatusCode, text: str) -> NoReturn:
    await context.abort(code, text)
