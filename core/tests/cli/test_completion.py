"""What the shell completes, and that asking for it loads nothing heavy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from deepsquare import contexts
from deepsquare.chain.wallet import Wallet

from core.tests.cli.test_start_up import HEAVY


@pytest.fixture
def known(home: Path) -> Path:
    """A home with a context and a wallet."""
    wallet = Wallet.create(contexts.wallet_file("alice"), "secret", scrypt_n=2)
    contexts.save(
        contexts.Context(
            name="production",
            chain_id=1,
            rpc_url="http://127.0.0.1:1",
            metascheduler="0x" + "1" * 40,
            sbatch_url="http://127.0.0.1:2/graphql",
            sbatch_grpc="127.0.0.1:2",
            logger_grpc="127.0.0.1:3",
            account=wallet.address,
            wallet="alice",
        )
    )
    return home


def deepsquare(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "deepsquare", *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("deepsquare wal", "wallet"),
        ("deepsquare credit tr", "transfer"),
        ("deepsquare context use p", "production"),
        ("deepsquare context add x --wallet a", "alice"),
    ],
)
def test_commands_and_names_are_completed(known: Path, typed: str, completed: str) -> None:
    words = typed.split()
    result = deepsquare(_DEEPSQUARE_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=str(len(words) - 1))
    assert result.stdout.split() == [completed], result.stderr


def test_completing_a_name_loads_nothing_heavy(known: Path) -> None:
    script = (
        "import sys\n"
        "from deepsquare.cli import main\n"
        "sys.argv = ['deepsquare']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print(*sorted({{name.partition('.')[0] for name in sys.modules}} & {HEAVY!r}), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ
        | {"_DEEPSQUARE_COMPLETE": "complete_bash", "COMP_WORDS": "deepsquare context use p", "COMP_CWORD": "3"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (result.stdout.split(), result.stderr.split()) == (["production"], [])


@pytest.mark.parametrize(("shell", "file"), [("bash", ".bashrc"), ("zsh", ".zshrc")])
def test_completion_is_installed_for_the_shell(home: Path, tmp_path: Path, shell: str, file: str) -> None:
    variables = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    assert "_DEEPSQUARE_COMPLETE" in deepsquare("--show-completion", shell, **variables).stdout
    assert deepsquare("--install-completion", shell, **variables).returncode == 0
    assert (tmp_path / file).exists()
