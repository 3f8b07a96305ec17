"""The local chain: anvil as a child process, with its state on disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from deepsquare.chain.rpc import connect, request
from deepsquare.errors import ConfigError, ConnectionFailedError, GridError

# DeepSquare's Go clients send every transaction with 20 million gas, so a block must hold more.
_BLOCK_GAS_LIMIT = 60_000_000
_START_SECONDS = 30.0
_STOP_SECONDS = 30.0


def find_anvil() -> str:
    """The path of the anvil program: `$DEEPSQUARE_ANVIL`, beside this Python, or on PATH.

    Raises:
        ConfigError: there is none.
    """
    beside = Path(sys.executable).parent / "anvil"
    found = os.environ.get("DEEPSQUARE_ANVIL") or (str(beside) if beside.exists() else shutil.which("anvil"))
    if found is None:
        raise ConfigError(
            "anvil, the local chain, is not installed: run `integration/setup`, or npm install -g @foundry-rs/anvil"
        )
    return found


def stop_stale(state: Path) -> None:
    """End an anvil that a killed grid left behind on the same state folder, and wait until it has written its state.

    Raises:
        GridError: it does not end.
    """
    pid_file = state / "chain" / "anvil.pid"
    try:
        pid = int(pid_file.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return
    # The number may be another program's by now.
    if str(state / "chain" / "state.json").encode() in command:
        os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + _STOP_SECONDS
        while _runs(pid):
            if time.monotonic() > until:
                raise GridError(f"the local chain of before (process {pid}) does not end; end it with kill {pid}")
            time.sleep(0.05)
    pid_file.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@asynccontextmanager
async def anvil(state: Path, *, port: int, chain_id: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run anvil on 127.0.0.1 until the block ends, then have it write its state.

    Raises:
        GridError: it doesn't start; the text has its last words.
    """
    folder = state / "chain"
    folder.mkdir(mode=0o700, exist_ok=True)
    log_path = state / "log" / "anvil.log"
    with log_path.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            find_anvil(),
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
                await asyncio.wait_for(process.wait(), _STOP_SECONDS)
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
