"""`deepsquare submit` and `deepsquare job`."""

from __future__ import annotations

import asyncio
import re
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deepsquare.cli.app import EXIT_WRONG_USE, checked, fail, parse_labels
from deepsquare.cli.show import Json, for_people, job_json, print_json, print_table, title
from deepsquare.cli.watch import check_id, follow, verdict, watch
from deepsquare.credits import to_wei
from deepsquare.errors import DeepSquareError

if TYPE_CHECKING:
    from deepsquare.client.job import JobInfo
    from deepsquare.workflow import Problem

app = typer.Typer(no_args_is_help=True, help="Your jobs: list, show, read their output, cancel.")

_PLACE = re.compile(r"([A-Za-z_]\w*(?:\.\w+|\[\d+\])*): ")
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def duration(text: str, field: str = "--time-limit") -> timedelta:
    """A time as people write it.

    Raises:
        ValueError: it is none.
    """
    match = _DURATION.fullmatch(text)
    if not text or match is None or not any(match.groups()):
        raise ValueError(f"{field} is {text!r}; write for example 30s, 10m or 1h30m")
    hours, minutes, seconds = (int(group or 0) for group in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def _check_policy(text: str) -> None:
    if text not in ("never", "exact"):
        to_wei(text, field="--ensure-allowance")


def _time_more(text: str) -> timedelta:
    return duration(text, "--time")


JobId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="A job's id (0x...) or number, as `deepsquare job list` prints it.",
        callback=checked(check_id),
    ),
]


def submit(
    file: Annotated[Path, typer.Argument(help="A workflow file, YAML or JSON.", exists=True, dir_okay=False)],
    credits: Annotated[
        str | None,
        typer.Option(
            help="Lock this many credits, for example 5 or 12.5.", callback=checked(partial(to_wei, field="--credits"))
        ),
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Lock what this much time costs instead: 30s, 10m, 1h30m.",
            callback=checked(duration),
        ),
    ] = None,
    max_price: Annotated[
        str | None,
        typer.Option(
            metavar="CREDITS",
            help="The most that the job may lock: buy nothing if the time limit costs more. Alone: lock all of it.",
            callback=checked(partial(to_wei, field="--max-price")),
        ),
    ] = None,
    margin: Annotated[
        int,
        typer.Option(
            metavar="PERCENT",
            help="Lock so much more than the time limit costs now, in case prices rise before the job has its provider.",
            min=0,
            max=1000,
        ),
    ] = 0,
    name: Annotated[str | None, typer.Option(help="A public name on chain; a random tag when left out.")] = None,
    key: Annotated[
        str | None,
        typer.Option(
            help="Your private name for this piece of work: submitted again, it gives the job that runs or has finished, and buys "
            "one only if there is none or it failed."
        ),
    ] = None,
    ensure_allowance: Annotated[
        str,
        typer.Option(
            metavar="never|exact|CREDITS",
            help="Raise the allowance if it is too low: never, to what this job locks, or to an amount.",
            callback=checked(_check_policy),
        ),
    ] = "never",
    auto_top_up: Annotated[
        str | None,
        typer.Option(
            metavar="CAP",
            help="Lock more before the job runs dry, up to this many credits in all.",
            callback=checked(partial(to_wei, field="--auto-top-up")),
        ),
    ] = None,
    top_up_by: Annotated[
        Literal["client", "grid"],
        typer.Option(
            help="Who does that: this command as long as it watches (needs --watch), or the grid on your behalf.",
        ),
    ] = "client",
    allow_uncapped: Annotated[
        bool,
        typer.Option("--allow-uncapped", help="Let the grid do it also where it keeps no cap but your allowance."),
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="CREDITS",
            help="Buy nothing if all jobs of the same --budget-scope would lock or cost more than this together.",
            callback=checked(partial(to_wei, field="--budget")),
        ),
    ] = None,
    budget_scope: Annotated[
        str | None, typer.Option(metavar="NAME", help="Your private name for what shares the budget.")
    ] = None,
    when_spent: Annotated[
        Literal["let_run", "stop"],
        typer.Option(help="What becomes of running jobs when the budget refuses one."),
    ] = "let_run",
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A label of yours, kept on this machine: `cost --by KEY`, `job list --label`. Repeatable.",
        ),
    ] = None,
    result: Annotated[
        bool,
        typer.Option("--result", help="Keep what it writes to $DEEPSQUARE_RESULT, for `deepsquare job result`."),
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show state changes and output until the end.")] = False,
    as_json: Json = False,
) -> None:
    """Buy a job that runs a workflow file.

    What the job doesn't use of its credits comes back when it ends. With --key a command that was cut off can be given again
    without paying twice.

    Example: deepsquare submit hello.yaml --credits 5 --watch
    """
    from deepsquare.workflow import load

    if (credits is None) == (time_limit is None) and (credits is not None or max_price is None):
        fail("say how much the job may use: either --credits 5 or --time-limit 10m", EXIT_WRONG_USE)
    if auto_top_up is not None and top_up_by == "client" and not watch:
        fail(
            "--auto-top-up needs --watch: this command tops the job up as long as it watches. Or let the grid do it: "
            "--top-up-by grid",
            EXIT_WRONG_USE,
        )
    if auto_top_up is None and (top_up_by == "grid" or allow_uncapped):
        fail("say how much may be added: --auto-top-up CAP", EXIT_WRONG_USE)
    if (budget is None) != (not budget_scope):
        fail("a budget needs an amount and a name: --budget 50 --budget-scope NAME", EXIT_WRONG_USE)
    if margin and time_limit is None:
        fail("--margin is a margin on --time-limit: give that too", EXIT_WRONG_USE)
    if key == "":
        fail("--key is empty: give the work a name, or leave the option out", EXIT_WRONG_USE)
    workflow = load(file)
    limit = None if time_limit is None else duration(time_limit)

    labels = {"file": file.name} | parse_labels(label or [], "run=nightly")

    async def work() -> int:
        from deepsquare.client.auto_topup import AutoTopUp
        from deepsquare.client.budget import Budget
        from deepsquare.client.client import Client
        from deepsquare.client.sbatch import WorkflowRejectedError
        from deepsquare.tasks import short_id
        from deepsquare.workflow.loading import with_lines

        async with Client() as client:
            try:
                job = await client.submit(
                    workflow,
                    credits=credits,
                    time_limit=limit,
                    max_price=max_price,
                    margin_percent=margin,
                    name=name,
                    labels=labels,
                    key=key,
                    result=result,
                    ensure_allowance=ensure_allowance,
                    auto_top_up=None
                    if auto_top_up is None
                    else AutoTopUp(auto_top_up, by=top_up_by, allow_uncapped=allow_uncapped),
                    budget=None if budget is None else Budget(budget, budget_scope or "", when_spent),
                )
            except WorkflowRejectedError as error:
                raise with_lines([_problem(text) for text in error.problems], file) from None
            if job.adopted and (as_json or not watch):
                print("bought before under this key: nothing was bought", file=sys.stderr, flush=True)
            if not watch:
                if not as_json:
                    print(job.id)
                    return 0
                try:
                    print_json(job_json(await job.info(), labels))
                except DeepSquareError as error:
                    fail(f"the job {job.id} is bought, but how it stands can't be read: {error}")
                return 0
            if not as_json:
                how = "bought before under this key" if job.adopted else "bought"
                print(f"job {short_id(job.id)} {how}, {job.locked:f} credits locked", flush=True)
                if workflow.enable_logging is False:
                    print("this job writes no log (enableLogging: false)", flush=True)
            info = await follow(client, job, quiet=as_json)
            if as_json:
                print_json(job_json(info, labels))
            return verdict(info, quiet=as_json)

    raise typer.Exit(asyncio.run(work()))


def _problem(text: str) -> Problem:
    """A problem as the sbatch API tells it, with its place first if it has one."""
    from deepsquare.workflow import Problem

    found = _PLACE.match(text)
    return Problem(found[1], text[found.end() :], "") if found else Problem("", text, "")


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Option(help="Only those bought here under this public name.")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Only those bought here with this label. Repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List your jobs, oldest first, with what you call them and what they cost.

    Example: deepsquare job list --json | jq -r '.[] | select(.status == "FAILED") | .id'
    """
    from deepsquare.client.blocking import BlockingClient
    from deepsquare.tasks.report import format_time, short_id

    wanted = parse_labels(label or [], "run=nightly")
    with BlockingClient(sealed=True) as client:
        labels, names = client.labels(), client.names()
        infos = client.find_by(name=name, labels=wanted) if name is not None or wanted else client.jobs()
    if as_json:
        print_json([job_json(info, labels.get(info.location_hash, {})) for info in infos])
        return
    rows = []
    for info in infos:
        mine = labels.get(info.location_hash, {})
        rows.append(
            [
                short_id(info.id),
                title(info, mine, names.get(info.location_hash)),
                info.status.name,
                f"{info.submitted_at.astimezone():%Y-%m-%d %H:%M:%S}",
                format_time(_time_run(info)),
                f"{info.locked:.4f}",
                "-" if info.billed is None else f"{info.billed:.4f}",
                "-" if info.refunded is None else f"{info.refunded:.4f}",
            ]
        )
    print_table(
        ["ID", "NAME", "STATUS", "SUBMITTED", "RAN", "LOCKED", "BILLED", "REFUNDED"],
        rows,
        right=frozenset({4, 5, 6, 7}),
    )


def _time_run(info: JobInfo) -> timedelta | None:
    """How long a job ran, or has been running until now."""
    if info.started_at is None or info.ended_at is not None:
        return info.run_time
    # The chain's clock may be ahead of this one.
    return max(datetime.now(UTC) - info.started_at, timedelta())


@app.command()
def show(job_id: JobId, as_json: Json = False) -> None:
    """Show everything about one job.

    Example: deepsquare job show 0x2a
    """
    from deepsquare.client.blocking import BlockingClient

    with BlockingClient(sealed=True) as client:
        info = client.job(job_id).info()
        fields = job_json(info, client.labels().get(info.location_hash, {}))
    if as_json:
        print_json(fields)
        return
    fields["run_seconds"] = _time_run(info)
    for key, value in fields.items():
        print(f"{key.replace('_seconds', '_time'):15} {for_people(value)}")


@app.command()
def logs(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until the job ends.")] = False,
    raw: Annotated[bool, typer.Option(help="Print the bytes as they are, also control characters.")] = False,
) -> None:
    """Print a job's output. Only its owner can read it.

    Example: deepsquare job logs 0x2a --follow
    """
    from deepsquare.client.blocking import BlockingClient
    from deepsquare.client.text import sanitize

    with BlockingClient() as client:
        for line in client.logs(client.job(job_id).id, follow=follow):
            if raw:
                sys.stdout.buffer.write(line.data + b"\n")
                sys.stdout.buffer.flush()
            else:
                print(sanitize(line.data), flush=True)


@app.command()
def result(
    job_id: JobId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write it to; standard output when left out.")
    ] = None,
) -> None:
    """Wait for a job's end, and give what it wrote to $DEEPSQUARE_RESULT: it has to be submitted with --result.

    It is the provider's word: treat it as data from a stranger.

    Example: deepsquare job result 0x2a --output model.json
    """
    from deepsquare.client.blocking import BlockingClient

    with BlockingClient() as client:
        found = client.result(client.job(job_id).id)
    if found is None:
        fail("the job wrote nothing to $DEEPSQUARE_RESULT")
    if output is None:
        sys.stdout.buffer.write(found)
        sys.stdout.buffer.flush()
    else:
        output.write_bytes(found)


@app.command()
def cancel(
    job_ids: Annotated[list[str], typer.Argument(metavar="ID", help="Jobs to end.", callback=checked(check_id))],
) -> None:
    """Ask for the end of jobs; what they did not use comes back.

    Example: deepsquare job cancel 0x2a 0x2b
    """
    from deepsquare.client.blocking import BlockingClient

    with BlockingClient() as client:
        ids = [client.job(job_id).id for job_id in job_ids]
        client.cancel(ids)
        for info in client.jobs(ids):
            print(f"{info.id} {info.status.name}{' (cancelling)' if info.status.is_hot else ''}")


app.command()(watch)


@app.command("top-up")
def top_up(
    job_id: JobId,
    credits: Annotated[
        str | None,
        typer.Option(
            help="Lock this many credits more, at least a minute's worth.",
            callback=checked(partial(to_wei, field="--credits")),
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Lock what this much time costs: 10m, 1h30m.", callback=checked(_time_more)),
    ] = None,
    as_json: Json = False,
) -> None:
    """Give a job that a provider has more credits, so that it may run longer; what it doesn't use comes back.

    Example: deepsquare job top-up 0x2a --time 10m
    """
    from deepsquare.client.blocking import BlockingClient

    if (credits is None) == (time is None):
        fail("say how much more the job may use: either --credits 2 or --time 10m", EXIT_WRONG_USE)
    with BlockingClient() as client:
        job = client.job(job_id)
        added = job.top_up(credits=credits, time=None if time is None else _time_more(time))
        try:
            info = job.info()
        except DeepSquareError as error:
            fail(f"{added:f} credits were added, but how the job stands can't be read: {error}")
    if as_json:
        print_json({"id": info.id, "added": added, "locked": info.locked})
    else:
        print(f"{added:f} credits more, {info.locked:f} locked in all")
