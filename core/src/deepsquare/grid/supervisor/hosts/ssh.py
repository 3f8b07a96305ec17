"""A machine reached over SSH: one connection, commands in batches, files over SFTP."""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar

import asyncssh
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from deepsquare.errors import ConfigError, ConnectionFailedError
from deepsquare.grid.supervisor.hosts.base import (
    COMMAND_SECONDS,
    Account,
    Answer,
    NotSentError,
    check_account,
)

T = TypeVar("T")

_log = logging.getLogger(__name__)

_CONNECT_SECONDS = 15.0
_RETRY_SECONDS = 20.0
_KEEPALIVE_SECONDS = 10.0
# Bounds what is lost to doubt when the connection breaks, and the size of one script.
_MOST_IN_A_BATCH = 16
_SFTP_SECONDS = 60.0
# getent(1): "One or more supplied key could not be found in the database."
_GETENT_NONE = 2


class _RefusedError(ConnectionFailedError):
    """The host can't do with a file what it is asked for."""


@dataclass(frozen=True, slots=True)
class SshAddress:
    """Whom to reach, how; None leaves it to the user's own SSH configuration."""

    host: str
    user: str | None = None
    port: int | None = None
    key: Path | None = None
    known_hosts: Path | None = None


@dataclass(slots=True)
class _Request:
    words: str
    """One line of shell."""
    answer: asyncio.Future[Answer] = field(repr=False)


class SshHost:
    """See `Host`. The host's key must be known: an unknown one is refused, never learned.

    Commands that wait go together, as one shell script on the standard input of one session: no session a command, and nothing of
    them in process lists but what the programs show themselves.
    """

    def __init__(self, address: SshAddress) -> None:
        self.name = address.host
        self._address = address
        self._connection: asyncssh.SSHClientConnection | None = None
        self._sftp: asyncssh.SFTPClient | None = None
        self._connecting = asyncio.Lock()
        self._opening = asyncio.Lock()
        self._waiting: list[_Request] = []
        self._worker: asyncio.Task[None] | None = None
        self._uid: int | None = None

    async def close(self) -> None:
        """See `Host.close`."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        if self._connection is not None:
            self._connection.close()
            await self._connection.wait_closed()
            self._connection = self._sftp = None

    # ------------------------------------------------------------------ commands

    async def run(
        self,
        *command: str,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
        account: Account | None = None,
    ) -> Answer:
        """See `Host.run`."""
        switch: list[str] = []
        if account is not None:
            own = await self._own_uid()
            check_account(account.name, account.uid, own_uid=own)
            if own == 0:
                switch = ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups", "--"]
        variables = [f"{name}={value}" for name, value in (environment or {}).items()]
        # The provider's own PATH stays: it is where the operator put Slurm.
        words = shlex.join(["timeout", "--kill-after=5", f"{COMMAND_SECONDS:.0f}", *switch])
        words = f'printf %s {shlex.quote(stdin)} | {words} env -i "PATH=$PATH" {shlex.join([*variables, *command])}'
        return await self._send(words)

    async def _send(self, words: str) -> Answer:
        request = _Request(words, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await request.answer

    async def _work(self) -> None:
        """Send what waits, a batch after the other: what comes meanwhile is the next one."""
        while self._waiting:
            batch, self._waiting = self._waiting[:_MOST_IN_A_BATCH], self._waiting[_MOST_IN_A_BATCH:]
            try:
                await self._run_batch(batch)
            except BaseException as error:
                failure = error if isinstance(error, Exception) else ConnectionFailedError("the supervisor stops")
                for request in batch:
                    if not request.answer.done():
                        request.answer.set_exception(failure)
                if not isinstance(error, Exception):
                    raise

    async def _run_batch(self, batch: Sequence[_Request]) -> None:
        connection = await self._connect()
        script = _script([request.words for request in batch])
        try:
            # Not in the command: that would be in the process list, with the scripts of jobs.
            async with asyncio.timeout(2 * COMMAND_SECONDS):
                ended = await connection.run("exec /bin/sh -s", input=script.encode(), encoding=None, check=False)
        except TimeoutError:
            self._forget(connection)
            raise ConnectionFailedError(f"{self.name} gave no answer") from None
        except (asyncssh.Error, OSError) as error:
            self._forget(connection)
            if isinstance(error, asyncssh.ChannelOpenError):
                raise NotSentError(f"{self.name} opens no session: {error.reason}") from None
            raise ConnectionFailedError(f"the connection to {self.name} broke: {_reason(error)}") from None
        output = ended.stdout
        assert isinstance(output, bytes)
        parts = output.split(b"\0")
        for number, request in enumerate(batch):
            mine = parts[3 * number : 3 * number + 3]
            if len(parts) <= 3 * number + 3 or not mine[0].isdigit():
                errors = ended.stderr if isinstance(ended.stderr, bytes) else b""
                words = errors.decode("utf-8", "replace").strip() or "the connection broke"
                raise ConnectionFailedError(f"{self.name} did not answer: {words}")
            code, out, err = mine
            if not request.answer.done():
                request.answer.set_result(Answer(int(code), _text(out), _text(err)))

    async def account(self, name: str) -> Account:
        """See `Host.account`."""
        answer = await self.run("getent", "passwd", name)
        fields = answer.output.strip().split(":")
        if answer.code not in (0, _GETENT_NONE):
            raise ConnectionFailedError(
                f"{self.name} does not say who {name!r} is: {answer.errors.strip() or answer.code}"
            )
        if answer.code != 0 or len(fields) < 4:
            raise ConfigError(
                f"the account {name!r} that jobs should run as does not exist on {self.name}; make it there"
            )
        check_account(name, int(fields[2]), own_uid=await self._own_uid())
        return Account(name, int(fields[2]), int(fields[3]))

    async def is_root(self) -> bool:
        """See `Host.is_root`."""
        return await self._own_uid() == 0

    async def _own_uid(self) -> int:
        if self._uid is None:
            answer = await self._send("id -u")
            if not answer.output.strip().isdigit():
                raise ConnectionFailedError(f"{self.name} does not say who we are there: {answer.errors.strip()}")
            self._uid = int(answer.output)
        return self._uid

    # ------------------------------------------------------------------ files

    async def create(self, path: PurePosixPath, owner: Account) -> None:
        """See `Host.create`."""
        is_root = await self.is_root()

        async def make(sftp: asyncssh.SFTPClient) -> None:
            # Owner and mode before there is anything in it.
            async with sftp.open(str(path), "ab", attrs=asyncssh.SFTPAttrs(permissions=0o600)):
                pass
            if is_root:
                await sftp.chown(str(path), owner.uid, owner.gid)

        try:
            await self._with_sftp(make)
        except _RefusedError as error:
            raise OSError(0, str(error)) from None

    async def read(self, path: PurePosixPath, offset: int, size: int) -> bytes:
        """See `Host.read`."""

        async def look(sftp: asyncssh.SFTPClient) -> bytes:
            async with sftp.open(str(path), "rb") as file:
                data = await file.read(size, offset)
            assert isinstance(data, bytes)
            return data

        return await self._with_sftp(look, missing=b"")

    async def size(self, path: PurePosixPath) -> int:
        """See `Host.size`."""

        async def look(sftp: asyncssh.SFTPClient) -> int:
            return (await sftp.lstat(str(path))).size or 0

        return await self._with_sftp(look, missing=0)

    async def remove(self, path: PurePosixPath) -> None:
        """See `Host.remove`."""

        async def remove(sftp: asyncssh.SFTPClient) -> None:
            with suppress(asyncssh.SFTPNoSuchFile):
                await sftp.remove(str(path))

        await self._with_sftp(remove)

    async def free_bytes(self, folder: PurePosixPath) -> int:
        """See `Host.free_bytes`."""

        async def look(sftp: asyncssh.SFTPClient) -> int:
            volume = await sftp.statvfs(str(folder))
            return volume.bavail * volume.frsize

        return await self._with_sftp(look)

    async def _with_sftp(self, work: Callable[[asyncssh.SFTPClient], Awaitable[T]], missing: T | None = None) -> T:
        connection = await self._connect()
        try:
            async with asyncio.timeout(_SFTP_SECONDS):
                return await work(await self._open_sftp(connection))
        except TimeoutError:
            self._forget(connection)
            raise ConnectionFailedError(f"{self.name} gave no answer about a file in {_SFTP_SECONDS:.0f} s") from None
        except asyncssh.ChannelOpenError as error:
            # The connection is well: others' work on it goes on.
            raise ConnectionFailedError(f"{self.name} opens no session for files: {error.reason}") from None
        except asyncssh.SFTPNoSuchFile:
            if missing is None:
                raise _RefusedError(f"{self.name}: no such file or folder") from None
            return missing
        except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection) as error:
            self._forget(connection)
            raise ConnectionFailedError(f"the connection to {self.name} broke: {error.reason}") from None
        except asyncssh.SFTPError as error:
            # The connection is well, a file is not.
            raise _RefusedError(f"{self.name}: {error.reason or type(error).__name__}") from None
        except (asyncssh.Error, OSError) as error:
            self._forget(connection)
            raise ConnectionFailedError(f"the connection to {self.name} broke: {_reason(error)}") from None

    async def _open_sftp(self, connection: asyncssh.SSHClientConnection) -> asyncssh.SFTPClient:
        """The one session for files of a connection; hosts allow few sessions."""
        async with self._opening:
            if self._sftp is None:
                self._sftp = await connection.start_sftp_client()
            return self._sftp

    # ------------------------------------------------------------------ the connection

    async def _connect(self) -> asyncssh.SSHClientConnection:
        async with self._connecting:
            if self._connection is not None and not self._connection.is_closed():
                return self._connection
            self._connection = self._sftp = None
            try:
                async for attempt in AsyncRetrying(
                    retry=retry_if_exception_type((OSError, asyncssh.ConnectionLost, TimeoutError)),
                    wait=wait_exponential_jitter(multiplier=0.2, max=3),
                    stop=stop_after_delay(_RETRY_SECONDS),
                    reraise=True,
                ):
                    with attempt:
                        self._connection = await self._open()
            except asyncssh.HostKeyNotVerifiable as error:
                raise ConfigError(
                    f"the host key of {self.name} is not the one that is known, or none is: {error.reason}. Ask its operator "
                    f"for it and put it into {self._address.known_hosts or '~/.ssh/known_hosts'}"
                ) from None
            except asyncssh.PermissionDenied:
                raise ConfigError(f"{self.name} lets nobody in with this user and key: try them with ssh") from None
            except (asyncssh.Error, OSError) as error:
                raise NotSentError(f"{self.name} can't be reached over SSH: {_reason(error)}") from None
            assert self._connection is not None
            _log.info("connected to %s over SSH", self.name)
            return self._connection

    async def _open(self) -> asyncssh.SSHClientConnection:
        address = self._address
        options: dict[str, object] = {}
        if address.user is not None:
            options["username"] = address.user
        if address.port is not None:
            options["port"] = address.port
        if address.key is not None:
            options["client_keys"] = [str(address.key)]
            options["agent_path"] = None
        if address.known_hosts is not None:
            options["known_hosts"] = str(address.known_hosts)
        try:
            return await asyncssh.connect(
                address.host,
                connect_timeout=_CONNECT_SECONDS,
                keepalive_interval=_KEEPALIVE_SECONDS,
                **options,
            )
        except (asyncssh.KeyImportError, FileNotFoundError) as error:
            raise ConfigError(f"the SSH key or known_hosts file can't be used: {error}") from None

    def _forget(self, connection: asyncssh.SSHClientConnection) -> None:
        """The next command opens a new connection."""
        if self._connection is connection:
            self._connection = self._sftp = None
        connection.abort()


def _script(commands: Sequence[str]) -> str:
    """Shell that runs the commands side by side, then prints code, output and errors of each, with a NUL behind each of them.

    One program prints all of it: starting programs is most of what a batch takes.
    """
    lines = [
        'umask 077; cd / && folder=$(mktemp -d) && cd "$folder" || exit',
        "trap 'cd /; rm -rf \"$folder\"' EXIT; printf '\\0' >nul",
    ]
    names: list[str] = []
    for number, words in enumerate(commands):
        # In the root folder, as everywhere; the redirections are made before, in the own one.
        lines.append(f"{{ (cd / && {words}) >o{number} 2>e{number}; printf %d $? >c{number}; }} &")
        names += [f"c{number}", "nul", f"o{number}", "nul", f"e{number}", "nul"]
    return "\n".join([*lines, "wait", f"cat {' '.join(names)}\n"])


def _reason(error: Exception) -> str:
    if isinstance(error, asyncssh.Error):
        return error.reason
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
