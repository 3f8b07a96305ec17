"""`deepsquare provider`: who offers what at which price."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepsquare.cli.app import checked
from deepsquare.cli.show import Json, for_people, print_json, print_table
from deepsquare.credits import from_wei
from deepsquare.errors import DeepSquareError

if TYPE_CHECKING:
    from deepsquare.chain.register import Entry

app = typer.Typer(no_args_is_help=True, help="The providers of the grid: hardware, prices, labels.")


def _check_address(text: str) -> None:
    from deepsquare.chain.address import parse_address

    parse_address(text, field="ADDRESS")


def _json(entry: Entry) -> dict[str, Any]:
    provider = entry.provider
    return {
        "address": provider.address,
        "standing": entry.standing.value,
        "nodes": [
            {"cpus": cpus, "gpus": gpus, "memory_mb": mem_mb}
            for cpus, gpus, mem_mb in zip(
                provider.hardware.cpus, provider.hardware.gpus, provider.hardware.mem_mb, strict=True
            )
        ],
        "credits_per_cpu_minute": from_wei(provider.prices.cpu),
        "credits_per_gpu_minute": from_wei(provider.prices.gpu),
        "credits_per_mb_minute": from_wei(provider.prices.mem),
        "labels": {label.key: label.value for label in provider.labels},
    }


@app.command("list")
def list_(
    waiting: Annotated[
        bool,
        typer.Option(
            "--waiting",
            help="Also those that wait for approval: the chain's events are read from the first block on, which takes its time.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """List the providers: their hardware, and what a minute of a CPU, a GPU and a MB of memory costs, in credits.

    Example: deepsquare provider list
    """

    async def work() -> None:
        from deepsquare.chain.register import list_entries
        from deepsquare.client.reader import open_reader

        async with open_reader() as (_, market):
            entries = await list_entries(market, waiting=waiting)
        if as_json:
            print_json([_json(entry) for entry in entries])
            return
        rows = []
        for entry in entries:
            hardware, prices = entry.provider.hardware, entry.provider.prices
            numbers = [hardware.nodes, sum(hardware.cpus), sum(hardware.gpus), sum(hardware.mem_mb)]
            costs = [from_wei(price) for price in (prices.cpu, prices.gpu, prices.mem)]
            rows.append([entry.provider.address, entry.standing.value, *map(str, numbers), *map(for_people, costs)])
        print_table(
            ["ADDRESS", "STANDING", "NODES", "CPUS", "GPUS", "MB", "CPU/MIN", "GPU/MIN", "MB/MIN"],
            rows,
            right=frozenset(range(2, 9)),
        )

    asyncio.run(work())


@app.command()
def show(
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS",
            help="A provider's address, as `deepsquare provider list` prints it.",
            callback=checked(_check_address),
        ),
    ],
    as_json: Json = False,
) -> None:
    """Show one provider: each node, prices in credits, labels, and whether it is banned or waits for approval.

    Example: deepsquare provider show 0xD5738FC200E9814A097F03FE01a91D7265C1e235
    """

    async def work() -> None:
        from deepsquare.chain.address import parse_address
        from deepsquare.chain.register import find_entry
        from deepsquare.client.reader import open_reader

        wanted = parse_address(address)
        async with open_reader() as (_, market):
            entry = await find_entry(market, wanted)
        if entry is None:
            raise DeepSquareError(
                f"no provider has registered as {wanted} (list them: deepsquare provider list --waiting)"
            )
        fields = _json(entry)
        if as_json:
            print_json(fields)
            return
        labels, nodes = fields.pop("labels"), fields.pop("nodes")
        for key, value in fields.items():
            print(f"{key:22} {for_people(value)}")
        for number, node in enumerate(nodes, 1):
            print(f"{f'node {number}':22} {node['cpus']} CPUs, {node['gpus']} GPUs, {node['memory_mb']} MB")
        for key, value in labels.items():
            # The provider's own words.
            print(f"{'label':22} {_safe(key)}={_safe(value)}")

    asyncio.run(work())


def _safe(text: str) -> str:
    from deepsquare.client.text import sanitize

    return sanitize(text.encode("utf-8", "replace"))
