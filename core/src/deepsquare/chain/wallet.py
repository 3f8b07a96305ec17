"""The wallet: one private key, kept in an encrypted keystore file, that signs transactions and messages.

The key never leaves this module: it is in no repr, no exception text and no log.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepsquare.errors import ConfigError
from deepsquare.files import read_private, write_private

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

KEY_VARIABLE = "DEEPSQUARE_PRIVATE_KEY"


class Wallet:
    """A private key that can sign; make one with `open`, `create` or `from_environment`."""

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

        try:
            return cls(Account.from_key(key))
        except Exception:
            # The cause would carry the key's text into the traceback.
            raise ConfigError(f"{source} is not a private key: 64 hex digits are expected") from None

    @classmethod
    def create(cls, path: Path, password: str, *, scrypt_n: int | None = None) -> Wallet:
        """Make a new random key and keep it in the keystore file `path` (mode 0600), encrypted with `password`.

        `scrypt_n` is the cost factor of the key derivation; leave it out for the default (2**18).

        Raises:
            ConfigError: the file exists already.
        """
        from eth_account import Account

        if path.exists():
            raise ConfigError(
                f"the keystore {path} exists already; choose another name, or remove it if it holds nothing"
            )
        key = secrets.token_bytes(32)
        keystore = Account.encrypt(key, password, iterations=scrypt_n)
        write_private(path, json.dumps(keystore))
        return cls.from_key(key)

    @classmethod
    def open(cls, path: Path, password: str) -> Wallet:
        """Decrypt the keystore file `path`.

        Raises:
            ConfigError: no such file, not a keystore, or a wrong password.
        """
        from eth_account import Account

        try:
            text = read_private(path)
        except OSError as error:
            raise ConfigError(f"the keystore {path} can't be read: {error.strerror}") from None
        try:
            key = Account.decrypt(text, password)
        except ValueError as error:
            if "MAC" in str(error):
                raise ConfigError(
                    f"wrong password for the keystore {path}: correct DEEPSQUARE_WALLET_PASSWORD, or the file "
                    f"{path.with_suffix('.password')}, or type it again"
                ) from None
            raise ConfigError(f"{path} is not a keystore file") from None
        except (AttributeError, KeyError, TypeError):
            raise ConfigError(f"{path} is not a keystore file") from None
        return cls.from_key(bytes(key), source=str(path))

    def sign_message(self, message: bytes) -> bytes:
        """The 65-byte EIP-191 (personal_sign) signature of `message`: r, s, v with v 27 or 28."""
        from eth_account.messages import encode_defunct

        return bytes(self._account.sign_message(encode_defunct(primitive=message)).signature)

    def sign_transaction(self, transaction: dict[str, Any]) -> tuple[bytes, bytes]:
        """Sign a complete transaction; returns its raw bytes and its 32-byte hash."""
        signed = self._account.sign_transaction(transaction)
        return bytes(signed.raw_transaction), bytes(signed.hash)


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
