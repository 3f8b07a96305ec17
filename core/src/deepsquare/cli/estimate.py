"""`deepsquare estimate`: what a job would cost, before anything is bought."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from deepsquare.cli.app import checked
from deepsquare.cli.job import duration
from deepsquare.cli.show import Json, print_json, print_table


def estimate(
    file: Annotated[Path, typer.Argument(help="A workflow file, YAML or JSON.", exists=True, dir_okay=False)],
    time_limit: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Show what this much time costs: 30s, 10m, 1h30m.", callback=checked(duration)
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a job would cost at each provider that could get it; nothing is signed or paid.

    The provider marked with * is the dearest: by its price `submit --time-limit` turns time into credits.

    Example: deepsquare estimate hello.yaml --time-limit 10m
    """
    from deepsquare.client.blocking import BlockingClient
    from deepsquare.workflow import load

    workflow = load(file)
    with BlockingClient(sealed=True) as client:
        found = client.estimate(workflow, None if time_limit is None else duration(time_limit))
    if as_json:
        print_json([asdict(offer) for offer in found])
        return
    header = ["PROVIDER", "A MINUTE", "MINUTES A CREDIT"] + ([] if time_limit is None else [time_limit.upper()])
    rows = []
    for offer in found:
        minutes = "any" if offer.minutes_per_credit is None else f"{offer.minutes_per_credit:f}"
        row = [offer.provider + (" *" if offer.counts else ""), f"{offer.cost_per_minute:f}", minutes]
        rows.append(row + ([] if offer.cost is None else [f"{offer.cost:f}"]))
    print_table(header, rows, right=frozenset({1, 2, 3}))
    if rows:
        print("* could get the job: --time-limit locks what the dearest of these costs")
