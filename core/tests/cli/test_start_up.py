"""The command starts quickly: what isn't needed is not loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"web3", "grpc", "ariadne", "uvicorn", "cryptography", "eth_account", "keyring", "textual"}


def loaded(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return set(output.splitlines()[-1].split()) & HEAVY


@pytest.mark.parametrize(
    "code",
    [
        "import deepsquare",
        "import deepsquare.workflow",
        "import deepsquare.compiler",
        "import deepsquare.tasks",
        "sys.argv = ['deepsquare', '--help']\nfrom deepsquare.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass",
    ],
)
def test_no_heavy_library_is_loaded(code: str) -> None:
    assert loaded(code) == set()


def run(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "deepsquare", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"DEEPSQUARE_HOME": str(home), "PATH": "/usr/bin:/bin"},
    )


def test_a_mistake_gets_one_line_and_no_traceback(tmp_path: Path) -> None:
    for arguments in (
        ("job", "list"),
        ("context", "use", "nowhere"),
        ("grid", "down", "--state", str(tmp_path / "no")),
    ):
        result = run(*arguments, home=tmp_path)
        assert "Traceback" not in result.stderr + result.stdout
        assert len((result.stderr + result.stdout).splitlines()) == 1
    assert run("job", "list", home=tmp_path).returncode == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("submit", "w.yaml", "--time-limit", "90"), "--time-limit is '90'; write for example"),
        (("submit", "w.yaml", "--credits", "abc"), "--credits is 'abc', which is not a number"),
        (("allowance", "set", "much"), "allowance is 'much'"),
        (("job", "show", "foo"), "'foo' is not a job id"),
        (("job", "logs", "foo"), "'foo' is not a job id"),
        (("job", "cancel", "1", "foo"), "'foo' is not a job id"),
    ],
)
def test_a_value_that_is_none_is_wrong_use(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.yaml").write_text("not a workflow")
    result = run(*arguments, home=tmp_path)
    assert (result.returncode, words in result.stderr) == (2, True), result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_submit_without_a_limit_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text("{}")
    result = run("submit", str(tmp_path / "w.yaml"), home=tmp_path)
    assert result.returncode == 2
    assert "--credits 5 or --time-limit 10m" in result.stderr
