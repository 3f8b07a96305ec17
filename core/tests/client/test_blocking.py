"""An interrupt ends what waits, and cuts off nothing that may be paid."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from deepsquare.client.blocking import BlockingClient


class FakeClient:
    """What the portal runs instead of the client."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.started = threading.Event()

    async def watch(self, _: Any) -> AsyncIterator[int]:
        try:
            yield 1
            self.started.set()
            await asyncio.sleep(60)
        finally:
            self.events.append("closed")

    async def funds(self) -> None:
        try:
            self.started.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.events.append("cancelled")
            raise


@pytest.fixture
def fake() -> FakeClient:
    return FakeClient()


@pytest.fixture
def client(fake: FakeClient, monkeypatch: pytest.MonkeyPatch) -> BlockingClient:
    async def opened(*_: object) -> FakeClient:
        return fake

    monkeypatch.setattr(BlockingClient, "_open", staticmethod(opened))
    return BlockingClient()


@pytest.fixture
def interrupted(fake: FakeClient) -> Iterator[None]:
    """Ctrl-C, once the call waits for something over there."""

    def interrupt() -> None:
        assert fake.started.wait(5)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    yield
    thread.join()


@pytest.mark.usefixtures("interrupted")
def test_an_interrupted_call_has_ended_over_there(client: BlockingClient, fake: FakeClient) -> None:
    with pytest.raises(KeyboardInterrupt):
        client.funds()
    assert fake.events == ["cancelled"]


@pytest.mark.usefixtures("interrupted")
def test_an_interrupted_iteration_closes_its_source(client: BlockingClient, fake: FakeClient) -> None:
    changes = client.watch(["1"])
    assert next(changes) == 1
    with pytest.raises(KeyboardInterrupt):
        next(changes)
    assert fake.events == ["closed"]
