"""The logger's protocol itself: what foreign clients send, and how the reader gets on with a foreign logger."""

import asyncio
import time

import grpc
import pytest
from deepsquare.client.logs import LogReader
from deepsquare.errors import ApiError
from deepsquare.grid.logger import GridLogger
from deepsquare.wire import logger_v1alpha1_pb2 as pb
from deepsquare.wire.logger_v1alpha1_pb2_grpc import (
    LoggerAPIServicer,
    LoggerAPIStub,
    add_LoggerAPIServicer_to_server,
)
from deepsquare.wire.messages import (
    LINES_METADATA,
    MAX_LINE_BYTES,
    PROVIDER_METADATA,
    SIGNATURE_METADATA,
    SKIP_METADATA,
    SKIPPED_METADATA,
    TIMESTAMP_HEADER,
    read_text,
    watch_list_text,
    write_text,
)
from grpc import aio


@pytest.fixture
async def stub(endpoint):
    async with aio.insecure_channel(endpoint) as channel:
        yield LoggerAPIStub(channel)


def read_request(wallet, job_id, **changes):
    timestamp = changes.pop("timestamp", int(time.time()))
    fields = {
        "address": wallet.address,
        "log_name": job_id,
        "timestamp": timestamp,
        "signed_hash": wallet.sign_message(read_text(wallet.address, job_id, timestamp)),
    }
    return pb.ReadRequest(**(fields | changes))


def signature(provider, job_id, timestamp=None):
    timestamp = int(time.time()) if timestamp is None else timestamp
    return (
        (PROVIDER_METADATA, provider.address),
        (TIMESTAMP_HEADER, str(timestamp)),
        (SIGNATURE_METADATA, provider.sign_message(write_text(provider.address, job_id, timestamp))),
    )


async def write(stub, metadata, *requests):
    await stub.Write(iter(requests), metadata=metadata)


@pytest.fixture
def line(customer, job_id):
    return pb.WriteRequest(log_name=job_id, user=customer.address.lower(), data=b"line", timestamp=1)


async def refused(call) -> grpc.StatusCode:
    with pytest.raises(aio.AioRpcError) as error:
        await call
    return error.value.code()


async def test_the_count_of_lines_comes_first_and_lines_can_be_left_out(stub, provider, customer, job_id, line):
    await write(stub, signature(provider, job_id), *[line] * 3)
    for skip, skipped in [("0", "0"), ("2", "2"), ("9", "3"), ("-1", "2"), ("-9", "0"), ("x", "0")]:
        call = stub.Read(read_request(customer, job_id), metadata=((SKIP_METADATA, skip),))
        metadata = dict(await call.initial_metadata())
        assert (metadata[LINES_METADATA], metadata[SKIPPED_METADATA]) == ("3", skipped)
        call.cancel()


@pytest.mark.parametrize("unit", [1, 1000])
async def test_a_reader_may_sign_seconds_or_milliseconds(stub, provider, customer, job_id, line, unit):
    await write(stub, signature(provider, job_id), line)
    call = stub.Read(read_request(customer, job_id, timestamp=int(time.time() * unit)))
    assert (await call.read()).data == b"line"
    call.cancel()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"timestamp": 1}, grpc.StatusCode.UNAUTHENTICATED),
        ({"signed_hash": b""}, grpc.StatusCode.UNAUTHENTICATED),
        ({"signed_hash": bytes(65)}, grpc.StatusCode.UNAUTHENTICATED),
        ({"address": "0x" + "00" * 20}, grpc.StatusCode.UNAUTHENTICATED),
        ({"address": ""}, grpc.StatusCode.UNAUTHENTICATED),
        ({"log_name": "0x" + "11" * 32}, grpc.StatusCode.UNAUTHENTICATED),
        ({"log_name": "../x"}, grpc.StatusCode.PERMISSION_DENIED),
        ({"log_name": ""}, grpc.StatusCode.PERMISSION_DENIED),
    ],
)
async def test_each_wrong_field_of_a_read_is_refused(stub, customer, job_id, changes, code):
    assert await refused(stub.Read(read_request(customer, job_id, **changes)).read()) is code


async def test_another_customer_is_refused_before_and_after_the_first_line(stub, provider, stranger, job_id, line):
    request = read_request(stranger, job_id)
    assert await refused(stub.Read(request).read()) is grpc.StatusCode.PERMISSION_DENIED
    await write(stub, signature(provider, job_id), line)
    assert await refused(stub.Read(request).read()) is grpc.StatusCode.PERMISSION_DENIED


async def test_a_name_that_is_spelled_otherwise_opens_nothing(stub, provider, stranger, job_id, line):
    await write(stub, signature(provider, job_id), line)
    call = stub.Read(read_request(stranger, job_id.upper().replace("0X", "0x")))
    assert dict(await call.initial_metadata())[LINES_METADATA] == "0"
    call.cancel()


async def test_writers_must_sign(stub, provider, stranger, job_id, line):
    good = dict(signature(provider, job_id))
    for metadata in [
        {},
        {**good, PROVIDER_METADATA: stranger.address},
        {**good, SIGNATURE_METADATA: b"short"},
        {**good, TIMESTAMP_HEADER: "yesterday"},
        dict(signature(provider, job_id, timestamp=1)),
        dict(signature(provider, "0x" + "22" * 32)),
    ]:
        code = await refused(write(stub, tuple(metadata.items()), line))
        assert code is grpc.StatusCode.UNAUTHENTICATED, metadata


async def test_a_write_is_one_log_of_bounded_lines(stub, provider, customer, stranger, job_id, line):
    metadata = signature(provider, job_id)
    name, user = job_id, customer.address.lower()
    for second in [
        pb.WriteRequest(log_name="0x" + "33" * 32, user=user),
        pb.WriteRequest(log_name=name, user=stranger.address.lower()),
        pb.WriteRequest(log_name=name, user=user, data=bytes(MAX_LINE_BYTES + 1)),
        pb.WriteRequest(log_name=name, user=user, offset=2**64 - 1),
    ]:
        assert await refused(write(stub, metadata, line, second)) is grpc.StatusCode.INVALID_ARGUMENT
    huge = pb.WriteRequest(log_name=name, user=user, data=bytes(2 * MAX_LINE_BYTES))
    assert await refused(write(stub, metadata, line, huge)) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_writing_nothing_is_fine(stub):
    await write(stub, ())


async def test_unauthenticated_writers_are_an_option(chain, tmp_path, customer, job_id, line):
    service = GridLogger(chain=chain, state_dir=tmp_path, allow_unauthenticated_writers=True)
    async with service, aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        stub = LoggerAPIStub(channel)
        await write(stub, (), line)
        call = stub.Read(read_request(customer, job_id))
        assert (await call.read()).data == b"line"
        call.cancel()


async def test_the_list_of_logs_comes_again_and_again(
    stub, chain, provider, customer, stranger, job_id, line, monkeypatch
):
    monkeypatch.setattr("deepsquare.grid.logger.service.WATCH_LIST_SECONDS", 0.1)

    def request(wallet, **changes):
        timestamp = int(time.time())
        text = watch_list_text(wallet.address, timestamp)
        fields = {"address": wallet.address, "timestamp": timestamp, "signed_hash": wallet.sign_message(text)}
        return pb.WatchListRequest(**(fields | changes))

    call = stub.WatchList(request(customer))
    assert list((await call.read()).log_names) == []
    await write(stub, signature(provider, job_id), line)
    second = chain.add(customer, provider)
    await write(stub, signature(provider, second), pb.WriteRequest(log_name=second, user=line.user, data=b"x"))
    await asyncio.sleep(0.2)
    while not (names := list((await call.read()).log_names)) or len(names) < 2:
        pass
    assert names == [job_id, second]
    call.cancel()
    other = stub.WatchList(request(stranger))
    assert list((await other.read()).log_names) == []
    other.cancel()
    forged = stub.WatchList(request(stranger, address=customer.address))
    assert await refused(forged.read()) is grpc.StatusCode.UNAUTHENTICATED


class ForeignLogger(LoggerAPIServicer):
    """Behaves as DeepSquare's: no headers before the first line, no skipping, an open end."""

    def __init__(self, lines, *, breaks_after=None):
        self.lines = lines
        self.breaks_after = breaks_after

    async def Read(self, request, context):
        for number, data in enumerate(self.lines):
            if number == self.breaks_after:
                self.breaks_after = None
                await context.abort(grpc.StatusCode.UNAVAILABLE, "gone for a moment")
            await context.write(pb.ReadResponse(data=data, timestamp=number))
        await asyncio.Event().wait()


class TestAForeignLogger:
    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch):
        monkeypatch.setattr("deepsquare.client.logs._QUIET_SECONDS", 0.3)
        monkeypatch.setattr("deepsquare.client.logs._HEADER_SECONDS", 0.5)

    @pytest.fixture
    async def serve(self, customer):
        servers, readers = [], []

        async def serve(service) -> LogReader:
            server = aio.server()
            add_LoggerAPIServicer_to_server(service, server)
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            servers.append(server)
            readers.append(LogReader(f"127.0.0.1:{port}", customer))
            return readers[-1]

        yield serve
        for reader in readers:
            await reader.close()
        for server in servers:
            await server.stop(0)

    async def test_is_read_until_it_is_silent(self, serve, job_id):
        reader = await serve(ForeignLogger([b"one", b"two"]))
        assert [line.data async for line in reader.read(job_id, follow=False)] == [b"one", b"two"]
        assert await reader.tail(job_id, 1) == ["two"]

    async def test_with_an_empty_log_is_read_too(self, serve, job_id):
        reader = await serve(ForeignLogger([]))
        assert [line.data async for line in reader.read(job_id, follow=False)] == []

    async def test_is_resumed_without_loss_or_repeat(self, serve, job_id):
        reader = await serve(ForeignLogger([b"%d" % number for number in range(10)], breaks_after=4))
        ended = asyncio.Event()
        got = []
        async for line in reader.read(job_id, follow=True, ended=ended):
            got.append(int(line.data))
            if len(got) == 7:
                ended.set()
        assert got == list(range(10))

    async def test_that_is_no_logger_is_an_error(self, serve, job_id):
        reader = await serve(LoggerAPIServicer())
        with pytest.raises(ApiError, match="UNIMPLEMENTED"):
            await reader.tail(job_id, 1)
