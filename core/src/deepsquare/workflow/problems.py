"""What is wrong with a workflow file: where, what was there, what is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deepsquare.errors import DeepSquareError

Location = tuple[str | int, ...]
"""Where something is in a workflow: names of fields and numbers of items."""


Marks = dict[Location, tuple[int, int]]
"""Line and column, from 1, of the parts of a file."""

MOST_LEVELS = 50
"""How deep files may be nested."""


def path_text(location: Location) -> str:
    """A location as people write it, such as `steps[0].run`; empty for the whole."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a workflow."""

    path: str
    """Such as `steps[0].run.command`; empty for the file as a whole."""
    message: str
    tag: str
    """A short name of the rule, such as `missing` or `unknown`."""
    line: int | None = None
    """From 1; None when the workflow was not read from text."""
    column: int | None = None

    def __str__(self) -> str:
        place = f"line {self.line}, column {self.column}: " if self.line is not None else ""
        return f"{place}{self._words()}"

    def in_file(self, source: str) -> str:
        """The problem behind its place in a file, in the form that terminals and editors make a link of."""
        place = f":{self.line}:{self.column}" if self.line is not None else ""
        return f"{source}{place}: {self._words()}"

    def _words(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


TOO_DEEP = Problem("", f"is nested deeper than {MOST_LEVELS} levels", "depth")
"""What is wrong with a file that is."""


class WorkflowError(DeepSquareError):
    """A workflow is not valid. The text has a line a problem, such as `FILE:LINE:COLUMN: path: message`.

    It never has values of env, commands or credentials.
    """

    def __init__(self, problems: Sequence[Problem], source: str = "the workflow") -> None:
        self.problems = list(problems)
        self.source = source
        super().__init__("\n".join(problem.in_file(source) for problem in self.problems))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems, self.source)
