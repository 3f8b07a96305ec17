"""The HTTP server of the tests, as curl sees it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web import Web, web


@pytest.fixture
def served() -> Iterator[Web]:
    with web({"/a%20b/file": b"plain", "/file?sig=1&x=%2F": b"signed", "/big": b"x" * 3_000_000}) as made:
        yield made


def curl(*arguments: str | Path) -> tuple[int, bytes]:
    done = subprocess.run(["curl", "--fail", "--silent", *arguments], capture_output=True, timeout=60, check=False)
    return done.returncode, done.stdout


def test_files_have_their_queries(served: Web) -> None:
    assert curl(f"{served.url}/a%20b/file") == (0, b"plain")
    assert curl(f"{served.url}/file?sig=1&x=%2F") == (0, b"signed")
    assert curl(f"{served.url}/file") == (22, b"")
    assert len(curl(f"{served.url}/big")[1]) == 3_000_000
    assert [request.path for request in served.requests[:2]] == ["/a%20b/file", "/file?sig=1&x=%2F"]


def test_uploads_are_kept(served: Web, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"y" * 2_000_000)
    assert curl("--upload-file", file, "-H", "X-Of-The-Test: yes", f"{served.url}/up?sig=2")[0] == 0
    assert curl("--upload-file", file, "-H", "Transfer-Encoding: chunked", f"{served.url}/chunks")[0] == 0
    assert served.uploads == {"/up?sig=2": file.read_bytes(), "/chunks": file.read_bytes()}
    assert (served.requests[0].method, served.requests[0].headers["x-of-the-test"]) == ("PUT", "yes")


def test_errors_and_redirects(served: Web, tmp_path: Path) -> None:
    served.statuses["/big"] = 503
    served.redirects["/moved"] = f"{served.url}/a%20b/file"
    assert curl(f"{served.url}/big") == (22, b"")
    assert curl("--location", f"{served.url}/moved") == (0, b"plain")
    (tmp_path / "file").touch()
    served.statuses["/up"] = 403
    assert curl("--upload-file", tmp_path / "file", f"{served.url}/up")[0] == 22
    assert served.uploads == {}
