"""`deepsquare workflow`: look at a workflow file without a grid."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepsquare.cli.app import EXIT_ERROR, checked, complain, fail

if TYPE_CHECKING:
    from deepsquare.grid.sbatch_api.modules import GitModules
    from deepsquare.workflow.modules import FetchedModule

app = typer.Typer(no_args_is_help=True, help="Check and compile workflow files; no grid is needed.")

File = Annotated[Path, typer.Argument(help="A workflow file, YAML or JSON.", exists=True, dir_okay=False)]


_STDIN = Path("-")


def _check_file(path: Path) -> None:
    if path != _STDIN and (not path.exists() or path.is_dir()):
        raise ValueError(f"there is no file {path}")


@app.command()
def validate(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", help="Workflow files, YAML or JSON; - is standard input.", callback=checked(_check_file)
        ),
    ],
) -> None:
    """Say whether workflow files are valid, and if not, where and why. Exit code 1 when one is not.

    Modules that they use are not fetched, and so not looked at: `compile` does that.

    Example: deepsquare workflow validate hello.yaml
    """
    from deepsquare.workflow import WorkflowError, load, parse

    all_valid = True
    for file in files:
        name = "<stdin>" if file == _STDIN else str(file)
        try:
            if file == _STDIN:
                parse(sys.stdin.buffer.read().decode(), name)
            else:
                load(file)
        except WorkflowError as error:
            all_valid = False
            complain(error)
        except UnicodeDecodeError:
            fail("<stdin> can't be read: it is not UTF-8 text")
        else:
            print(f"{name} is valid")
    if not all_valid:
        raise typer.Exit(EXIT_ERROR)


@app.command("compile")
def compile_(file: File) -> None:
    """Print the batch script that providers would run; modules that it uses are fetched.

    Example: deepsquare workflow compile hello.yaml | less
    """
    from deepsquare.compiler import compile_workflow
    from deepsquare.workflow import WorkflowError, load
    from deepsquare.workflow.loading import with_lines
    from deepsquare.workflow.modules import resolve

    workflow = load(file)
    try:
        resolved = resolve(workflow, _fetch)
    except WorkflowError as error:
        raise with_lines(error.problems, file) from None
    print(compile_workflow(resolved), end="")


def _fetch(source: str) -> FetchedModule:
    return _modules().fetch(source)


@cache
def _modules() -> GitModules:
    """What fetches modules, as the grid does; loaded only for workflows that use one."""
    from platformdirs import user_cache_path

    from deepsquare.grid.sbatch_api.modules import GitModules

    return GitModules(user_cache_path("deepsquare") / "modules")


@app.command()
def schema() -> None:
    """Print the JSON Schema of workflow files, for editors and other programs.

    Example: deepsquare workflow schema > deepsquare.schema.json
    """
    import json

    from deepsquare.workflow.schema import json_schema

    print(json.dumps(json_schema(), indent=1))
