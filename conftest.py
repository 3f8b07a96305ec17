"""What every test of the repository may use: a real Slurm cluster."""

import sys
from pathlib import Path

# Tests are imported by their paths; the plugin below has a name, which is looked up here.
sys.path.insert(0, str(Path(__file__).resolve().parent))

pytest_plugins = ["tests.cluster"]
