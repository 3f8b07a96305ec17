"""Reverts of the contracts as exception classes, one for each error, with the error's arguments as attributes."""

from __future__ import annotations

from typing import Any, ClassVar

from eth_abi import decode
from eth_utils import function_signature_to_4byte_selector

from deepsquare.chain.types import JobStatus
from deepsquare.credits import format_credits
from deepsquare.errors import TransactionError


class ContractError(TransactionError):
    """The contract refused a call."""

    signature: ClassVar[str] = ""
    parameters: ClassVar[tuple[str, ...]] = ()
    advice: ClassVar[str] = ""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = dict(zip(self.parameters, arguments, strict=True))
        super().__init__(self.describe(**self.arguments))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(self.arguments.values())

    def describe(self, **arguments: Any) -> str:
        """The text of the error, made from its arguments."""
        if self.advice:
            return self.advice.format(**{name: _readable(name, value) for name, value in arguments.items()})
        given = ", ".join(f"{name}={value}" for name, value in arguments.items())
        return f"the contract refused: {type(self).__name__}({given})"


class UnknownRevertError(ContractError):
    """A revert that none of the known errors explains."""

    parameters = ("reason",)

    def describe(self, **arguments: Any) -> str:
        """The node's reason."""
        return f"the contract refused: {arguments['reason']}"


class InsufficientFunds(ContractError):
    """Less credit than needed: of the balance, of the allowance, or below what makes sense."""

    signature = "InsufficientFunds(uint256,uint256)"
    parameters = ("available", "required")

    def describe(self, **arguments: Any) -> str:
        """Both amounts, and what to do."""
        available, required = (format_credits(arguments[key]) for key in ("available", "required"))
        if available == required:
            available, required = (f"{arguments[key]} wei" for key in ("available", "required"))
        return (
            f"not enough credits: {required} are needed, {available} are available. Get credits, raise the allowance "
            "of the market, or ask for less time or fewer resources"
        )


def _readable(name: str, value: Any) -> str:
    if name in ("current", "from_", "to") and isinstance(value, int) and value in list(JobStatus):
        return JobStatus(value).name
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)


def _error(signature: str, *parameters: str, advice: str = "") -> type[ContractError]:
    """The class of an error; `advice` says what it means and what to do, with the parameters in braces."""
    name = signature.partition("(")[0]
    body = {
        "signature": signature,
        "parameters": parameters,
        "advice": advice,
        "__doc__": f"`{signature}`",
        "__module__": __name__,
    }
    return type(name, (ContractError,), body)


# ------------------------------------------------------------------ a purchase

NewJobRequestDisabled = _error(
    "NewJobRequestDisabled()", advice="the market takes no new jobs at the moment; try again later"
)
InvalidJobDefinition = _error(
    "InvalidJobDefinition()",
    advice="the job asks for no tasks, CPUs or memory (each must be at least 1), or names too many labels",
)
OutOfRange = _error(
    "OutOfRange(uint256,uint256,uint256)",
    "value",
    "lowest",
    "highest",
    advice="the contract refused the number {value}: it has to be from {lowest} to {highest}",
)

# ------------------------------------------------------------------ a job's life

_ENDED = "the job has ended ({current}), and what has ended stays as it is"
SameStatusError = _error("SameStatusError()", advice="the job has that status already")
InvalidTransition = _error(
    "InvalidTransition(uint8,uint8)", "from_", "to", advice="a job that is {from_} can't become {to}"
)
InvalidJob = _error("InvalidJob()", advice="the market has no such job; look at its id (deepsquare job list)")
JobHotStatusOnly = _error("JobHotStatusOnly(uint8)", "current", advice=_ENDED)
RunningColdStatusOnly = _error(
    "RunningColdStatusOnly(uint8)",
    "current",
    advice="a provider reports that a job runs or has ended, never that it is {current}",
)
RunningScheduledStatusOnly = _error(
    "RunningScheduledStatusOnly(uint8)",
    "current",
    advice="the job is {current}: only a job that a provider has taken can be topped up; try again when it is SCHEDULED",
)
MetaScheduledScheduledStatusOnly = _error(
    "MetaScheduledScheduledStatusOnly(uint8)",
    "current",
    advice="the job is {current}: only what has not run can be refused",
)
MetaScheduledStatusOnly = _error(
    "MetaScheduledStatusOnly(uint8)",
    "current",
    advice="the job is {current}: only what waits to be claimed can time out",
)
OutOfGas = _error("OutOfGas()", advice="the transaction had too little gas; give it more, or fewer jobs")
ClaimTimeoutNotReached = _error(
    "ClaimTimeoutNotReached(uint256)",
    "deadline",
    advice="the provider may still claim the job until {deadline} (unix time)",
)
ProviderInTime = _error(
    "ProviderInTime(uint256)",
    "deadline",
    advice="the provider may still answer until {deadline} (unix time). Cancel the job first, and wait",
)
RemainingTimeAboveLimit = _error(
    "RemainingTimeAboveLimit(uint256,uint256)",
    "remaining",
    "limit",
    advice="the job has {remaining} minutes left; it is topped up when it has less than {limit}",
)
NoSpendingAuthority = _error("NoSpendingAuthority()", advice="the customer has not allowed the grid to top this job up")
DelegateCapReached = _error(
    "DelegateCapReached(uint256,uint256)",
    "left",
    "minute_cost",
    advice="the cap on top-ups by the grid is reached: {left} wei are left, a minute costs {minute_cost}. Raise the cap",
)

# ------------------------------------------------------------------ callers

CustomerOnly = _error(
    "CustomerOnly(address,address)",
    "current",
    "expected",
    advice="the job is {expected}'s, and you are {current}; use the wallet that bought it (deepsquare context show)",
)
JobProviderOnly = _error(
    "JobProviderOnly(address,address)",
    "current",
    "expected",
    advice="the job is with the provider {expected}, not with {current}",
)
CustomerMetaSchedulerProviderOnly = _error(
    "CustomerMetaSchedulerProviderOnly()",
    advice="only the job's customer, its provider and the meta-scheduler may do that",
)
AccessControlUnauthorizedAccount = _error(
    "AccessControlUnauthorizedAccount(address,bytes32)",
    "account",
    "role",
    advice="the account {account} has not the role {role} that this needs; the market's administrator grants it",
)
AccessControlBadConfirmation = _error("AccessControlBadConfirmation()")
OwnableUnauthorizedAccount = _error(
    "OwnableUnauthorizedAccount(address)", "account", advice="only the contract's owner may do that, not {account}"
)
OwnableInvalidOwner = _error("OwnableInvalidOwner(address)", "owner")

# ------------------------------------------------------------------ providers

ProviderNotJoined = _error("ProviderNotJoined()", advice="the provider has not joined the market, or is banned")
NoProvider = _error("NoProvider()", advice="no provider of that address has registered")
WaitingApprovalOnly = _error("WaitingApprovalOnly()", advice="the provider does not wait for approval")
Banned = _error("Banned()", advice="the provider is banned; the market's operators can unban it")
AlreadyDone = _error("AlreadyDone()", advice="the provider is banned, or not banned, already")
ArrayLengthMismatch = _error("ArrayLengthMismatch()", advice="the hardware has not one number a node in each list")
InvalidNodesCount = _error("InvalidNodesCount()", advice="the hardware has no nodes")
InvalidTotalCpus = _error("InvalidTotalCpus()", advice="the hardware has no CPUs")
InvalidTotalMem = _error("InvalidTotalMem()", advice="the hardware has no memory")
NoJob = _error("NoJob()", advice="nothing waits for this provider")
Empty = _error("Empty()")
OutOfBounds = _error("OutOfBounds()")

# ------------------------------------------------------------------ credits

ERC20InsufficientAllowance = _error(
    "ERC20InsufficientAllowance(address,uint256,uint256)", "spender", "allowance", "needed"
)
ERC20InsufficientBalance = _error("ERC20InsufficientBalance(address,uint256,uint256)", "sender", "balance", "needed")
ERC20InvalidApprover = _error("ERC20InvalidApprover(address)", "approver")
ERC20InvalidReceiver = _error("ERC20InvalidReceiver(address)", "receiver")
ERC20InvalidSender = _error("ERC20InvalidSender(address)", "sender")
ERC20InvalidSpender = _error("ERC20InvalidSpender(address)", "spender")
ERC2612ExpiredSignature = _error(
    "ERC2612ExpiredSignature(uint256)", "deadline", advice="the signed allowance was good until {deadline} (unix time)"
)
ERC2612InvalidSigner = _error("ERC2612InvalidSigner(address,address)", "signer", "owner")
InvalidAccountNonce = _error("InvalidAccountNonce(address,uint256)", "account", "current_nonce")
ECDSAInvalidSignature = _error("ECDSAInvalidSignature()")
ECDSAInvalidSignatureLength = _error("ECDSAInvalidSignatureLength(uint256)", "length")
ECDSAInvalidSignatureS = _error("ECDSAInvalidSignatureS(bytes32)", "s")
InvalidShortString = _error("InvalidShortString()")
StringTooLong = _error("StringTooLong(string)", "text")
SafeERC20FailedOperation = _error("SafeERC20FailedOperation(address)", "token")
SafeCastOverflowedUintDowncast = _error(
    "SafeCastOverflowedUintDowncast(uint8,uint256)",
    "bits",
    "value",
    advice="the contract refused the number {value}: it does not fit {bits} bits",
)
NothingToClaim = _error("NothingToClaim()", advice="the faucet has nothing for this account; ask its owner for some")
FailedCall = _error("FailedCall()")
InsufficientBalance = _error("InsufficientBalance(uint256,uint256)", "balance", "needed")

_BY_SELECTOR = {
    function_signature_to_4byte_selector(error.signature): error
    for error in ContractError.__subclasses__()
    if error.signature
}
_REASON = function_signature_to_4byte_selector("Error(string)")
_PANIC = function_signature_to_4byte_selector("Panic(uint256)")


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
        if selector == _PANIC:
            # The codes are Solidity's: 0x11 is an overflow, 0x32 an index out of bounds.
            return UnknownRevertError(f"panic code 0x{decode(['uint256'], arguments)[0]:02x}")
        error = _BY_SELECTOR[selector]
        types = error.signature.partition("(")[2].rstrip(")")
        return error(*decode(types.split(",") if types else [], arguments))
    except Exception:
        return UnknownRevertError(message or f"revert data 0x{raw.hex()}")
