"""The local chain: anvil as a child process, with its state on disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from deepsquare.chain.rpc import connect, request
from deepsquare.errors import ConnectionFailedError, GridError
from deepsquare.grid.local.processes import recorded, wait_for_end
from deepsquare.grid.local.toolchain import find_anvil

_log = logging.getLogger(__name__)

# DeepSquare's Go clients send every transaction with 20 million gas, so a block must hold more.
_BLOCK_GAS_LIMIT = 60_000_000
_START_SECONDS = 30.0
_STOP_SECONDS = 30.0


def stop_stale(state: Path) -> None:
    """End an anvil that a killed grid left behind on the same state folder, and wait until it has written its state.

    Raises:
        GridError: it does not end.
    """
    pid_file = state / "chain" / "anvil.pid"
    process = recorded(pid_file, str(state / "chain" / "state.json"))
    if process is not None:
        process.terminate()
        if not wait_for_end(process, _STOP_SECONDS):
            raise GridError(
                f"the local chain of before (process {process.pid}) does not end; end it with kill {process.pid}"
            )
    pid_file.unlink(missing_ok=True)


@asynccontextmanager
async def anvil(state: Path, *, port: int, chain_id: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run anvil on 127.0.0.1 until the block ends, then have it write its state.

    Raises:
        GridError: it doesn't start; the text has its last words.
    """
    folder = state / "chain"
    folder.mkdir(mode=0o700, exist_ok=True)
    log_path = state / "log" / "anvil.log"
    program = await asyncio.to_thread(find_anvil, _log.info)
    with log_path.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            program,
            *("--host", "127.0.0.1", "--port", str(port), "--chain-id", str(chain_id)),
            *("--state", str(folder / "state.json"), "--state-interval", "1"),
            *("--gas-limit", str(_BLOCK_GAS_LIMIT), "--accounts", "0", "--no-cors", "--quiet"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            # Ctrl-C on a terminal must not end the chain before the services.
            start_new_session=True,
        )
    (folder / "anvil.pid").write_text(f"{process.pid}\n")
    try:
        await _wait_until_up(process, port, log_path)
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        (folder / "anvil.pid").unlink(missing_ok=True)


async def _wait_until_up(process: asyncio.subprocess.Process, port: int, log_path: Path) -> None:
    w3 = connect(f"http://127.0.0.1:{port}", retry_seconds=0)
    try:
        for _ in range(int(_START_SECONDS / 0.05)):
            if process.returncode is not None:
                break
            try:
                await request(w3, "eth_chainId")
                return
            except ConnectionFailedError:
                await asyncio.sleep(0.05)
    finally:
        await w3.provider.disconnect()
    words = await asyncio.to_thread(log_path.read_text, errors="replace")
    last = " / ".join(words.strip().splitlines()[-3:])
    raise GridError(f"the local chain did not start on port {port}: {last or 'it said nothing'} (log: {log_path})")
