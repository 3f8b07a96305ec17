"""How Slurm may wake the supervisor when a job ends: slurmctld runs a hook, which writes into a FIFO that the supervisor reads.

It is an option of the operator's, who sets `EpilogSlurmctld=` in slurm.conf to the hook and restarts slurmctld (Slurm 22.05 takes
no notice of it in `scontrol reconfigure`). Nothing depends on it: without it, the supervisor finds the end of a job when it looks
the next time. What is written says nothing, and so may be written by anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from deepsquare.errors import ConfigError

# SlurmUser writes, and nobody but the owner reads: a second reader would take wake-ups away.
_FIFO_MODE = 0o622
_HOOK_MODE = 0o755
# What a pipe holds on Linux: one read empties it.
_PIPE_BYTES = 64 << 10

# slurmctld's thread must not wait, nor hear of a failure. Opened for writing only and without blocking, a FIFO that nobody reads
# is an error, and so is writing to a full one; a shell's own redirection would wait, or need permission to read (<>).
# Not created: what has no FIFO in its place stays without. The environment is slurmctld's and has no PATH to rely on.
_HOOK = """\
#!/bin/sh
# Wakes DeepSquare's supervisor when a job ends: EpilogSlurmctld in slurm.conf. Written anew whenever the supervisor starts.
PATH=/usr/bin:/bin
fifo={fifo}
[ -p "$fifo" ] && dd if=/dev/zero of="$fifo" bs=1 count=1 oflag=nonblock conv=nocreat,notrunc </dev/null >/dev/null 2>&1
exit 0
"""


class WakeUp:
    """A FIFO `wake` and the hook `epilog` that writes to it, in one folder; belongs to the event loop that it was made in.

    The callback runs in the loop, once for all that was written in `pause_seconds` from the first byte on. So it runs at most once
    in that time: whoever floods the FIFO fills it, is refused and costs nothing more. No byte is lost. And a look at Slurm then
    finds the job at its end, as a rule: it is COMPLETING until the hook and the nodes' own epilogs have ended.

    A killed supervisor leaves both files, and the next one takes them over. `close` leaves them too, since slurm.conf names the
    hook; it then does nothing.
    """

    def __init__(self, folder: Path, callback: Callable[[], object], *, pause_seconds: float = 0.1) -> None:
        """Make the files, and begin to listen.

        Args:
            folder: is there, on a local file system of the host where slurmctld runs (a FIFO doesn't reach another host), and
                only its owner may write to it.
            callback: such as `asyncio.Event.set`; is quick.
            pause_seconds: from the first byte to the call.

        Raises:
            ConfigError: the files can't be made, or something else is in the place of the FIFO.
            RuntimeError: no event loop is running.
        """
        self._loop = asyncio.get_running_loop()
        self._callback, self._pause_seconds = callback, pause_seconds
        self._due: asyncio.TimerHandle | None = None
        # slurmctld knows no working directory of ours.
        self._folder = folder.absolute()
        self.fifo = self._folder / "wake"
        """What the hook writes to."""
        self.hook = self._folder / "epilog"
        """The program for `EpilogSlurmctld=`."""
        try:
            self._descriptor = _open_fifo(self.fifo)
        except OSError as error:
            raise ConfigError(f"the FIFO {self.fifo} can't be made: {error.strerror}") from None
        try:
            _write_program(self.hook, _HOOK.format(fifo=shlex.quote(str(self.fifo))))
        except OSError as error:
            os.close(self._descriptor)
            raise ConfigError(f"the hook {self.hook} can't be written: {error.strerror}") from None
        self._loop.add_reader(self._descriptor, self._written)

    def close(self) -> None:
        """Stop listening; the callback isn't called again. Closing twice does nothing."""
        if self._descriptor < 0:
            return
        if self._due is not None:
            self._due.cancel()
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1

    def _written(self) -> None:
        self._loop.remove_reader(self._descriptor)
        self._due = self._loop.call_later(self._pause_seconds, self._call)

    def _call(self) -> None:
        self._due = None
        # It was written to: there is nothing to read only if somebody else reads, whom the owner must have let in.
        with contextlib.suppress(BlockingIOError):
            os.read(self._descriptor, _PIPE_BYTES)
        self._loop.add_reader(self._descriptor, self._written)
        self._callback()


def _open_fifo(path: Path) -> int:
    """A descriptor of our FIFO, made if it isn't there.

    Raises:
        ConfigError: something else is there.
        OSError: it can't be made or opened.
    """
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    # Looked at before it is opened, which may act on a device; and after, since only then it can't be exchanged any more.
    _check(os.lstat(path), path)
    # Being a writer too, it never sees an end of file when the last of the others goes.
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _check(os.fstat(descriptor), path)
        # Whatever the umask is.
        os.fchmod(descriptor, _FIFO_MODE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISFIFO(found.st_mode) or found.st_uid != os.geteuid():
        raise ConfigError(f"{path} is no FIFO of this account's: remove it, and it is made anew")


def _write_program(path: Path, text: str) -> None:
    """Write a program that everybody may run, atomically: slurmctld starts the old one or the new one, never a part."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.fsencode(text))
            os.fchmod(file.fileno(), _HOOK_MODE)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
