"""What the client costs: buying jobs, watching them, starting, and what it asks the node for; beside a baseline of the same run.

    .venv/bin/python tests/bench/client.py [submit|watch|start|calls ...] [--quick]

Starts chains, markets and sbatch APIs of its own, prints tables in Markdown, and stops them. Needs no Slurm, and not root.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# For programs that are started from here, too.
sys.path.insert(0, str(REPOSITORY))

PARTS = ("submit", "watch", "start", "calls")


def main() -> None:
    """Measure the parts that are asked for, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all of them when left out")
    parser.add_argument("--quick", action="store_true", help="a small run, to see that it works")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no part {sorted(unknown)[0]!r}: the parts are {', '.join(PARTS)}")
    for part in arguments.parts or PARTS:
        print(f"\n## {part}", flush=True)
        importlib.import_module(f"client_{part}").run(arguments.quick)


if __name__ == "__main__":
    main()
