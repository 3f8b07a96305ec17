"""`deepsquare allowance`: how much of the own credits the market may lock."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from deepsquare.cli.app import checked
from deepsquare.credits import to_wei

app = typer.Typer(no_args_is_help=True, help="How many of your credits the market may lock for jobs.")


@app.command()
def show() -> None:
    """Show the allowance and the balance, in credits.

    Example: deepsquare allowance show
    """
    from deepsquare.client.blocking import BlockingClient

    with BlockingClient() as client:
        balance, allowance = client.funds()
        print(f"allowance {allowance:f}\nbalance   {balance:f}")


@app.command("set")
def set_(
    amount: Annotated[
        str,
        typer.Argument(
            help="Credits, for example 500; it replaces the allowance of before.",
            callback=checked(partial(to_wei, field="allowance")),
        ),
    ],
) -> None:
    """Let the market lock up to AMOUNT of your credits from now on.

    Example: deepsquare allowance set 500
    """
    from deepsquare.client.blocking import BlockingClient

    with BlockingClient() as client:
        client.set_allowance(amount)
        print(f"the market may lock up to {client.funds()[1]:f} credits")
