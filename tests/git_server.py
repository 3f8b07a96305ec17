"""A git server for tests, by https on port 443, in a network of its own: `git http-backend` behind Python's server.

Started as a program in a new network and mount namespace; its argument is a folder with `certificate.pem`, `key.pem`, `hosts`,
`gitconfig` and `repositories`. It writes what comes to `connections` and `requests`, and prints a line when it listens.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PUBLIC = ("93.184.215.14", "93.184.215.15")
PRIVATE = ("10.0.0.5", "169.254.169.254", "127.0.0.1")
SUFFIX = "/info/refs?service=git-upload-pack"
# By the owner in the path of what is asked for: where it is said to be.
REDIRECTS = {
    "to-other": f"https://other.example/a/modules{SUFFIX}",
    "to-itself-relative": f"/a/modules{SUFFIX}",
    "to-http": f"http://other.example/a/modules{SUFFIX}",
    "to-loopback": f"https://127.0.0.1/a/modules{SUFFIX}",
    "to-number": f"https://2130706433/a/modules{SUFFIX}",
    "to-hexadecimal": f"https://0x7f.1/a/modules{SUFFIX}",
    "to-metadata": f"https://169.254.169.254/a/modules{SUFFIX}",
    "to-private": f"https://10.0.0.5/a/modules{SUFFIX}",
    "to-private-name": f"https://private.example/a/modules{SUFFIX}",
    "to-mapped": f"https://[::ffff:127.0.0.1]/a/modules{SUFFIX}",
    "to-userinfo": f"https://user:the-secret@other.example/a/modules{SUFFIX}",
    "to-port": f"https://other.example:8443/a/modules{SUFFIX}",
    "to-login": "https://other.example/login",
    "to-file": "file:///etc/passwd/info/refs",
    "to-nonsense": "https://[",
    "to-loop": f"https://git.example/to-loop/modules{SUFFIX}",
}


class Handler(BaseHTTPRequestHandler):
    """Answers for repositories, and misbehaves for some owners."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        folder: Path = self.server.folder  # type: ignore[attr-defined]
        record = {"address": self.connection.getsockname()[0], "path": self.path, "headers": dict(self.headers.items())}
        with (folder / "requests").open("a") as file:
            file.write(json.dumps(record) + "\n")
        owner = self.path.split("/")[1]
        is_git = "deepsquare" not in self.headers.get("User-Agent", "")
        if owner in REDIRECTS:
            self.answer(302, {"Location": REDIRECTS[owner]})
        elif owner == "late-redirect" and is_git:
            self.answer(302, {"Location": f"https://127.0.0.1/a/modules{SUFFIX}"})
        elif owner == "private" or (owner == "late-private" and is_git):
            self.answer(401, {"WWW-Authenticate": 'Basic realm="\x1b[31mgive me your password"'})
        elif owner == "dumb" and is_git:
            self.dumb()
        elif owner == "page":
            self.answer(200, {"Content-Type": "text/html"}, b"<html>")
        elif owner == "drip" or (owner == "slow" and is_git):
            # A head without an end, or a body.
            self.send_response(200)
            if owner == "drip":
                self.flush_headers()
            else:
                self.send_header("Content-Type", "application/x-git-upload-pack-advertisement")
                self.send_header("Content-Length", "100000")
                self.end_headers()
            for _ in range(600):
                self.wfile.write(b"0")
                self.wfile.flush()
                if self.server.stopped.wait(0.5):  # type: ignore[attr-defined]
                    break
        else:
            self.backend(folder)

    do_POST = do_GET

    def dumb(self) -> None:
        """A server of the old protocol, whose objects are said to be elsewhere."""
        path = self.path.partition("?")[0]
        if path.endswith("/info/refs"):
            self.answer(200, {"Content-Type": "text/plain"}, b"1" * 40 + b"\trefs/heads/main\n")
        elif path.endswith("/HEAD"):
            self.answer(200, {}, b"ref: refs/heads/main\n")
        elif path.endswith("/http-alternates"):
            self.answer(200, {}, b"https://127.0.0.1/a/modules/objects\n")
        else:
            self.answer(404, {})

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def backend(self, folder: Path) -> None:
        """What `git http-backend` says."""
        body = self.body()
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        path, _, query = self.path.partition("?")
        for owner in ("late-redirect", "late-private", "dumb", "slow"):
            path = path.replace(f"/{owner}/", "/a/")
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(folder / "repositories"),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
        }
        program = ["git", "http-backend"]
        printed = subprocess.run(program, input=body, env=environment, capture_output=True, check=False).stdout
        head, _, content = printed.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.answer(int(headers.pop("Status", "200").split()[0]), headers, content)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: `requests` has it all."""


class Server(ThreadingHTTPServer):
    """Takes connections at all addresses, and writes down at which each came."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("", 443), Handler)
        self.folder = folder
        self.stopped = threading.Event()
        self._trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._trust.load_cert_chain(folder / "certificate.pem", folder / "key.pem")

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        with (self.folder / "connections").open("a") as file:
            file.write(f"{connection.getsockname()[0]}\n")
        return self._trust.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are no news."""


def prepare(folder: Path) -> None:
    """Addresses, and a system that has traps for git: its settings, and another answer for each name."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for address in (*PUBLIC, *PRIVATE[:2]):
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    shutil.copytree("/etc", folder / "etc", symlinks=True)
    for name in ("hosts", "gitconfig"):
        (folder / "etc" / name).unlink(missing_ok=True)
        shutil.copy(folder / name, folder / "etc" / name)
    subprocess.run(["mount", "--bind", str(folder / "etc"), "/etc"], check=True)


def main() -> None:
    folder = Path(sys.argv[1])
    prepare(folder)
    server = Server(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()
    server.stopped.set()


if __name__ == "__main__":
    main()
