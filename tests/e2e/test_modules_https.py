"""Modules from servers that can't be trusted, by real https, in a network of the test's own."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.conftest import REPOSITORY
from tests.git_server import PRIVATE, PUBLIC, REDIRECTS

NAMES = ["git.example", "other.example", "private.example"]
FETCH = """
import json, sys
from pathlib import Path
from deepsquare.grid.sbatch_api.modules import GitModules
from deepsquare.workflow.modules import ModuleError

asked = json.loads(sys.argv[1])
answers = {name: list(lists) for name, lists in asked["dns"].items()}

def getaddrinfo(host, port, **_):
    given = answers[host]
    addresses = given.pop(0) if len(given) > 1 else given[0]
    return [(2, 1, 6, "", (address, port)) for address in addresses]

ca_file = Path(asked["ca"]) if asked["ca"] else None
modules = GitModules(Path(asked["cache"]), ca_file=ca_file, getaddrinfo=getaddrinfo, fetch_seconds=asked["seconds"])
try:
    fetched = modules.fetch(asked["source"])
    print(json.dumps({"text": fetched.text, "commit": fetched.commit}))
except ModuleError as error:
    print(json.dumps({"error": str(error)}))
"""


@dataclass
class World:
    """The server's network; who fetches is in it as well."""

    folder: Path
    pid: int
    commits: list[str]
    fetches: int = 0

    def fetch(
        self, source: str, *, trusts: bool = True, seconds: float = 20, env: dict[str, str] | None = None, **dns: Any
    ) -> dict[str, str]:
        """What a fetch gives. `dns`: the answers for a name, one after the other, instead of the right one."""
        self.fetches += 1
        right = {"git_example": [[PUBLIC[0]]], "other_example": [[PUBLIC[1]]], "private_example": [["10.0.0.5"]]}
        asked = {
            "source": source,
            "ca": str(self.folder / "authority.pem") if trusts else None,
            "cache": str(self.folder / f"cache-{self.fetches}"),
            "dns": {
                name.replace("_", "."): lists
                for name, lists in (right | {"wrong_example": [[PUBLIC[0]]]} | dns).items()
            },
            "seconds": seconds,
        }
        (self.folder / "connections").write_text("")
        (self.folder / "requests").write_text("")
        command = [
            "nsenter",
            f"--net=/proc/{self.pid}/ns/net",
            f"--mount=/proc/{self.pid}/ns/mnt",
            sys.executable,
            "-c",
            FETCH,
        ]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY / "core" / "src")} | (env or {})
        result = subprocess.run(
            [*command, json.dumps(asked)], env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert result.returncode == 0, result.stderr
        found: dict[str, str] = json.loads(result.stdout)
        return found

    def connections(self) -> set[str]:
        """The addresses that were connected to by the last fetch."""
        return set((self.folder / "connections").read_text().split())

    def requests(self) -> list[dict[str, Any]]:
        """What the last fetch asked."""
        return [json.loads(line) for line in (self.folder / "requests").read_text().splitlines()]


def make_certificates(folder: Path) -> None:
    """An authority, and a certificate of it for all names of the test but wrong.example."""
    now = datetime.datetime.now(datetime.UTC)
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of a test")])

    def signed(name: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType) -> x509.Certificate:
        builder = x509.CertificateBuilder(authority_name, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), False
        )
        for extension in extensions:
            builder = builder.add_extension(extension, isinstance(extension, x509.BasicConstraints))
        return builder.sign(authority_key, hashes.SHA256())

    authority = signed(authority_name, authority_key, x509.BasicConstraints(ca=True, path_length=None))
    # Also for the private addresses: what refuses them must not be the certificate.
    addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in PRIVATE]
    names = x509.SubjectAlternativeName([*map(x509.DNSName, NAMES), *addresses])
    server = signed(x509.Name([]), server_key, names)
    pem = serialization.Encoding.PEM
    (folder / "authority.pem").write_bytes(authority.public_bytes(pem))
    (folder / "certificate.pem").write_bytes(server.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        server_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def make_repository(path: Path) -> list[str]:
    """A repository of three commits, of which the last has the tag v1; the commits."""
    path.mkdir(parents=True)

    def git(*arguments: str) -> str:
        identity = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"} | identity
        command = ["git", "-C", str(path), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "--quiet", "--initial-branch=main")
    git("config", "uploadpack.allowFilter", "true")
    commits = []
    for number in range(3):
        (path / "module.yaml").write_text(f"name: number {number}\n")
        (path / "large").write_bytes(os.urandom(2 << 20))
        git("add", "--all")
        git("commit", "--quiet", "--message", "x")
        commits.append(git("rev-parse", "HEAD"))
    git("tag", "--annotate", "--message", "x", "v1")
    return commits


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    assert os.getuid() == 0, "a network of the test's own needs root"
    missing = [program for program in ("ip", "unshare", "nsenter", "git") if shutil.which(program) is None]
    assert not missing, f"{', '.join(missing)} missing: integration/setup"
    folder = tmp_path_factory.mktemp("world")
    make_certificates(folder)
    commits = make_repository(folder / "repositories" / "a" / "modules")
    # What the system itself says of the names is a trap: git must not ask it.
    (folder / "hosts").write_text("".join(f"127.0.0.1 {name}\n" for name in NAMES))
    (folder / "gitconfig").write_text('[http]\n\textraHeader = "X-Leak: system"\n\tsslVerify = false\n')
    server = subprocess.Popen(
        ["unshare", "--net", "--mount", sys.executable, str(REPOSITORY / "tests" / "git_server.py"), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        assert server.stdout.readline() == "ready\n"
        yield World(folder, server.pid, commits)
    finally:
        server.stdin.close()
        server.wait(timeout=30)
        shutil.rmtree(folder / "etc")


NEWEST = "name: number 2\n"


@pytest.mark.parametrize("ref", ["", "@v1", "@main"])
def test_a_module_comes_by_https(ref: str, world: World) -> None:
    assert world.fetch(f"git.example/a/modules{ref}") == {"text": NEWEST, "commit": world.commits[2]}
    assert world.connections() == {PUBLIC[0]}


@pytest.mark.parametrize("digits", [7, 12, 40])
def test_a_commit_comes_by_https(digits: int, world: World) -> None:
    found = world.fetch(f"git.example/a/modules@{world.commits[1][:digits]}")
    assert found == {"text": "name: number 1\n", "commit": world.commits[1]}


def test_a_port_may_be_named(world: World) -> None:
    assert world.fetch("git.example:443/a/modules")["text"] == NEWEST
    assert "can't be reached" in world.fetch("git.example:8443/a/modules")["error"]


def test_a_certificate_of_nobody_known_is_refused(world: World) -> None:
    message = world.fetch("git.example/a/modules", trusts=False)["error"]
    assert "its certificate is not valid" in message
    assert world.requests() == []


def test_a_certificate_of_another_name_is_refused(world: World) -> None:
    assert "its certificate is not valid" in world.fetch("wrong.example/a/modules")["error"]
    assert world.requests() == []


@pytest.mark.parametrize(("owner", "address"), [("to-other", PUBLIC[1]), ("to-itself-relative", PUBLIC[0])])
def test_a_redirect_to_another_public_server_is_followed(owner: str, address: str, world: World) -> None:
    assert world.fetch(f"git.example/{owner}/modules@v1")["text"] == NEWEST
    assert world.connections() == {PUBLIC[0], address}
    # git itself goes to the right place at once.
    assert {
        request["address"] for request in world.requests() if "deepsquare" not in request["headers"]["User-Agent"]
    } == {address}


@pytest.mark.parametrize(
    ("owner", "words"),
    [
        ("to-http", "something else than https"),
        ("to-file", "something else than https"),
        ("to-userinfo", "something else than https"),
        ("to-loopback", "127.0.0.1 is an address"),
        ("to-number", "2130706433 is an address"),
        ("to-hexadecimal", "0x7f.1 is an address"),
        ("to-metadata", "169.254.169.254 is an address"),
        ("to-private", "10.0.0.5 is an address"),
        ("to-mapped", "no name of a host"),
        ("to-private-name", "private.example has no address, or one that is not public"),
        ("to-port", "redirects to port 8443"),
        ("to-login", "redirects to what is no git repository"),
        ("to-nonsense", "redirects to what is no URL"),
        ("to-loop", "redirects more than 3 times"),
    ],
)
def test_other_redirects_are_refused(owner: str, words: str, world: World) -> None:
    assert owner in REDIRECTS
    message = world.fetch(f"git.example/{owner}/modules")["error"]
    assert words in message
    assert "the-secret" not in message
    assert world.connections() == {PUBLIC[0]}


def test_a_redirect_for_git_alone_is_not_followed(world: World) -> None:
    assert "git failed" in world.fetch("git.example/late-redirect/modules")["error"]
    assert world.connections() == {PUBLIC[0]}


@pytest.mark.parametrize("ref", ["main", "1111111"])
def test_objects_elsewhere_are_not_fetched(ref: str, world: World) -> None:
    """A server of the old protocol could send git to any address."""
    assert "git failed: " in world.fetch(f"git.example/dumb/modules@{ref}")["error"]
    assert world.connections() == {PUBLIC[0]}


@pytest.mark.parametrize("address", [*PRIVATE, "::1", "::ffff:10.0.0.5"])
def test_a_name_of_a_private_address_is_refused(address: str, world: World) -> None:
    message = world.fetch("git.example/a/modules", git_example=[[address]])["error"]
    assert "not public" in message
    assert "not public" in world.fetch("git.example/a/modules", git_example=[[PUBLIC[0], address]])["error"]
    assert world.connections() == set()


def test_a_name_that_changes_its_address_is_asked_once(world: World) -> None:
    """The second answer, and that of the system to git, is a private address."""
    found = world.fetch("git.example/a/modules@v1", git_example=[[PUBLIC[0]], ["127.0.0.1"]])
    assert found["text"] == NEWEST
    assert world.connections() == {PUBLIC[0]}


def test_an_address_that_does_not_answer_is_followed_by_the_next(world: World) -> None:
    unreachable = "93.184.215.99"
    assert world.fetch("git.example/a/modules", git_example=[[unreachable, PUBLIC[0]]])["text"] == NEWEST
    assert "can't be reached" in world.fetch("git.example/a/modules", git_example=[[unreachable]])["error"]


@pytest.fixture
def traps(tmp_path: Path) -> dict[str, str]:
    """An environment full of credentials, settings and proxies that must go nowhere."""
    (tmp_path / ".netrc").write_text("".join(f"machine {name} login me password the-secret\n" for name in NAMES))
    (tmp_path / ".netrc").chmod(0o600)
    (tmp_path / ".git-credentials").write_text("".join(f"https://me:the-secret@{name}\n" for name in NAMES))
    (tmp_path / ".gitconfig").write_text('[credential]\n\thelper = store\n[http]\n\textraHeader = "X-Leak: home"\n')
    (tmp_path / "askpass").write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\necho the-secret\n")
    (tmp_path / "askpass").chmod(0o755)
    nowhere = "http://127.0.0.1:9"
    return {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
        "NETRC": str(tmp_path / ".netrc"),
        "GIT_ASKPASS": str(tmp_path / "askpass"),
        "SSH_ASKPASS": str(tmp_path / "askpass"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "http.extraHeader",
        "GIT_CONFIG_VALUE_0": "X-Leak: environment",
        "GIT_CONFIG_PARAMETERS": "'http.extraHeader'='X-Leak: parameters'",
        "GIT_SSL_NO_VERIFY": "1",
        "GIT_TRACE_CURL": str(tmp_path / "trace"),
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), nowhere),
    }


@pytest.mark.parametrize("owner", ["a", "private", "late-private"])
def test_nothing_of_the_operator_is_sent(owner: str, world: World, traps: dict[str, str], tmp_path: Path) -> None:
    found = world.fetch(f"git.example/{owner}/modules@v1", env=traps)
    assert found.get("text") == (NEWEST if owner == "a" else None)
    assert world.requests()
    for request in world.requests():
        headers = {name.lower(): value for name, value in request["headers"].items()}
        assert not {"authorization", "x-leak", "cookie", "proxy-authorization"} & set(headers)
        assert headers["host"] == "git.example"
    assert "the-secret" not in json.dumps(world.requests())
    assert not (tmp_path / "asked").exists()
    assert not (tmp_path / "trace").exists()
    assert world.connections() == {PUBLIC[0]}


def test_what_is_private_or_no_repository_is_told(world: World) -> None:
    message = world.fetch("git.example/private/modules")["error"]
    assert message == "git.example has no such public repository (it answered 401); private ones can't be used"
    assert "it answered 404" in world.fetch("git.example/a/nothing")["error"]
    assert "something else than a git repository" in world.fetch("git.example/page/modules")["error"]
    message = world.fetch("git.example/late-private/modules")["error"]
    assert message.startswith("git failed: ")
    assert "password" not in message
    assert message.isprintable()


@pytest.mark.parametrize(("owner", "words"), [("slow", "too slow"), ("drip", "git.example did not answer in time")])
def test_a_slow_server_is_given_up(owner: str, words: str, world: World) -> None:
    started = time.monotonic()
    assert words in world.fetch(f"git.example/{owner}/modules", seconds=3)["error"]
    assert time.monotonic() - started < 10
