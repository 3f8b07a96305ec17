"""`deepsquare wallet`: accounts are made and imported, nothing is overwritten, and secrets are no arguments."""

from __future__ import annotations

import importlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from deepsquare import contexts, passwords
from deepsquare.chain.wallet import Wallet
from deepsquare.errors import ConfigError
from eth_account import Account

from core.tests.cli.conftest import Said

KEY = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
ADDRESS = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"
JUNK = "test test test test test test test test test test test junk"

Cli = Callable[..., Said]


@pytest.fixture(autouse=True)
def cheap_keystores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key derivation is made to be slow."""
    encrypt = Account.encrypt
    monkeypatch.setattr(
        Account, "encrypt", lambda key, password, kdf=None, iterations=None: encrypt(key, password, kdf, iterations=2)
    )


@pytest.fixture
def password(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DEEPSQUARE_WALLET_PASSWORD", "secret")
    return "secret"


def typed(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Somebody at a terminal who answers so; the questions that were asked."""
    asked: list[str] = []
    left = iter(answers)

    def answer(question: str) -> str:
        asked.append(question)
        return next(left)

    monkeypatch.setattr(passwords, "prompt", answer)
    return asked


def test_a_wallet_is_made_with_a_password_that_is_typed_twice(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = typed(monkeypatch, "secret", "secret")
    code, out, err = cli("wallet", "create", "alice")
    assert (code, len(asked)) == (0, 2), err
    wallet = Wallet.open(home / "wallets" / "alice.json", "secret")
    assert out == f"wallet alice is {wallet.address}\n"
    assert [path.name for path in (home / "wallets").iterdir()] == ["alice.json"]
    typed(monkeypatch, "secret", "secrte")
    assert "the two passwords differ" in cli("wallet", "create", "bob").err
    typed(monkeypatch, "")
    assert "is empty" in cli("wallet", "create", "bob").err
    assert [path.name for path in (home / "wallets").iterdir()] == ["alice.json"]


def test_the_password_can_be_kept_in_a_file(cli: Cli, home: Path, password: str) -> None:
    assert cli("wallet", "create", "alice", "--save-password").code == 0
    file = home / "wallets" / "alice.password"
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("secret\n", 0o600)
    assert passwords.find(home / "wallets" / "alice.json") == "secret"


def test_a_password_file_that_is_there_is_used_and_has_to_agree(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "wallets").mkdir(parents=True)
    (home / "wallets" / "alice.password").write_text("from the file\n")
    monkeypatch.setenv("DEEPSQUARE_WALLET_PASSWORD", "another")
    assert "holds another password" in cli("wallet", "create", "alice").err
    monkeypatch.delenv("DEEPSQUARE_WALLET_PASSWORD")
    assert cli("wallet", "create", "alice").code == 0
    Wallet.open(home / "wallets" / "alice.json", "from the file")


def test_a_password_that_is_no_text_is_told(cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSQUARE_WALLET_PASSWORD", os.fsdecode(b"secret\xff"))
    code, _, err = cli("wallet", "create", "alice")
    assert (code, err) == (1, "DEEPSQUARE_WALLET_PASSWORD is not UTF-8 text; correct it")
    assert not home.exists()


def test_a_wallet_is_never_overwritten(cli: Cli, home: Path, password: str) -> None:
    assert cli("wallet", "create", "alice").code == 0
    before = (home / "wallets" / "alice.json").read_bytes()
    for command in (("create", "alice"), ("import", "alice", "--key", "--file", "-")):
        code, _, err = cli("wallet", *command, input=KEY)
        assert (code, "never overwritten" in err) == (1, True)
    assert (home / "wallets" / "alice.json").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "text", "address"),
    [
        (["--mnemonic"], JUNK, "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
        (["--mnemonic", "--path", "m/44'/60'/0'/0/1"], JUNK, "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"),
        (["--key"], KEY, ADDRESS),
        (["--key"], f"0x{KEY.upper()}", ADDRESS),
    ],
)
def test_words_and_keys_come_from_standard_input_a_file_or_the_terminal(
    cli: Cli,
    tmp_path: Path,
    password: str,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    text: str,
    address: str,
) -> None:
    assert f"wallet a is {address}" in cli("wallet", "import", "a", *options, "--file", "-", input=text + "\n").out
    (tmp_path / "words").write_text(text + "\n")
    assert address in cli("wallet", "import", "b", *options, "--file", str(tmp_path / "words")).out
    asked = typed(monkeypatch, text)
    assert address in cli("wallet", "import", "c", *options).out
    assert len(asked) == 1


def test_a_keystore_of_another_program_gets_the_password_of_this_machine(
    cli: Cli, home: Path, tmp_path: Path, password: str
) -> None:
    file = tmp_path / "UTC--keystore"
    file.write_text(json.dumps(Account.encrypt(KEY, " old one ", kdf="pbkdf2", iterations=2)))
    options = ("wallet", "import", "a", "--keystore", "--file", str(file), "--password-file", "-")
    code, _, err = cli(*options, input="wrong\n")
    assert (code, "wrong password for what --file names" in err) == (1, True)
    assert ADDRESS in cli(*options, input=" old one \n").out
    assert Wallet.open(home / "wallets" / "a.json", "secret").address == ADDRESS


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--key", KEY], "never arguments"),
        (["--mnemonic", *JUNK.split()], "never arguments"),
        ([], "either --mnemonic, --key or --keystore"),
        (["--key", "--mnemonic"], "either --mnemonic, --key or --keystore"),
        (["--key", "--path", "m/0"], "--path goes with --mnemonic"),
        (["--key", "--password-file", "x"], "--password-file goes with --keystore"),
        (["--keystore"], "needs --file"),
        (["--keystore", "--file", "-", "--password-file", "-"], "both be standard input"),
        (["--key"], "no terminal"),
        (["--key", "--file", "-", "--save-password", "--keyring"], "exclude each other"),
    ],
)
def test_wrong_use_is_told_without_the_secret(
    cli: Cli, home: Path, password: str, arguments: list[str], words: str
) -> None:
    code, out, err = cli("wallet", "import", "a", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert KEY not in err
    assert "junk" not in err
    assert not home.exists()


@pytest.mark.parametrize("name", ["../x", ".hidden", "a/b", "", "-a", "a b", "a\n", KEY])
def test_a_name_is_a_files_name(cli: Cli, home: Path, password: str, name: str) -> None:
    code, _, err = cli("wallet", "create", "--", name)
    assert (code, KEY in err) == (2, False)
    assert not home.exists()


@pytest.mark.parametrize("file", [KEY, "binary", "long", "folder"])
def test_a_file_that_is_none_is_told_without_its_name(
    cli: Cli, home: Path, tmp_path: Path, password: str, file: str
) -> None:
    (tmp_path / "binary").write_bytes(bytes.fromhex(KEY))
    (tmp_path / "long").write_text("a " * 100_000)
    (tmp_path / "folder").mkdir()
    name = file if file == KEY else str(tmp_path / file)
    code, _, err = cli("wallet", "import", "a", "--key", "--file", name)
    assert (code, err.startswith("the file that --file names"), name in err) == (1, True, False), err
    assert not home.exists()


def test_wallets_are_listed_with_who_uses_them(
    cli: Cli, home: Path, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert json.loads(cli("wallet", "list", "--json").out) == []
    cli("wallet", "import", "a", "--key", "--file", "-", input=KEY)
    for name in ("main", "test"):
        contexts.save(
            contexts.Context(
                name=name,
                chain_id=1,
                rpc_url="http://127.0.0.1:1",
                metascheduler="0x" + "1" * 40,
                sbatch_url="http://127.0.0.1:2/graphql",
                sbatch_grpc="127.0.0.1:2",
                logger_grpc="127.0.0.1:3",
                account=ADDRESS,
                wallet="a",
            )
        )
    (home / "wallets" / "foreign.json").write_text("{}")
    # What one command is told is not what the files say.
    monkeypatch.setenv("DEEPSQUARE_WALLET", "foreign")
    assert json.loads(cli("wallet", "list", "--json").out) == [
        {"name": "a", "address": ADDRESS, "contexts": ["main", "test"]},
        {"name": "foreign", "address": None, "contexts": []},
    ]
    assert cli("wallet", "list").out.splitlines()[1].split() == ["a", ADDRESS, "main,", "test"]


def test_nothing_that_is_typed_at_a_terminal_is_echoed(home: Path) -> None:
    ours, theirs = os.openpty()
    with subprocess.Popen(
        # The terminal is the session's own, as a shell has it.
        [
            "setsid",
            "--ctty",
            "--wait",
            Path(sys.executable).parent / "deepsquare",
            "wallet",
            "import",
            "a",
            "--mnemonic",
        ],
        env=os.environ | {"DEEPSQUARE_HOME": str(home)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        shown = b""
        for question, answer in (
            (b"Mnemonic: ", JUNK),
            (b"New password", "a-password"),
            (b"same again: ", "a-password"),
        ):
            while question not in shown:
                shown += os.read(ours, 1000)
            os.write(ours, answer.encode() + b"\n")
        with suppress(OSError):  # how the end of the other side is told
            while more := os.read(ours, 1000):
                shown += more
    os.close(ours)
    assert process.returncode == 0
    assert b"wallet a is 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266" in shown
    assert b"junk" not in shown
    assert b"a-password" not in shown
    assert Wallet.open(home / "wallets" / "a.json", "a-password")


# ------------------------------------------------------------------ the system's keyring


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[tuple[str, str], str]]:
    """The entries of a keyring in memory, behind the real library."""
    keyring = pytest.importorskip("keyring")
    backend = pytest.importorskip("keyring.backend")
    kept: dict[tuple[str, str], str] = {}

    class InMemory(backend.KeyringBackend):  # type: ignore[misc,name-defined]
        priority = 1

        def get_password(self, service: str, username: str) -> str | None:
            return kept.get((service, username))

        def set_password(self, service: str, username: str, password: str) -> None:
            kept[service, username] = password

        def delete_password(self, service: str, username: str) -> None:
            del kept[service, username]

    before = keyring.get_keyring()
    keyring.set_keyring(InMemory())
    yield kept
    keyring.set_keyring(before)


def test_the_keyring_keeps_a_password(
    cli: Cli, home: Path, entries: dict[tuple[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "secret", "secret")
    assert cli("wallet", "create", "alice", "--keyring").code == 0
    keystore = home / "wallets" / "alice.json"
    assert list(entries.values()) == ["secret"]
    assert passwords.find(keystore) == "secret"
    assert all("secret" not in path.read_text() for path in (home / "wallets").iterdir())
    entries.clear()
    with pytest.raises(ConfigError, match="keyring has no password for the wallet 'alice'"):
        passwords.find(keystore)


@pytest.mark.parametrize("backend", ["null", "fail"])
def test_a_keyring_that_keeps_nothing_is_told(
    cli: Cli, home: Path, password: str, entries: dict[tuple[str, str], str], backend: str
) -> None:
    keyring = importlib.import_module("keyring")
    keyring.set_keyring(importlib.import_module(f"keyring.backends.{backend}").Keyring())
    code, _, err = cli("wallet", "create", "alice", "--keyring")
    assert (code, "did not take its password" in err) == (1, True)
    assert [path.name for path in (home / "wallets").iterdir()] == ["alice.json"]


def test_without_the_library_the_command_to_install_it_is_told(
    cli: Cli, home: Path, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)  # type: ignore[arg-type]
    code, _, err = cli("wallet", "create", "alice", "--keyring")
    assert (code, "pip install 'deepsquare[keyring]'" in err) == (1, True)
    assert not home.exists()
