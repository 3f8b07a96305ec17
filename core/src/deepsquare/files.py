"""Files that hold secrets or state: private from the first byte, and whole or not there at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Write `text` to `path` with mode 0600, atomically: a reader sees the old file or the new one, never a part.

    The folder is made (0700) when it is missing.

    Raises:
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
