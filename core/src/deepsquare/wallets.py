"""The wallets of this machine: made, imported, listed. Each is a keystore file below `$DEEPSQUARE_HOME/wallets`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from deepsquare import contexts, passwords
from deepsquare.errors import ConfigError

if TYPE_CHECKING:
    from deepsquare.chain.wallet import Wallet


class Keep(Enum):
    """Where the password of a new wallet is kept."""

    NOWHERE = "nowhere"
    FILE = "file"
    KEYRING = "keyring"


@dataclass(frozen=True, slots=True)
class WalletInfo:
    """A wallet, as far as it can be known without its password."""

    name: str
    address: str | None
    """With its EIP-55 checksum; None when the keystore doesn't tell it."""
    contexts: tuple[str, ...]
    """The contexts that use it."""


def names() -> list[str]:
    """The names of all wallets, sorted."""
    return sorted(path.stem for path in (contexts.home() / "wallets").glob("[!.]*.json"))


def wallets() -> list[WalletInfo]:
    """All wallets, sorted by name.

    Raises:
        ConfigError: the file of a context is damaged.
    """
    from deepsquare.chain.wallet import keystore_address

    known = [contexts.load_file(name) for name in contexts.names()]
    return [
        WalletInfo(
            name,
            keystore_address(contexts.wallet_file(name)),
            tuple(context.name for context in known if context.wallet == name),
        )
        for name in names()
    ]


def address_of(name: str) -> str:
    """The address of a wallet; its password is not needed.

    Raises:
        ConfigError: there is no such wallet, or its keystore names no address.
    """
    from deepsquare.chain.wallet import keystore_address

    keystore = contexts.wallet_file(name)
    if not keystore.exists():
        known = names()
        there = f"There are: {', '.join(known)}" if known else f"Make it with `deepsquare wallet create {name}`"
        raise ConfigError(f"there is no wallet {name!r}. {there}")
    address = keystore_address(keystore)
    if address is None:
        raise ConfigError(
            f"the keystore {keystore} names no address, or is none: import it under another name with `deepsquare wallet import "
            "NAME --keystore --file FILE`"
        )
    return address


def add(name: str, make: Callable[[], Wallet], keep: Keep = Keep.NOWHERE) -> Wallet:
    """Keep a wallet under a new name, with a password that is looked up or asked for; whatever is wrong, nothing is made.

    Args:
        name: of letters, digits, dashes, underscores and dots.
        make: gives the wallet; called when the name is known to be free.
        keep: where the password goes.

    Raises:
        ConfigError: the name is none or taken, the password is missing or empty, or the keyring can't keep it.
        OSError: the files can't be written.
    """
    keystore = contexts.wallet_file(name)
    if keystore.exists():
        raise ConfigError(
            f"there is a wallet {name!r} already ({keystore}), and it is never overwritten: choose another name"
        )
    if keep is Keep.KEYRING:
        passwords.load_keyring()
    wallet = make()
    password = passwords.choose(keystore)
    passwords.check_file(keystore, password)
    wallet.save(keystore, password)
    if keep is Keep.FILE:
        passwords.save_file(keystore, password)
    elif keep is Keep.KEYRING:
        passwords.save_in_keyring(keystore, password)
    return wallet
