"""An account without any rights for tests, and a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import open_folder


@dataclass(frozen=True)
class TestAccount:
    """Whom commands run as, and where they may write."""

    __test__ = False
    name: str
    home: Path

    def run(
        self, *command: str | Path, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the account, with nothing of the caller's environment but PATH, and return how it ended."""
        return subprocess.run(
            command, **self._options(env), capture_output=True, text=True, timeout=120, check=False, **options
        )

    def start(
        self, *command: str | Path, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """The same without waiting; its output can be read."""
        return subprocess.Popen(command, **self._options(env), stdout=subprocess.PIPE, text=True, **options)

    def _options(self, env: Mapping[str, str] | None) -> dict[str, Any]:
        return {
            "env": {"PATH": os.environ["PATH"], "HOME": str(self.home), **(env or {})},
            "cwd": self.home,
            "user": self.name,
            "group": self.name,
            "extra_groups": [],
        }


@contextmanager
def new_account() -> Iterator[TestAccount]:
    """An account that is there as long as the test."""
    if os.geteuid() != 0:
        pytest.fail("these tests run as an account of their own, which only root can make: run them as root")
    account = TestAccount(f"dsq-{uuid.uuid4().hex[:8]}", open_folder("deepsquare-account-"))
    options = ["--system", "--user-group", "--no-create-home", "--home-dir", account.home]
    subprocess.run(["useradd", *options, account.name], check=True)
    shutil.chown(account.home, account.name, account.name)
    try:
        yield account
    finally:
        subprocess.run(["userdel", account.name], check=True, capture_output=True)
        shutil.rmtree(account.home)
