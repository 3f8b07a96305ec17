"""Text in shell scripts: as one word, and as a file."""

from __future__ import annotations

import re
import shlex


def quote(text: str) -> str:
    """`text` as one word of a POSIX shell, byte for byte, nothing in it expanded."""
    return shlex.quote(text)


def write_file(path: str, content: str) -> str:
    """Shell lines that write `content`, and a newline behind it, to the file `path` (a shell word already).

    A here-document with a quoted delimiter expands nothing; the delimiter is one that is no line of the content. What is
    written in part must not be run: the script's `no_room` ends it.
    """
    lines = set(content.split("\n"))
    number = 0
    while (delimiter := f"END_OF_FILE_{number}") in lines:
        number += 1
    return f"cat >{path} <<'{delimiter}' || no_room\n{content}\n{delimiter}\n"


def fill(text: str, **values: str) -> str:
    """`text` with each `__NAME__` as `values` says, in one go: what is put in may have such names itself."""
    return re.sub(r"__([A-Z]+)__", lambda match: values[match[1]], text)
