"""What the supervisor needs of the machine on which it drives a batch scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from deepsquare.errors import ConfigError, ConnectionFailedError

COMMAND_SECONDS = 60.0
"""How long a command may take before it is ended."""
EXIT_TIMED_OUT = 124
"""The exit code of a command that took too long, as timeout(1) has it."""
EXIT_NOT_FOUND = 127
"""The exit code for a program that is not installed, as shells have it."""


class NotSentError(ConnectionFailedError):
    """The host could not be reached: the command has certainly not run."""


@dataclass(frozen=True, slots=True)
class Account:
    """A Unix account of the cluster, never root."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command left behind."""

    code: int
    output: str
    errors: str


class Host(Protocol):
    """A machine of the cluster. Every method raises `ConnectionFailedError` when it can't be reached."""

    name: str
    """For people, such as "this host"."""

    async def run(
        self,
        *command: str,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
        account: Account | None = None,
    ) -> Answer:
        """Run a command in `/` with umask 077 and nothing but `environment` (and PATH), and wait for its end.

        Args:
            command: the program and its arguments. They are in process lists: nothing secret goes there.
            stdin: its standard input.
            environment: its environment.
            account: as whom; None is the own account.

        Raises:
            NotSentError: it has certainly not run.
            ConnectionFailedError: it may or may not have run.
            ConfigError: this process may not run anything as `account`.
        """
        ...

    async def account(self, name: str) -> Account:
        """Look an account up.

        Raises:
            ConfigError: there is none of that name, it is root, or this process may not run anything as it.
        """
        ...

    async def is_root(self) -> bool:
        """Whether commands may run as any account."""
        ...

    async def create(self, path: PurePosixPath, owner: Account) -> None:
        """Make an empty file that only its owner can read and write; one that is there is kept.

        Raises:
            OSError: it can't be made.
        """
        ...

    async def read(self, path: PurePosixPath, offset: int, size: int) -> bytes:
        """At most `size` bytes of a file from `offset` on; nothing of one that is not there."""
        ...

    async def size(self, path: PurePosixPath) -> int:
        """How many bytes a file has, 0 for one that is not there."""
        ...

    async def remove(self, path: PurePosixPath) -> None:
        """Remove a file; one that is gone is no error."""
        ...

    async def free_bytes(self, folder: PurePosixPath) -> int:
        """The room that is left on the disk of a folder."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


def check_account(name: str, uid: int, *, own_uid: int) -> None:
    """Whether jobs may run as an account.

    Raises:
        ConfigError: they may not.
    """
    if uid == 0:
        raise ConfigError("jobs never run as root: name an unprivileged account")
    if own_uid not in (0, uid):
        raise ConfigError(f"only root can run jobs as {name!r}: be root there, or name the account that you are")
