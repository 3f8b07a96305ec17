"""The front that shares a port between two servers, with plain echo servers behind it."""

import asyncio
import contextlib

import pytest
from deepsquare.grid.port import PortFront

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Inner:
    """Two servers on Unix sockets; each greets with its name and echoes what it gets until that ends."""

    def __init__(self, folder):
        self.paths = {name: folder / name for name in ("one", "two")}
        self.open = 0
        self.reads = asyncio.Event()
        self.reads.set()

    async def serve(self, name, reader, writer):
        self.open += 1
        try:
            writer.write(name.encode() + b":")
            while data := (await self.reads.wait()) and await reader.read(1000):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.close()

    async def start(self, stack):
        for name, path in self.paths.items():

            async def handle(reader, writer, name=name):
                await self.serve(name, reader, writer)

            stack.callback((await asyncio.start_unix_server(handle, path)).close)


@pytest.fixture
async def inner(tmp_path):
    async with contextlib.AsyncExitStack() as stack:
        inner = Inner(tmp_path)
        await inner.start(stack)
        yield inner


@pytest.fixture
async def front(inner):
    front = PortFront(
        http1=inner.paths["one"],
        http2=inner.paths["two"],
        host="127.0.0.1",
        port=0,
        first_bytes_seconds=0.3,
        max_connections=5,
    )
    await front.start()
    yield front
    await front.stop()


async def connect(front):
    return await asyncio.open_connection("127.0.0.1", front.port)


async def converse(front, *parts: bytes) -> bytes:
    reader, writer = await connect(front)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.01)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ([b"GET / HTTP/1.1\r\n\r\n"], b"one"),
        ([b"G", b"ET"], b"one"),
        ([b"PRI * HTTP/1.1\r\n"], b"one"),
        ([PREFACE], b"two"),
        ([PREFACE + b"more"], b"two"),
        ([bytes([byte]) for byte in PREFACE] + [b"more"], b"two"),
    ],
)
async def test_the_first_bytes_choose_and_nothing_is_lost(front, parts, name):
    assert await converse(front, *parts) == name + b":" + b"".join(parts)


async def test_much_goes_through_in_both_directions(front):
    reader, writer = await connect(front)
    data = b"x" * 5_000_000

    async def send():
        writer.write(data)
        writer.write_eof()
        await writer.drain()

    _, answer = await asyncio.gather(send(), reader.read())
    assert answer == b"one:" + data
    writer.close()


async def test_a_slow_server_slows_the_client(front, inner):
    inner.reads.clear()
    _, writer = await connect(front)
    writer.transport.set_write_buffer_limits(high=0)

    async def send():
        # Far more than all sockets' buffers hold: if the front took everything, this would end.
        for _ in range(1000):
            writer.write(b"x" * 100_000)
            await writer.drain()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(send(), 1)
    writer.transport.abort()
    inner.reads.set()


@pytest.mark.parametrize("start", [b"", b"PRI"])
async def test_who_says_nothing_is_hung_up_on(front, start):
    reader, writer = await connect(front)
    writer.write(start)
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 2) == b""
    writer.close()


async def test_connections_over_the_limit_are_closed_and_room_comes_back(front):
    open_ones = [await connect(front) for _ in range(5)]
    for reader, writer in open_ones:
        writer.write(b"hello")
        await reader.readexactly(9)
    reader, writer = await connect(front)
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 2) == b""
    writer.close()
    open_ones.pop()[1].close()
    await asyncio.sleep(0.1)
    assert await converse(front, b"again") == b"one:again"
    for _, writer in open_ones:
        writer.close()


async def test_a_client_that_vanishes_ends_the_connection_behind(front, inner):
    reader, writer = await connect(front)
    writer.write(b"hello")
    await reader.readexactly(9)
    assert inner.open == 1
    writer.transport.abort()
    await asyncio.sleep(0.1)
    assert inner.open == 0


async def test_a_server_that_is_gone_ends_the_connection(tmp_path):
    front = PortFront(http1=tmp_path / "no", http2=tmp_path / "no", host="127.0.0.1", port=0)
    await front.start()
    with contextlib.suppress(ConnectionError):
        assert await converse(front, b"hello") == b""
    await front.stop()


async def test_stopping_drops_what_is_open(front):
    reader, writer = await connect(front)
    writer.write(b"hello")
    await reader.readexactly(9)
    await front.stop()
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 2) == b""
    with pytest.raises(OSError, match="Connect"):
        await connect(front)
    writer.close()
