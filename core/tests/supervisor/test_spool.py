from __future__ import annotations

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
