"""The passwords of wallets: where they are kept, and how they are asked for.

What counts, highest first: `$DEEPSQUARE_WALLET_PASSWORD`, the file `NAME.password` beside the keystore, the system's keyring, the
terminal.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from deepsquare.errors import ConfigError
from deepsquare.files import read_private, write_private

VARIABLE = "DEEPSQUARE_WALLET_PASSWORD"

_SERVICE = "deepsquare"


def password_file(keystore: Path) -> Path:
    """Where the password of a keystore may lie in clear, with mode 0600."""
    return keystore.with_suffix(".password")


def _keyring_file(keystore: Path) -> Path:
    """Says under which user name the keyring has the password; without it the keyring is not asked."""
    return keystore.with_suffix(".keyring")


def find(keystore: Path) -> str:
    """The password of a keystore.

    Raises:
        ConfigError: it is nowhere, and there is no terminal to ask at; or the keyring should have it and doesn't.
    """
    if (password := _kept(keystore)) is not None:
        return password
    try:
        user = read_private(_keyring_file(keystore)).strip()
    except FileNotFoundError:
        return _ask(f"Password of the wallet {keystore.stem}: ", keystore)
    return _from_keyring(keystore.stem, user)


def choose(keystore: Path) -> str:
    """The password for a new keystore: one that the environment or its file holds, or a new one, which is asked for twice.

    Raises:
        ConfigError: it is empty, the two differ, or there is no terminal to ask at.
    """
    password = _kept(keystore)
    if password is None:
        password = _ask(f"New password of the wallet {keystore.stem}: ", keystore)
        if password and password != _ask("The same again: ", keystore):
            raise ConfigError("the two passwords differ; nothing was made")
    if not password:
        raise ConfigError(f"the password of the wallet {keystore.stem!r} is empty; choose one")
    return password


def prompt(question: str) -> str | None:
    """What is typed at the terminal, without echo; None when there is no terminal."""
    if not sys.stdin.isatty():
        return None
    from getpass import getpass

    return getpass(question)


def _ask(question: str, keystore: Path) -> str:
    password = prompt(question)
    if password is None:
        raise ConfigError(
            f"the wallet {keystore.stem!r} needs its password: set {VARIABLE}, or keep it in {password_file(keystore)} with "
            "mode 0600"
        )
    return password


def _kept(keystore: Path) -> str | None:
    if password := os.environ.get(VARIABLE):
        # How Python keeps bytes of the environment that are no UTF-8. What encodes them later would fail with the password in hand.
        if any("\udc80" <= character <= "\udcff" for character in password):
            raise ConfigError(f"{VARIABLE} is not UTF-8 text; correct it")
        return password
    try:
        return read_private(password_file(keystore)).rstrip("\n")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise ConfigError(f"the file {password_file(keystore)} is not UTF-8 text; write the password anew") from None


def check_file(keystore: Path, password: str) -> None:
    """See that the password file of a keystore to be made, if there is one, is right.

    Raises:
        ConfigError: it holds another password.
    """
    path = password_file(keystore)
    if path.exists() and read_private(path).rstrip("\n") != password:
        raise ConfigError(f"{path} holds another password than {VARIABLE}; remove it, or unset the variable")


def save_file(keystore: Path, password: str) -> None:
    """Keep a password in its file, with mode 0600.

    Raises:
        OSError: it can't be written.
    """
    write_private(password_file(keystore), password + "\n")


def load_keyring() -> Any:
    """The library `keyring`, which knows the system's keyring.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import keyring
    except ImportError:
        raise ConfigError(
            "the system's keyring needs a library that is not installed: pip install 'deepsquare[keyring]'"
        ) from None
    return keyring


def save_in_keyring(keystore: Path, password: str) -> None:
    """Keep the password of a keystore in the system's keyring.

    Raises:
        ConfigError: the library is not installed, or the keyring doesn't take it.
    """
    keyring = load_keyring()
    # The identifier of the file: two wallets of one name, in two folders, don't share an entry.
    user = json.loads(read_private(keystore))["id"]
    reason = ""
    try:
        keyring.set_password(_SERVICE, user, password)
        # Some backends take everything and keep nothing.
        is_kept = keyring.get_password(_SERVICE, user) == password
    except keyring.errors.KeyringError as error:
        is_kept, reason = False, f" ({type(error).__name__})"
    if not is_kept:
        raise ConfigError(
            f"the wallet {keystore.stem!r} is made, but the system's keyring did not take its password{reason}: it will be asked "
            f"for. Look for a keyring with `keyring diagnose`, or keep it in {password_file(keystore)} with mode 0600"
        )
    write_private(_keyring_file(keystore), user + "\n")


def _from_keyring(name: str, user: str) -> str:
    keyring = load_keyring()
    reason = "has no password"
    password: str | None = None
    try:
        password = keyring.get_password(_SERVICE, user)
    except keyring.errors.KeyringError as error:
        reason = f"does not answer ({type(error).__name__})"
    if password is None:
        raise ConfigError(
            f"the system's keyring {reason} for the wallet {name!r} (service {_SERVICE}, user {user}): unlock it, or set {VARIABLE}"
        )
    return password
