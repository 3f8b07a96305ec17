"""Roots of images for the tests that push or change them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.apptainer import IMAGES, grid_options


@contextmanager
def busybox_root() -> Iterator[Path]:
    """The root of the image busybox, as a folder that the test may change."""
    grid_options("busybox")
    folder = Path(tempfile.mkdtemp(prefix="deepsquare-root-", dir="/tmp"))
    try:
        unpack = ["unsquashfs", "-quiet", "-no-progress", "-d", folder / "root", IMAGES / "busybox.sqsh"]
        subprocess.run(unpack, check=True, stdout=subprocess.DEVNULL)
        yield folder / "root"
    finally:
        shutil.rmtree(folder)
