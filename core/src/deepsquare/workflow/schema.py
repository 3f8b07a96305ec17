"""The language as a JSON Schema, for editors and other programs."""

from __future__ import annotations

import itertools
from typing import Any

from deepsquare.workflow.models import Workflow

DIALECT = "https://json-schema.org/draft/2020-12/schema"
# In YAML these are the text that is written.
_SCALAR = {"type": ["string", "number", "boolean"]}


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of workflow files.

    Whatever it refuses is no workflow, but for null, which is as good as left out and seldom meant. What it accepts nearly always
    is one: most rules that span several fields are only in the program, and in JSON numbers are no text.
    """
    schema = _without_null(Workflow.model_json_schema(by_alias=True))
    models = schema["$defs"]
    models["EnvVar"]["properties"]["value"] |= _SCALAR
    models["For"]["properties"]["items"]["items"] = _SCALAR
    models["For"]["oneOf"] = _one_of("items", "range")
    models["Bore"]["oneOf"] = _one_of("boreAddress", "address")
    models["NetworkInterface"]["oneOf"] = _one_of("wireguard", "bore", "vnet")
    models["TransportData"]["not"] = {"required": ["http", "s3"]}
    pairs = itertools.combinations(("run", "steps", "for", "launch", "use"), 2)
    # No steps are as good as none.
    models["Step"]["not"] = {
        "anyOf": [{"required": list(pair), "properties": {"steps": {"minItems": 1}}} for pair in pairs]
    }
    return {"$schema": DIALECT, **schema, "title": "DeepSquare workflow"}


def _one_of(*names: str) -> list[dict[str, Any]]:
    return [{"required": [name]} for name in names]


def _without_null(schema: Any) -> Any:
    """The same without null as an alternative, for which editors would tell each mistake twice."""
    if isinstance(schema, list):
        return [_without_null(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _without_null(value) for key, value in schema.items() if key != "default" or value is not None}
    if "anyOf" not in plain:
        return plain
    kinds = [kind for kind in plain.pop("anyOf") if kind != {"type": "null"}]
    return {**kinds[0], **plain} if len(kinds) == 1 else {**plain, "anyOf": kinds}
