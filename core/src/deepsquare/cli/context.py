"""`deepsquare context`: which grid is meant."""

from __future__ import annotations

from typing import Annotated

import typer

from deepsquare.cli.show import Json, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Which grid is meant, and which wallet pays.")


@app.command("list")
def list_() -> None:
    """List the contexts; the current one has a star.

    Example: deepsquare context list
    """
    from deepsquare import contexts

    now = contexts.current()
    rows = []
    for name in contexts.names():
        context = contexts.load(name)
        rows.append(["*" if name == now else "", name, context.sbatch_url, context.account])
    print_table(["", "NAME", "SBATCH API", "ACCOUNT"], rows)


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(help="A context; the current one when left out.")] = None,
    as_json: Json = False,
) -> None:
    """Show a context: URLs, contract and account.

    Example: deepsquare context show --json | jq -r .rpc_url
    """
    from deepsquare import contexts

    fields = contexts.load(name).model_dump(mode="json", exclude={"wallet"})
    if as_json:
        print_json(fields)
        return
    for key, value in fields.items():
        print(f"{key:14} {value if value is not None else '-'}")


@app.command()
def use(name: Annotated[str, typer.Argument(help="The context to use from now on.")]) -> None:
    """Choose the context that commands and plugins use.

    Example: deepsquare context use local
    """
    from deepsquare import contexts

    contexts.use(name)
    print(f"context {name} is in use")
