"""`deepsquare doctor`: what works, and what to do about what doesn't."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING, Annotated

import typer

from deepsquare.cli.app import EXIT_ERROR
from deepsquare.cli.grid import State, state_folder
from deepsquare.cli.show import Json, print_json, print_mark

if TYPE_CHECKING:
    from deepsquare.checks import Check

_ENGINES = {"snakemake": "snakemake-executor-plugin-deepsquare"}


def doctor(
    context: Annotated[str | None, typer.Option(help="The context to check. [default: the current one]")] = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Check each part, a line each: what works, and what to do about what doesn't. Exit code 1 when something doesn't.

    First what you need as a customer, from the context to the grid's services; then the grid on this machine, if there is one.

    Example: deepsquare doctor --json
    """

    async def look() -> list[Check]:
        from deepsquare import contexts
        from deepsquare.client.checks import customer_checks

        found = []

        def note(item: Check) -> None:
            found.append(item)
            if not as_json:
                print_mark(item.ok, f"{item.part:10} {item.detail}")

        for item in _engines():
            note(item)
        async for item in customer_checks(context):
            note(item)
        try:
            from deepsquare.grid.local.checks import operator_checks
        except ModuleNotFoundError:
            # Without the extra `grid` there is no grid here.
            return found
        async for item in operator_checks(state_folder(state), context or contexts.current()):
            note(item)
        return found

    found = asyncio.run(look())
    if as_json:
        print_json([asdict(item) for item in found])
    if not all(item.ok for item in found):
        raise typer.Exit(EXIT_ERROR)


def _engines() -> list[Check]:
    """The engines of this Python, each with its plugin."""
    from deepsquare.checks import Check

    found = []
    for engine, plugin in _ENGINES.items():
        try:
            version = metadata.version(engine)
        except metadata.PackageNotFoundError:
            continue
        try:
            found.append(Check(engine, True, f"{version}, with {plugin} {metadata.version(plugin)}"))
        except metadata.PackageNotFoundError:
            found.append(Check(engine, False, f"{version}, but without its executor: pip install {plugin}"))
    return found
