"""The spool: a file of output for each job, written by the job's account, followed by the supervisor."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from deepsquare.errors import GridError

# Bounds the memory of a round, and the size of one message to the logger.
_CHUNK_BYTES = 1 << 20
_LINE_BYTES = 32 << 10
_CHUNK_LINES = 2000
# With less than this on the disk, no job is begun: it could not even say what went wrong.
_LEAST_FREE_BYTES = 16 << 20


class Spool:
    """A folder of output files. The account of the jobs can pass through it and write its files, but neither list nor add any."""

    def __init__(self, folder: Path, *, uid: int, gid: int) -> None:
        self._folder, self._uid, self._gid = folder, uid, gid
        folder.mkdir(mode=0o710, parents=True, exist_ok=True)
        folder.chmod(0o710)
        if os.geteuid() == 0:
            os.chown(folder, 0, gid)

    def path(self, job_name: str) -> Path:
        """The output file of a job."""
        return self._folder / f"{job_name}.out"

    def create(self, job_name: str) -> Path:
        """Make the output file, readable and writable for the jobs' account only; one that is there is kept.

        Raises:
            GridError: the disk is full or the folder is gone.
        """
        path = self.path(job_name)
        try:
            if self.is_full():
                raise GridError(f"the disk of {self._folder} is full: make room, or jobs can't run")
            descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
            try:
                if os.geteuid() == 0:
                    os.fchown(descriptor, self._uid, self._gid)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise GridError(f"the output file {path} can't be made: {error.strerror}") from None
        return path

    def read(self, job_name: str, offset: int, *, final: bool) -> list[tuple[bytes, int, int]]:
        """The complete lines behind `offset`, at most 2,000 lines and a megabyte of them.

        Args:
            job_name: the job.
            offset: bytes that were read before.
            final: the job has ended, so a last line without its newline is complete too.

        Returns:
            For each line: its bytes without the newline, the time in ns at which it was seen, and the offset just behind it. A
            line longer than 32 KiB comes in pieces.
        """
        try:
            descriptor = os.open(self.path(job_name), os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return []
        with os.fdopen(descriptor, "rb") as file:
            file.seek(offset)
            data = file.read(_CHUNK_BYTES)
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

    def is_full(self) -> bool:
        """Whether the disk has no room for output."""
        return shutil.disk_usage(self._folder).free < _LEAST_FREE_BYTES

    def size(self, job_name: str) -> int:
        """How many bytes the output has, or 0 when there is none."""
        try:
            return self.path(job_name).lstat().st_size
        except FileNotFoundError:
            return 0

    def remove(self, job_name: str) -> None:
        """Remove the output of a job that the logger has whole."""
        self.path(job_name).unlink(missing_ok=True)
