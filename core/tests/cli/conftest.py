"""The command with a home of its own, and the real chain of the chain's tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from deepsquare.cli.app import add_commands, app
from deepsquare.errors import DeepSquareError
from typer.testing import CliRunner

from core.tests.chain.conftest import parties

__all__ = ["parties"]


class Said(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, which nothing in the environment overrules."""
    for name in [name for name in os.environ if name.startswith("DEEPSQUARE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DEEPSQUARE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def cli(home: Path) -> Callable[..., Said]:
    """Run the command in this process."""
    add_commands()

    def run(*arguments: str, **options: Any) -> Said:
        result = CliRunner().invoke(app, arguments, **options)
        if result.exception is None or isinstance(result.exception, SystemExit):
            return Said(result.exit_code, result.stdout, result.stderr)
        if not isinstance(result.exception, DeepSquareError):
            raise result.exception
        return Said(result.exit_code, result.stdout, result.stderr + str(result.exception))

    return run
