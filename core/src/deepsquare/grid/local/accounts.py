"""The Unix account that a local grid's jobs run as."""

from __future__ import annotations

import hashlib
import pwd
import subprocess
from pathlib import Path

from deepsquare.errors import GridError


def account_name(state: Path) -> str:
    """A name for the account of the grid in `state`, different for each state folder."""
    return f"dsq-{hashlib.sha256(str(state).encode()).hexdigest()[:8]}"


def make_account(name: str) -> bool:
    """Make an unprivileged account without home, shell or password, unless there is one of that name; whether it was made.

    Raises:
        GridError: useradd failed.
    """
    try:
        pwd.getpwnam(name)
    except KeyError:
        _run(
            "useradd",
            "--system",
            "--user-group",
            "--no-create-home",
            "--home-dir",
            "/",
            "--shell",
            "/usr/sbin/nologin",
            name,
        )
        return True
    return False


def remove_account(name: str) -> None:
    """Remove the account; one that is gone is no error.

    Raises:
        GridError: userdel failed, for example since a process of the account still runs.
    """
    try:
        pwd.getpwnam(name)
    except KeyError:
        return
    _run("userdel", name)


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise GridError(f"{command[0]} is not installed (Debian's package: passwd)") from None
    except subprocess.CalledProcessError as error:
        raise GridError(f"{' '.join(command)} failed: {error.stderr.strip()}") from None
