"""A node that runs compiled scripts for real, with a small double of srun first on PATH."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from deepsquare.compiler import compile_workflow
from deepsquare.workflow import from_dict

# Notes the words that it was given and becomes the program that it was asked to start: signals reach that one.
SRUN = """\
#!/bin/bash
printf '%s\\0' "$#" "$@" >>"${0%/*}/../srun-calls"
while [[ $1 == -* ]]; do shift; done
exec "$@"
"""


@dataclass(frozen=True)
class Ended:
    code: int
    output: bytes
    errors: bytes

    @property
    def text(self) -> str:
        return self.output.decode()


@dataclass
class Node:
    """One job's view of a provider's node. Each job has its own, unless a test starts one twice."""

    folder: Path
    job_name: str = "0x2a"
    job_id: str = "7"
    variables: dict[str, str] = field(default_factory=dict)
    as_user: dict[str, Any] = field(default_factory=dict)
    starts: int = 0

    def __post_init__(self) -> None:
        self.programs = self.folder / "programs"
        self.programs.mkdir(parents=True)
        self.add_program("srun", SRUN)

    def add_program(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    @property
    def shared(self) -> Path:
        return self.folder / "shared" / str(self.as_user.get("user", os.getuid()))

    @property
    def scratch(self) -> Path:
        return self.shared / f"{self.job_name}.{self.job_id}"

    @property
    def private(self) -> Path:
        return self.shared / f".{self.job_name}.{self.job_id}"

    def start(self, job: dict[str, Any] | str) -> subprocess.Popen[bytes]:
        self.starts += 1
        script = self.folder / f"script-{self.starts}"
        script.write_text(job if isinstance(job, str) else compile_workflow(from_dict(job)))
        roots = {
            "DEEPSQUARE_SHARED_ROOT": "shared",
            "DEEPSQUARE_PERSISTENT_ROOT": "persistent",
            "DEEPSQUARE_WORLD_TMP_ROOT": "world-tmp",
            "DEEPSQUARE_DISK_ROOT": "disk",
        }
        environment = {name: str(self.folder / folder) for name, folder in roots.items()} | {
            "PATH": f"{self.programs}:/usr/bin:/bin",
            "SLURM_JOB_NAME": self.job_name,
            "SLURM_JOB_ID": self.job_id,
        }
        return subprocess.Popen(
            ["/bin/bash", str(script)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=environment | self.variables,
            **self.as_user,
        )

    def run(self, job: dict[str, Any] | str) -> Ended:
        process = self.start(job)
        try:
            output, errors = process.communicate(timeout=20)
        finally:
            process.kill()
        return Ended(process.returncode, output, errors)

    def srun_calls(self) -> list[list[str]]:
        path = self.folder / "srun-calls"
        words: Iterator[str] = iter(path.read_text().split("\0")[:-1] if path.exists() else [])
        return [list(itertools.islice(words, int(count))) for count in words]


@pytest.fixture(scope="session")
def new_node(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Node]:
    """Makes nodes; for properties, whose examples need one each."""
    folder = tmp_path_factory.mktemp("nodes")
    numbers = itertools.count()
    return lambda **options: Node(folder / f"node {next(numbers)}", **options)


@pytest.fixture
def node(new_node: Callable[..., Node]) -> Node:
    return new_node()


def files_in(script: str) -> dict[str, str]:
    """What a script writes below its private folder, by here-documents."""
    files = {}
    lines = iter(script.split("\n"))
    for line in lines:
        if found := _WRITES.fullmatch(line):
            files[found["name"]] = "\n".join(itertools.takewhile(lambda text: text != found["end"], lines))
    return files


_WRITES = re.compile(r"""cat >"\$private/(?P<name>[^"]+)" <<'(?P<end>END_OF_FILE_\d+)' \|\| no_room""")
# The customer's own text, and what other programs read.
_OTHERS = re.compile(r"command-.*|if-.*|environment|.*\.curl|interfaces-.*|vnet-.*")


def scripts_in(script: str) -> dict[str, str]:
    """The script, and what it writes that is shell, by name."""
    return {"script": script} | {name: text for name, text in files_in(script).items() if not _OTHERS.fullmatch(name)}


@pytest.fixture(scope="session")
def complaints() -> Callable[[dict[str, Any]], str]:
    """What shellcheck and bash say of a job's script, and of all that it writes, down to matters of style."""

    def check(job: dict[str, Any]) -> str:
        said = ""
        for name, text in scripts_in(compile_workflow(from_dict(job))).items():
            # The files that they read are written by the script, and are not there to be followed.
            options = ["--norc", "--severity=style", "--shell=bash", "--exclude=SC1090,SC1091", "-"]
            for command in (["bash", "-n"], ["shellcheck", *options]):
                checked = subprocess.run(command, check=False, input=text, capture_output=True, text=True)
                if checked.stdout + checked.stderr:
                    said += f"{name}: {checked.stdout}{checked.stderr}"
        return said

    return check


@pytest.fixture(scope="session")
def job():
    """A job of these commands (text, or a whole `run`) as plain data, with changes of its fields."""

    def build(*commands: str | dict[str, Any], **fields: Any) -> dict[str, Any]:
        runs = [{"command": command} if isinstance(command, str) else command for command in commands]
        return {
            "resources": {"tasks": 2, "cpusPerTask": 4, "memPerCpu": 512, "gpus": 2},
            "steps": [{"run": run} for run in runs],
        } | fields

    return build


@pytest.fixture(scope="session")
def variables():
    """A list of variables as the workflow file has it."""
    return lambda **values: [{"key": key, "value": value} for key, value in values.items()]
