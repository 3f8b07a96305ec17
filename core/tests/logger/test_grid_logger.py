"""The grid logger with its own clients: LogWriter writes, LogReader reads."""

import asyncio
import contextlib
import sqlite3
import sys
import time

import pytest
from cryptography.exceptions import InvalidTag
from deepsquare.client.logs import LogReader
from deepsquare.client.text import sanitize
from deepsquare.errors import ApiError, ConnectionFailedError, GridError
from deepsquare.grid.logger import GridLogger
from deepsquare.grid.logger.store import Line, LogStore
from deepsquare.grid.supervisor.log_writer import LogWriter, split
from deepsquare.wire.messages import MAX_LINE_BYTES
from hypothesis import given, settings
from hypothesis import strategies as st

_APPEND_FOREVER = """
import asyncio, sys
from pathlib import Path
from deepsquare.grid.logger.store import Line, LogStore

async def main():
    store = LogStore(Path(sys.argv[1]))
    number = 0
    while True:
        number += 1
        await store.append("0xowner", "log", [Line(b"%d" % number, number, number)])
        print(number, flush=True)

asyncio.run(main())
"""


@pytest.fixture
async def writer(endpoint, provider):
    writer = LogWriter(endpoint, provider)
    yield writer
    await writer.close()


@pytest.fixture
async def reader(endpoint, customer):
    reader = LogReader(endpoint, customer)
    yield reader
    await reader.close()


def lines_of(*texts: bytes, start: int = 0) -> list[tuple[bytes, int, int]]:
    """Lines as the supervisor gives them: with the offset behind each newline."""
    lines = []
    for text in texts:
        start += len(text) + 1
        lines.append((text, 1_700_000_000_000_000_000 + start, start))
    return lines


async def stored(reader: LogReader, job_id: str) -> list[bytes]:
    return [line.data async for line in reader.read(job_id, follow=False)]


async def test_what_is_written_is_read(writer, reader, customer, job_id):
    lines = lines_of(b"one", b"", b"\xff\x00three")
    await writer.write(job_id, customer.address, lines)
    got = [line async for line in reader.read(job_id, follow=False)]
    assert [(line.data, line.timestamp_ns) for line in got] == [(data, timestamp) for data, timestamp, _ in lines]


async def test_a_log_of_nothing_is_empty(reader, job_id):
    assert await stored(reader, job_id) == []


async def test_the_times_of_the_first_and_the_last_line(writer, reader, customer, job_id):
    assert await reader.times(job_id) is None
    begin = 1_700_000_000
    for seconds in (0, 60, 3600):
        await writer.write(job_id, customer.address, [(b"line", (begin + seconds) * 10**9, seconds + 1)])
    first, last = await reader.times(job_id)
    assert (first.timestamp(), last.timestamp()) == (begin, begin + 3600)


async def test_history_first_then_live_until_the_job_has_ended(writer, reader, customer, job_id):
    await writer.write(job_id, customer.address, lines_of(b"history"))
    ended = asyncio.Event()
    got = []
    async for line in reader.read(job_id, follow=True, ended=ended):
        got.append(line.data)
        if line.data == b"history":
            await writer.write(job_id, customer.address, lines_of(b"live", start=8))
        elif line.data == b"live":
            # Shipped before the end is reported: the reader gets it though it is told of the end at once.
            await writer.write(job_id, customer.address, lines_of(b"last", start=13))
            ended.set()
    assert got == [b"history", b"live", b"last"]


async def test_a_reader_may_come_before_the_first_line(writer, reader, customer, job_id):
    ended = asyncio.Event()
    reading = asyncio.create_task(anext(reader.read(job_id, follow=True, ended=ended)))
    await asyncio.sleep(0.1)
    await writer.write(job_id, customer.address, lines_of(b"first"))
    assert (await asyncio.wait_for(reading, 5)).data == b"first"


async def test_an_end_without_any_line_ends_the_reader(reader, job_id):
    ended = asyncio.Event()
    reading = asyncio.create_task(_collect(reader, job_id, ended))
    await asyncio.sleep(0.1)
    ended.set()
    assert await asyncio.wait_for(reading, 5) == []


async def test_repeated_lines_are_stored_once(writer, reader, customer, job_id):
    await writer.write(job_id, customer.address, lines_of(b"one", b"two"))
    await writer.write(job_id, customer.address, lines_of(b"one", b"two", b"three"))
    assert await stored(reader, job_id) == [b"one", b"two", b"three"]


async def test_writers_that_repeat_each_other_at_once_store_each_line_once(writer, reader, customer, job_id):
    lines = lines_of(*(b"line %d" % number for number in range(200)))
    await asyncio.gather(
        writer.write(job_id, customer.address, lines),
        writer.write(job_id, customer.address, lines),
    )
    assert await stored(reader, job_id) == [data for data, _, _ in lines]


async def test_lines_without_an_offset_are_all_stored(writer, reader, customer, job_id):
    for _ in range(2):
        await writer.write(job_id, customer.address, [(b"same", 1, 0)])
    assert await stored(reader, job_id) == [b"same", b"same"]


async def test_many_readers_at_once(writer, reader, customer, job_id):
    ended = asyncio.Event()
    readings = [asyncio.create_task(_collect(reader, job_id, ended)) for _ in range(10)]
    lines = lines_of(*(b"line %d" % number for number in range(500)))
    for start in range(0, 500, 100):
        await writer.write(job_id, customer.address, lines[start : start + 100])
    ended.set()
    for got in await asyncio.wait_for(asyncio.gather(*readings), 30):
        assert got == [data for data, _, _ in lines]


async def test_tail_gives_the_last_lines_safe_for_a_terminal(writer, reader, customer, job_id):
    await writer.write(job_id, customer.address, lines_of(b"one", b"\x1b[31mtwo\x1b[0m", b"three\x07"))
    assert await reader.tail(job_id, 2) == ["two", "three\\x07"]
    assert await reader.tail(job_id, 10) == ["one", "two", "three\\x07"]
    assert await reader.tail(job_id, 0) == []


async def test_a_long_line_is_split_and_may_be_repeated(writer, reader, customer, job_id):
    long = bytes(range(256)) * 1000
    lines = lines_of(b"before", long, b"after")
    for _ in range(2):
        await writer.write(job_id, customer.address, lines)
    pieces = await stored(reader, job_id)
    assert (pieces[0], b"".join(pieces[1:-1]), pieces[-1]) == (b"before", long, b"after")
    assert all(len(piece) <= MAX_LINE_BYTES for piece in pieces)


@given(st.integers(0, 3 * MAX_LINE_BYTES), st.integers(0, 10**12))
def test_pieces_have_growing_offsets_up_to_the_lines_own(size, start):
    pieces = split(bytes(size), start + size + 1)
    ends = [end for _, end in pieces]
    assert ends == sorted(set(ends))
    assert ends[0] > start
    assert ends[-1] == start + size + 1
    assert sum(len(data) for data, _ in pieces) == size


class TestAStoppedLogger:
    async def test_comes_back_with_everything_and_its_readers_go_on(self, chain, tmp_path, customer, provider, job_id):
        first = GridLogger(chain=chain, state_dir=tmp_path)
        await first.start()
        port = first.port
        writer, reader = LogWriter(f"127.0.0.1:{port}", provider), LogReader(f"127.0.0.1:{port}", customer)
        await writer.write(job_id, customer.address, lines_of(b"one", b"two"))
        ended = asyncio.Event()
        got = []
        async for line in reader.read(job_id, follow=True, ended=ended):
            got.append(line.data)
            if line.data == b"two":
                await first.stop()
                async with contextlib.AsyncExitStack() as stack:
                    second = GridLogger(chain=chain, state_dir=tmp_path, port=port)
                    await stack.enter_async_context(second)
                    # The supervisor was not sure that line two arrived.
                    await writer.write(job_id, customer.address, lines_of(b"two", b"three", start=4))
                    stack.pop_all()
            elif line.data == b"three":
                ended.set()
        assert got == [b"one", b"two", b"three"]
        await second.stop()
        await writer.close()
        await reader.close()

    async def test_is_reported_after_the_retries(self, customer, monkeypatch, job_id):
        monkeypatch.setattr("deepsquare.client.logs.GIVE_UP_SECONDS", 0.5)
        reader = LogReader("127.0.0.1:1", customer)
        with pytest.raises(ConnectionFailedError, match=r"127\.0\.0\.1:1"):
            await stored(reader, job_id)
        with pytest.raises(ConnectionFailedError):
            await reader.tail(job_id, 1)
        await reader.close()

    async def test_has_no_port(self, chain, tmp_path):
        with pytest.raises(GridError):
            _ = GridLogger(chain=chain, state_dir=tmp_path).port

    async def test_a_taken_port_is_an_error(self, chain, tmp_path, logger):
        with pytest.raises(GridError, match="another program has that port"):
            await GridLogger(chain=chain, state_dir=tmp_path / "other", port=logger.port).start()


class TestTheStore:
    async def test_keeps_no_plain_text_and_is_private(self, tmp_path):
        store = LogStore(tmp_path)
        await store.append("0xowner", "log", [Line(b"the-secret-of-the-job", 1, 1)])
        files = [path for path in tmp_path.iterdir() if path.is_file()]
        assert {path.name for path in files} >= {"logs.sqlite", "logs.sqlite-wal", "logs.key"}
        for path in files:
            assert b"the-secret" not in path.read_bytes(), path
            assert path.stat().st_mode & 0o777 == 0o600, path
        await store.close()

    async def test_a_process_that_is_killed_loses_nothing_that_it_acknowledged(self, tmp_path):
        writing = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _APPEND_FOREVER, str(tmp_path), stdout=asyncio.subprocess.PIPE
        )
        acknowledged = 0
        while acknowledged < 20:
            acknowledged = int(await writing.stdout.readline())
        writing.kill()
        await writing.wait()
        store = LogStore(tmp_path)
        lines = await store.read("0xowner", "log", after=0, limit=10**6)
        assert len(lines) >= acknowledged
        assert [int(line.data) for line in lines] == list(range(1, len(lines) + 1))
        await store.close()

    async def test_a_line_that_was_moved_is_not_given_as_another(self, tmp_path):
        store = LogStore(tmp_path)
        await store.append("0xowner", "log", [Line(b"one", 7), Line(b"two", 7)])
        await store.close()
        with sqlite3.connect(tmp_path / "logs.sqlite") as db:
            sealed = db.execute("SELECT sealed FROM lines WHERE number = 2").fetchone()[0]
            db.execute("UPDATE lines SET sealed = ? WHERE number = 1", (sealed,))
        db.close()
        store = LogStore(tmp_path)
        with pytest.raises(InvalidTag):
            await store.read("0xowner", "log", after=0, limit=10)
        await store.close()

    async def test_a_log_ends_at_its_limit_with_a_line_that_says_so(self, tmp_path):
        store = LogStore(tmp_path, max_log_bytes=2 * (5 + 64))
        for number in range(1, 5):
            await store.append("0xowner", "log", [Line(b"12345", number, number)])
        lines = [line.data for line in await store.read("0xowner", "log", after=0, limit=10)]
        assert lines == [b"12345", b"12345", b"[the log is full: output over 138 bytes is not kept]"]
        await store.close()

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.binary(max_size=200), max_size=20))
    def test_any_bytes_come_back_as_they_were(self, tmp_path_factory, texts):
        async def round_trip():
            store = LogStore(tmp_path_factory.mktemp("store"))
            await store.append("0xowner", "log", [Line(text, time.time_ns()) for text in texts])
            assert [line.data for line in await store.read("0xowner", "log", after=0, limit=100)] == texts
            await store.close()

        asyncio.run(round_trip())


class TestSanitize:
    @pytest.mark.parametrize(
        ("data", "text"),
        [
            (b"plain\ttext", "plain\ttext"),
            ("Zürich ✓".encode(), "Zürich ✓"),
            (b"\x1b[1;31mred\x1b[0m", "red"),
            (b"\x1b]0;title\x07after", "after"),
            (b"\x1b]8;;http://x\x1b\\link", "link"),
            (b"\x1b]0;never ends", "\\x1b]0;never ends"),
            (b"\x1b\x1b[31m[2J", "\\x1b[2J"),
            (b"10%\r20%", "10%\\x0d20%"),
            (b"dos\r", "dos"),
            ("\u202egnp.exe\x9b2J".encode(), "\\x202egnp.exe\\x9b2J"),
            (b"\xff", "\ufffd"),
        ],
    )
    def test_examples(self, data, text):
        assert sanitize(data) == text

    @given(st.binary() | st.text().map(str.encode) | st.text("\x1b[]m;0\x07\\\r\x9b").map(str.encode))
    def test_nothing_that_a_terminal_obeys_is_left(self, data):
        assert not any(ord(char) < 32 and char != "\t" for char in sanitize(data))
        assert not any(0x7F <= ord(char) <= 0x9F for char in sanitize(data))


async def _collect(reader: LogReader, job_id: str, ended: asyncio.Event) -> list[bytes]:
    return [line.data async for line in reader.read(job_id, follow=True, ended=ended)]


async def test_a_strange_customer_reads_nothing(writer, endpoint, stranger, customer, job_id):
    await writer.write(job_id, customer.address, lines_of(b"secret"))
    reader = LogReader(endpoint, stranger)
    with pytest.raises(ApiError, match="PERMISSION_DENIED"):
        await stored(reader, job_id)
    with pytest.raises(ApiError, match="PERMISSION_DENIED"):
        await reader.tail(job_id, 1)
    await reader.close()


async def test_another_provider_writes_nothing(endpoint, stranger, customer, reader, job_id):
    writer = LogWriter(endpoint, stranger)
    with pytest.raises(ApiError, match="PERMISSION_DENIED"):
        await writer.write(job_id, customer.address, lines_of(b"forged"))
    await writer.close()
    assert await stored(reader, job_id) == []


async def test_the_provider_writes_only_to_the_jobs_customer(writer, stranger, job_id):
    with pytest.raises(ApiError, match="PERMISSION_DENIED"):
        await writer.write(job_id, stranger.address, lines_of(b"not for you"))


async def test_a_job_that_the_chain_does_not_know_is_not_written(writer, customer):
    with pytest.raises(ApiError, match="PERMISSION_DENIED"):
        await writer.write("0x" + "00" * 32, customer.address, lines_of(b"line"))


async def test_closing_the_reader_ends_its_reads(reader, job_id):
    reading = asyncio.create_task(anext(reader.read(job_id, follow=True)))
    await asyncio.sleep(0.2)
    await reader.close()
    with pytest.raises(ConnectionFailedError):
        await asyncio.wait_for(reading, 5)
