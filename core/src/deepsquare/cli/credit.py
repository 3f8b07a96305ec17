"""`deepsquare credit`: how many credits there are, and giving some to others."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import Annotated

import typer

from deepsquare.cli.app import EXIT_WRONG_USE, checked, fail
from deepsquare.cli.show import Json, print_json
from deepsquare.credits import from_wei, to_wei

app = typer.Typer(no_args_is_help=True, help="Your credits: how many there are, and giving some to others.")


def _check_address(text: str) -> None:
    from deepsquare.chain.address import parse_address

    parse_address(text, field="TO")


@app.command()
def balance(as_json: Json = False) -> None:
    """Show how many credits your account has. No password is needed.

    Example: deepsquare credit balance --json | jq -r .balance
    """

    async def work() -> None:
        from deepsquare import contexts
        from deepsquare.client.reader import open_reader

        async with open_reader() as (context, market):
            account = contexts.account(context)
            credits = from_wei(await market.balance_of(account))
        if as_json:
            print_json({"account": account, "balance": credits})
        else:
            print(f"account  {account}\nbalance  {credits:f}")

    asyncio.run(work())


@app.command()
def transfer(
    to: Annotated[
        str,
        typer.Argument(metavar="TO", help="The address of who gets them (0x...).", callback=checked(_check_address)),
    ],
    amount: Annotated[
        str,
        typer.Argument(
            help="Credits, for example 12.5.", callback=checked(partial(to_wei, field="AMOUNT")), show_default=False
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    as_json: Json = False,
) -> None:
    """Give AMOUNT of your credits to another account. It can't be undone.

    Prints the hash of the transaction when it is in a block.

    Example: deepsquare credit transfer 0xD5738FC200E9814A097F03FE01a91D7265C1e235 12.5
    """
    if not yes and not _is_terminal():
        fail("there is no terminal to ask at: say --yes when the transfer is meant", EXIT_WRONG_USE)

    async def check() -> tuple[str, str]:
        from deepsquare import contexts
        from deepsquare.client.reader import open_reader
        from deepsquare.client.transfer import check_transfer

        async with open_reader() as (context, market):
            account = contexts.account(context)
            return account, await check_transfer(market, account, to, wei)

    async def work() -> str:
        from deepsquare.client.client import Client
        from deepsquare.client.transfer import transfer

        async with Client() as client:
            return await transfer(client.market, address, wei)

    wei = to_wei(amount)
    account, address = asyncio.run(check())
    if not yes:
        # Outside of an event loop, which would keep Ctrl-C from ending the question.
        typer.confirm(f"Transfer {from_wei(wei):f} credits from {account} to {address}?", abort=True, err=True)
    digest = asyncio.run(work())
    if as_json:
        print_json({"transaction": digest, "from": account, "to": address, "amount": from_wei(wei)})
    else:
        print(digest)


def _is_terminal() -> bool:
    return sys.stdin.isatty()
