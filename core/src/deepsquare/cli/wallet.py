"""`deepsquare wallet`: the accounts of this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from deepsquare.cli.app import EXIT_WRONG_USE, checked, fail
from deepsquare.cli.show import Json, print_json, print_table
from deepsquare.errors import ConfigError

if TYPE_CHECKING:
    from deepsquare.chain.wallet import Wallet
    from deepsquare.wallets import Keep

app = typer.Typer(no_args_is_help=True, help="Your accounts: make, import and list them.")

# A keystore file has less than a thousand.
_MOST_CHARACTERS = 65_536


def _check_name(name: str) -> None:
    from deepsquare.contexts import check_name

    try:
        check_name(name, "wallet")
    except ConfigError as error:
        raise ValueError(str(error)) from None


Name = Annotated[str, typer.Argument(help="What the wallet shall be called.", callback=checked(_check_name))]
SavePassword = Annotated[
    bool,
    typer.Option("--save-password", help="Keep the password in clear beside the keystore, readable for you alone."),
]
Keyring = Annotated[
    bool,
    typer.Option("--keyring", help="Keep the password in the system's keyring (pip install 'deepsquare\\[keyring]')."),
]


@app.command()
def create(name: Name, save_password: SavePassword = False, keyring: Keyring = False) -> None:
    """Make a new account, with a random key in an encrypted file.

    Its password is asked for twice, or comes from DEEPSQUARE_WALLET_PASSWORD or the wallet's password file.

    Example: deepsquare wallet create alice
    """
    from deepsquare.chain.wallet import Wallet

    _add(name, Wallet.random, _keep(save_password, keyring))


@app.command("import", context_settings={"allow_extra_args": True})
def import_(
    ctx: typer.Context,
    name: Name,
    mnemonic: Annotated[bool, typer.Option("--mnemonic", help="It is a BIP-39 mnemonic of 12 to 24 words.")] = False,
    key: Annotated[bool, typer.Option("--key", help="It is a private key: 64 hex digits.")] = False,
    keystore: Annotated[
        bool, typer.Option("--keystore", help="It is a keystore file (version 3); --file names it.")
    ] = False,
    file: Annotated[
        str | None,
        typer.Option(
            help="Read it from this file; - is standard input. Asked for without echo when left out.",
            show_default=False,
        ),
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(help="With --mnemonic: the derivation path. \\[default: m/44'/60'/0'/0/0]", show_default=False),
    ] = None,
    password_file: Annotated[
        str | None,
        typer.Option(
            help="With --keystore: read the password of that file from here; - is standard input. Asked for when left out.",
            show_default=False,
        ),
    ] = None,
    save_password: SavePassword = False,
    keyring: Keyring = False,
) -> None:
    """Keep an account that you have already, under a password of this machine.

    Words and keys are never arguments, which everybody on this machine could read in the list of processes: they are asked for, or
    read from a file.

    Example: deepsquare wallet import alice --mnemonic --path "m/44'/60'/0'/0/1"
    """
    if ctx.args:
        # Not repeated: it may be what should be a secret.
        fail(
            "there is an argument after NAME. Words and keys are never arguments: leave it out, they are asked for, or read "
            "with --file. If it was a key, others may have seen it, so don't use it any more",
            EXIT_WRONG_USE,
        )
    if mnemonic + key + keystore != 1:
        fail("say what is imported: either --mnemonic, --key or --keystore", EXIT_WRONG_USE)
    if path is not None and not mnemonic:
        fail("--path goes with --mnemonic: a key has none", EXIT_WRONG_USE)
    if password_file is not None and not keystore:
        fail("--password-file goes with --keystore: it is the password of that file", EXIT_WRONG_USE)
    if keystore and file is None:
        fail("--keystore needs --file, the keystore file to import", EXIT_WRONG_USE)
    if file == password_file == "-":
        fail("--file and --password-file can't both be standard input", EXIT_WRONG_USE)

    def make() -> Wallet:
        from deepsquare.chain.mnemonic import DEFAULT_PATH, check_path
        from deepsquare.chain.wallet import Wallet

        if mnemonic:
            chosen = check_path(DEFAULT_PATH if path is None else path)
            return Wallet.from_mnemonic(_secret(file, "--file", "Mnemonic: "), chosen)
        if key:
            return Wallet.from_key(_secret(file, "--file", "Private key: ").strip(), source="what was given as the key")
        text = _secret(file, "--file", "Keystore: ")
        password = _secret(password_file, "--password-file", "Password of the keystore file: ").rstrip("\n")
        return Wallet.from_keystore(text, password, source="what --file names")

    _add(name, make, _keep(save_password, keyring))


def _keep(save_password: bool, keyring: bool) -> Keep:
    from deepsquare.wallets import Keep

    if save_password and keyring:
        fail("--save-password and --keyring exclude each other: say one place for the password", EXIT_WRONG_USE)
    return Keep.FILE if save_password else Keep.KEYRING if keyring else Keep.NOWHERE


def _add(name: str, make: Callable[[], Wallet], keep: Keep) -> None:
    from deepsquare import contexts, wallets

    wallet = wallets.add(name, make, keep)
    print(f"wallet {name} is {wallet.address}")
    print(
        f"its key is in {contexts.wallet_file(name)}: keep a copy of that file and its password, nobody can restore them",
        file=sys.stderr,
    )


def _secret(file: str | None, option: str, question: str) -> str:
    """What a file has, or what is typed without echo; errors say nothing of it, and not even what the option was given."""
    if file is None:
        from deepsquare.passwords import prompt

        typed = prompt(question)
        if typed is None:
            fail(
                f"there is no terminal to ask at: give {option} FILE, or {option} - for standard input", EXIT_WRONG_USE
            )
        return typed
    text, reason = "", ""
    try:
        if file == "-":
            text = sys.stdin.read(_MOST_CHARACTERS + 1)
        else:
            with open(file, encoding="utf-8") as source:  # noqa: PTH123 (the path may be a secret by mistake)
                text = source.read(_MOST_CHARACTERS + 1)
    except OSError as error:
        reason = error.strerror or "it can't be read"
    except ValueError:
        reason = "it is not UTF-8 text"
    if reason:
        raise ConfigError(f"the file that {option} names can't be used: {reason}")
    if len(text) > _MOST_CHARACTERS:
        raise ConfigError(f"the file that {option} names is too long: {_MOST_CHARACTERS} characters at most")
    return text


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the wallets of this machine, and which contexts use them. No password is needed.

    Example: deepsquare wallet list
    """
    from deepsquare import wallets

    found = wallets.wallets()
    if as_json:
        print_json([{"name": one.name, "address": one.address, "contexts": list(one.contexts)} for one in found])
        return
    print_table(
        ["NAME", "ADDRESS", "CONTEXTS"],
        [[one.name, one.address or "-", ", ".join(one.contexts) or "-"] for one in found],
    )
