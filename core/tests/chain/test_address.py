"""Addresses that are typed: mistakes are found, and what may be a key is not repeated."""

from __future__ import annotations

import pytest
from deepsquare.chain.address import parse_address
from eth_utils import is_checksum_address, to_checksum_address
from hypothesis import assume, given
from hypothesis import strategies as st

addresses = st.binary(min_size=20, max_size=20).filter(any).map(to_checksum_address)


@given(addresses)
def test_an_address_gets_its_checksum(address: str) -> None:
    for spelt in (address, address.lower(), "0x" + address[2:].upper()):
        assert parse_address(spelt) == address


@given(addresses, st.data())
def test_a_letter_in_the_wrong_case_is_refused(address: str, data: st.DataObject) -> None:
    letters = [place for place, letter in enumerate(address) if letter.isalpha() and place > 1]
    assume(letters)
    place = data.draw(st.sampled_from(letters))
    wrong = address[:place] + address[place].swapcase() + address[place + 1 :]
    assume(wrong[2:] not in (wrong[2:].lower(), wrong[2:].upper()))
    with pytest.raises(ValueError, match=rf"^TO is {wrong}, whose checksum \(EIP-55\) is wrong"):
        parse_address(wrong, field="TO")


@given(st.text(max_size=70))
def test_any_other_text_is_no_address(text: str) -> None:
    assume(not is_checksum_address(text))
    with pytest.raises(ValueError, match="write 0x and 40 hex digits"):
        parse_address(text)


def test_the_zero_address_and_a_key_are_refused() -> None:
    with pytest.raises(ValueError, match="zero address"):
        parse_address("0x" + "0" * 40)
    key = "0x" + "ab" * 32
    with pytest.raises(ValueError, match="not an address") as caught:
        parse_address(key)
    assert key not in str(caught.value)
