"""Processes that one command starts and another finds again."""

from __future__ import annotations

from pathlib import Path

import psutil


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
