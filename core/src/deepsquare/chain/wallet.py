"""The wallet: one private key, kept in an encrypted keystore file, that signs transactions and messages.

The key never leaves this module: it is in no repr, no exception text and no log.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepsquare.chain.mnemonic import DEFAULT_PATH, derive_key
from deepsquare.errors import ConfigError
from deepsquare.files import read_private, write_private

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

_KEY = re.compile(r"(?:0[xX])?[0-9a-fA-F]{64}")

KEY_VARIABLE = "DEEPSQUARE_PRIVATE_KEY"


class Wallet:
    """A private key that can sign; make one with `open`, `create`, `from_environment` or another `from_...`."""

    __slots__ = ("_account",)

    def __init__(self, account: LocalAccount) -> None:
        self._account = account

    def __repr__(self) -> str:
        return f"Wallet({self.address})"

    def __reduce__(self) -> Any:
        raise TypeError("a wallet is never pickled: pass the name of its context instead")

    @property
    def address(self) -> str:
        """The account's address with its EIP-55 checksum."""
        return str(self._account.address)

    @classmethod
    def from_environment(cls) -> Wallet | None:
        """The wallet whose key is in DEEPSQUARE_PRIVATE_KEY (hex), or None when that is not set.

        Raises:
            ConfigError: the variable holds no valid key.
        """
        key = os.environ.get(KEY_VARIABLE)
        return None if not key else cls.from_key(key, source=f"the environment variable {KEY_VARIABLE}")

    @classmethod
    def from_key(cls, key: str | bytes, *, source: str = "the given key") -> Wallet:
        """A wallet of a raw private key: 32 bytes, or their hex digits.

        Raises:
            ConfigError: it is no valid secp256k1 key; the text names `source`, never the key.
        """
        from eth_account import Account

        account = None
        # The library fills up what is too short, which gives another account.
        is_whole = len(key) == 32 if isinstance(key, bytes) else _KEY.fullmatch(key) is not None
        # The cause would carry the key's text into the traceback, and as the context of an error raised here, too.
        with suppress(Exception):
            account = Account.from_key(key) if is_whole else None
        if account is None:
            raise ConfigError(f"{source} is not a private key: 64 hex digits are expected")
        return cls(account)

    @classmethod
    def from_mnemonic(cls, phrase: str, path: str = DEFAULT_PATH, *, source: str = "the mnemonic") -> Wallet:
        """The wallet that a BIP-39 mnemonic of 12 to 24 words, without a passphrase, has at a BIP-32 derivation path.

        Raises:
            ConfigError: the count of words, a word or the checksum is wrong, or the path is none; the text names `source`, and
                never a word.
        """
        return cls.from_key(derive_key(phrase, path, source=source), source=source)

    @classmethod
    def random(cls) -> Wallet:
        """A wallet of a new random key, which is kept nowhere yet."""
        return cls.from_key(secrets.token_bytes(32))

    @classmethod
    def create(cls, path: Path, password: str, *, scrypt_n: int | None = None) -> Wallet:
        """Make a new random key and keep it in the keystore file `path`; see `save` for the rest.

        Raises:
            ConfigError: the file exists already.
        """
        wallet = cls.random()
        wallet.save(path, password, scrypt_n=scrypt_n)
        return wallet

    def save(self, path: Path, password: str, *, scrypt_n: int | None = None) -> None:
        """Keep the key in the new keystore file `path` (version 3, mode 0600), encrypted with `password`.

        `scrypt_n` is the cost factor of the key derivation; leave it out for the default (2**18).

        Raises:
            ConfigError: the file exists already; it is never overwritten.
        """
        from eth_account import Account

        taken = ConfigError(
            f"the keystore {path} exists already; choose another name, or remove it if it holds nothing"
        )
        if path.exists():
            raise taken
        keystore = Account.encrypt(self._account.key, password, iterations=scrypt_n)
        try:
            write_private(path, json.dumps(keystore), new=True)
        except FileExistsError:
            raise taken from None

    @classmethod
    def open(cls, path: Path, password: str) -> Wallet:
        """Decrypt the keystore file `path`.

        Raises:
            ConfigError: no such file, not a keystore, or a wrong password.
        """
        try:
            text = read_private(path)
        except OSError as error:
            raise ConfigError(f"the keystore {path} can't be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path} is not a keystore file of version 3") from None
        return cls.from_keystore(
            text,
            password,
            source=f"the keystore {path}",
            remedy=f"correct DEEPSQUARE_WALLET_PASSWORD, or the file {path.with_suffix('.password')}, or type it again",
        )

    @classmethod
    def from_keystore(cls, text: str, password: str, *, source: str, remedy: str = "type it again") -> Wallet:
        """Decrypt the text of a keystore file (version 3).

        Raises:
            ConfigError: it is none, or the password is wrong; the text names `source`, and `remedy` for the password.
        """
        from eth_account import Account

        key = None
        # Whatever is wrong inside has an error of its own in the library.
        with suppress(AttributeError, KeyError, TypeError, ValueError):
            keystore = json.loads(text)
            if keystore["version"] == 3:
                try:
                    key = bytes(Account.decrypt(keystore, password))
                except ValueError as error:
                    if "MAC" not in str(error):
                        raise
                    raise ConfigError(f"wrong password for {source}: {remedy}") from None
        if key is None:
            raise ConfigError(f"{source} is not a keystore file of version 3")
        return cls.from_key(key, source=source)

    def unseal(self) -> None:
        """Have the key at hand, so that no signature has to wait for it; see `SealedWallet`.

        Raises:
            ConfigError: the wallet can't be opened.
        """

    def sign_message(self, message: bytes) -> bytes:
        """The 65-byte EIP-191 (personal_sign) signature of `message`: r, s, v with v 27 or 28."""
        from eth_account.messages import encode_defunct

        return bytes(self._account.sign_message(encode_defunct(primitive=message)).signature)

    def sign_transaction(self, transaction: dict[str, Any]) -> tuple[bytes, bytes]:
        """Sign a complete transaction; returns its raw bytes and its 32-byte hash."""
        signed = self._account.sign_transaction(transaction)
        return bytes(signed.raw_transaction), bytes(signed.hash)


class SealedWallet(Wallet):
    """A wallet whose address is known, and that is opened when something is to be signed."""

    __slots__ = ("_address", "_lock", "_opened", "_unseal")

    def __init__(self, address: str, unseal: Callable[[], Wallet]) -> None:
        """`unseal` opens the wallet of `address`; what it raises, the signing raises."""
        self._address, self._unseal = address, unseal
        self._opened: Wallet | ConfigError | None = None
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        """The account's address with its EIP-55 checksum."""
        return self._address

    @property
    def _account(self) -> LocalAccount:  # type: ignore[override]
        self.unseal()
        assert isinstance(self._opened, Wallet)
        return self._opened._account

    def unseal(self) -> None:
        """Open the wallet, unless it is; who was asked for a password once is not asked again, also if it was wrong."""
        with self._lock:
            if self._opened is None:
                try:
                    self._opened = self._unseal()
                except ConfigError as error:
                    self._opened = error
        if isinstance(self._opened, ConfigError):
            raise self._opened


def keystore_address(path: Path) -> str | None:
    """The checksummed address that a keystore file names in clear, or None where it doesn't, or is no keystore."""
    from eth_utils import is_hex_address, to_checksum_address

    try:
        address = json.loads(read_private(path))["address"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return to_checksum_address(address) if is_hex_address(address) else None


def recover(message: bytes, signature: bytes) -> str | None:
    """The checksummed address that signed `message` by EIP-191, or None when the signature is no signature.

    Both conventions of the last byte are understood: 0 or 1, and 27 or 28.
    """
    from eth_account import Account
    from eth_account.messages import encode_defunct

    if len(signature) != 65:
        return None
    if signature[64] < 27:
        signature = signature[:64] + bytes([signature[64] + 27])
    try:
        return str(Account.recover_message(encode_defunct(primitive=message), signature=signature))
    except Exception:
        # eth-account raises a different class for each way in which 65 arbitrary bytes are no signature.
        return None
