"""A real HTTP server for tests: it gives what it was told to, keeps what is uploaded, and remembers who asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread


@dataclass(frozen=True)
class WebRequest:
    """One request, as it came."""

    method: str
    path: str
    """With its query."""
    headers: Mapping[str, str]
    """Their names in lower case."""


@dataclass
class Web:
    """A server that runs."""

    url: str
    files: dict[str, bytes]
    """What is given, and where: paths with their queries, as ``/a/b?sig=x``. A test may change them."""
    statuses: dict[str, int] = field(default_factory=dict)
    """Which paths answer with something else than success."""
    redirects: dict[str, str] = field(default_factory=dict)
    """Which paths lead to another address."""
    uploads: dict[str, bytes] = field(default_factory=dict)
    """What was put, and where."""
    requests: list[WebRequest] = field(default_factory=list)


@contextmanager
def web(files: Mapping[str, bytes] | None = None) -> Iterator[Web]:
    """A server that gives these files, until the end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    made = Web(f"http://127.0.0.1:{server.server_port}", dict(files or {}))
    server.web, server.lock = made, Lock()  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        made: Web = self.server.web  # type: ignore[attr-defined]
        body = self._body()
        status, content = made.statuses.get(self.path), b""
        with self.server.lock:  # type: ignore[attr-defined]
            headers = {name.lower(): value for name, value in self.headers.items()}
            made.requests.append(WebRequest(self.command, self.path, headers))
            if status is None and self.path in made.redirects:
                status = HTTPStatus.TEMPORARY_REDIRECT
            elif status is None and self.command == "PUT":
                made.uploads[self.path] = body
                status = HTTPStatus.CREATED
            elif status is None:
                found = made.files.get(self.path)
                status, content = (HTTPStatus.NOT_FOUND, b"") if found is None else (HTTPStatus.OK, found)
        self.send_response(status)
        if self.path in made.redirects:
            self.send_header("Location", made.redirects[self.path])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the requests are kept."""
