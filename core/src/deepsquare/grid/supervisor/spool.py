"""The spool: a file of output for each job, written by the job's account, followed by the supervisor."""

from __future__ import annotations

import time
from pathlib import PurePosixPath

from deepsquare.errors import GridError
from deepsquare.grid.supervisor.hosts.base import Account, Host

# Bounds the memory of a round, and the size of one message to the logger.
_CHUNK_BYTES = 1 << 20
_LINE_BYTES = 32 << 10
_CHUNK_LINES = 2000
# With less than this on the disk, no job is begun: it could not even say what went wrong.
_LEAST_FREE_BYTES = 16 << 20


class Spool:
    """A folder of output files on a host. The accounts of jobs can write their own files, but neither list nor add any."""

    def __init__(self, host: Host, folder: PurePosixPath) -> None:
        """`folder` is there (`JobFolders.prepare`)."""
        self._host, self._folder = host, folder

    def path(self, job_name: str) -> PurePosixPath:
        """The output file of a job."""
        return self._folder / f"{job_name}.out"

    async def create(self, job_name: str, owner: Account) -> PurePosixPath:
        """Make the output file, readable and writable for the job's account only; one that is there is kept.

        Raises:
            GridError: the disk is full or the folder is gone.
            ConnectionFailedError: the host can't be reached.
        """
        path = self.path(job_name)
        try:
            if await self.is_full():
                raise GridError(f"the disk of {self._folder} is full: make room, or jobs can't run")
            await self._host.create(path, owner)
        except OSError as error:
            raise GridError(f"the output file {path} can't be made: {error.strerror}") from None
        return path

    async def read(self, job_name: str, offset: int, *, final: bool) -> list[tuple[bytes, int, int]]:
        """The complete lines behind `offset`, at most 2,000 lines and a megabyte of them.

        Args:
            job_name: the job.
            offset: bytes that were read before.
            final: the job has ended, so a last line without its newline is complete too.

        Returns:
            For each line: its bytes without the newline, the time in ns at which it was seen, and the offset just behind it. A
            line longer than 32 KiB comes in pieces.
        """
        data = await self._host.read(self.path(job_name), offset, _CHUNK_BYTES)
        now = time.time_ns()
        lines: list[tuple[bytes, int, int]] = []
        start = 0
        while start < len(data) and len(lines) < _CHUNK_LINES:
            newline = data.find(b"\n", start, start + _LINE_BYTES)
            if newline >= 0:
                end, following = newline, newline + 1
            elif len(data) - start >= _LINE_BYTES:
                end = following = start + _LINE_BYTES
            elif final and len(data) < _CHUNK_BYTES:
                end = following = len(data)
            else:
                break
            lines.append((data[start:end], now, offset + following))
            start = following
        return lines

    async def is_full(self) -> bool:
        """Whether the disk has no room for output."""
        return await self._host.free_bytes(self._folder) < _LEAST_FREE_BYTES

    async def size(self, job_name: str) -> int:
        """How many bytes the output has, or 0 when there is none."""
        return await self._host.size(self.path(job_name))

    async def remove(self, job_name: str) -> None:
        """Remove the output of a job that the logger has whole."""
        await self._host.remove(self.path(job_name))
