"""One TCP port for two servers: connections that open with HTTP/2's preface go to one, all others to the other."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

from deepsquare.errors import GridError

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_CHUNK = 64 * 1024

_log = logging.getLogger(__name__)


def no_port(service: str, address: str) -> GridError:
    """The error of a service that can't listen where it should."""
    return GridError(
        f"the {service} can't listen on {address}: another program has that port. It may be this service, running already "
        "(deepsquare grid status); if not, `deepsquare grid down` and `deepsquare grid up` choose another port"
    )


class PortFront:
    """Accepts connections on a TCP port and relays each to a Unix socket: `http2` (gRPC) or `http1`.

    Bytes are relayed as they are, in both directions, no faster than the slower side reads. A connection must show what
    it speaks within `first_bytes_seconds`, and of more than `max_connections` at once the latest are closed.
    """

    def __init__(
        self,
        *,
        http1: Path,
        http2: Path,
        host: str,
        port: int,
        first_bytes_seconds: float = 10.0,
        max_connections: int = 1000,
    ) -> None:
        self._http1 = http1
        self._http2 = http2
        self._host = host
        self._port = port
        self._first_bytes_seconds = first_bytes_seconds
        self._max_connections = max_connections
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The TCP port that is listened on; known after `start`."""
        return self._port

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            OSError: the port is taken, or the host is no address of this machine.
        """
        self._server = await asyncio.start_server(self._accept, self._host, self._port, limit=_CHUNK)
        self._port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening and drop the connections that are still open."""
        if self._server is None:
            return
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= self._max_connections:
            _log.warning("closed a connection: %d are open already", self._max_connections)
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, EOFError, TimeoutError):
            # The peer went away, or never said anything: nobody is left to be told.
            pass
        except asyncio.CancelledError:
            # asyncio reports a cancelled connection task as an error of the server; `stop` cancels them on purpose.
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(self._first_bytes_seconds):
            first = await _first_bytes(reader)
        path = self._http2 if first == _PREFACE else self._http1
        inner_reader, inner_writer = await asyncio.open_unix_connection(str(path), limit=_CHUNK)
        try:
            inner_writer.write(first)
            await _relay((reader, inner_writer), (inner_reader, writer))
            await _close(writer)
        finally:
            inner_writer.transport.abort()


async def _first_bytes(reader: asyncio.StreamReader) -> bytes:
    """Read until it is clear whether the connection opens with the preface."""
    first = b""
    while len(first) < len(_PREFACE) and _PREFACE.startswith(first):
        more = await reader.read(len(_PREFACE) - len(first))
        if not more:
            raise EOFError
        first += more
    return first


async def _relay(*directions: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    """Copy in all directions until the last has ended; a failure in one ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            for source, target in directions:
                group.create_task(_copy(source, target))
    except* (OSError, EOFError) as errors:
        raise errors.exceptions[0] from None


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(_CHUNK):
        target.write(data)
        # Waits while the target's buffer is full, so that the source is read no faster than the target reads.
        await target.drain()
    if target.can_write_eof():
        target.write_eof()


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close after everything written has been sent."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
