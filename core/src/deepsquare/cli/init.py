"""`deepsquare init`: a first workflow file."""

from __future__ import annotations

import re
import shlex
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from deepsquare.cli.app import fail

_SCHEMA_NAME = ".deepsquare.schema.json"


class Template(StrEnum):
    """What there is to begin with."""

    HELLO = "hello"
    CONTAINER = "container"
    GPU = "gpu"
    MPI = "mpi"
    ARRAY = "array"
    S3 = "s3"


def init(
    template: Annotated[Template, typer.Argument(help="What to begin with.")] = Template.HELLO,
    file: Annotated[Path, typer.Option("--file", "-f", dir_okay=False, help="Where to write it.")] = Path(
        "workflow.yaml"
    ),
) -> None:
    """Write a workflow file to begin with, and beside it the language's schema, by which editors complete and check it.

    A file that is there is never overwritten.

    Examples:

      deepsquare init

      deepsquare init array --file sweep.yaml && deepsquare workflow validate sweep.yaml
    """
    import json

    from deepsquare.workflow.schema import json_schema

    text = files("deepsquare.cli").joinpath("templates", f"{template}.yaml").read_text(encoding="utf-8")
    text = f"# yaml-language-server: $schema={_SCHEMA_NAME}\n{text.replace('FILE', shlex.quote(str(file)))}"
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        fail(f"{file} is there already, and is not overwritten; name another file with --file")
    (file.parent / _SCHEMA_NAME).write_text(json.dumps(json_schema(), indent=1) + "\n", encoding="utf-8")
    # The file itself says how many credits it takes.
    (submit,) = re.findall("deepsquare submit .*--watch", text)
    print(f"{file} is written. Next: deepsquare workflow validate {shlex.quote(str(file))}, and {submit}")
