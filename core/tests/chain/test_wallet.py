from __future__ import annotations

import pickle
import traceback
from pathlib import Path

import pytest
from deepsquare.chain.wallet import KEY_VARIABLE, Wallet, keystore_address, recover
from deepsquare.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st

KEY = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"


@given(st.binary())
def test_a_signature_tells_who_signed_what(message: bytes) -> None:
    wallet = Wallet.from_key(KEY)
    signature = wallet.sign_message(message)
    assert recover(message, signature) == wallet.address
    assert recover(message, signature[:64] + bytes([signature[64] - 27])) == wallet.address
    assert recover(message + b"x", signature) != wallet.address


@given(st.binary(max_size=80))
def test_bytes_that_are_no_signature_are_nobodys(signature: bytes) -> None:
    assert recover(b"message", signature) in {None, recover(b"message", signature)}
    if len(signature) != 65:
        assert recover(b"message", signature) is None


def test_a_key_is_in_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wallet = Wallet.from_key(KEY)
    assert KEY not in repr(wallet) + str(wallet)
    with pytest.raises(TypeError):
        pickle.dumps(wallet)
    bad = KEY[:-1] + "g"
    monkeypatch.setenv(KEY_VARIABLE, bad)
    with pytest.raises(ConfigError) as caught:
        Wallet.from_environment()
    assert bad not in "".join(traceback.format_exception(caught.value))
    Wallet.create(tmp_path / "w.json", "password", scrypt_n=2)
    assert "password" not in (tmp_path / "w.json").read_text()


@pytest.mark.parametrize(
    "key", ["", KEY[:-1], KEY + "0", KEY[:-1] + "g", "0x", "f" * 64, "0" * 64, b"", b"\1" * 31, b"\1" * 33, f" {KEY}"]
)
def test_what_is_not_quite_a_key_is_no_other_account(key: str | bytes) -> None:
    with pytest.raises(ConfigError, match="64 hex digits are expected") as caught:
        Wallet.from_key(key)
    assert caught.value.__context__ is None


def test_a_wallet_made_at_the_same_moment_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.json"
    monkeypatch.setattr(type(path), "exists", lambda self: False)
    Wallet.from_key(KEY).save(path, "password", scrypt_n=2)
    with pytest.raises(ConfigError, match="exists already"):
        Wallet.create(path, "password", scrypt_n=2)
    assert Wallet.open(path, "password").address == Wallet.from_key(KEY).address
    assert [file.name for file in tmp_path.iterdir()] == ["w.json"]


def test_a_keystore_names_its_address_in_clear(tmp_path: Path) -> None:
    Wallet.from_key(KEY).save(tmp_path / "w.json", "password", scrypt_n=2)
    assert keystore_address(tmp_path / "w.json") == Wallet.from_key(KEY).address
    (tmp_path / "w.json").write_text('{"address": 5}')
    assert keystore_address(tmp_path / "w.json") is None
    assert keystore_address(tmp_path / "none.json") is None


def test_a_keystore_is_private_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "wallets" / "w.json"
    wallet = Wallet.create(path, "password", scrypt_n=2)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Wallet.open(path, "password").address == wallet.address
    with pytest.raises(ConfigError, match="exists already"):
        Wallet.create(path, "password", scrypt_n=2)
    assert Wallet.open(path, "password").address == wallet.address


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", "not json", '{"version": 3}', '{"version": 4, "crypto": {}}', '{"version": 3, "crypto": []}'],
)
def test_what_is_no_keystore_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "w.json").write_text(text)
    with pytest.raises(ConfigError, match="not a keystore"):
        Wallet.open(tmp_path / "w.json", "password")


def test_without_the_variable_there_is_no_wallet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert Wallet.from_environment() is None
