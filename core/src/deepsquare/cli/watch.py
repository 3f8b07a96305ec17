"""`deepsquare job watch`, and what `submit --watch` shows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from deepsquare.cli.app import EXIT_NOT_FINISHED, checked
from deepsquare.cli.show import Json, job_json, print_json

if TYPE_CHECKING:
    from deepsquare.client.client import Client, Job
    from deepsquare.client.job import JobInfo


def check_id(text: str) -> None:
    """Whether a text can be a job's id.

    Raises:
        ValueError: it can't.
    """
    from deepsquare.chain.types import parse_job_id

    parse_job_id(text)


def watch(
    job_ids: Annotated[
        list[str], typer.Argument(metavar="ID", help="Jobs to follow to their end.", callback=checked(check_id))
    ],
    as_json: Json = False,
) -> None:
    """Show state changes until jobs have ended; of a single job its output, too. Exit code 3 when one did not finish.

    Ctrl-C ends the watching alone.

    Example: deepsquare job watch 0x2a
    """

    async def work() -> int:
        from deepsquare.client.client import Client
        from deepsquare.tasks import short_id

        # Whoever reads output signs for it.
        async with Client(sealed=len(job_ids) > 1) as client:
            ids = list(dict.fromkeys(client.job(job_id).id for job_id in job_ids))
            if len(ids) == 1:
                infos = [await follow(client, client.job(ids[0]), quiet=as_json)]
                code = verdict(infos[0], quiet=as_json)
            else:
                last: dict[str, JobInfo] = {}
                async for info in client.watch(ids):
                    # By what stays: a chain that takes blocks back may give it another id.
                    last[info.location_hash] = info
                    if not as_json:
                        reason = f": {info.error}" if info.error else ""
                        print(f"{short_id(info.id)} [{info.status.name}{reason}]", flush=True)
                infos = list(last.values())
                code = max(verdict(info, quiet=True) for info in infos)
            if as_json:
                labels = client.labels()
                print_json([job_json(info, labels.get(info.location_hash, {})) for info in infos])
        return code

    raise typer.Exit(asyncio.run(work()))


async def follow(client: Client, job: Job, *, quiet: bool) -> JobInfo:
    """Print state changes and output lines as they come; how the job stands at its end."""
    from deepsquare.chain.types import JobStatus
    from deepsquare.client.text import sanitize

    begun = asyncio.Event()

    async def print_output() -> None:
        # A line can be here before the news that the job runs; read the other way round, it would seem to come from nowhere.
        await begun.wait()
        async for line in job.logs():
            if not quiet:
                print(sanitize(line.data), flush=True)

    output = asyncio.create_task(print_output())
    last = None
    try:
        async for info in client.watch([job.id]):
            last = info
            if not quiet and info.status.is_hot:
                provider = f" on {info.provider}" if info.provider else ""
                print(f"[{info.status.name}{provider}]", flush=True)
            if info.status >= JobStatus.RUNNING:
                begun.set()
        await output
    finally:
        output.cancel()
        await asyncio.gather(output, return_exceptions=True)
    assert last is not None
    return last


def verdict(info: JobInfo, *, quiet: bool) -> int:
    """The exit code of a job at its end, with a line about that unless `quiet`."""
    from deepsquare.chain.types import JobStatus

    if not quiet:
        reason = f": {info.error}" if info.error else ""
        print(f"[{info.status.name}{reason}] billed {info.billed:f}, refunded {info.refunded:f} credits")
    return 0 if info.status is JobStatus.FINISHED else EXIT_NOT_FINISHED
