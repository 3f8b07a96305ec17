"""Reverts of the contracts as exception classes, one for each error, with the error's arguments as attributes."""

from __future__ import annotations

from typing import Any, ClassVar

from eth_abi import decode
from eth_utils import function_signature_to_4byte_selector

from deepsquare.credits import format_credits
from deepsquare.errors import TransactionError


class ContractError(TransactionError):
    """The contract refused a call."""

    signature: ClassVar[str] = ""
    parameters: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *arguments: Any) -> None:
        self.arguments = dict(zip(self.parameters, arguments, strict=True))
        super().__init__(self.describe(**self.arguments))

    def describe(self, **arguments: Any) -> str:
        """The text of the error, made from its arguments."""
        given = ", ".join(f"{name}={value}" for name, value in arguments.items())
        return f"the contract refused: {type(self).__name__}({given})"


class UnknownRevertError(ContractError):
    """A revert that none of the known errors explains."""

    parameters = ("reason",)

    def describe(self, **arguments: Any) -> str:
        """The node's reason."""
        return f"the contract refused: {arguments['reason']}"


class InsufficientFunds(ContractError):
    """Less credit than needed: of the balance, of the allowance, or below the market's minimum."""

    signature = "InsufficientFunds(uint256,uint256)"
    parameters = ("available", "required")

    def describe(self, **arguments: Any) -> str:
        """Both amounts, and what to do."""
        available, required = (format_credits(arguments[key]) for key in ("available", "required"))
        return (
            f"not enough credits: {required} are needed, {available} are available. Get credits, raise the allowance "
            "of the market, or ask for less time or fewer resources"
        )


class NewJobRequestDisabled(ContractError):
    """The market takes no new jobs."""

    signature = "NewJobRequestDisabled()"

    def describe(self, **arguments: Any) -> str:
        """What to do."""
        return "the market takes no new jobs at the moment; try again later"


class InvalidJobDefinition(ContractError):
    """Zero tasks, CPUs or memory, an empty hash, or too many labels."""

    signature = "InvalidJobDefinition()"

    def describe(self, **arguments: Any) -> str:
        """What to do."""
        return "the job asks for no tasks, CPUs or memory (each must be at least 1), or names too many labels"


def _simple(signature: str, *parameters: str) -> type[ContractError]:
    name = signature.partition("(")[0]
    return type(name, (ContractError,), {"signature": signature, "parameters": parameters, "__doc__": f"`{signature}`"})


CustomerMetaSchedulerProviderOnly = _simple("CustomerMetaSchedulerProviderOnly()")
CustomerOnly = _simple("CustomerOnly(address,address)", "current", "expected")
JobHotStatusOnly = _simple("JobHotStatusOnly(uint8)", "current")
JobProviderOnly = _simple("JobProviderOnly(address,address)", "current", "expected")
MetaScheduledScheduledStatusOnly = _simple("MetaScheduledScheduledStatusOnly(uint8)", "current")
NoSpendingAuthority = _simple("NoSpendingAuthority()")
ProviderNotJoined = _simple("ProviderNotJoined()")
RemainingTimeAboveLimit = _simple("RemainingTimeAboveLimit(uint256,uint256)", "remaining", "limit")
RunningColdStatusOnly = _simple("RunningColdStatusOnly(uint8)", "current")
RunningScheduledStatusOnly = _simple("RunningScheduledStatusOnly(uint8)", "current")
SameStatusError = _simple("SameStatusError()")
InvalidTransition = _simple("InvalidTransition(uint8,uint8)", "from_", "to")
NoJob = _simple("NoJob()")
Empty = _simple("Empty()")
AlreadyDone = _simple("AlreadyDone()")
Banned = _simple("Banned()")
NoProvider = _simple("NoProvider()")
WaitingApprovalOnly = _simple("WaitingApprovalOnly()")

_BY_SELECTOR = {
    function_signature_to_4byte_selector(error.signature): error
    for error in ContractError.__subclasses__()
    if error.signature
}
_REASON = function_signature_to_4byte_selector("Error(string)")


def decode_revert(data: str | bytes | None, message: str = "") -> ContractError:
    """The exception of a revert.

    Args:
        data: the revert data of the JSON-RPC error: 0x-hex or bytes, or None when the node sent none.
        message: the node's own text, used when the data explain nothing.
    """
    try:
        raw = bytes.fromhex(data.removeprefix("0x")) if isinstance(data, str) else bytes(data or b"")
    except ValueError:
        return UnknownRevertError(f"{message} {data!s}".strip())
    selector, arguments = raw[:4], raw[4:]
    try:
        if selector == _REASON:
            return UnknownRevertError(decode(["string"], arguments)[0])
        error = _BY_SELECTOR[selector]
        types = error.signature.partition("(")[2].rstrip(")")
        return error(*decode(types.split(",") if types else [], arguments))
    except Exception:
        return UnknownRevertError(message or f"revert data 0x{raw.hex()}")
