"""Giving credits to another account."""

from __future__ import annotations

from deepsquare.chain.address import parse_address
from deepsquare.chain.market import Market
from deepsquare.chain.transactions import Sent, is_refusal
from deepsquare.client.funding import FundingError
from deepsquare.credits import format_credits
from deepsquare.errors import ConfigError, TransactionError

_CONTRACTS = ("MetaScheduler", "Credit", "Constants", "ProviderManager", "ProviderJobQueues", "JobRepository")


async def check_transfer(market: Market, account: str, to: str, amount: int) -> str:
    """See whether an account can give `amount` wei to another one.

    Returns:
        The other's address, with its checksum.

    Raises:
        ValueError: `to` is no address, or its checksum is wrong.
        ConfigError: it is the own address or a contract of the market, from which nothing comes back, or the amount is 0.
        FundingError: the account has less.
    """
    to = parse_address(to, field="TO")
    if to == account:
        raise ConfigError(f"TO is {to}, which is your own address: give the one of who gets the credits")
    for name in _CONTRACTS:
        if to == market.address(name):
            raise ConfigError(f"TO is {to}, the contract {name}: credits that are sent to it are lost")
    if amount == 0:
        raise ConfigError("AMOUNT is 0, which transfers nothing")
    balance = await market.balance_of(account)
    if balance < amount:
        raise FundingError(
            f"{format_credits(amount)} credits are to be transferred, but {account} has {format_credits(balance)}: transfer "
            "less, or get more",
            balance,
            amount,
        )
    return to


async def transfer(market: Market, to: str, amount: int) -> str:
    """Give `amount` wei of the own credits to another account, when `check_transfer` agrees.

    Returns:
        The hash of the transaction, as 0x-hex, when it is in a block.

    Raises:
        ContractError: the token refused; nothing was transferred.
        TransactionError: not carried out; or unknown, then the text names the transaction.
        ConnectionFailedError: the node can't be reached; nothing was transferred.
    """
    to = await check_transfer(market, market.account, to, amount)
    digest = ""

    def note(sent: Sent) -> None:
        nonlocal digest
        digest = "0x" + sent.hash.hex()

    try:
        await market.transfer(to, amount, before_send=note)
    except Exception as error:
        if not digest or is_refusal(error):
            raise
        raise TransactionError(
            f"the transfer {digest} may have been carried out, but its answer was lost ({error}). Look it up, or at the balance "
            "(deepsquare credit balance), before you try again"
        ) from None
    return digest
