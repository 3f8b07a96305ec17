"""What every test of the repository may use: a real Slurm cluster."""

import sys
from pathlib import Path

import pytest

# Tests are imported by their paths; the plugin below has a name, which is looked up here.
sys.path.insert(0, str(Path(__file__).resolve().parent))

pytest_plugins = ["tests.cluster"]


_SHARED = {"slurm_grid": "slurm", "ssh_grid": "ssh", "slurm_cluster": "ssh", "local_grid": "local"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share a grid or a cluster in one of the processes that run tests side by side, and each file in one."""
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        used |= {
            f"{value}_grid"
            for value in getattr(getattr(item, "callspec", None), "params", {}).values()
            if isinstance(value, str)
        }
        shared = [group for name, group in _SHARED.items() if name in used]
        item.add_marker(pytest.mark.xdist_group(shared[0] if shared else item.nodeid.split("::")[0]))
