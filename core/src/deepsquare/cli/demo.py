"""`deepsquare demo`: everything once, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepsquare.cli.grid import Apptainer, Cluster, Images, State, WhichScheduler, say, state_folder

_NEXT = """
Look at what happened:   deepsquare job list
                         deepsquare job logs ID
                         deepsquare cost --check
Check every part:        deepsquare doctor
Run it all once more:    deepsquare demo --fresh
Stop the grid:           deepsquare grid down"""


def demo(
    state: State = None,
    scheduler: WhichScheduler = None,
    cluster: Cluster = None,
    runtime: Annotated[
        Path | None,
        typer.Option(help="A Python environment with Snakemake that jobs can read. [default: this command's own]"),
    ] = None,
    images: Images = None,
    apptainer: Apptainer = None,
    image: Annotated[
        str | None,
        typer.Option(
            help="Run the jobs in this image, which has Snakemake and the pipeline's tools, such as deepsquare://snakemake "
            "(integration/apptainer makes it). [default: on the host]"
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget the results of before, so that every job is bought and run again.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Two samples instead of four, and no long job.")] = False,
) -> None:
    """Start a grid here, run a Snakemake pipeline on it, job by job bought on chain, and compare with a plain run.

    Some three minutes, most of which the jobs take. What is there already is used again, so a second run is quick.

    Example: deepsquare demo --quick
    """
    from deepsquare.grid.local.control import Settings
    from deepsquare.grid.local.demo import DemoSettings, run

    run(
        DemoSettings(
            grid=Settings(
                state=state_folder(state),
                scheduler=scheduler,
                cluster=cluster.absolute() if cluster else None,
                runtime=_runtime(runtime),
                images=images.absolute() if images else None,
                apptainer=apptainer.absolute() if apptainer else None,
            ),
            fresh=fresh,
            quick=quick,
            image=image,
        ),
        lambda text: print(f"\n==> {text}", flush=True),
        say,
    )
    print(_NEXT)


def _runtime(chosen: Path | None) -> Path:
    import sys

    return chosen.absolute() if chosen is not None else Path(sys.prefix)
