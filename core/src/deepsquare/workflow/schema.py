"""The language as a JSON Schema, for editors and other programs."""

from __future__ import annotations

from typing import Any

from deepsquare.workflow.models import Workflow

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of workflow files.

    Whatever it refuses is no workflow. What it accepts nearly always is one: rules that span several fields are only in the
    program.
    """
    return {"$schema": DIALECT, **Workflow.model_json_schema(by_alias=True), "title": "DeepSquare workflow"}
