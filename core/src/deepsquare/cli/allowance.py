"""`deepsquare allowance`: how much of the own credits the market may lock."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from deepsquare.cli.app import checked
from deepsquare.cli.show import Json, print_json
from deepsquare.credits import to_wei

app = typer.Typer(no_args_is_help=True, help="How many of your credits the market may lock for jobs.")


@app.command()
def show(as_json: Json = False) -> None:
    """Show the allowance and the balance, in credits.

    Example: deepsquare allowance show
    """
    from deepsquare.client.blocking import BlockingClient

    with BlockingClient(sealed=True) as client:
        balance, allowance = client.funds()
    if as_json:
        print_json({"allowance": allowance, "balance": balance})
    else:
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


@app.command("raise")
def raise_(
    amount: Annotated[
        str,
        typer.Argument(help="Credits, for example 50.", callback=checked(partial(to_wei, field="allowance"))),
    ],
) -> None:
    """Let the market lock AMOUNT more of your credits than it may now, whatever is bought meanwhile.

    Example: deepsquare allowance raise 50
    """
    from deepsquare.client.blocking import BlockingClient

    with BlockingClient() as client:
        client.raise_allowance(amount)
        print(f"the market may lock up to {client.funds()[1]:f} credits")


@app.command()
def revoke() -> None:
    """Let the market lock no more of your credits; what jobs have locked stays so until they end.

    Example: deepsquare allowance revoke
    """
    from deepsquare.client.blocking import BlockingClient

    with BlockingClient() as client:
        client.revoke_allowance()
        print("the market may lock none of your credits")
