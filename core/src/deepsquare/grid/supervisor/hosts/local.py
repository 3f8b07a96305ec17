"""This machine."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from deepsquare.errors import ConfigError, ConnectionFailedError
from deepsquare.grid.supervisor.hosts.base import (
    COMMAND_SECONDS,
    EXIT_NOT_FOUND,
    EXIT_TIMED_OUT,
    Account,
    Answer,
    NotSentError,
    check_account,
)


def own_account(name: str) -> Account:
    """An account of this machine.

    Raises:
        ConfigError: there is none of that name, it is root, or only root could run anything as it.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(
            f"the account {name!r} that jobs should run as does not exist; make it with useradd"
        ) from None
    check_account(name, entry.pw_uid, own_uid=os.geteuid())
    return Account(name, entry.pw_uid, entry.pw_gid)


@contextmanager
def _readable(path: PurePosixPath) -> Iterator[None]:
    # A file system of the network can be away, too.
    try:
        yield
    except OSError as error:
        raise ConnectionFailedError(f"{path}: {error.strerror}") from None


class LocalHost:
    """See `Host`."""

    name = "this host"

    async def run(
        self,
        *command: str,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
        account: Account | None = None,
    ) -> Answer:
        """See `Host.run`."""
        switches = account is not None and account.uid != os.geteuid()
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={"PATH": os.environ.get("PATH", "/usr/bin:/bin")} | dict(environment or {}),
                cwd="/",
                user=account.uid if account is not None and switches else None,
                group=account.gid if account is not None and switches else None,
                extra_groups=() if switches else None,
                umask=0o077,
                start_new_session=True,
            )
        except FileNotFoundError:
            return Answer(EXIT_NOT_FOUND, "", f"{command[0]} is not installed")
        except OSError as error:
            raise NotSentError(f"{command[0]} can't be started: {error.strerror}") from None
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                output, errors = await process.communicate(stdin.encode())
        except TimeoutError:
            # With all that it has started, which would keep its pipes open, and us waiting.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            return Answer(EXIT_TIMED_OUT, "", "")
        code = process.returncode
        assert code is not None
        return Answer(code, output.decode("utf-8", "replace"), errors.decode("utf-8", "replace"))

    async def account(self, name: str) -> Account:
        """See `Host.account`."""
        return own_account(name)

    async def is_root(self) -> bool:
        """See `Host.is_root`."""
        return os.geteuid() == 0

    async def create(self, path: PurePosixPath, owner: Account) -> None:
        """See `Host.create`."""
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
        try:
            if os.geteuid() == 0:
                os.fchown(descriptor, owner.uid, owner.gid)
        finally:
            os.close(descriptor)

    async def read(self, path: PurePosixPath, offset: int, size: int) -> bytes:
        """See `Host.read`."""
        with _readable(path):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            except FileNotFoundError:
                return b""
            with os.fdopen(descriptor, "rb") as file:
                file.seek(offset)
                return file.read(size)

    async def size(self, path: PurePosixPath) -> int:
        """See `Host.size`."""
        with _readable(path):
            try:
                return os.lstat(path).st_size
            except FileNotFoundError:
                return 0

    async def remove(self, path: PurePosixPath) -> None:
        """See `Host.remove`."""
        with _readable(path), suppress(FileNotFoundError):
            Path(path).unlink()  # noqa: ASYNC240 - a local disk is quick, a thread a file is not

    async def free_bytes(self, folder: PurePosixPath) -> int:
        """See `Host.free_bytes`."""
        with _readable(folder):
            return shutil.disk_usage(folder).free

    async def close(self) -> None:
        """See `Host.close`."""
