"""YAML as these files have it: without what makes it dangerous or surprising. Apart from the rest, since few programs read any."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from deepsquare.workflow.problems import MOST_LEVELS, TOO_DEEP, Location, Marks, Problem, WorkflowError

# The parser takes some 30 microseconds for each.
_MOST_NODES = 50_000


@dataclass(frozen=True, slots=True)
class Document:
    """What a YAML text says."""

    data: Any
    marks: Marks
    scalars: dict[Location, str]
    """What is written where the data has a number or a truth value."""

    def as_text(self, error: ValidationError) -> Any:
        """The data with the text that is written where a model wanted text; None where that would change nothing."""
        places = [
            item["loc"] for item in error.errors() if item["type"] == "string_type" and item["loc"] in self.scalars
        ]
        if not places:
            return None
        data = copy.deepcopy(self.data)
        for place in places:
            parent = data
            for part in place[:-1]:
                parent = parent[part]
            parent[place[-1]] = self.scalars[place]
        return data


def read_yaml(text: str, source: str) -> Document:
    """The plain data of a YAML text.

    Raises:
        WorkflowError: it is not YAML, or has what these files can't have: aliases, doubled keys, too much depth or too many values.
    """
    marks: Marks = {}
    scalars: dict[Location, str] = {}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        data = _construct(node, (), marks, scalars) if node is not None else None
        return Document(data, marks, scalars)
    except yaml.YAMLError as error:
        raise WorkflowError([_syntax_problem(error)], source) from None
    except _NotHere as error:
        line, column = error.mark.line + 1, error.mark.column + 1
        raise WorkflowError([Problem("", str(error), "syntax", line, column)], source) from None
    except _TooManyNodes:
        text = f"has more than {_MOST_NODES} names and values: write what is longer as JSON"
        raise WorkflowError([Problem("", text, "size")], source) from None
    except RecursionError:
        raise WorkflowError([TOO_DEEP], source) from None


class _Loader(yaml.SafeLoader):
    """Without aliases, which make small files of huge data, and without depth."""

    _levels = 0
    _nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise _NotHere("anchors and aliases are not allowed here", event.start_mark)
        if self._levels > MOST_LEVELS + 1:
            raise RecursionError
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            raise _TooManyNodes
        self._levels += 1
        node = super().compose_node(parent, index)
        self._levels -= 1
        return node


class _TooManyNodes(Exception):
    pass


class _NotHere(Exception):
    """What YAML allows, and these files do not."""

    def __init__(self, message: str, mark: yaml.Mark) -> None:
        super().__init__(message)
        self.mark = mark


def _construct(node: yaml.Node, path: Location, marks: Marks, scalars: dict[Location, str]) -> Any:
    """Plain data of a node, without what makes YAML dangerous or surprising: aliases, tags, doubled keys, dates."""
    if len(path) > MOST_LEVELS:
        raise RecursionError
    marks[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _NotHere("a key must be text", key_node.start_mark)
            key = str(key_node.value)
            if key in found:
                first = marks[*path, key][0]
                raise _NotHere(f"the key {key!r} is there twice; first on line {first}", key_node.start_mark)
            found[key] = _construct(value_node, (*path, key), marks, scalars)
            marks[*path, key] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, (*path, number), marks, scalars) for number, item in enumerate(node.value)]
    value = _scalar(node.tag.removeprefix("tag:yaml.org,2002:"), str(node.value))
    if isinstance(value, int | float):
        scalars[path] = str(node.value)
    return value


def _scalar(kind: str, text: str) -> Any:
    """What people read in a scalar. Old YAML's octal numbers, base 60 and dates are only text to this language."""
    if kind == "int" and _INTEGER.fullmatch(text):
        return int(text)
    if kind == "float" and _DECIMAL.fullmatch(text):
        return float(text)
    if kind == "bool":
        return _Loader.bool_values.get(text.lower(), text)
    return None if kind == "null" else text


# No more digits than fit any field, since Python refuses to read thousands of them.
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,99})")
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)\.[0-9]*")
# What the parser quotes of the file may be a part of a secret; behind other words it quotes single characters and its own tokens.
_QUOTED = re.compile(r"(?<=handle|.alias|anchor) (['\"]).*", re.DOTALL)


# What to do, where the parser's words don't say it.
_HELP = {
    "found character '\\t' that cannot start any token": "a tab; YAML is indented with spaces",
    "mapping values are not allowed here": "mapping values are not allowed here; text with ': ' in it needs quotes, or | and "
    "lines of its own",
}


def _syntax_problem(error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None)
    words = _QUOTED.sub("", getattr(error, "problem", None) or "is not YAML")
    if mark is not None and words == "but found another document":
        return Problem(
            "", "has a second document here: write one document only", "syntax", mark.line + 1, mark.column + 1
        )
    words = _HELP.get(words, words)
    if mark is None:
        return Problem("", f"is neither YAML nor JSON: {words}", "syntax")
    return Problem("", f"is neither YAML nor JSON here: {words}", "syntax", mark.line + 1, mark.column + 1)
