"""The queue's file, which processes share that may be killed at any moment."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from deepsquare.grid.supervisor.schedulers.local.queue import JobQueue

OPEN_AND_CLOSE = """
import sys
from pathlib import Path
from deepsquare.grid.supervisor.schedulers.local.queue import JobQueue
JobQueue(Path(sys.argv[1])).close()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    return tmp_path


def add(queue: JobQueue, name: str) -> int:
    return queue.add(
        name=name,
        tasks=1,
        cpus_per_task=1,
        mem_per_cpu_mb=1,
        minutes=1,
        output=Path("/dev/null"),
        environment={},
        script="true",
    )


def test_opening_it_again_drops_no_lock_of_who_has_it_open(folder: Path) -> None:
    with contextlib.closing(JobQueue(folder)) as queue:
        add(queue, "first")
        # A second look of the same process, as each call of the supervisor's is.
        JobQueue(folder).close()
        # The last one to close the file takes the write-ahead log away; this one is not the last.
        subprocess.run([sys.executable, "-c", OPEN_AND_CLOSE, folder], check=True)
        assert (folder / "queue.db-wal").exists()
        add(queue, "second")
    with contextlib.closing(JobQueue(folder)) as queue:
        assert [job.name for job in queue.jobs()] == ["first", "second"]


def test_only_its_owner_reads_it(folder: Path) -> None:
    with contextlib.closing(JobQueue(folder)) as queue:
        add(queue, "first")
        assert {path.stat().st_mode & 0o777 for path in folder.glob("queue.db*")} == {0o600}
