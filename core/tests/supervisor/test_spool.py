from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from deepsquare.errors import ConnectionFailedError
from deepsquare.grid.supervisor.folders import JobFolders
from deepsquare.grid.supervisor.hosts.base import Account
from deepsquare.grid.supervisor.hosts.local import LocalHost
from deepsquare.grid.supervisor.spool import Spool
from hypothesis import given
from hypothesis import strategies as st

OWNER = Account("me", os.getuid(), os.getgid())


def make(folder: Path) -> Spool:
    (folder / "spool").mkdir()
    return Spool(LocalHost(), folder / "spool")


@given(st.lists(st.binary(max_size=60), max_size=30), st.data())
async def test_whatever_is_written_in_whatever_pieces_is_read_once(chunks: list[bytes], data: st.DataObject) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        spool = make(Path(folder))
        path = Path(await spool.create("job", OWNER))
        offset, read = 0, []
        for chunk in chunks:
            with path.open("ab") as file:
                file.write(chunk)
            if data.draw(st.booleans()):
                lines = await spool.read("job", offset, final=False)
                read += lines
                offset = lines[-1][2] if lines else offset
        while lines := await spool.read("job", offset, final=True):
            read += lines
            offset = lines[-1][2]
        written = b"".join(chunks)
        expected = written.split(b"\n")
        if expected[-1] == b"":
            expected.pop()
        assert [line for line, _, _ in read] == expected
        assert offset == len(written)


async def test_a_line_without_end_comes_in_pieces(tmp_path: Path) -> None:
    spool = make(tmp_path)
    Path(await spool.create("job", OWNER)).write_bytes(b"x" * 100_000 + b"\nnext\n")
    lines = [line for line, _, _ in await spool.read("job", 0, final=False)]
    assert b"".join(lines[:-1]) == b"x" * 100_000
    assert lines[-1] == b"next"
    assert max(map(len, lines)) <= 32 << 10


async def test_a_link_in_the_place_of_the_output_is_not_followed(tmp_path: Path) -> None:
    spool = make(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    Path(spool.path("job")).symlink_to(secret)
    with pytest.raises(ConnectionFailedError, match="symbolic links"):
        await spool.read("job", 0, final=True)


async def test_files_are_private_and_the_folder_is_closed(tmp_path: Path) -> None:
    spool = make(tmp_path)
    path = Path(await spool.create("job", OWNER))
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("kept\n")
    await spool.create("job", OWNER)
    assert path.read_text() == "kept\n"
    await spool.remove("job")
    await spool.remove("job")
    assert await spool.read("job", 0, final=True) == []


async def _is_gone(*paths: Path) -> bool:
    for _ in range(100):
        if not any(path.is_symlink() or path.exists() for path in paths):
            return True
        await asyncio.sleep(0.1)
    return False


async def test_what_a_killed_job_left_goes_and_its_end_does_not_wait_for_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folders = JobFolders(LocalHost(), tmp_path / "jobs")
    await folders.prepare()
    await folders.admit(OWNER)
    own = tmp_path / "jobs" / "shared" / str(OWNER.uid)
    kept = tmp_path / "kept"
    kept.mkdir()
    (own / "0x2a.7" / "closed").mkdir(parents=True)
    (own / "0x2a.7" / "closed").chmod(0)
    (own / ".0x2a.7").symlink_to(kept)
    # What another removal left, when its machine was switched off.
    (own / ".removed-0x29.6" / "d").mkdir(parents=True)
    other = own / "0x2b.8"
    other.mkdir()
    # A removal that takes its time.
    programs, order = tmp_path / "programs", tmp_path / "order"
    programs.mkdir()
    (programs / "rm").write_text(f'#!/bin/sh\necho "$2" >>{order}\nsleep 0.5\nexec /bin/rm "$@"\n')
    (programs / "rm").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        await folders.clear(OWNER.uid, "0x2a", "7")
    assert not (own / "0x2a.7").exists()
    assert not (own / ".0x2a.7").is_symlink()
    assert (own / ".removed-0x2a.7").exists()
    assert await _is_gone(*(own / f".removed-{name}" for name in (".0x2a.7", "0x2a.7", "0x29.6")))
    assert order.read_text().split()[0] == ".removed-.0x2a.7"
    assert kept.exists()
    assert other.exists()
    assert not caplog.text


async def test_scratch_that_stays_is_reported_with_the_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folders = JobFolders(LocalHost(), tmp_path / "jobs")
    own = tmp_path / "jobs" / "shared" / str(OWNER.uid)
    for name in ("0x2a.7", ".removed-0x2a.7"):
        (own / name / "file").mkdir(parents=True)
    await folders.clear(OWNER.uid, "0x2a", "7")
    assert "not empty" in caplog.text


async def test_jobs_pass_through_the_folder_and_can_not_list_it(tmp_path: Path) -> None:
    folders = JobFolders(LocalHost(), tmp_path / "jobs")
    await folders.prepare()
    await folders.prepare()
    await folders.admit(OWNER)
    modes = {str(path.relative_to(tmp_path)): path.stat().st_mode & 0o7777 for path in (tmp_path / "jobs").rglob("*")}
    assert modes == {
        "jobs/spool": 0o711,
        "jobs/shared": 0o711,
        f"jobs/shared/{OWNER.uid}": 0o700,
        "jobs/persistent": 0o711,
        f"jobs/persistent/user-{OWNER.uid}": 0o700,
        "jobs/world-tmp": 0o1777,
        "jobs/disk": 0o711,
        "jobs/disk/tmp": 0o711,
        f"jobs/disk/tmp/user-{OWNER.uid}": 0o700,
        "jobs/disk/world-tmp": 0o1777,
    }
