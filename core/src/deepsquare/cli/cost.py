"""`deepsquare cost`: what the jobs cost, and whether the money and the time add up."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepsquare.cli.app import EXIT_ERROR, EXIT_WRONG_USE, complain, fail
from deepsquare.cli.show import Json, job_json, print_json, print_table, title

if TYPE_CHECKING:
    from deepsquare.client.accounting import Check
    from deepsquare.client.audit import Audit, Suspicion
    from deepsquare.client.costs import CostGroup, JobCost

_DAY = ["%Y-%m-%d"]


def cost(
    by: Annotated[
        str | None,
        typer.Option(
            metavar="day|LABEL",
            help="Sums instead of jobs: by the day of the purchase, in local time, or by the values of a label, for example rule.",
        ),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(formats=_DAY, metavar="YYYY-MM-DD", help="Only jobs bought on this day or later, in local time."),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(formats=_DAY, metavar="YYYY-MM-DD", help="Only jobs bought on this day or before, in local time."),
    ] = None,
    chart: Annotated[
        bool, typer.Option("--chart", help="Draw what was billed as bars, by day or as --by says, instead of a table.")
    ] = False,
    audit: Annotated[
        bool,
        typer.Option(
            "--audit",
            help="Point out bills for clearly more time than the chain's clock and the job's output show; a hint, no proof.",
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Hold jobs, balances and the token's Transfer events against each other, to the wei."
        ),
    ] = False,
    as_csv: Annotated[
        bool,
        typer.Option("--csv", help="Print CSV for spreadsheets: a row a job, with its transactions and exact amounts."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what your jobs locked, were billed and got back.

    Example: deepsquare cost --by day --since 2026-11-01 --chart
    """
    if as_csv and (as_json or by or chart or audit or check):
        fail(
            "--csv prints a row a job and nothing else: leave out the other options but --since and --until",
            EXIT_WRONG_USE,
        )
    if as_json and chart:
        fail("--chart is for people: leave out --json, or --chart", EXIT_WRONG_USE)
    if since and until and since > until:
        fail(f"--since {since:%Y-%m-%d} is after --until {until:%Y-%m-%d}: no day is in between", EXIT_WRONG_USE)

    async def work() -> bool:
        from deepsquare.client import accounting, costs
        from deepsquare.client.audit import audit as look
        from deepsquare.client.client import Client

        async with Client(sealed=True) as client:
            every = await costs.job_costs(client.market, client.account, client.labels(), client.names())
            if by and by != costs.BY_DAY and every:
                costs.check_label(every, by)
            # A day begins and ends by the local clock.
            begin, end = since and since.astimezone(), until and (until + timedelta(days=1)).astimezone()
            chosen = costs.bought_between(every, begin, end)
            if as_csv or as_json or audit:
                chosen = await costs.traced(client.market, client.account, chosen)
            checks = await accounting.check(client.market, client.account) if check else []
            audited = await look(client.market, chosen, client.log_times) if audit else None
            dated_prices = client.market.extended
        groups = costs.grouped(chosen, by or costs.BY_DAY) if by or chart else None
        if as_csv:
            from deepsquare.client.spreadsheet import write_costs

            write_costs(sys.stdout, chosen)
        elif as_json:
            print_json(_json(chosen, groups, checks, audited))
        else:
            _print_costs(chosen, groups, by or costs.BY_DAY, chart)
            for item in checks:
                print(f"{'ok    ' if item.ok else 'WRONG '} {item.what}: {item.detail}")
            if audited:
                _print_audit(audited, dated_prices)
        if audited and audited.unread:
            complain(f"the output of {len(audited.unread)} job(s) could not be read: {audited.reason}")
        return all(item.ok for item in checks) and not (audited and (audited.suspicions or audited.unread))

    if not asyncio.run(work()):
        raise typer.Exit(EXIT_ERROR)


def _print_costs(chosen: Sequence[JobCost], groups: Sequence[CostGroup] | None, by: str, chart: bool) -> None:
    from deepsquare.cli.chart import print_bars
    from deepsquare.client.costs import BY_DAY, CostGroup
    from deepsquare.client.text import excerpt
    from deepsquare.credits import format_credits
    from deepsquare.tasks import CostRow, format_cost_table

    if groups is None:
        print(format_cost_table([CostRow(title(cost.info, cost.labels, cost.name), cost.info) for cost in chosen]))
        return
    if by == BY_DAY:
        print(f"by the day of the purchase, in local time ({datetime.now().astimezone():%Z, UTC%z})")
    named = [("-" if group.name is None else excerpt(group.name, 60), group) for group in groups]
    if chart:
        print("credits billed")
        print_bars([(name, group.billed, format_credits(group.billed)) for name, group in named])
        return
    print_table(
        (excerpt(by.upper(), 60), "JOBS", "LOCKED", "BILLED", "REFUNDED"),
        [
            (name, str(group.jobs), *map(format_credits, (group.locked, group.billed, group.refunded)))
            for name, group in [*named, ("all", CostGroup.of(None, chosen))]
        ],
        right=frozenset(range(1, 5)),
    )


def _print_audit(audited: Audit, dated_prices: bool) -> None:
    from deepsquare.tasks.report import format_time, short_id

    def line(one: Suspicion) -> str:
        seen = {
            "chain": f"the chain saw it run for {format_time(one.ran)}",
            "log": f"its output spans {format_time(one.written)}",
        }
        said = " and ".join(seen[reason] for reason in one.reasons)
        info = one.cost.info
        return f"SUSPICIOUS {short_id(info.id)} ({info.status.name}, {info.provider}): billed {format_time(one.billed)}, but {said}"

    for one in audited.suspicions:
        print(line(one))
    prices = "" if dated_prices else ", at the prices that providers have now: this market keeps no others"
    print(
        f"{len(audited.suspicions)} suspicious of {audited.judged} job(s) with a bill; {audited.read} of them wrote enough "
        f"to compare with their output{prices}"
    )


def _json(
    chosen: Sequence[JobCost], groups: Sequence[CostGroup] | None, checks: Sequence[Check], audited: Audit | None
) -> dict[str, Any]:
    from deepsquare.client.costs import credits_of

    value: dict[str, Any] = {
        "jobs": [_job(cost) for cost in chosen],
        "checks": [{"what": item.what, "ok": item.ok, "detail": item.detail} for item in checks],
    }
    if groups is not None:
        value["groups"] = [
            {"name": group.name, "jobs": group.jobs}
            | {name: credits_of(getattr(group, name)) for name in ("locked", "billed", "refunded")}
            | _wei(group)
            for group in groups
        ]
    if audited is not None:
        value["audit"] = {
            "suspicious": [
                {
                    "id": one.cost.info.id,
                    "billed_seconds": one.billed,
                    "run_seconds": one.ran,
                    "log_seconds": one.written,
                    "exceeds": one.reasons,
                }
                for one in audited.suspicions
            ],
            "judged": audited.judged,
            "read": audited.read,
            "unread": audited.unread,
        }
    return value


def _job(cost: JobCost) -> dict[str, Any]:
    from deepsquare.client.costs import credits_of

    value = job_json(cost.info, cost.labels) | _wei(cost)
    if cost.trace:
        value |= {
            "price_per_minute": credits_of(cost.trace.price),
            "purchase_transaction": cost.trace.purchase,
            "end_transaction": cost.trace.end,
            "top_up_transactions": cost.trace.top_ups,
        }
    return value


def _wei(amounts: JobCost | CostGroup) -> dict[str, str | None]:
    """As text: programs that read numbers as floats would round them."""
    values = {"locked_wei": amounts.locked, "billed_wei": amounts.billed, "refunded_wei": amounts.refunded}
    return {name: None if value is None else str(value) for name, value in values.items()}
