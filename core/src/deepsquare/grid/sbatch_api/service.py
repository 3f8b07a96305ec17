"""The sbatch API as one service: HTTP and gRPC on one port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import tempfile
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import uvicorn
from grpc import aio
from starlette.applications import Starlette

from deepsquare.errors import DeepSquareError, GridError
from deepsquare.files import read_private, write_private
from deepsquare.grid.port import PortFront, no_port
from deepsquare.grid.sbatch_api.auth import AuthService, ScriptService
from deepsquare.grid.sbatch_api.chain import JobReader
from deepsquare.grid.sbatch_api.challenges import Challenges
from deepsquare.grid.sbatch_api.http import make_app
from deepsquare.grid.sbatch_api.modules import GitModules
from deepsquare.grid.sbatch_api.scripts import ScriptStore
from deepsquare.wire.sbatchapi_v1alpha1_pb2_grpc import (
    add_AuthAPIServicer_to_server,
    add_SBatchAPIServicer_to_server,
)

PURGE_SECONDS = 300
_MAX_REQUEST_BYTES = 64 * 1024
# Threads that wait for modules must not be those that everything else needs.
_COMPILERS = 32

_log = logging.getLogger(__name__)


class _HttpServer(uvicorn.Server):
    """uvicorn inside a process that has other things to do."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave the signals alone: the process, not one of its services, decides what they end."""
        yield


class SbatchApi:
    """Takes workflows from customers, and gives their scripts to the providers that run them.

    `state_dir` keeps the scripts; a service that is killed and started again with the same folder goes on where it was.
    `logger_endpoint` (host:port) is where providers are told to write the jobs' output. `modules` fetches what workflows
    use; left out, it keeps them below `state_dir`. After `start`, `port` is known.
    """

    def __init__(
        self,
        *,
        chain: JobReader,
        state_dir: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        logger_endpoint: str,
        modules: GitModules | None = None,
    ) -> None:
        self._chain = chain
        self._state_dir = state_dir
        self._host = host
        self._asked_port = port
        self._logger_endpoint = logger_endpoint
        self._modules = modules
        self._front: PortFront | None = None
        self._running: contextlib.AsyncExitStack | None = None

    @property
    def port(self) -> int:
        """The TCP port that the service listens on.

        Raises:
            GridError: the service is not started.
        """
        if self._front is None:
            raise GridError("the sbatch API is not started: it has no port yet")
        return self._front.port

    async def start(self) -> None:
        """Listen, and return when requests can come.

        Raises:
            OSError: the state folder can't be written.
            GridError: the port is taken, or a part of the service did not start.
        """
        async with contextlib.AsyncExitStack() as stack:
            store = ScriptStore(self._state_dir)
            stack.push_async_callback(store.close)
            # A Unix socket's path must be short, and its folder keeps others out.
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dsq-")))
            grpc_server = await self._start_grpc(store, folder / "grpc")
            stack.push_async_callback(grpc_server.stop, 0.2)
            modules = self._modules or GitModules(self._state_dir / "modules")
            compilers = ThreadPoolExecutor(_COMPILERS, thread_name_prefix="compile")
            stack.callback(compilers.shutdown, wait=False, cancel_futures=True)
            stack.callback(modules.close)
            await _start_http(make_app(store, modules, compilers), folder / "http", stack)
            purging = asyncio.create_task(self._purge(store))
            stack.push_async_callback(_cancel, purging)
            front = PortFront(http1=folder / "http", http2=folder / "grpc", host=self._host, port=self._asked_port)
            try:
                await front.start()
            except OSError:
                raise no_port("sbatch API", f"{self._host}:{self._asked_port}") from None
            stack.push_async_callback(front.stop)
            self._front = front
            self._running = stack.pop_all()

    async def stop(self) -> None:
        """Stop listening and close everything; requests that are running are dropped."""
        if self._running is not None:
            await self._running.aclose()
        self._running = self._front = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _start_grpc(self, store: ScriptStore, path: Path) -> aio.Server:
        server = aio.server(
            options=[
                ("grpc.max_receive_message_length", _MAX_REQUEST_BYTES),
                ("grpc.max_metadata_size", 16 * 1024),
            ]
        )
        challenges = Challenges(self._challenge_key())
        add_AuthAPIServicer_to_server(AuthService(challenges), server)
        add_SBatchAPIServicer_to_server(ScriptService(self._chain, store, challenges, self._logger_endpoint), server)
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        return server

    def _challenge_key(self) -> bytes:
        """The key of the challenges, kept so that one issued before a restart is good after it."""
        path = self._state_dir / "challenge.key"
        if not path.exists():
            write_private(path, secrets.token_hex(32))
        return bytes.fromhex(read_private(path))

    async def _purge(self, store: ScriptStore) -> None:
        while True:
            try:
                if forgotten := await store.purge(self._chain):
                    _log.info("forgot %d scripts that no running job needs", forgotten)
            except DeepSquareError as error:
                _log.warning("old scripts are kept until the chain can be read again: %s", error)
            await asyncio.sleep(PURGE_SECONDS)


async def _start_http(app: Starlette, path: Path, stack: contextlib.AsyncExitStack) -> None:
    server = _HttpServer(
        uvicorn.Config(
            app,
            uds=str(path),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=1,
        )
    )
    serving = asyncio.create_task(server.serve())

    async def end() -> None:
        server.should_exit = True
        await serving

    stack.push_async_callback(end)
    while not server.started:
        if serving.done():
            raise GridError("the HTTP server did not start") from serving.exception()
        await asyncio.sleep(0.01)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
