"""Steps in containers: what those of Apptainer and of Enroot have in common."""

from __future__ import annotations

import shlex

from deepsquare.compiler.quoting import quote
from deepsquare.workflow.run import Run

ROOT = "/deepsquare"
"""Where a container sees its job's scratch."""

FOLDERS = {
    "DEEPSQUARE_SHARED_TMP": "tmp",
    "DEEPSQUARE_SHARED_WORLD_TMP": "world-tmp",
    "DEEPSQUARE_DISK_TMP": "disk/tmp",
    "DEEPSQUARE_DISK_WORLD_TMP": "disk/world-tmp",
}
"""What a container sees, below ROOT, of what the host has; the variable on both sides."""

COMMAND = f"{ROOT}-command"
"""Where it sees its command, and can't change it."""

HOME = f"{ROOT}/.deepsquare/home"
"""The home of a container that doesn't see the host's."""

INSIDE = {
    "STORAGE_PATH": ROOT,
    "DEEPSQUARE_INPUT": f"{ROOT}/input",
    "DEEPSQUARE_OUTPUT": f"{ROOT}/output",
    # A module's may have another name.
    "DEEPSQUARE_ENV": f'{ROOT}"${{DEEPSQUARE_ENV#"$STORAGE_PATH"}}"',
    "DEEPSQUARE_TMP": f"{ROOT}/tmp",  # noqa: S108 - in a container of its own
} | {name: f"{ROOT}/{folder}" for name, folder in FOLDERS.items()}
"""The variables whose values differ inside, each as a shell word that a shell with the host's values can read."""

X11 = "/tmp/.X11-unix"  # noqa: S108 - the sockets are there on all systems
"""The folder of the X11 sockets."""


def make_places() -> str:
    """A shell line that makes what containers mount on, and the scratch for their /tmp, which would be in memory else."""
    folders = " ".join(f'"$STORAGE_PATH/{folder}"' for folder in FOLDERS.values())
    return f'mkdir -p "$STORAGE_PATH/.deepsquare/container" {folders}'


def command(run: Run) -> str:
    """The words behind the image: the step's shell and its file, or the arguments of the image's entry point."""
    if run.shell == "ENTRYPOINT":
        return " ".join(quote(word) for word in shlex.split(run.command))
    # Many images have no bash.
    return f"{run.shell or '/bin/sh'} {COMMAND}"
