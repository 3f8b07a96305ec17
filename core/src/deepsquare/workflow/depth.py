"""How deep JSON nests, measured on its text: the parser recurses in C, and a deep text must not decide how much stack there is."""

from __future__ import annotations

import re

# What matters for the depth; a string is taken whole, and matched without going back so that time stays linear.
_PARTS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def is_deep_json(text: bytes, levels: int) -> bool:
    """Whether JSON nests more than so many levels deep."""
    depth = 0
    for part in _PARTS.finditer(text):
        first = part[0][:1]
        if first in b"[{":
            depth += 1
            if depth > levels:
                return True
        elif first in b"]}":
            depth -= 1
    return False
