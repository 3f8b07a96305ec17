"""The contracts' own tests: unit, fuzz and invariant tests in Solidity."""

import os
import subprocess
import sys
from pathlib import Path

CONTRACTS = Path(__file__).resolve().parents[1]


def test_forge_tests_pass():
    # The program itself: npm's wrapper around it ends with 0, however the tests end.
    (forge,) = (CONTRACTS / "node_modules" / "@foundry-rs").glob("forge-*/bin/forge")
    done = subprocess.run(
        [forge, "test"],
        cwd=CONTRACTS,
        # integration/setup puts a Node there when the machine has none.
        # The gas of each call is that of the committed snapshots.
        env={
            **os.environ,
            "NO_COLOR": "1",
            "FORGE_SNAPSHOT_CHECK": "true",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
