"""Processes that one command starts and another finds again."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

_LOOK_SECONDS = 0.05


def recorded(pid_file: Path, *words: str) -> psutil.Process | None:
    """The process whose number is in a file, when it runs and has these words in its command line.

    The number may be another program's by now.
    """
    try:
        process = psutil.Process(int(pid_file.read_text()))
        runs = process.status() != psutil.STATUS_ZOMBIE and set(words) <= set(process.cmdline())
    except (OSError, ValueError, psutil.Error):
        return None
    return process if runs else None


def wait_for_end(process: psutil.Process, seconds: float) -> bool:
    """Wait until a process has ended; whether it did, in that time.

    One that its parent takes no notice of has ended all the same: in a container without an init, that is for ever.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(_LOOK_SECONDS)
    return False
