"""A real container registry for tests: Debian's docker-registry, with one account, on a port and in a folder of its own."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import re
import shutil
import ssl
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ports import free_port

USER = "tests"
# Each of these characters breaks something that is written without care: a shell, a URL, JSON, a netrc file.
PASSWORD = "p a$s's\"w`?\\:&%41#é"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
_ACCESS = re.compile(
    r'\S+ - (?P<user>\S*) ?\[.*?\] "(?P<method>\S+) (?P<path>\S+) [^"]*" (?P<status>\d+) \d+ "[^"]*" "(?P<agent>.*)"'
)


@dataclass(frozen=True)
class Request:
    """One line of the access log."""

    method: str
    path: str
    status: int
    agent: str


@dataclass(frozen=True)
class Registry:
    """A registry that runs."""

    address: str
    """Host and port, as image references begin."""
    folder: Path
    user: str = USER
    password: str = PASSWORD
    certificate: Path | None = None
    """What clients must trust; without it the registry speaks HTTP."""

    @property
    def url(self) -> str:
        return f"{'https' if self.certificate else 'http'}://{self.address}"

    def push(
        self,
        name: str,
        tag: str,
        *layers: Path,
        entrypoint: Sequence[str] = (),
        cmd: Sequence[str] = (),
        env: Sequence[str] = (),
        workdir: str = "",
        volumes: Sequence[str] = (),
    ) -> str:
        """Push an image of folders, the lowest layer first, and return its manifest's digest. `env` are lines KEY=VALUE."""
        archives = [_archive(layer) for layer in layers]
        config = {
            "architecture": _ARCHITECTURE,
            "os": "linux",
            "config": {
                "Entrypoint": list(entrypoint) or None,
                "Cmd": list(cmd) or None,
                "Env": list(env) or None,
                "WorkingDir": workdir,
                "Volumes": {volume: {} for volume in volumes} or None,
            },
            "rootfs": {"type": "layers", "diff_ids": [_digest(gzip.decompress(archive)) for archive in archives]},
            "history": [],
        }
        with self._client() as client:
            manifest = json.dumps(
                {
                    "schemaVersion": 2,
                    "mediaType": _MANIFEST,
                    "config": _push_blob(client, name, json.dumps(config).encode(), _CONFIG),
                    "layers": [_push_blob(client, name, archive, _LAYER) for archive in archives],
                }
            )
            answer = client.put(f"/v2/{name}/manifests/{tag}", content=manifest, headers={"Content-Type": _MANIFEST})
        answer.raise_for_status()
        return str(answer.headers["Docker-Content-Digest"])

    def requests(self, *, method: str = "GET", path: str = "") -> list[Request]:
        """What was asked of it since it started, pushes included, with this method and with `path` in the path."""
        lines = (self.folder / "access.log").read_text().splitlines()
        found = [
            Request(match["method"], match["path"], int(match["status"]), match["agent"])
            for match in map(_ACCESS.match, lines)
            if match
        ]
        return [request for request in found if request.method == method and path in request.path]

    def _client(self) -> httpx.Client:
        trust = ssl.create_default_context(cafile=self.certificate) if self.certificate else True
        return httpx.Client(base_url=self.url, auth=(self.user.encode(), self.password.encode()), verify=trust)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _archive(folder: Path) -> bytes:
    """A folder as a layer; the same folder is always the same bytes."""

    def nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        return member

    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name, filter=nobodys)
    return buffer.getvalue()


def _push_blob(client: httpx.Client, name: str, content: bytes, kind: str) -> dict[str, Any]:
    digest = _digest(content)
    if client.head(f"/v2/{name}/blobs/{digest}").status_code != httpx.codes.OK:
        place = client.post(f"/v2/{name}/blobs/uploads/").raise_for_status().headers["Location"]
        client.put(httpx.URL(place).copy_merge_params({"digest": digest}), content=content).raise_for_status()
    return {"mediaType": kind, "size": len(content), "digest": digest}


def _bcrypt(password: str) -> str:
    """Of the system's own crypt, which Python no longer has."""
    hashed = ["perl", "-e", "print crypt($ARGV[0], $ARGV[1])", password, "$2y$05$deepsquaretestsdeepsqu"]
    return subprocess.run(hashed, check=True, capture_output=True, text=True).stdout


def _make_certificate(folder: Path) -> Path:
    certificate = folder / "certificate.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
            ),
            *("-subj", "/CN=registry of the tests", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
            *("-keyout", folder / "key.pem", "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    certificate.chmod(0o644)
    return certificate


@contextmanager
def registry(*, https: bool = False, password: str = PASSWORD) -> Iterator[Registry]:
    """A registry that answers; with `https` under a certificate of its own, which only those trust who are told of it."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.fail("docker-registry is missing: integration/setup")
    # Other accounts read the certificate, and nothing else.
    folder = Path(tempfile.mkdtemp(prefix="deepsquare-registry-", dir="/tmp"))
    folder.chmod(0o711)
    address = f"127.0.0.1:{free_port()}"
    made = Registry(address, folder, password=password, certificate=_make_certificate(folder) if https else None)
    (folder / "htpasswd").write_text(f"{made.user}:{_bcrypt(made.password)}\n")
    (folder / "store").mkdir(mode=0o700)
    tls = {"certificate": str(made.certificate), "key": str(folder / "key.pem")} if https else {}
    settings = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "store")}},
        "http": {"addr": address, "secret": "of the tests", "tls": tls},
        "auth": {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}},
    }
    (folder / "config.yml").write_text(json.dumps(settings))
    with (folder / "access.log").open("w") as access, (folder / "error.log").open("w") as errors:
        process = subprocess.Popen([program, "serve", folder / "config.yml"], stdout=access, stderr=errors)
    try:
        _wait_until_up(made, process)
        yield made
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def _wait_until_up(made: Registry, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 20
    with made._client() as client:
        while True:
            try:
                client.get("/v2/").raise_for_status()
            except httpx.TransportError:
                failed = process.poll() is not None or time.monotonic() > end
                assert not failed, (made.folder / "error.log").read_text()
                time.sleep(0.05)
            else:
                return
