"""A newcomer without root, Slurm, Node or the tools of bioinformatics: from a clone, and from the wheels alone."""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.conftest import BIN, REPOSITORY

pytestmark = pytest.mark.slurm

HIDDEN = re.compile(
    r"node|nodejs|npm|npx|bwa|samtools|bcftools|wgsim.*|uv|uvx|sudo|anvil|s(batch|run|cancel|queue|info|acct|control)|scontrol"
)
# How this machine reaches its package registries.
REGISTRIES = re.compile(r"(PIP|UV|NPM|SSL|NODE|REQUESTS|CURL)_.*|.*_proxy", re.IGNORECASE)
CONFIGURATION = (".npmrc", ".config/pip/pip.conf", ".config/uv/uv.toml")
SAME = re.compile(r"variants: 0 private to the local run, 0 private to the grid run, [1-9]\d* shared")


@dataclass
class Newcomer:
    """An ordinary account of this machine."""

    name: str
    home: Path

    def run(self, *command: str | Path, cwd: Path | None = None, check: bool = True) -> str:
        """Run a command as this account and return what it said on both outputs."""
        entry = pwd.getpwnam(self.name)
        environment = {name: value for name, value in os.environ.items() if REGISTRIES.fullmatch(name)}
        environment |= {"HOME": str(self.home), "USER": self.name, "PATH": str(self.home / "bin"), "LANG": "C.UTF-8"}
        result = subprocess.run(
            [str(part) for part in command],
            user=entry.pw_uid,
            group=entry.pw_gid,
            extra_groups=[],
            env=environment,
            cwd=cwd or self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
        if check and result.returncode != 0:
            pytest.fail(f"{command} exited with {result.returncode}\n{result.stdout[-6000:]}")
        return result.stdout

    def processes(self) -> list[str]:
        uid = pwd.getpwnam(self.name).pw_uid
        found = psutil.process_iter(["uids", "cmdline", "status"])
        # What has ended waits for its parent to take notice.
        alive = [process.info for process in found if process.info["status"] != psutil.STATUS_ZOMBIE]
        return [" ".join(info["cmdline"] or []) for info in alive if info["uids"].real == uid]

    def own(self, *paths: Path) -> None:
        subprocess.run(["chown", "-R", f"{self.name}:", *paths], check=True)


@pytest.fixture
def newcomer() -> Iterator[Newcomer]:
    if os.geteuid() != 0:
        pytest.fail("this test makes an account, which only root can do: run it as root")
    name = f"dsq-new-{secrets.token_hex(3)}"
    subprocess.run(["useradd", "--create-home", "--user-group", name], check=True)
    home = Path(pwd.getpwnam(name).pw_dir)
    try:
        programs = home / "bin"
        programs.mkdir()
        for folder in ("/usr/local/bin", "/usr/bin", "/bin"):
            for program in Path(folder).iterdir():
                if not HIDDEN.fullmatch(program.name) and not (programs / program.name).is_symlink():
                    (programs / program.name).symlink_to(program)
        # This machine's Python may lie in root's home; Debian's is everybody's.
        for alias in ("python3", "python"):
            (programs / alias).unlink(missing_ok=True)
            (programs / alias).symlink_to("/usr/bin/python3")
        for path in CONFIGURATION:
            if (Path.home() / path).exists():
                (home / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(Path.home() / path, home / path)
        made = Newcomer(name, home)
        made.own(home)
        yield made
    finally:
        subprocess.run(["pkill", "-KILL", "-u", name], check=False)
        until = time.monotonic() + 10
        while subprocess.run(["pgrep", "-u", name], check=False, capture_output=True).returncode == 0:
            assert time.monotonic() < until, f"processes of {name} don't end"
            time.sleep(0.1)
        subprocess.run(["userdel", "--remove", name], check=True, capture_output=True)


def test_make_demo_in_a_clone(newcomer: Newcomer) -> None:
    clone = newcomer.home / "deepsquare"
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, tracked.split("\0")):
        if (REPOSITORY / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, clone / name)
    newcomer.own(clone)

    said = newcomer.run("make", "demo", cwd=clone)

    assert "scheduler: local, on this machine alone (Slurm is not installed here)" in said
    assert said.count(f"jobs share your own account {newcomer.name}") == 1
    assert "installing Node from PyPI" in said
    assert "the pipeline in pure Python" in said
    assert "18 jobs" in said
    assert SAME.search(said), said[-3000:]

    again = newcomer.run("make", "demo", cwd=clone)
    assert "Nothing to be done" in again
    assert SAME.search(again)

    command = clone / ".venv/bin/deepsquare"
    assert "WRONG" not in newcomer.run(command, "cost", "--check")
    assert "FAIL" not in newcomer.run(command, "doctor")
    newcomer.run(command, "grid", "down")
    assert newcomer.processes() == []


def test_the_wheels_alone(newcomer: Newcomer, tmp_path: Path) -> None:
    wheels = newcomer.home / "wheels"
    for distribution in ("core", "plugins/snakemake"):
        # A copy, since building leaves files behind.
        source = tmp_path / distribution
        shutil.copytree(
            REPOSITORY / distribution, source, ignore=shutil.ignore_patterns("__pycache__", "tests", "dist")
        )
        subprocess.run(
            [BIN / "hatchling", "build", "-t", "wheel", "-d", wheels], cwd=source, check=True, capture_output=True
        )
    # The versions that the project is tested with; whoever installs the wheels gets the newest.
    pins = re.findall(r"^([a-z0-9-]+==\S+)", (REPOSITORY / "requirements/dev.txt").read_text(), re.MULTILINE)
    (wheels / "constraints.txt").write_text("\n".join(pins) + "\n")
    newcomer.own(wheels)
    environment = newcomer.home / "env"
    newcomer.run("python3", "-m", "venv", environment)
    core, plugin = sorted(wheels.glob("*.whl"))
    newcomer.run(
        environment / "bin/pip",
        "install",
        "--quiet",
        "--constraint",
        wheels / "constraints.txt",
        f"{core}[demo]",
        plugin,
    )
    command = environment / "bin/deepsquare"

    said = newcomer.run(command, "demo", "--quick")
    assert "scheduler: local" in said
    assert SAME.search(said), said[-3000:]
    assert "WRONG" not in newcomer.run(command, "cost", "--check")
    assert "FAIL" not in newcomer.run(command, "doctor")
    newcomer.run(command, "grid", "down")
    assert newcomer.processes() == []

    newcomer.run(command, "grid", "up")
    workflow = newcomer.home / "hello.json"
    shutil.copy(REPOSITORY / "docs/examples/hello.yaml", workflow)
    newcomer.own(workflow)
    assert "[FINISHED]" in newcomer.run(command, "submit", workflow, "--credits", "5", "--watch")
    newcomer.run(command, "grid", "down")
    assert newcomer.processes() == []


def test_without_the_extra_one_line_says_what_to_install(tmp_path: Path) -> None:
    # psutil comes with the extra `grid`; here it can't be imported.
    code = """
import sys
sys.modules["psutil"] = None
sys.argv = ["deepsquare", "grid", "status"]
from deepsquare.cli import main
main()
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"DEEPSQUARE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == "deepsquare: this command needs psutil, which comes with: pip install 'deepsquare[grid]'\n"
