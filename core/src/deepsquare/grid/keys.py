"""The keys of a grid's own accounts: a file of mode 0600 each, since services start without anybody who types a password."""

from __future__ import annotations

import secrets
from pathlib import Path

from deepsquare.chain.wallet import Wallet
from deepsquare.errors import ConfigError
from deepsquare.files import read_private, write_private


def open_key(state: Path, name: str) -> Wallet:
    """The wallet of a service: "admin", "metascheduler" or "provider".

    Raises:
        ConfigError: there is no such key, or others can read it.
    """
    path = state / "keys" / f"{name}.key"
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"the key {path} can be read by others; run: chmod 600 {path}")
        return Wallet.from_key(read_private(path).strip(), source=str(path))
    except FileNotFoundError:
        raise ConfigError(f"the key {path} does not exist; `deepsquare grid up` makes it") from None


def make_key(state: Path, name: str) -> Wallet:
    """Like `open_key`, but a missing key is made."""
    path = state / "keys" / f"{name}.key"
    if not path.exists():
        write_private(path, secrets.token_hex(32) + "\n")
    return open_key(state, name)
