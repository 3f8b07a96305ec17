"""What the language costs: validating and compiling workflows, telling mistakes, importing. Each beside a baseline of the same run.

Usage: .venv/bin/python tests/bench/workflow.py
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import yaml
from deepsquare.compiler import compile_workflow
from deepsquare.workflow import WorkflowError, from_dict, parse

ROUNDS = 7
RESOURCES = {"tasks": 2, "cpusPerTask": 1, "memPerCpu": 100, "gpus": 0}


def workflow(steps: int) -> dict[str, Any]:
    """A workflow of so many commands, each with a variable and every tenth in a container."""
    made = []
    for number in range(steps):
        run: dict[str, Any] = {"command": f"echo 'step {number}'", "env": [{"key": "NUMBER", "value": str(number)}]}
        if number % 10 == 1:
            run["container"] = {"image": "library/alpine:3", "apptainer": True}
        made.append({"name": f"step {number}", "run": run})
    return {"resources": RESOURCES, "enableLogging": True, "steps": made}


def seconds(work: Callable[[], object], least: float = 0.3) -> float:
    """How long a call takes: the median of some rounds, each of as many calls as fill some time."""
    calls = 1
    while True:
        began = time.perf_counter()
        for _ in range(calls):
            work()
        if (took := time.perf_counter() - began) > least / ROUNDS:
            break
        calls *= 2 if took <= 0 else max(2, int(least / ROUNDS / took))
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(calls):
            work()
        rounds.append((time.perf_counter() - began) / calls)
    return statistics.median(rounds)


def imported(module: str) -> float:
    """How long a process takes that imports a module and ends; the least of some."""
    times = []
    for _ in range(15):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
        times.append(time.perf_counter() - began)
    return min(times)


def refuse(plain: dict[str, Any]) -> None:
    """Validate what is not valid."""
    with contextlib.suppress(WorkflowError):
        from_dict(plain)
        raise SystemExit("it was not refused")


def main() -> None:
    print("| what | time | a second | ratio to json.loads of the same |")
    print("|---|---|---|---|")
    for steps in (1, 10, 100, 1000):
        plain = workflow(steps)
        text, lines = json.dumps(plain), yaml.safe_dump(plain)
        valid = from_dict(plain)
        base = seconds(lambda text=text: json.loads(text))
        rows: dict[str, Callable[[], object]] = {
            "validate": lambda plain=plain: from_dict(plain),
            "compile": lambda valid=valid: compile_workflow(valid),
            "both, from JSON": lambda text=text: compile_workflow(parse(text)),
            "both, from YAML": lambda lines=lines: compile_workflow(parse(lines)),
        }
        for name, work in rows.items():
            took = seconds(work)
            print(f"| {steps} steps: {name} | {took * 1000:.3f} ms | {1 / took:,.0f} | {took / base:.0f} |")
    wrong = workflow(1)
    wrong["steps"][0]["run"]["comand"] = "typo"
    took = seconds(lambda: refuse(wrong))
    print(f"| 1 step: tell a mistake | {took * 1000:.3f} ms | {1 / took:,.0f} | |")
    print()
    print("| import | ms |")
    print("|---|---|")
    for module in ("sys", "pydantic.main", "deepsquare.workflow", "deepsquare.compiler"):
        print(f"| {module} | {imported(module) * 1000:.0f} |")


if __name__ == "__main__":
    main()
