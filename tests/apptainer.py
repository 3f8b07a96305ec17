"""A real Apptainer and images for the tests, made once a machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

# What is there and up to date is left alone.
_CACHE = Path(os.environ.get("DEEPSQUARE_TEST_CACHE", "/var/cache/deepsquare-tests"))
_SCRIPTS = REPOSITORY / "integration" / "apptainer"
IMAGES = _CACHE / "images"


def grid_options(*images: str) -> list[str | Path]:
    """The options of `grid up` and `demo` with which a grid has these images, and a program that runs them."""
    if os.geteuid() != 0:
        pytest.fail("Apptainer is put into a folder for all accounts, which only root can do: run these tests as root")
    if found := shutil.which("apptainer"):
        program = Path(found)
    else:
        subprocess.run([_SCRIPTS / "install", _CACHE / "apptainer"], check=True)
        program = _CACHE / "apptainer" / "bin" / "apptainer"
    subprocess.run([_SCRIPTS / "images", IMAGES, "--apptainer", program, *images], check=True)
    return ["--images", IMAGES, "--apptainer", program]
