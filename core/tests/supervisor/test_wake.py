"""The hook of Slurm wakes the supervisor, and never waits or fails, whatever has become of the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deepsquare.errors import ConfigError
from deepsquare.grid.supervisor.wake import WakeUp

_WAIT_SECONDS = 5.0
# Under 2 ms are usual; a busy machine gets time, and a hook that waits for somebody would still be found out.
_HOOK_SECONDS = 1.0
AS_NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not in pytest's own folder, which other accounts can't enter.
    folder = Path(tempfile.mkdtemp(prefix="deepsquare-wake-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


class Calls:
    """Counts wake-ups, and waits for them."""

    def __init__(self) -> None:
        self.count = 0
        self._called = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self._called.set()

    async def wait(self) -> None:
        await asyncio.wait_for(self._called.wait(), _WAIT_SECONDS)
        self._called.clear()


def run(hook: Path, *prefix: str) -> subprocess.CompletedProcess[bytes]:
    """Run the hook as slurmctld does, with hardly an environment; it must end at once, well and in silence."""
    start = time.perf_counter()
    # Standard input that never ends: the hook doesn't read it.
    reader, writer = os.pipe()
    try:
        done = subprocess.run(
            [*prefix, str(hook)],
            env={"SLURM_JOB_ID": "1"},
            stdin=reader,
            capture_output=True,
            timeout=_WAIT_SECONDS,
            check=False,
        )
    finally:
        os.close(reader)
        os.close(writer)
    assert time.perf_counter() - start < _HOOK_SECONDS
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    return done


def fill(fifo: Path) -> int:
    """A descriptor that keeps the FIFO open, full."""
    descriptor = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(descriptor, b"x" * 4096)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(descriptor, b"x")
    return descriptor


def open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


async def test_the_hook_wakes(folder: Path) -> None:
    calls = Calls()
    with contextlib.closing(WakeUp(folder, calls, pause_seconds=0.01)) as wake_up:
        for number in range(3):
            await asyncio.to_thread(run, wake_up.hook)
            await calls.wait()
            assert calls.count == number + 1
        await asyncio.sleep(0.1)
        assert calls.count == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another account")
async def test_another_account_wakes_but_neither_reads_nor_changes_anything(folder: Path) -> None:
    calls = Calls()
    with contextlib.closing(WakeUp(folder, calls, pause_seconds=0.01)) as wake_up:
        await asyncio.to_thread(run, wake_up.hook, *AS_NOBODY)
        await calls.wait()
        for command in (f"cat {wake_up.fifo}", f"echo >> {wake_up.hook}", f"rm -f {wake_up.fifo}", f"ls {folder}"):
            refused = await asyncio.to_thread(
                subprocess.run, [*AS_NOBODY, "sh", "-c", command], capture_output=True, timeout=_WAIT_SECONDS
            )
            assert refused.returncode != 0
            assert b"denied" in refused.stderr
    descriptor = fill(wake_up.fifo)
    await asyncio.to_thread(run, wake_up.hook, *AS_NOBODY)
    os.close(descriptor)
    await asyncio.to_thread(run, wake_up.hook, *AS_NOBODY)


async def test_modes_do_not_depend_on_the_umask(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        wake_up = WakeUp(folder, Calls())
    finally:
        os.umask(before)
    wake_up.close()
    assert stat.S_IMODE(wake_up.fifo.stat().st_mode) == 0o622
    assert stat.S_IMODE(wake_up.hook.stat().st_mode) == 0o755
    assert sorted(path.name for path in folder.iterdir()) == ["epilog", "wake"]


async def test_with_the_supervisor_gone_the_hook_does_nothing(folder: Path) -> None:
    calls = Calls()
    wake_up = WakeUp(folder, calls)
    wake_up.close()
    wake_up.close()
    run(wake_up.hook)
    assert calls.count == 0


async def test_without_the_fifo_the_hook_makes_nothing_in_its_place(folder: Path) -> None:
    wake_up = WakeUp(folder, Calls())
    wake_up.close()
    wake_up.fifo.unlink()
    run(wake_up.hook)
    assert not wake_up.fifo.exists()
    wake_up.fifo.write_text("a file")
    run(wake_up.hook)
    assert wake_up.fifo.read_text() == "a file"


async def test_a_supervisor_that_has_stopped_reading_holds_up_no_job(folder: Path) -> None:
    wake_up = WakeUp(folder, Calls())
    wake_up.close()
    descriptor = fill(wake_up.fifo)
    try:
        run(wake_up.hook)
    finally:
        os.close(descriptor)


async def test_the_hook_is_quick(folder: Path) -> None:
    with contextlib.closing(WakeUp(folder, Calls())) as wake_up:
        times = []
        for _ in range(20):
            start = time.perf_counter()
            await asyncio.to_thread(run, wake_up.hook)
            times.append(time.perf_counter() - start)
    assert min(times) < 0.05


async def test_a_flood_neither_spins_nor_starves(folder: Path) -> None:
    calls = Calls()
    with contextlib.closing(WakeUp(folder, calls, pause_seconds=0.1)) as wake_up:
        flood = await asyncio.create_subprocess_exec(
            "dd", "if=/dev/zero", f"of={wake_up.fifo}", "bs=64k", "status=none"
        )
        try:
            await calls.wait()
            calls.count = 0
            busy = time.process_time()
            start = time.monotonic()
            ticks = 0
            while time.monotonic() - start < 1:
                await asyncio.sleep(0.01)
                ticks += 1
            assert 1 <= calls.count <= 11
            assert ticks > 30
            assert time.process_time() - busy < 0.5
        finally:
            flood.kill()
            await flood.wait()
        # And it works afterwards.
        await asyncio.sleep(0.3)
        count = calls.count
        await asyncio.to_thread(run, wake_up.hook)
        await asyncio.sleep(0.3)
        assert calls.count == count + 1


async def test_one_call_for_all_that_is_written_in_the_pause(folder: Path) -> None:
    calls = Calls()
    with contextlib.closing(WakeUp(folder, calls, pause_seconds=0.5)) as wake_up:
        for _ in range(3):
            await asyncio.to_thread(run, wake_up.hook)
        assert calls.count == 0
        await calls.wait()
        await asyncio.to_thread(run, wake_up.hook)
        await calls.wait()
        await asyncio.sleep(0.6)
        assert calls.count == 2


async def test_after_closing_nobody_is_called(folder: Path) -> None:
    calls = Calls()
    wake_up = WakeUp(folder, calls, pause_seconds=0.05)
    await asyncio.to_thread(run, wake_up.hook)
    await asyncio.sleep(0.02)
    wake_up.close()
    await asyncio.sleep(0.1)
    assert calls.count == 0


async def test_a_callback_may_close(folder: Path) -> None:
    closed = asyncio.Event()

    def close() -> None:
        wake_up.close()
        closed.set()

    wake_up = WakeUp(folder, close, pause_seconds=0)
    await asyncio.to_thread(run, wake_up.hook)
    await asyncio.wait_for(closed.wait(), _WAIT_SECONDS)


async def test_a_callback_that_fails_is_called_the_next_time_too(folder: Path) -> None:
    calls = Calls()

    def fail() -> None:
        calls()
        raise ValueError("on purpose")

    loop, told = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    try:
        with contextlib.closing(WakeUp(folder, fail, pause_seconds=0.01)) as wake_up:
            for _ in range(2):
                await asyncio.to_thread(run, wake_up.hook)
                await calls.wait()
    finally:
        loop.set_exception_handler(None)
    assert len(told) == 2


async def test_what_a_killed_supervisor_left_is_taken_over(folder: Path) -> None:
    os.mkfifo(folder / "wake", 0o600)
    (folder / "epilog").write_text("half a hook")
    calls = Calls()
    with contextlib.closing(WakeUp(folder, calls)) as wake_up:
        await asyncio.to_thread(run, wake_up.hook)
        await calls.wait()
    assert stat.S_IMODE(wake_up.fifo.stat().st_mode) == 0o622


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link", "another's FIFO"])
async def test_what_is_no_fifo_of_ours_is_refused_and_left_alone(folder: Path, kind: str) -> None:
    path = folder / "wake"
    match kind:
        case "file":
            path.write_text("mine")
        case "folder":
            path.mkdir()
        case "link":
            os.mkfifo(folder / "other", 0o600)
            path.symlink_to("other")
        case "dangling link":
            path.symlink_to("nowhere")
        case _:
            if os.geteuid() != 0:
                pytest.skip("only root can make a FIFO that is another's")
            os.mkfifo(path, 0o600)
            os.chown(path, 65534, 65534)
    before = path.lstat()
    with pytest.raises(ConfigError, match="is no FIFO of this account's: remove it"):
        WakeUp(folder, Calls())
    after = path.lstat()
    assert (after.st_mode, after.st_ino, after.st_uid) == (before.st_mode, before.st_ino, before.st_uid)
    assert not (folder / "epilog").exists()


async def test_a_folder_that_is_not_there_is_no_traceback(folder: Path) -> None:
    with pytest.raises(ConfigError, match="can't be made: No such file or directory"):
        WakeUp(folder / "missing", Calls())
    (folder / "epilog").mkdir()
    open_before = open_files()
    with pytest.raises(ConfigError, match="can't be written: Is a directory"):
        WakeUp(folder, Calls())
    assert open_files() == open_before
    assert sorted(path.name for path in folder.iterdir()) == ["epilog", "wake"]


@pytest.mark.parametrize(
    "name", ["two words", "it's", '$(touch x) "y"', "-p", "a\nb", b"\xff".decode(errors="surrogateescape")]
)
async def test_paths_of_any_characters(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / name).mkdir(mode=0o711)
    # Given as a relative path: the hook holds the whole one.
    monkeypatch.chdir(folder)
    calls = Calls()
    with contextlib.closing(WakeUp(Path(name), calls)) as wake_up:
        await asyncio.to_thread(run, wake_up.hook)
        await calls.wait()
    assert not (folder / "x").exists()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
async def test_the_hook_is_clean_shell(folder: Path) -> None:
    wake_up = WakeUp(folder, Calls())
    wake_up.close()
    subprocess.run(["shellcheck", wake_up.hook], check=True)
