"""The `git` program, as little of it as modules need: no checkout, no hooks, no credentials, nothing of this machine's settings."""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from deepsquare.workflow.modules import ModuleError

# Since then there is http.curloptResolve, by which git connects to the address that was checked.
_OLDEST = (2, 37)
_MEMORY_KB = 2 * 1024 * 1024
_PATIENCE_SECONDS = 0.2
_MOST_ANSWER = 1 << 20
_BLOCK = 512

_CONFIG = (
    "protocol.allow=never",
    "credential.helper=",
    "core.askPass=/bin/false",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    # Large objects are not held in memory, and all comes as one pack, whose size is bounded.
    "core.bigFileThreshold=1m",
    "fetch.unpackLimit=1",
    "transfer.unpackLimit=1",
    "pack.threads=1",
    "fetch.fsckObjects=true",
    "fetch.recurseSubmodules=false",
    "fetch.writeCommitGraph=false",
    "transfer.bundleURI=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "http.followRedirects=false",
    "http.proxy=",
    "http.sslVerify=true",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=10",
    "core.disambiguate=commit",
)
# dash, bash and others count in blocks of 512 bytes here. A limit of memory is not everywhere. Should this process be killed,
# `timeout` ends git in its place.
_LIMITED = """
ulimit -f "$1" || exit
ulimit -v "$2" 2>/dev/null
seconds=$3
shift 3
if command -v timeout >/dev/null; then exec timeout -s KILL "$seconds" "$@"; else exec "$@"; fi
"""
_LATER_SECONDS = 2


class Git:
    """Runs git in a folder of its own, with bounds on time, sizes and memory."""

    def __init__(
        self,
        folder: Path,
        *,
        until: float,
        config: Sequence[str] = (),
        most_bytes: int,
        is_closed: Callable[[], bool] = lambda: False,
    ) -> None:
        """`folder` is made; `until` is on the monotonic clock; `config` are settings NAME=VALUE of these calls alone.

        Raises:
            ModuleError: git is missing or too old.
        """
        self._program = find_git()
        self._folder = folder
        self._until = until
        self._config = config
        self._most_bytes = most_bytes
        self._is_closed = is_closed
        self._home = folder / "home"
        self._home.mkdir(parents=True)
        self.run("init", "--quiet", "--bare", "--template=", "--", str(folder / "git"))

    def run(self, *arguments: str, given: str = "", config: Sequence[str] | None = None) -> bytes:
        """What git prints; `given` is its standard input, `config` takes the place of the settings of these calls.

        Raises:
            ModuleError: it failed, or took too long, or was too much.
        """
        settings = [part for item in (*_CONFIG, *(self._config if config is None else config)) for part in ("-c", item)]
        at = ["-C", str(self._folder / "git")] if (self._folder / "git").exists() else []
        seconds = max(0, math.ceil(self._until - time.monotonic())) + _LATER_SECONDS
        limits = [str(self._most_bytes // _BLOCK), str(_MEMORY_KB), str(seconds)]
        command = ["/bin/sh", "-c", _LIMITED, "sh", *limits, self._program]
        # Files instead of pipes: nothing has to be read while it runs, and the limit of files bounds what it prints.
        with (
            tempfile.TemporaryFile(dir=self._folder) as answer,
            tempfile.TemporaryFile(dir=self._folder) as complaint,
            tempfile.TemporaryFile(dir=self._folder) as question,
        ):
            question.write(given.encode())
            question.seek(0)
            process = subprocess.Popen(
                [*command, *at, *settings, *arguments],
                stdin=question,
                stdout=answer,
                stderr=complaint,
                env=self._environment(),
                cwd=self._folder,
                start_new_session=True,
            )
            try:
                code = self._wait(process)
            finally:
                # Also what it has started.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            complaint.seek(0)
            answer.seek(0)
            if code != 0:
                raise self._failure(complaint.read(_MOST_ANSWER).decode("utf-8", "replace"))
            return answer.read(_MOST_ANSWER + 4096)

    def _environment(self) -> dict[str, str]:
        """Nothing of this process's but where programs are: it may have keys, tokens and proxies."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._home),
            "XDG_CONFIG_HOME": str(self._home),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_SYSTEM": "/dev/null",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "SSH_ASKPASS": "/bin/false",
            # What a filter left out is not asked for later, one git started by another.
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_PROTOCOL_FROM_USER": "0",
            "LC_ALL": "C",
        }

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        while not self._is_closed():
            remaining = self._until - time.monotonic()
            if remaining <= 0:
                raise ModuleError("the git server is too slow; try again, or keep the module in a smaller repository")
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(min(remaining, _PATIENCE_SECONDS))
        raise ModuleError("this service is stopping; try again")

    def _failure(self, complaint: str) -> ModuleError:
        # What is killed for a file that grows too large leaves it as it is.
        sizes = (path.stat().st_size for path in (self._folder / "git").rglob("*"))
        if any(size >= self._most_bytes // _BLOCK * _BLOCK for size in sizes):
            most = f"{self._most_bytes >> 20} MiB" if self._most_bytes >> 20 else f"{self._most_bytes} bytes"
            return ModuleError(f"the repository has more than {most} at this commit; keep modules in a smaller one")
        return ModuleError(f"git failed: {one_line(complaint)}")


def find_git() -> str:
    """Where git is.

    Raises:
        ModuleError: it is missing or too old.
    """
    program = shutil.which("git")
    if program is None:
        raise ModuleError("the program git is missing where workflows are compiled; install it (apt-get install git)")
    printed = subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=False, env={"LC_ALL": "C"}
    ).stdout
    match = re.search(r"(\d+)\.(\d+)", printed)
    if match is None or (int(match[1]), int(match[2])) < _OLDEST:
        raise ModuleError(
            f"the program git ({program}) is older than {'.'.join(map(str, _OLDEST))}; install a newer one"
        )
    return program


def one_line(complaint: str) -> str:
    """Why git failed, in one line; without addresses, and without what the server says for itself."""
    lines = [line for line in complaint.splitlines() if line.startswith(("fatal:", "error:"))]
    text = re.sub(
        r"[a-z+]+://\S+|'/[^']*'?",
        "the repository",
        lines[0].partition(":")[2].strip() if lines else "no reason is given",
    )
    return "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in text)[:200]
