"""Files that hold secrets or state: private from the first byte, and whole or not there at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_private(path: Path, text: str, *, new: bool = False) -> None:
    """Write `text` to `path` with mode 0600, atomically: a reader sees the old file or the new one, never a part.

    The folder is made (0700) when it is missing. With `new`, a file that is there stays as it is.

    Raises:
        FileExistsError: with `new`, there is such a file, also if another process made it at this very moment.
        OSError: the disk is full, or the folder can't be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if new:
            # Unlike a renaming, a link replaces nothing.
            path.hardlink_to(temporary)
            temporary.unlink()
        else:
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_private(path: Path) -> str:
    """The text of a file that `write_private` wrote.

    Raises:
        OSError: there is no such file, or it can't be read.
    """
    return path.read_text(encoding="utf-8")


def make_private(path: Path) -> None:
    """Make an empty file with mode 0600, unless there is one already.

    A database is made so before SQLite opens it, which gives its -wal and -shm files the mode of the database. A file that is
    there is not even opened: closing it would drop all locks that this process holds on it (fcntl(2), POSIX locks), also those
    of SQLite, and then nothing keeps another process from taking the write-ahead log away.

    Raises:
        OSError: the folder can't be written.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
