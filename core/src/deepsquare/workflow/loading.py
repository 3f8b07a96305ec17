"""Reading workflows from YAML, JSON and plain data, with mistakes told by line and column."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from deepsquare.errors import DeepSquareError
from deepsquare.workflow.depth import is_deep_json
from deepsquare.workflow.models import Workflow
from deepsquare.workflow.problems import Location, Problem, WorkflowError, path_text
from deepsquare.workflow.rules import broken_rules

_FILE_BYTES = 1 << 20
_DEPTH = 50

Marks = dict[Location, tuple[int, int]]


def load(path: Path) -> Workflow:
    """Read a workflow file, YAML or JSON.

    Raises:
        WorkflowError: it is not valid; the text has the line and column of each mistake.
        DeepSquareError: it can't be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DeepSquareError(f"{path} can't be read: {reason}") from None
    return parse(text, str(path))


def parse(text: str, source: str = "the workflow") -> Workflow:
    """Read a workflow from the text of a file; `source` names it in errors.

    Raises:
        WorkflowError: it is not valid.
    """
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) > _FILE_BYTES:
        raise WorkflowError([Problem("", "is larger than 1 MiB", "size")], source)
    try:
        if is_deep_json(raw, _DEPTH):
            raise ValueError("too deep for the JSON parser")
        # YAML is nearly a superset of JSON, but has other escapes, and no tabs.
        data = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError):
        # Also for JSON with a mistake, which is told with its place.
        data, marks = read_yaml(text, source)
        return _validate(data, source, lambda: marks)
    return _validate(data, source, lambda: _marks_of_json(text))


def from_dict(data: Mapping[str, Any]) -> Workflow:
    """A workflow from plain data with the file's names.

    Raises:
        WorkflowError: it is not valid.
    """
    return _validate(data, "the workflow", dict)


def _validate(data: Any, source: str, find_marks: Callable[[], Marks]) -> Workflow:
    if _is_deep(data, _DEPTH):
        raise WorkflowError([_TOO_DEEP], source)
    if not isinstance(data, Mapping):
        raise WorkflowError([Problem("", "must be a mapping with resources and steps", "type")], source)
    try:
        workflow = Workflow.model_validate(dict(data))
    except ValidationError as error:
        raise WorkflowError(problems_of(error, find_marks(), Workflow), source) from None
    if broken := list(broken_rules(workflow)):
        marks = find_marks()
        raise WorkflowError([_located(*rule, marks) for rule in broken], source)
    return workflow


def _is_deep(data: Any, levels: int) -> bool:
    items = data.values() if isinstance(data, Mapping) else data if isinstance(data, list | tuple) else ()
    return levels < 0 or any(_is_deep(item, levels - 1) for item in items)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _marks_of_json(text: str) -> Marks:
    try:
        return read_yaml(text, "")[1]
    except WorkflowError:
        return {}


def read_yaml(text: str, source: str) -> tuple[Any, Marks]:
    """Plain data of a YAML text, and where its parts are: line and column by location.

    Raises:
        WorkflowError: it is not YAML, or has what these files can't have: aliases, doubled keys, too much depth.
    """
    marks: Marks = {}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return (_construct(node, (), marks) if node is not None else None), marks
    except yaml.YAMLError as error:
        raise WorkflowError([_syntax_problem(error)], source) from None
    except _BadNode as error:
        mark = error.node.start_mark
        raise WorkflowError([Problem("", str(error), "syntax", mark.line + 1, mark.column + 1)], source) from None
    except RecursionError:
        raise WorkflowError([_TOO_DEEP], source) from None


class _Loader(yaml.SafeLoader):
    """Without aliases, which make small files of huge data, and without depth."""

    _levels = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not allowed", problem_mark=event.start_mark)
        if self._levels > _DEPTH + 1:
            raise RecursionError
        self._levels += 1
        node = super().compose_node(parent, index)
        self._levels -= 1
        return node


class _BadNode(Exception):
    def __init__(self, message: str, node: yaml.Node) -> None:
        super().__init__(message)
        self.node = node


def _construct(node: yaml.Node, path: Location, marks: Marks) -> Any:
    """Plain data of a node, without what makes YAML dangerous or surprising: aliases, tags, doubled keys, dates."""
    if len(path) > _DEPTH:
        raise RecursionError
    marks[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _BadNode("a key must be text", key_node)
            key = str(key_node.value)
            if key in found:
                raise _BadNode(f"the key {key!r} is there twice", key_node)
            found[key] = _construct(value_node, (*path, key), marks)
            marks[*path, key] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, (*path, number), marks) for number, item in enumerate(node.value)]
    return _scalar(node.tag.removeprefix("tag:yaml.org,2002:"), str(node.value))


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
_TOO_DEEP = Problem("", f"is nested deeper than {_DEPTH} levels", "depth")
# What the parser quotes of the file may be a part of a secret; behind other words it quotes single characters and its own tokens.
_QUOTED = re.compile(r"(?<=handle|.alias|anchor) (['\"]).*", re.DOTALL)


def _syntax_problem(error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None)
    words = _QUOTED.sub("", getattr(error, "problem", None) or "is not YAML")
    if mark is None:
        return Problem("", f"is neither YAML nor JSON: {words}", "syntax")
    return Problem("", f"is neither YAML nor JSON here: {words}", "syntax", mark.line + 1, mark.column + 1)


def problems_of(error: ValidationError, marks: Marks, model: type[BaseModel]) -> list[Problem]:
    """What is wrong with data that was to be a model, with the places of `marks`."""
    items = error.errors()
    places = [item["loc"] for item in items]
    # pydantic counts only the good items of a list, and so calls a list of bad ones too short as well.
    return [
        _problem(item, marks, model)
        for item in items
        if item["type"] != "too_short"
        or not any(len(place) > len(item["loc"]) and place[: len(item["loc"])] == item["loc"] for place in places)
    ]


_MESSAGES = {
    "missing": "is missing",
    "int_type": "must be a whole number, not {here}",
    "bool_type": "must be true or false, not {here}",
    "string_type": "must be text, not {here}; put it in quotes",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "model_type": "must be a mapping, not {here}",
    "dict_type": "must be a mapping, not {here}",
    "tuple_type": "must be a list, not {here}",
}
# By name only: what was there may be a secret in the wrong place.
_KINDS = {
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a fraction",
    type(None): "nothing",
    list: "a list",
}


def _problem(item: Any, marks: Marks, model: type[BaseModel]) -> Problem:
    location: Location = item["loc"]
    kind: str = item["type"]
    if kind == "extra_forbidden":
        message = f"is an unknown field{_suggestion(location, model)}"
    elif kind in _MESSAGES:
        here = "a mapping" if isinstance(item["input"], Mapping) else _KINDS.get(type(item["input"]), "something else")
        message = _MESSAGES[kind].format(here=here)
    elif kind in ("greater_than_equal", "less_than_equal", "less_than"):
        message = f"is {item['input']}, but must be {item['msg'].removeprefix('Input should be ')}"
    elif kind == "literal_error":
        message = f"must be one of {item['ctx']['expected']}{_nearest_word(item)}"
    else:
        message = item["msg"]
    return _located(location, message, "unknown" if kind == "extra_forbidden" else kind, marks)


def _nearest_word(item: Any) -> str:
    """The allowed word that is nearest to one that is not; such words are names, and no secrets."""
    allowed = item["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
    written = str(item["input"])
    near = [word for word in allowed if word.endswith(f"/{written}")] or difflib.get_close_matches(
        written, allowed, 1, 0.5
    )
    return f"; did you mean {near[0]}?" if near else ""


def _located(location: Location, message: str, tag: str, marks: Marks) -> Problem:
    places = (location[:length] for length in range(len(location), -1, -1))
    line, column = next((marks[place] for place in places if place in marks), (None, None))
    return Problem(path_text(location), message, tag, line, column)


def _suggestion(location: Location, whole: type[BaseModel]) -> str:
    """The nearest name that is allowed in the place of the last part of a location."""
    model: type[BaseModel] | None = whole
    for part in location[:-1]:
        if model is not None and isinstance(part, str):
            model = _model_of(model, part)
    if model is None:
        return ""
    names = [field.alias or name for name, field in model.model_fields.items()]
    near = difflib.get_close_matches(str(location[-1]), names, 1, 0.5)
    return f"; did you mean {near[0]}?" if near else f"; allowed are {', '.join(names)}"


def _model_of(model: type[BaseModel], alias: str) -> type[BaseModel] | None:
    for field in model.model_fields.values():
        if field.alias == alias:
            return _find_model(field.annotation)
    return None


def _find_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner: Sequence[Any] = getattr(annotation, "__args__", ())
    return next((found for found in map(_find_model, inner) if found is not None), None)
