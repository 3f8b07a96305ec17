from __future__ import annotations

from deepsquare.chain import errors
from deepsquare.chain.errors import ContractError, UnknownRevertError, decode_revert
from eth_abi import encode
from eth_utils import function_signature_to_4byte_selector
from hypothesis import given
from hypothesis import strategies as st


def data_of(signature: str, *arguments: int | str) -> str:
    types = signature.partition("(")[2].rstrip(")").split(",")
    body = encode(types, arguments) if arguments else b""
    return "0x" + (function_signature_to_4byte_selector(signature) + body).hex()


def test_a_revert_becomes_its_own_class_with_its_arguments() -> None:
    error = decode_revert(data_of("InsufficientFunds(uint256,uint256)", 10**18, 5 * 10**18))
    assert isinstance(error, errors.InsufficientFunds)
    assert error.arguments == {"available": 10**18, "required": 5 * 10**18}
    assert "5.0000 are needed, 1.0000 are available" in str(error)


def test_errors_of_all_contracts_are_known() -> None:
    for name in ("InvalidTransition", "SameStatusError", "JobProviderOnly", "NoJob", "Banned"):
        error = getattr(errors, name)
        arguments = [
            2 if "uint" in kind else "0x" + "1" * 40 for kind in error.signature[len(name) + 1 : -1].split(",") if kind
        ]
        assert type(decode_revert(data_of(error.signature, *arguments))) is error


def test_a_reason_in_words_is_kept() -> None:
    assert str(decode_revert(data_of("Error(string)", "out of luck"))) == "the contract refused: out of luck"


@given(st.binary())
def test_any_revert_data_give_an_error(data: bytes) -> None:
    assert isinstance(decode_revert(data), ContractError)


def test_without_data_the_nodes_words_count() -> None:
    assert isinstance(decode_revert(None, "execution reverted"), UnknownRevertError)
    assert "execution reverted" in str(decode_revert(None, "execution reverted"))


def test_revert_data_that_are_no_hex_are_shown() -> None:
    assert "Reverted 0x" in str(decode_revert("Reverted 0x", "execution reverted"))
