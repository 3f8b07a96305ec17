"""The logs of a local grid's services: one file for all that run in its process, told apart by the names of their loggers."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from deepsquare.errors import GridError

SOURCES = {
    "chain": "",
    "logger": "deepsquare.grid.logger",
    "sbatch-api": "deepsquare.grid.sbatch_api",
    "metascheduler": "deepsquare.grid.metascheduler",
    "supervisor": "deepsquare.grid.supervisor",
}
"""The names of services, and of the loggers of each."""

# As the daemon writes them: date, time, level, logger. A line without is the rest of the one before, such as a traceback.
_HEAD = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [A-Z]+ ([\w.]+):")
_LOOK_SECONDS = 0.2


def read(state: Path, service: str | None, *, lines: int, follow: bool) -> Iterator[bytes]:
    """The last lines of a service's log, or of all services', and with `follow` those that come, for ever.

    Raises:
        GridError: there is no log.
    """
    path = state / "log" / ("anvil.log" if service == "chain" else "grid.log")
    wanted = SOURCES[service].encode() if service else b""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise GridError(
            f"there is no log {path}: has the grid in {state} been up? Start it with deepsquare grid up"
        ) from None
    with file:
        takes = False

        def matching() -> Iterator[bytes]:
            nonlocal takes
            for line in file:
                if head := _HEAD.match(line):
                    takes = head[1].startswith(wanted)
                if takes or not wanted:
                    yield line.rstrip(b"\n")

        yield from deque(matching(), maxlen=lines)
        while follow:
            yield from matching()
            time.sleep(_LOOK_SECONDS)
