"""The artifacts that the Python package ships are those of the sources, byte for byte."""

import subprocess
from pathlib import Path

CONTRACTS = Path(__file__).resolve().parents[1]
SHIPPED = CONTRACTS.parent / "core" / "src" / "deepsquare" / "chain" / "artifacts"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.json")}


def test_a_rebuild_gives_the_shipped_bytes(tmp_path):
    done = subprocess.run([CONTRACTS / "build", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    rebuilt, shipped = contents(tmp_path), contents(SHIPPED)
    assert rebuilt.keys() == shipped.keys()
    stale = [name for name, content in rebuilt.items() if content != shipped[name]]
    assert not stale, f"run contracts/build and commit the artifacts: {', '.join(sorted(stale))} differ"
