"""The Enroot of this machine, or else the test double of it, for tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

DOUBLE = Path(__file__).resolve().parent / "doubles" / "enroot"
IS_DOUBLE = shutil.which("enroot") is None
KIND = "double" if IS_DOUBLE else "real"
"""For the ids of tests."""
_CACHE = Path(os.environ.get("DEEPSQUARE_TEST_CACHE", "/var/cache/deepsquare-tests"))


def enroot_program() -> tuple[Path, bool]:
    """Where it is, and whether it is the double; every account may run it."""
    if found := shutil.which("enroot"):
        return Path(found), IS_DOUBLE
    program = _CACHE / "enroot-double" / "enroot"
    program.parent.mkdir(parents=True, exist_ok=True)
    # The repository may be closed to the accounts that run jobs. Moved into place, since others may be running it.
    fresh = program.with_name(f"enroot.{os.getpid()}")
    shutil.copy(DOUBLE, fresh)
    fresh.chmod(0o755)
    fresh.replace(program)
    return program, IS_DOUBLE
