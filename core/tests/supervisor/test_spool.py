from __future__ import annotations

import os
from pathlib import Path

from deepsquare.grid.supervisor.spool import Spool
from hypothesis import given
from hypothesis import strategies as st


def make(folder: Path) -> Spool:
    return Spool(folder / "spool", uid=os.getuid(), gid=os.getgid())


@given(st.lists(st.binary(max_size=60), max_size=30), st.data())
def test_whatever_is_written_in_whatever_pieces_is_read_once(chunks: list[bytes], data: st.DataObject) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        spool = make(Path(folder))
        path = spool.create("job")
        offset, read = 0, []
        for chunk in chunks:
            with path.open("ab") as file:
                file.write(chunk)
            if data.draw(st.booleans()):
                lines = spool.read("job", offset, final=False)
                read += lines
                offset = lines[-1][2] if lines else offset
        while lines := spool.read("job", offset, final=True):
            read += lines
            offset = lines[-1][2]
        written = b"".join(chunks)
        expected = written.split(b"\n")
        if expected[-1] == b"":
            expected.pop()
        assert [line for line, _, _ in read] == expected
        assert offset == len(written)


def test_a_line_without_end_comes_in_pieces(tmp_path: Path) -> None:
    spool = make(tmp_path)
    spool.create("job").write_bytes(b"x" * 100_000 + b"\nnext\n")
    lines = [line for line, _, _ in spool.read("job", 0, final=False)]
    assert b"".join(lines[:-1]) == b"x" * 100_000
    assert lines[-1] == b"next"
    assert max(map(len, lines)) <= 32 << 10


def test_a_link_in_the_place_of_the_output_is_not_followed(tmp_path: Path) -> None:
    import pytest

    spool = make(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    spool.path("job").symlink_to(secret)
    with pytest.raises(OSError, match="symbolic links"):
        spool.read("job", 0, final=True)


def test_files_are_private_and_the_folder_is_closed(tmp_path: Path) -> None:
    spool = make(tmp_path)
    path = spool.create("job")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o710
    path.write_text("kept\n")
    spool.create("job")
    assert path.read_text() == "kept\n"
    spool.remove("job")
    spool.remove("job")
    assert spool.read("job", 0, final=True) == []
