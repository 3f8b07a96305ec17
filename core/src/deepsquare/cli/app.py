"""The command's groups, and what holds for all of them: errors without a traceback, exit codes, output for people or for programs.

Exit codes: 0 done, 1 an error, 2 wrong use, 3 the job did not finish (or the grid is down), 130 interrupted.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from typer.core import TyperGroup

from deepsquare.errors import DeepSquareError

EXIT_ERROR = 1
EXIT_WRONG_USE = 2
EXIT_NOT_FINISHED = 3
EXIT_INTERRUPTED = 130

# What only the extra `grid` brings.
_GRID_MODULES = frozenset({"ariadne", "cryptography", "psutil", "uvicorn"})

T = TypeVar("T")

_NONE_OF_THEM = re.compile(r"'(?P<written>.*)' is not one of (?P<allowed>'.*')\.", re.DOTALL)


class _Commands(TyperGroup):
    """All commands; what is wrong with a value is said in our words."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            if found := _NONE_OF_THEM.fullmatch(error.message):
                from difflib import get_close_matches

                allowed = re.findall("'(.*?)'", found["allowed"])
                for name in get_close_matches(found["written"], allowed, 1):
                    error.message += f" Did you mean {name!r}?"
            raise


def parse_labels(texts: list[str], example: str) -> dict[str, str]:
    """The labels of `--label KEY=VALUE`, given any number of times; others are wrong use."""
    for text in texts:
        key, _, value = text.partition("=")
        if not key or not value:
            fail(f"--label {text!r}: KEY=VALUE is meant, such as {example}", EXIT_WRONG_USE)
    return dict(text.partition("=")[::2] for text in texts)


def checked(check: Callable[[Any], object]) -> Callable[[T], T]:
    """The callback of a parameter whose value, or one of whose values, `check` may refuse by a ValueError: that is wrong use."""

    def callback(value: T) -> T:
        values = value if isinstance(value, list | tuple) else [] if value is None else [value]
        try:
            for item in values:
                check(item)
        except ValueError as error:
            fail(str(error), EXIT_WRONG_USE)
        return value

    return callback


app = typer.Typer(
    name="deepsquare",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"deepsquare {version('deepsquare')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Buy HPC jobs on the DeepSquare grid, follow them, and run a grid of your own."""


def fail(message: str, code: int = EXIT_ERROR) -> NoReturn:
    """End the command with a message on stderr."""
    complain(f"deepsquare: {message}")
    raise typer.Exit(code)


def complain(message: object) -> None:
    """Print an error; parts of it may come from a server or a provider."""
    from deepsquare.client.text import sanitize

    for line in str(message).split("\n"):
        print(sanitize(line.encode("utf-8", "replace")), file=sys.stderr)


def add_commands() -> None:
    """Add all commands to `app`."""
    from deepsquare.cli import (
        allowance,
        context,
        cost,
        credit,
        demo,
        doctor,
        estimate,
        grid,
        init,
        job,
        provider,
        top,
        wallet,
        workflow,
    )

    app.add_typer(job.app, name="job")
    app.command("init")(init.init)
    app.command("submit")(job.submit)
    app.command("top")(top.top)
    app.command("estimate")(estimate.estimate)
    app.command("cost")(cost.cost)
    app.add_typer(allowance.app, name="allowance")
    app.add_typer(workflow.app, name="workflow")
    app.add_typer(context.app, name="context")
    app.add_typer(wallet.app, name="wallet")
    app.add_typer(credit.app, name="credit")
    app.add_typer(provider.app, name="provider")
    app.add_typer(grid.app, name="grid")
    app.command("demo")(demo.demo)
    app.command("doctor")(doctor.doctor)


def run() -> None:
    """Run the command; a user's mistake ends with one clear message."""
    add_commands()
    try:
        app()
    except SystemExit as end:
        # How typer ends after Ctrl-C.
        if end.code == EXIT_INTERRUPTED:
            print("\ndeepsquare: interrupted; jobs that were bought go on (deepsquare job list)", file=sys.stderr)
        raise
    except (DeepSquareError, ValueError) as error:
        from deepsquare.workflow.problems import WorkflowError

        # Its lines begin with the file's name, each.
        complain(error if isinstance(error, WorkflowError) else f"deepsquare: {error}")
        sys.exit(EXIT_ERROR)
    except ModuleNotFoundError as error:
        if error.name not in _GRID_MODULES:
            raise
        complain(f"deepsquare: this command needs {error.name}, which comes with: pip install 'deepsquare[grid]'")
        sys.exit(EXIT_ERROR)
    except OSError as error:
        complain(f"deepsquare: {error.filename or 'the system'}: {error.strerror or error}")
        sys.exit(EXIT_ERROR)
