"""Addresses that people type."""

from __future__ import annotations

from deepsquare.chain.types import ZERO_ADDRESS


def parse_address(text: str, *, field: str = "the address") -> str:
    """An address with its EIP-55 checksum; one in lower or upper case alone has none to check.

    Raises:
        ValueError: it is no address, its checksum is wrong, or it is the zero address; the text names `field`.
    """
    from eth_utils import is_checksum_address, is_hex_address, to_checksum_address

    if not text.startswith(("0x", "0X")) or not is_hex_address(text):
        # It may be a key by mistake, which has more digits than an address.
        shown = repr(text) if len(text) <= len(ZERO_ADDRESS) else f"a text of {len(text)} characters"
        raise ValueError(f"{field} is {shown}, which is not an address: write 0x and 40 hex digits")
    digits = text[2:]
    if digits not in (digits.lower(), digits.upper()) and not is_checksum_address("0x" + digits):
        raise ValueError(
            f"{field} is {text}, whose checksum (EIP-55) is wrong: a digit or the case of a letter is not what it was; copy "
            "the address again from where it stands"
        )
    address = to_checksum_address(text)
    if address == ZERO_ADDRESS:
        raise ValueError(f"{field} is the zero address, which is nobody's: write the address that you mean")
    return address
