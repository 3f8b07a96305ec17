"""ABI and bytecode of the contracts, as `contracts/build` wrote them into this package."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def artifact(name: str) -> dict[str, Any]:
    """The artifact of a contract: `{"abi": [...], "bytecode": "0x..."}`."""
    text = (files(__package__) / "artifacts" / f"{name}.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded
