from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from deepsquare.chain import errors
from deepsquare.chain.artifacts import artifact
from deepsquare.chain.errors import ContractError, UnknownRevertError, decode_revert
from deepsquare.chain.rpc import RpcError, request
from eth_abi import encode
from eth_utils import function_signature_to_4byte_selector
from hypothesis import given
from hypothesis import strategies as st


def data_of(signature: str, *arguments: int | str | bytes) -> str:
    types = signature.partition("(")[2].rstrip(")").split(",")
    body = encode(types, arguments) if arguments else b""
    return "0x" + (function_signature_to_4byte_selector(signature) + body).hex()


def test_a_revert_becomes_its_own_class_with_its_arguments() -> None:
    error = decode_revert(data_of("InsufficientFunds(uint256,uint256)", 10**18, 5 * 10**18))
    assert isinstance(error, errors.InsufficientFunds)
    assert error.arguments == {"available": 10**18, "required": 5 * 10**18}
    assert "5.0000 are needed, 1.0000 are available" in str(error)


SAMPLES = {"address": "0x" + "1" * 40, "bytes32": b"\1" * 32, "string": "text"}
CONTRACTS = sorted(path.stem for path in (Path(errors.__file__).parent / "artifacts").glob("*.json"))


@pytest.mark.parametrize("contract", CONTRACTS)
def test_errors_of_all_contracts_have_their_classes(contract: str) -> None:
    declared = [entry for entry in artifact(contract)["abi"] if entry["type"] == "error"]
    for entry in declared:
        kinds = [argument["type"] for argument in entry["inputs"]]
        arguments = [SAMPLES.get(kind, 2) for kind in kinds]
        decoded = decode_revert(data_of(f"{entry['name']}({','.join(kinds)})", *arguments))
        assert type(decoded).__name__ == entry["name"]
        assert list(decoded.arguments.values()) == arguments
        assert "{" not in str(decoded)
        # Engines hand errors from process to process.
        copy = pickle.loads(pickle.dumps(decoded))
        assert (type(copy), str(copy), copy.arguments) == (type(decoded), str(decoded), decoded.arguments)


def test_what_a_user_may_meet_says_what_it_means() -> None:
    ended = decode_revert(data_of("JobHotStatusOnly(uint8)", 5))
    assert str(ended) == "the job has ended (FINISHED), and what has ended stays as it is"
    stranger = decode_revert(data_of("CustomerOnly(address,address)", "0x" + "1" * 40, "0x" + "2" * 40))
    assert "use the wallet that bought it" in str(stranger)
    # Not the arguments' names alone.
    assert "RemainingTimeAboveLimit(" not in str(
        decode_revert(data_of("RemainingTimeAboveLimit(uint256,uint256)", 9, 5))
    )


def test_a_reason_in_words_is_kept() -> None:
    assert str(decode_revert(data_of("Error(string)", "out of luck"))) == "the contract refused: out of luck"


def test_a_panic_tells_its_code() -> None:
    assert str(decode_revert(data_of("Panic(uint256)", 0x11))) == "the contract refused: panic code 0x11"


@pytest.mark.parametrize("shape", [lambda data: data, lambda data: {"data": data}, lambda data: f"Reverted {data}"])
async def test_each_nodes_way_to_tell_revert_data_is_understood(shape: Callable[[str], object]) -> None:
    class Provider:
        async def make_request(self, _: str, __: list[object]) -> dict[str, object]:
            return {"error": {"code": 3, "message": "execution reverted", "data": shape("0x1234")}}

    with pytest.raises(RpcError) as caught:
        await request(SimpleNamespace(provider=Provider()), "eth_call")
    assert caught.value.data == "0x1234"


@given(st.binary())
def test_any_revert_data_give_an_error(data: bytes) -> None:
    assert isinstance(decode_revert(data), ContractError)


def test_without_data_the_nodes_words_count() -> None:
    assert isinstance(decode_revert(None, "execution reverted"), UnknownRevertError)
    assert "execution reverted" in str(decode_revert(None, "execution reverted"))


def test_revert_data_that_are_no_hex_are_shown() -> None:
    assert "Reverted 0x" in str(decode_revert("Reverted 0x", "execution reverted"))
