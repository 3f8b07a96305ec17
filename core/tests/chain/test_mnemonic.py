"""Mnemonics: the keys that other wallets derive, and errors that say where a mistake is and never a word."""

from __future__ import annotations

import pytest
from deepsquare.chain.mnemonic import DEFAULT_PATH, derive_key
from deepsquare.chain.wallet import Wallet
from deepsquare.errors import ConfigError
from eth_account import Account
from eth_account.hdaccount import Mnemonic
from eth_account.types import Language
from hypothesis import given, settings
from hypothesis import strategies as st

JUNK = "test test test test test test test test test test test junk"

entropies = st.sampled_from([16, 20, 24, 28, 32]).flatmap(lambda size: st.binary(min_size=size, max_size=size))


def said_of(phrase: str, path: str = DEFAULT_PATH) -> str:
    """What is said of a phrase, with all that an exception drags along."""
    with pytest.raises(ConfigError) as caught:
        derive_key(phrase, path)
    assert caught.value.__context__ is None
    return str(caught.value)


@pytest.mark.parametrize(
    ("path", "address"),
    [
        (DEFAULT_PATH, "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
        ("m/44'/60'/0'/0/1", "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"),
        ("m/44h/60H/0h/0/1", "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"),
    ],
)
def test_the_accounts_are_those_of_other_wallets(path: str, address: str) -> None:
    assert Wallet.from_mnemonic(JUNK, path).address == address
    assert Wallet.from_mnemonic(f"  {JUNK.upper()}\n".replace(" ", "  "), path).address == address


@settings(max_examples=20, deadline=None)
@given(entropies, st.sampled_from(list(Language)))
def test_mnemonics_of_every_length_and_language_give_the_librarys_key(entropy: bytes, language: Language) -> None:
    phrase = Mnemonic(language).to_mnemonic(entropy)
    Account.enable_unaudited_hdwallet_features()
    assert derive_key(phrase) == derive_key(" ".join(phrase.split()))
    if language is Language.ENGLISH:
        assert derive_key(phrase) == bytes(Account.from_mnemonic(phrase).key)


@settings(max_examples=30, deadline=None)
@given(entropies, st.data())
def test_a_wrong_word_is_told_by_its_place_alone(entropy: bytes, data: st.DataObject) -> None:
    words = Mnemonic().to_mnemonic(entropy).split()
    place = data.draw(st.integers(0, len(words) - 1))
    words[place] = "zzyzx"
    text = said_of(" ".join(words))
    assert f"list of BIP-39: number {place + 1};" in text
    assert "english" in text
    assert "zzyzx" not in text


@given(st.integers(0, 40).filter(lambda count: count not in (12, 15, 18, 21, 24)))
def test_a_wrong_count_is_told(count: int) -> None:
    assert said_of("zebra " * count).startswith(f"the mnemonic has {count} words, but a mnemonic has one of 12,")


def test_a_wrong_checksum_is_told() -> None:
    text = said_of("zebra " * 12)
    assert "checksum of the mnemonic is wrong" in text
    assert "zebra" not in text


def test_what_has_no_word_of_a_list_is_no_mnemonic() -> None:
    assert "none of the words" in said_of("xyzzy " * 12)


@pytest.mark.parametrize("path", ["", "44/60", "m/", "m/x", "m/-1", "m/2147483648", "m/44''", "m/44'/60'/0'/0/0 "])
def test_a_path_that_is_none_is_named(path: str) -> None:
    assert repr(path) in said_of(JUNK, path)
