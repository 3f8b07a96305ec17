"""The clocks that `deepsquare doctor` compares, with a web server whose clock is wrong."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate

import pytest
from deepsquare.chain.contracts import Head
from deepsquare.client.checks import _clocks
from deepsquare.contexts import Context
from deepsquare.errors import ConfigError, ConnectionFailedError


@asynccontextmanager
async def api(off: float | None) -> AsyncIterator[Context]:
    """A sbatch API whose clock is off by so many seconds; None for one that tells no time."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        date = "" if off is None else f"Date: {formatdate(time.time() + off, usegmt=True)}\r\n"
        writer.write(f"HTTP/1.1 200 OK\r\n{date}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield context(f"http://127.0.0.1:{port}/graphql")


def context(sbatch_url: str) -> Context:
    nobody = "0x" + "00" * 20
    return Context(
        name="clocks",
        chain_id=1,
        rpc_url="http://127.0.0.1:1",
        metascheduler=nobody,
        sbatch_url=sbatch_url,
        sbatch_grpc="127.0.0.1:1",
        logger_grpc="127.0.0.1:1",
        account=nobody,
        wallet="none",
    )


def head(ahead: float) -> Head:
    return Head(1, "0x", int(time.time() + ahead))


async def test_clocks_that_agree() -> None:
    async with api(0) as grid:
        # A chain may have made no block for long.
        for chain in (head(0), head(-10_000), None):
            assert await _clocks(grid, chain) == "agree within 30 s"


@pytest.mark.parametrize(
    ("api_off", "chain_ahead", "said"),
    [
        (-200, 0, r"this machine's clock is (19\d|2\d\d) s ahead of the sbatch API's, and beyond 300 s it refuses"),
        (200, 0, r"this machine's clock is (1\d\d|200) s behind the sbatch API's"),
        (0, 500, r"the chain's clock is (4\d\d|500) s ahead of this machine's"),
        (None, 500, r"the chain's clock is (4\d\d|500) s ahead of this machine's"),
    ],
)
async def test_clocks_that_do_not(api_off: float | None, chain_ahead: float, said: str) -> None:
    async with api(api_off) as grid:
        with pytest.raises(ConfigError, match=said) as error:
            await _clocks(grid, head(chain_ahead))
    assert re.search("timedatectl set-ntp true", str(error.value))


async def test_with_nobody_who_tells_the_time_there_is_nothing_to_say() -> None:
    nobody = context("http://127.0.0.1:1/graphql")
    assert await _clocks(nobody, head(0)) == "agree within 30 s"
    for chain in (None, head(-10_000)):
        with pytest.raises(ConnectionFailedError, match="nobody tells the time"):
            await _clocks(nobody, chain)
