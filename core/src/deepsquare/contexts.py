"""Contexts, as docker and kubectl have them: which grid is meant, and which wallet pays.

What counts, highest first: an argument, an environment variable (`DEEPSQUARE_CONTEXT`, `DEEPSQUARE_RPC_URL`, ...), the context.
They live in `$DEEPSQUARE_HOME`, by default the user's configuration folder.
"""

from __future__ import annotations

import os
import re
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from deepsquare.errors import ConfigError
from deepsquare.files import read_private, write_private

if TYPE_CHECKING:
    from deepsquare.chain.wallet import Wallet

VARIABLE = "DEEPSQUARE_CONTEXT"
"""The variable that names the context to use instead of the current one."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NAME_LENGTH = 50

_OVERRIDES = (
    "rpc_url",
    "ws_url",
    "metascheduler",
    "sbatch_url",
    "sbatch_grpc",
    "logger_grpc",
    "wallet",
    "max_fee_gwei",
)


class Context(BaseModel):
    """One grid and one wallet."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    chain_id: int
    rpc_url: str
    ws_url: str | None = None
    metascheduler: str
    sbatch_url: str
    """The GraphQL URL of the sbatch API."""
    sbatch_grpc: str
    """host:port of the sbatch API for providers."""
    logger_grpc: str
    """host:port of the grid logger."""
    account: str
    """The address of the wallet."""
    wallet: str
    """The wallet's name: `wallets/NAME.json` below `home()`."""
    max_fee_gwei: Decimal | None = Field(default=None, gt=0)
    """The most to pay for a unit of gas; None is 1,000 gwei."""

    @property
    def max_fee_wei(self) -> int | None:
        """The same in wei."""
        return None if self.max_fee_gwei is None else int(self.max_fee_gwei * 10**9)


def home() -> Path:
    """The folder of contexts, wallets and the journal: `$DEEPSQUARE_HOME`, or the user's configuration folder."""
    folder = os.environ.get("DEEPSQUARE_HOME")
    if folder:
        return Path(folder)
    from platformdirs import user_config_path

    return user_config_path("deepsquare")


def check_name(name: str, kind: str = "context") -> str:
    """A name of a context or a wallet, as it is.

    Raises:
        ConfigError: it can't be a file's name, or is too long.
    """
    if len(name) > _NAME_LENGTH:
        # Perhaps a key by mistake, so it is not repeated.
        raise ConfigError(
            f"the name of the {kind} has {len(name)} characters, but a name has {_NAME_LENGTH} at most: choose a shorter one"
        )
    if _NAME.fullmatch(name) is None:
        raise ConfigError(
            f"{name!r} can't be the name of a {kind}: use letters, digits, dashes, underscores and dots, first a letter or digit"
        )
    return name


def _file(name: str) -> Path:
    return home() / "contexts" / f"{check_name(name)}.json"


def names() -> list[str]:
    """The names of all contexts, sorted."""
    return sorted(path.stem for path in (home() / "contexts").glob("[!.]*.json"))


def current() -> str | None:
    """The name of the context in use: `$DEEPSQUARE_CONTEXT`, or what `use` chose."""
    if chosen := os.environ.get(VARIABLE):
        return chosen
    try:
        return read_private(home() / "current-context").strip() or None
    except FileNotFoundError:
        return None


def use(name: str) -> None:
    """Make a context the current one.

    Raises:
        ConfigError: there is no such context.
    """
    load(name)
    write_private(home() / "current-context", name + "\n")


def save(context: Context) -> None:
    """Write a context, replacing one of the same name."""
    write_private(_file(context.name), context.model_dump_json(indent=2) + "\n")


def load(name: str | None = None) -> Context:
    """The context `name`, or the current one, with the environment's overrides.

    Raises:
        ConfigError: no context is chosen, it doesn't exist, or its file is damaged.
    """
    name = name or current()
    if name is None:
        known = names()
        raise ConfigError(
            "no grid is chosen. Start one of your own with `deepsquare grid up`"
            + (f", or choose one with `deepsquare context use NAME`: {', '.join(known)}" if known else "")
        )
    context = load_file(name)
    overrides = {key: value for key in _OVERRIDES if (value := os.environ.get(f"DEEPSQUARE_{key.upper()}"))}
    if "metascheduler" in overrides:
        from deepsquare.chain.address import parse_address

        try:
            overrides["metascheduler"] = parse_address(overrides["metascheduler"], field="DEEPSQUARE_METASCHEDULER")
        except ValueError as error:
            raise ConfigError(str(error)) from None
    if "wallet" in overrides:
        from deepsquare.chain.wallet import keystore_address

        # Another wallet is another account.
        account = keystore_address(wallet_file(overrides["wallet"]))
        overrides |= {} if account is None else {"account": account}
    try:
        return Context.model_validate(context.model_dump() | overrides)
    except ValueError:
        # All others are texts that are checked where they are used.
        raise ConfigError(
            f"DEEPSQUARE_MAX_FEE_GWEI is {overrides.get('max_fee_gwei')!r}, but the most to pay for gas is a number of gwei above 0"
        ) from None


def load_file(name: str) -> Context:
    """The context `name` as its file has it, whatever the environment says.

    Raises:
        ConfigError: it doesn't exist, or its file is damaged.
    """
    path = _file(name)
    try:
        return Context.model_validate_json(read_private(path))
    except FileNotFoundError:
        known = names()
        there = (
            f"There are: {', '.join(known)}" if known else "There are none; `deepsquare grid up` makes one called local"
        )
        raise ConfigError(f"there is no context {name!r}. {there}") from None
    except ValueError as error:
        raise ConfigError(
            f"the context file {path} is damaged ({type(error).__name__}); make the context anew"
        ) from None


def wallet_file(name: str) -> Path:
    """The keystore file of a wallet.

    Raises:
        ConfigError: that can't be a wallet's name.
    """
    return home() / "wallets" / f"{check_name(name, 'wallet')}.json"


def open_wallet(context: Context, *, sealed: bool = False) -> Wallet:
    """The wallet of a context: `$DEEPSQUARE_PRIVATE_KEY`, or its keystore file with the password as `passwords` finds it.

    With `sealed`, the keystore is decrypted, and its password asked for, at the first signature.

    Raises:
        ConfigError: no such wallet, a wrong or missing password, or it is another account's than the context says.
    """
    from eth_utils import to_checksum_address

    from deepsquare.chain.wallet import SealedWallet, Wallet

    wallet = Wallet.from_environment()
    if wallet is not None:
        return wallet
    keystore = wallet_file(context.wallet)
    if not keystore.exists():
        raise ConfigError(
            f"the wallet {context.wallet!r} of the context {context.name!r} has no keystore file at {keystore}"
        )

    def unseal() -> Wallet:
        from deepsquare import passwords

        opened = Wallet.open(keystore, passwords.find(keystore))
        if opened.address.lower() != context.account.lower():
            raise ConfigError(
                f"the wallet {context.wallet!r} is {opened.address}, but the context {context.name!r} is for {context.account}; "
                "correct the context, or choose its wallet (DEEPSQUARE_WALLET)"
            )
        return opened

    return SealedWallet(to_checksum_address(context.account), unseal) if sealed else unseal()


def account(context: Context) -> str:
    """The address that a context stands for, without opening its wallet.

    Raises:
        ConfigError: `$DEEPSQUARE_PRIVATE_KEY` holds no key.
    """
    from deepsquare.chain.wallet import Wallet

    wallet = Wallet.from_environment()
    return context.account if wallet is None else wallet.address
