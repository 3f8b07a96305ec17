"""The command's groups, and what holds for all of them: errors without a traceback, exit codes, output for people or for programs.

Exit codes: 0 done, 1 an error, 2 wrong use, 3 the job did not finish (or the grid is down), 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from deepsquare.errors import DeepSquareError

EXIT_ERROR = 1
EXIT_NOT_FINISHED = 3
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="deepsquare",
    help="Buy HPC jobs on the DeepSquare grid, follow them, and run a grid of your own.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def fail(message: str, code: int = EXIT_ERROR) -> NoReturn:
    """End the command with a message on stderr."""
    print(f"deepsquare: {message}", file=sys.stderr)
    raise typer.Exit(code)


def run() -> None:
    """Run the command; a user's mistake ends with one clear message."""
    from deepsquare.cli import allowance, context, cost, grid, job, workflow

    app.add_typer(job.app, name="job")
    app.command("submit")(job.submit)
    app.command("cost")(cost.cost)
    app.add_typer(allowance.app, name="allowance")
    app.add_typer(workflow.app, name="workflow")
    app.add_typer(context.app, name="context")
    app.add_typer(grid.app, name="grid")
    try:
        app()
    except (DeepSquareError, ValueError) as error:
        print(f"deepsquare: {error}", file=sys.stderr)
        sys.exit(EXIT_ERROR)
    except KeyboardInterrupt:
        print("\ndeepsquare: interrupted; jobs that were bought go on (deepsquare job list)", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
