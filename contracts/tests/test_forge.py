"""The contracts' own tests: unit, fuzz and invariant tests in Solidity."""

import os
import subprocess
from pathlib import Path

CONTRACTS = Path(__file__).resolve().parents[1]


def test_forge_tests_pass():
    done = subprocess.run(
        [CONTRACTS / "node_modules" / ".bin" / "forge", "test"],
        cwd=CONTRACTS,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
