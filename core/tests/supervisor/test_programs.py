"""s5cmd is put where nodes see it, once, and only where it runs."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path, PurePosixPath

import pytest
from deepsquare.errors import ConfigError
from deepsquare.grid.supervisor import programs
from deepsquare.grid.supervisor.hosts.local import LocalHost


def provided(folder: Path) -> PurePosixPath | None:
    return asyncio.run(programs.provide_s5cmd(LocalHost(), PurePosixPath(folder)))


def test_it_is_put_there_once(tmp_path: Path) -> None:
    path = provided(tmp_path / "programs")
    assert path is not None
    assert (Path(path).stat().st_mode & 0o777, Path(path).parent.stat().st_mode & 0o777) == (0o755, 0o755)
    made = Path(path).stat()
    assert provided(tmp_path / "programs") == path
    assert Path(path).stat() == made


def test_one_that_does_not_run_there_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # As if it were made for another processor.
    foreign = tmp_path / "s5cmd"
    foreign.write_bytes(b"\x7fELF of another machine")
    monkeypatch.setattr(programs, "_find_s5cmd", lambda: foreign)
    with caplog.at_level(logging.WARNING):
        assert provided(tmp_path / "programs") is None
    assert list((tmp_path / "programs").iterdir()) == []
    assert "does not run" in caplog.text


def test_a_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"s5cmd can't be put into .*/file/programs .*--shared-folder"):
        provided(tmp_path / "file" / "programs")
