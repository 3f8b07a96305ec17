"""`deepsquare workflow`: look at a workflow file without a grid."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Check and compile workflow files; no grid is needed.")

File = Annotated[Path, typer.Argument(help="A workflow file, YAML or JSON.", exists=True, dir_okay=False)]


@app.command()
def validate(file: File) -> None:
    """Say whether a workflow file is valid, and if not, where and why.

    Example: deepsquare workflow validate hello.yaml
    """
    from deepsquare.workflow import load

    load(file)
    print(f"{file} is valid")


@app.command("compile")
def compile_(file: File) -> None:
    """Print the batch script that providers would run.

    Example: deepsquare workflow compile hello.yaml | less
    """
    from deepsquare.compiler import compile_workflow
    from deepsquare.workflow import load

    print(compile_workflow(load(file)), end="")


@app.command()
def schema() -> None:
    """Print the JSON Schema of workflow files, for editors and other programs.

    Example: deepsquare workflow schema > deepsquare.schema.json
    """
    import json

    from deepsquare.workflow.schema import json_schema

    print(json.dumps(json_schema(), indent=1))
