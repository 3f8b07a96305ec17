"""Processes that one command starts and another finds again."""

from __future__ import annotations

import subprocess
import sys

import psutil
from deepsquare.grid.local.processes import wait_for_end


def test_a_process_that_nobody_takes_notice_of_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    try:
        assert wait_for_end(psutil.Process(child.pid), 60)
        assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
    finally:
        child.wait()


def test_a_process_that_goes_on_has_not_ended() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert not wait_for_end(psutil.Process(child.pid), 0.2)
    finally:
        child.kill()
        child.wait()
