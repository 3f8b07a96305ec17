"""Other people's text, made safe for a terminal."""

from __future__ import annotations

import re

# Complete control sequences (colours, cursor, window titles): they are left out. What remains of control characters, and
# what turns the direction of text, is shown as its code.
_SEQUENCES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x00-\x1f\x7f-\x9f]*(?:\x07|\x1b\\)")
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def sanitize(data: bytes) -> str:
    """Output of a job as text that a terminal shows and never obeys; a tab stays a tab."""
    text = _SEQUENCES.sub("", data.decode("utf-8", "replace").removesuffix("\r"))
    return _CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def excerpt(text: str, characters: int = 500) -> str:
    """The begin of a text of somebody else's, on one line, safe for a terminal."""
    safe = sanitize(text.encode("utf-8", "replace"))
    return safe if len(safe) <= characters else safe[:characters] + "…"
