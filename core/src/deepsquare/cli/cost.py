"""`deepsquare cost`: what the jobs cost, and whether the money adds up."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from deepsquare.cli.app import EXIT_ERROR
from deepsquare.cli.show import Json, job_json, print_json


def cost(
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Hold jobs, balances and the token's Transfer events against each other, to the wei."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what your jobs locked, were billed and got back.

    Example: deepsquare cost --check
    """

    async def work() -> bool:
        from deepsquare.client import accounting
        from deepsquare.client.client import Client
        from deepsquare.tasks import CostRow, format_cost_table

        async with Client() as client:
            infos, labels = await client.jobs(), client.labels()
            checks = await accounting.check(client.market, client.account) if check else []
        if as_json:
            print_json(
                {
                    "jobs": [job_json(info, labels.get(info.location_hash, {})) for info in infos],
                    "checks": [{"what": item.what, "ok": item.ok, "detail": item.detail} for item in checks],
                }
            )
        else:
            print(
                format_cost_table(
                    [
                        CostRow(" ".join(labels.get(info.location_hash, {}).values()) or info.name, info)
                        for info in infos
                    ]
                )
            )
            for item in checks:
                print(f"{'ok    ' if item.ok else 'WRONG '} {item.what}: {item.detail}")
        return all(item.ok for item in checks)

    if not asyncio.run(work()):
        raise typer.Exit(EXIT_ERROR)
