"""How long the command line takes to start, and what its commands take that use the chain; beside a bare `python -c pass`."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from client_market import WORKFLOW, stage, table
from deepsquare import Client
from deepsquare.workflow import from_dict

DEEPSQUARE = str(Path(sys.executable).parent / "deepsquare")
# As keystores are made.
SCRYPT_N = 1 << 18

_TELL_WEB3 = "import sys; print('web3' in sys.modules, file=sys.stderr)"
# Runs a command as its entry point does, with the parts timed that matter; the last line on stderr tells.
_IN_PARTS = """
import json, sys, time
began = time.perf_counter()
import deepsquare.client.client
imported = time.perf_counter() - began
from deepsquare import contexts
opening, open_wallet = 0.0, contexts.open_wallet

def timed(context, **options):
    global opening
    began = time.perf_counter()
    try:
        return open_wallet(context, **options)
    finally:
        opening += time.perf_counter() - began

contexts.open_wallet = timed
from deepsquare.cli import main
try:
    main()
finally:
    print(json.dumps([imported, opening]), file=sys.stderr)
"""
_COMMAND = """
import sys
from deepsquare.cli import main
try:
    main()
finally:
    print('web3' in sys.modules, file=sys.stderr)
"""


def timed(command: Sequence[str]) -> tuple[float, str]:
    """Seconds of a fresh process, and what it says last on stderr."""
    began = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return time.perf_counter() - began, done.stderr.rpartition("\n")[0].rpartition("\n")[2]


def median(command: Sequence[str], runs: int) -> float:
    """The median of some runs, after one that warms caches."""
    return statistics.median([timed(command)[0] for _ in range(runs + 1)][1:])


def without_chain(runs: int, workflow: Path) -> float:
    """Print the start of what needs no chain; the seconds of a bare Python."""
    python = [sys.executable, "-c"]
    commands: list[tuple[str, list[str], list[str]]] = []
    for code in (
        "pass",
        "import deepsquare",
        "import deepsquare.client",
        "from deepsquare import Client",
        "import web3",
    ):
        name = f"`{code}`" if code != "pass" else "`python -c pass`"
        commands.append((name, [*python, code], [*python, f"{code}\n{_TELL_WEB3}"]))
    for what, arguments in (
        ("`deepsquare --help`", ["--help"]),
        ("`deepsquare workflow validate`", ["workflow", "validate", str(workflow)]),
    ):
        commands.append((what, [DEEPSQUARE, *arguments], [*python, _COMMAND, *arguments]))
    rows: list[tuple[object, ...]] = []
    base = 0.0
    for what, command, telling in commands:
        took = median(command, runs)
        base = base or took
        rows.append((what, f"{took:.3f}", f"{took / base:.1f}", "yes" if timed(telling)[1] == "True" else "no"))
    table(f"a fresh process, median of {runs}", "seconds", "ratio", "web3 is imported", rows=rows)
    return base


def in_parts(arguments: Sequence[str]) -> tuple[float, float, float]:
    """Of one run of a command: seconds of importing the client, of opening the wallet, and of all else."""
    took, told = timed([sys.executable, "-c", _IN_PARTS, *arguments])
    imports, wallet = json.loads(told)
    return imports, wallet, took - imports - wallet


async def with_chain(runs: int, workflow: Path, base: float) -> None:
    """Print what commands take that use the chain, and how much of it imports and the wallet are."""
    async with stage(scrypt_n=SCRYPT_N):
        async with Client() as client:
            job = await client.submit(from_dict(WORKFLOW), credits=1)
        rows: list[tuple[object, ...]] = []
        for name, arguments in (
            ("credit balance", ["credit", "balance"]),
            ("job list", ["job", "list"]),
            ("job show ID", ["job", "show", job.id]),
            ("allowance show", ["allowance", "show"]),
            ("estimate FILE", ["estimate", str(workflow)]),
            ("submit FILE --credits 1", ["submit", str(workflow), "--credits", "1"]),
        ):
            took = await asyncio.to_thread(median, [DEEPSQUARE, *arguments], runs)
            parts = [await asyncio.to_thread(in_parts, arguments) for _ in range(runs)]
            each = [f"{statistics.median(one):.2f}" for one in zip(*parts, strict=True)]
            rows.append((f"`deepsquare {name}`", f"{took:.2f}", f"{took / base:.0f}", *each))
        table(
            f"with the chain, median of {runs}",
            *("seconds", "ratio to `python -c pass`", "of it: importing the client", "opening the wallet", "the rest"),
            rows=rows,
        )


def run(quick: bool) -> None:
    """Start, and print."""
    runs = 3 if quick else 11
    with tempfile.TemporaryDirectory() as folder:
        workflow = Path(folder) / "true.json"
        workflow.write_text(json.dumps(WORKFLOW))
        base = without_chain(runs, workflow)
        asyncio.run(with_chain(runs, workflow, base))
