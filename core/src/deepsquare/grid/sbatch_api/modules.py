"""Modules from git repositories: fetched by https without trusting the server, pinned to a commit, and kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import socket
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import certifi

from deepsquare.files import read_private, write_private
from deepsquare.grid.sbatch_api.addresses import HTTPS_PORT, Finder, GetAddrInfo, check_host
from deepsquare.grid.sbatch_api.git import Git
from deepsquare.workflow.modules import MOST_FILE_BYTES, FetchedModule, ModuleError

FETCH_SECONDS = 30
REF_SECONDS = 60
WAIT_SECONDS = 10
MOST_FETCHES = 4
MOST_ENTRIES = 1000
MOST_PACK_BYTES = 64 << 20
_ABANDONED_SECONDS = 3600
_FILE = "module.yaml"

_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_SOURCE = re.compile(
    rf"(?P<host>[A-Za-z0-9.-]+)(:(?P<port>[0-9]{{1,5}}))?/(?P<owner>{_PART})/(?P<name>{_PART})(?P<folder>(/{_PART})*)"
    r"(@(?P<ref>[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHORT_COMMIT = re.compile(r"[0-9a-f]{7,39}")
# How `git cat-file --batch --follow-symlinks` says that there is no such file, and what that means.
_NO_FILE = {
    "missing": "there is no {path}",
    "dangling": "{path} is a symbolic link to nothing",
    "symlink": "{path} is a symbolic link that leaves the repository",
    "loop": "{path} is a symbolic link to itself",
    "notdir": "{path} lies in what is no folder",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A module's source, taken apart."""

    host: str
    port: int
    repository: str
    """OWNER/REPOSITORY"""
    folder: str
    """Empty for the repository's root."""
    ref: str | None

    @classmethod
    def parse(cls, text: str) -> Source:
        """Take a source apart: HOST[:PORT]/OWNER/REPOSITORY[/FOLDER][@REF].

        Raises:
            ModuleError: it is none.
        """
        match = _SOURCE.fullmatch(text)
        port = int(match["port"] or HTTPS_PORT) if match else 0
        if match is None or ".." in text or not 0 < port < 65536:
            raise ModuleError("the source is not HOST/OWNER/REPOSITORY[/FOLDER][@TAG or commit]")
        check_host(match["host"])
        return cls(
            match["host"].lower(), port, f"{match['owner']}/{match['name']}", match["folder"].strip("/"), match["ref"]
        )

    @property
    def place(self) -> str:
        """HOST:PORT/OWNER/REPOSITORY"""
        return f"{self.host}:{self.port}/{self.repository}"

    def refs(self) -> list[str]:
        """The full names that its ref may have, in their order."""
        if self.ref is None:
            return ["HEAD"]
        in_folder = [f"refs/tags/{self.folder}/{self.ref}"] if self.folder else []
        return [*in_folder, f"refs/tags/{self.ref}", f"refs/heads/{self.ref}"]


class GitModules:
    """Fetches modules; safe to use from several threads, and beside other processes with the same `cache`.

    A branch or tag is looked up each time, at most once a minute; a commit's module is kept in `cache` and fetched once.
    """

    def __init__(
        self,
        cache: Path,
        *,
        file_root: Path | None = None,
        ca_file: Path | None = None,
        getaddrinfo: GetAddrInfo = socket.getaddrinfo,
        most_pack_bytes: int = MOST_PACK_BYTES,
        most_entries: int = MOST_ENTRIES,
        fetch_seconds: float = FETCH_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        """`file_root` (for tests): HOST/OWNER/REPOSITORY is a folder below it, and no network is used. `ca_file`: certificate
        authorities that are trusted beside the usual ones, such as a company's own.

        Raises:
            OSError: `ca_file` can't be read, or is no certificate.
        """
        self._cache = cache
        self._file_root = file_root
        self._ca_file = ca_file
        self._most_pack_bytes = most_pack_bytes
        self._most_entries = most_entries
        self._fetch_seconds = fetch_seconds
        self._wait_seconds = wait_seconds
        self._finder = Finder(getaddrinfo, ca_file)
        self._places = threading.BoundedSemaphore(MOST_FETCHES)
        self._lock = threading.Lock()
        self._commits: dict[tuple[str, str, str], tuple[str, float]] = {}
        self._closed = threading.Event()

    def close(self) -> None:
        """End the fetches that are running; they fail."""
        self._closed.set()
        self._finder.close()

    def fetch(self, source: str, until: float | None = None) -> FetchedModule:
        """The module of HOST/OWNER/REPOSITORY[/FOLDER][@REF]; `until`, on the monotonic clock, bounds its time further.

        It waits, so it is for threads without an event loop.

        Raises:
            ModuleError: there is none, or it can't be fetched; the text says why.
        """
        wanted = Source.parse(source)
        commit = self._known_commit(wanted)
        if commit is not None and (text := self._kept(wanted, commit)) is not None:
            return FetchedModule(text, commit)
        now = time.monotonic()
        until = now + self._fetch_seconds + self._wait_seconds if until is None else until
        if not self._places.acquire(timeout=max(0.0, min(self._wait_seconds, until - now))):
            raise ModuleError("other modules are being fetched, and it is not its turn yet; try again in a minute")
        try:
            return self._fetch(wanted, commit, min(until, time.monotonic() + self._fetch_seconds))
        except OSError as error:
            raise ModuleError(
                f"it can't be kept: {error.strerror or error}; the operator must look at the disk"
            ) from None
        finally:
            self._places.release()

    def _known_commit(self, wanted: Source) -> str | None:
        """The commit of a source as far as it is known without asking."""
        if wanted.ref is not None and _COMMIT.fullmatch(wanted.ref):
            return wanted.ref
        with self._lock:
            commit, known_at = self._commits.get(_key(wanted), (None, 0.0))
        return commit if commit is not None and time.monotonic() - known_at < REF_SECONDS else None

    def _fetch(self, wanted: Source, commit: str | None, until: float) -> FetchedModule:
        self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._tidy_up()
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=self._cache, ignore_cleanup_errors=True) as name:
            folder = Path(name)
            url, config = self._remote(wanted, folder, until)
            if commit is None:
                commit = self._look_up(self._git(folder / "look", config, until), url, wanted)
                with self._lock:
                    self._commits.pop(_key(wanted), None)
                    self._commits[_key(wanted)] = (commit, time.monotonic())
                    while len(self._commits) > self._most_entries:
                        del self._commits[next(iter(self._commits))]
                if (text := self._kept(wanted, commit)) is not None:
                    return FetchedModule(text, commit)
            # A repository of its own: where the history is already, git would take the commit for complete.
            git = self._git(folder / "fetch", config, until)
            git.run(
                *("fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "--filter=blob:limit=129k"),
                *("--no-recurse-submodules", "--", url, commit),
            )
            text = _read(git, wanted, commit)
        self._keep(wanted, commit, text)
        return FetchedModule(text, commit)

    def _git(self, folder: Path, config: list[str], until: float) -> Git:
        return Git(folder, until=until, config=config, most_bytes=self._most_pack_bytes, is_closed=self._closed.is_set)

    def _remote(self, wanted: Source, folder: Path, until: float) -> tuple[str, list[str]]:
        """The repository's URL, and the settings with which git reaches it and nothing else."""
        if self._file_root is not None:
            return f"file://{self._file_root}/{wanted.host}/{wanted.repository}", ["protocol.file.allow=always"]
        found = self._finder.find(wanted.host, wanted.port, f"/{wanted.repository}", until)
        address = f"[{found.address}]" if ":" in found.address else found.address
        # The authorities that httpx has trusted, whatever the system's are.
        trusted = Path(certifi.where())
        if self._ca_file is not None:
            both = trusted.read_bytes() + b"\n" + self._ca_file.read_bytes()
            trusted = folder / "authorities.pem"
            trusted.write_bytes(both)
        config = [
            "protocol.https.allow=always",
            f"http.curloptResolve={found.host}:{found.port}:{address}",
            f"http.sslCAInfo={trusted}",
        ]
        return found.url, config

    def _look_up(self, git: Git, url: str, wanted: Source) -> str:
        """The commit that a source means."""
        if wanted.ref is not None and _SHORT_COMMIT.fullmatch(wanted.ref):
            return _whole_commit(git, url, wanted.ref)
        names = wanted.refs()
        # An annotated tag is an object of its own; behind ^{} is its commit.
        printed = git.run("ls-remote", "--quiet", "--", url, *(f"{name}{end}" for name in names for end in ("", "^{}")))
        found = dict(
            line.split("\t", 1)[::-1] for line in printed.decode("utf-8", "replace").splitlines() if "\t" in line
        )
        for name in names:
            commit = found.get(f"{name}^{{}}") or found.get(name)
            if commit is not None and _COMMIT.fullmatch(commit):
                return commit
        if wanted.ref is None:
            raise ModuleError("the repository is empty: it has no HEAD")
        raise ModuleError(f"the repository has no tag or branch {wanted.ref}; looked for {', '.join(names)}")

    def _path(self, wanted: Source, commit: str) -> Path:
        key = json.dumps([str(self._file_root or ""), wanted.place, wanted.folder, commit])
        return self._cache / f"{hashlib.sha256(key.encode()).hexdigest()}.yaml"

    def _kept(self, wanted: Source, commit: str) -> str | None:
        path = self._path(wanted, commit)
        try:
            text = read_private(path)
            path.touch()
        except (OSError, UnicodeDecodeError):
            return None
        return text

    def _keep(self, wanted: Source, commit: str, text: str) -> None:
        write_private(self._path(wanted, commit), text)
        kept = sorted(self._cache.glob("*.yaml"), key=_modified)
        for path in kept[: max(0, len(kept) - self._most_entries)]:
            path.unlink(missing_ok=True)

    def _tidy_up(self) -> None:
        """Remove what fetches left that were killed."""
        for path in (*self._cache.glob("fetch-*"), *self._cache.glob(".*.yaml.*")):
            if time.time() - _modified(path) > _ABANDONED_SECONDS:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _key(wanted: Source) -> tuple[str, str, str]:
    return wanted.place, wanted.folder, wanted.ref or ""


def _modified(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _whole_commit(git: Git, url: str, short: str) -> str:
    """The commit that begins so: only the history knows which, and whether there is only one."""
    remedy = "write all 40 digits of it"
    try:
        git.run(
            *("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--filter=tree:0", "--no-recurse-submodules"),
            *("--", url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"),
        )
    except ModuleError as error:
        raise ModuleError(f"the commit {short} can't be looked for: {error}; or {remedy}") from None
    try:
        # Without a way to fetch what is missing.
        commit = (
            git.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{short}^{{commit}}", config=())
            .decode()
            .strip()
        )
    except ModuleError:
        raise ModuleError(f"the repository has no commit {short}, or several that begin so; {remedy}") from None
    return commit


def _read(git: Git, wanted: Source, commit: str) -> str:
    """The module's file in a commit that was fetched."""
    path = f"{wanted.folder}/{_FILE}" if wanted.folder else _FILE
    too_large = ModuleError(f"{path} is larger than 128 KiB")
    try:
        # What was left out because it is large must not be fetched now: no protocol is allowed here.
        printed = git.run("cat-file", "--batch", "--follow-symlinks", given=f"{commit}:{path}\n", config=())
    except ModuleError:
        raise too_large from None
    head, _, content = printed.partition(b"\n")
    words = head.decode("utf-8", "replace").split()
    if len(words) == 3 and words[1] == "blob":
        size = int(words[2])
        if size > MOST_FILE_BYTES:
            raise too_large
        try:
            return content[:size].decode()
        except UnicodeDecodeError:
            raise ModuleError(f"{path} is not UTF-8 text") from None
    if len(words) == 3 and words[1] in ("tree", "commit"):
        raise ModuleError(f"{path} is a folder")
    reason = next((text for word, text in _NO_FILE.items() if word in words), "{path} can't be read")
    raise ModuleError(f"{reason.format(path=path)} in commit {commit[:12]}; is the source right?")
