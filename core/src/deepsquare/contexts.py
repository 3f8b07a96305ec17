"""Contexts, as docker and kubectl have them: which grid is meant, and which wallet pays.

What counts, highest first: an argument, an environment variable (`DEEPSQUARE_CONTEXT`, `DEEPSQUARE_RPC_URL`, ...), the context.
They live in `$DEEPSQUARE_HOME`, by default the user's configuration folder.
"""

from __future__ import annotations

import json
import os
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deepsquare.errors import ConfigError
from deepsquare.files import read_private, write_private

if TYPE_CHECKING:
    from deepsquare.chain.wallet import Wallet

VARIABLE = "DEEPSQUARE_CONTEXT"
"""The variable that names the context to use instead of the current one."""

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


def _file(name: str) -> Path:
    if not name or name.startswith(".") or "/" in name:
        raise ConfigError(f"{name!r} can't be the name of a context: use letters, digits, dashes and dots")
    return home() / "contexts" / f"{name}.json"


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
    known = names()
    if name is None:
        raise ConfigError(
            "no grid is chosen. Start one of your own with `deepsquare grid up`"
            + (f", or choose one with `deepsquare context use NAME`: {', '.join(known)}" if known else "")
        )
    path = _file(name)
    try:
        values = json.loads(read_private(path))
        values |= {
            key: os.environ[f"DEEPSQUARE_{key.upper()}"]
            for key in _OVERRIDES
            if os.environ.get(f"DEEPSQUARE_{key.upper()}")
        }
        return Context.model_validate(values)
    except FileNotFoundError:
        there = (
            f"There are: {', '.join(known)}" if known else "There are none; `deepsquare grid up` makes one called local"
        )
        raise ConfigError(f"there is no context {name!r}. {there}") from None
    except (ValueError, ValidationError) as error:
        raise ConfigError(
            f"the context file {path} is damaged ({type(error).__name__}); make the context anew"
        ) from None


def wallet_file(name: str) -> Path:
    """The keystore file of a wallet."""
    return home() / "wallets" / f"{name}.json"


def open_wallet(context: Context) -> Wallet:
    """The wallet of a context: `$DEEPSQUARE_PRIVATE_KEY`, or its keystore file.

    The password comes from `$DEEPSQUARE_WALLET_PASSWORD`, the file `wallets/NAME.password`, or the terminal.

    Raises:
        ConfigError: no such wallet, or a wrong or missing password.
    """
    from deepsquare.chain.wallet import Wallet

    wallet = Wallet.from_environment()
    if wallet is not None:
        return wallet
    keystore = wallet_file(context.wallet)
    if not keystore.exists():
        raise ConfigError(
            f"the wallet {context.wallet!r} of the context {context.name!r} has no keystore file at {keystore}"
        )
    return Wallet.open(keystore, _password(keystore))


def _password(keystore: Path) -> str:
    if password := os.environ.get("DEEPSQUARE_WALLET_PASSWORD"):
        return password
    try:
        return read_private(keystore.with_suffix(".password")).rstrip("\n")
    except FileNotFoundError:
        pass
    if not sys.stdin.isatty():
        raise ConfigError(
            f"the wallet {keystore.stem!r} needs its password: set DEEPSQUARE_WALLET_PASSWORD, or keep it in "
            f"{keystore.with_suffix('.password')} with mode 0600"
        )
    from getpass import getpass

    return getpass(f"Password of the wallet {keystore.stem}: ")
