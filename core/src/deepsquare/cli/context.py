"""`deepsquare context`: which grid is meant."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Annotated

import typer

from deepsquare.cli.app import fail
from deepsquare.cli.complete import context_names, wallet_names
from deepsquare.cli.show import Json, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Which grid is meant, and which wallet pays.")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the contexts; the current one has a star.

    Example: deepsquare context list
    """
    from deepsquare import contexts

    now = contexts.current()
    found = [contexts.load(name) for name in contexts.names()]
    if as_json:
        print_json([context.model_dump() | {"current": context.name == now} for context in found])
        return
    rows = [
        ["*" if context.name == now else "", context.name, context.sbatch_url, context.account] for context in found
    ]
    print_table(["", "NAME", "SBATCH API", "ACCOUNT"], rows)


@app.command()
def show(
    name: Annotated[
        str | None, typer.Argument(help="A context; the current one when left out.", autocompletion=context_names)
    ] = None,
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
def use(
    name: Annotated[str, typer.Argument(help="The context to use from now on.", autocompletion=context_names)],
) -> None:
    """Choose the context that commands and plugins use.

    Example: deepsquare context use local
    """
    from deepsquare import contexts

    contexts.use(name)
    print(f"context {name} is in use")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What the context shall be called.")],
    rpc_url: Annotated[
        str, typer.Option(metavar="URL", help="The node's JSON-RPC: http:// or https://, or several with commas.")
    ],
    metascheduler: Annotated[str, typer.Option(metavar="ADDRESS", help="The contract MetaScheduler (0x...).")],
    sbatch_url: Annotated[str, typer.Option(metavar="URL", help="The GraphQL URL of the sbatch API.")],
    logger_grpc: Annotated[str, typer.Option(metavar="HOST:PORT", help="The grid logger.")],
    wallet: Annotated[
        str,
        typer.Option(help="Who pays: a wallet as `deepsquare wallet list` has it.", autocompletion=wallet_names),
    ],
    ws_url: Annotated[
        str | None, typer.Option(metavar="URL", help="The node's WebSocket, if it has one: ws:// or wss://.")
    ] = None,
    sbatch_grpc: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="The sbatch API for providers. \\[default: where --sbatch-url is]"),
    ] = None,
    chain_id: Annotated[
        int | None, typer.Option(min=1, help="The chain's number; the node tells it when it can be reached.")
    ] = None,
    max_fee_gwei: Annotated[
        float | None, typer.Option(min=0.001, help="The most to pay for a unit of gas. [default: 1000]")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a context of this name.")] = False,
) -> None:
    """Write down a grid and who pays there. The first context is used at once, others with `deepsquare context use`.

    Example: deepsquare context add prod --rpc-url https://rpc.example --metascheduler 0xD5738FC200E9814A097F03FE01a91D7265C1e235
    --sbatch-url https://api.example/graphql --logger-grpc logs.example:443 --wallet alice
    """
    from deepsquare import contexts
    from deepsquare.client.new_context import new_context

    if not replace and contexts.check_name(name) in contexts.names():
        fail(f"there is a context {name!r} already: choose another name, or say --replace")
    context = asyncio.run(
        new_context(
            name,
            rpc_url=rpc_url,
            ws_url=ws_url,
            metascheduler=metascheduler,
            sbatch_url=sbatch_url,
            sbatch_grpc=sbatch_grpc,
            logger_grpc=logger_grpc,
            wallet=wallet,
            chain_id=chain_id,
            max_fee_gwei=None if max_fee_gwei is None else Decimal(str(max_fee_gwei)),
        )
    )
    contexts.save(context)
    if contexts.current() is None:
        contexts.use(name)
    used = "in use" if contexts.current() == name else f"not in use yet (deepsquare context use {name})"
    print(f"context {name} is for chain {context.chain_id}, account {context.account}; it is {used}")
