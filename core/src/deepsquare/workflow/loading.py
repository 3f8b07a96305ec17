"""Reading workflows from YAML, JSON and plain data, with mistakes told by line and column."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from deepsquare.errors import DeepSquareError
from deepsquare.workflow.depth import is_deep_json
from deepsquare.workflow.models import Step, Workflow
from deepsquare.workflow.problems import MOST_LEVELS, TOO_DEEP, Location, Marks, Problem, WorkflowError, path_text
from deepsquare.workflow.rules import broken_rules

_Validated = TypeVar("_Validated", bound=BaseModel)
_FILE_BYTES = 1 << 20
_MOST_PROBLEMS = 100


def load(path: Path | str) -> Workflow:
    """Read a workflow file, YAML or JSON.

    Raises:
        WorkflowError: it is not valid; the text has the line and column of each mistake.
        DeepSquareError: it can't be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
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
        if is_deep_json(raw, MOST_LEVELS):
            raise ValueError("too deep for the JSON parser")
        # YAML is nearly a superset of JSON, but has other escapes, and no tabs.
        data = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError):
        # Also for JSON with a mistake, which is told with its place.
        from deepsquare.workflow.safe_yaml import read_yaml

        read = read_yaml(text, source)
        return _validate(read.data, source, lambda: read.marks, read.as_text)
    return _validate(data, source, lambda: _marks_in(text))


def from_dict(data: Mapping[str, Any]) -> Workflow:
    """A workflow from plain data with the file's names.

    Raises:
        WorkflowError: it is not valid.
    """
    return _validate(data, "the workflow", dict)


def _validate(
    data: Any,
    source: str,
    find_marks: Callable[[], Marks],
    as_text: Callable[[ValidationError], Any] = lambda _: None,
) -> Workflow:
    if _is_deep(data, MOST_LEVELS):
        raise WorkflowError([TOO_DEEP], source)
    if data is None:
        raise WorkflowError([Problem("", "is empty", "type")], source)
    if not isinstance(data, Mapping):
        text = f"must be a mapping with resources and steps, not {_kind_of(data)}"
        raise WorkflowError([Problem("", text, "type")], source)
    try:
        workflow = validated(Workflow, dict(data), as_text)
    except ValidationError as error:
        raise WorkflowError(problems_of(error, find_marks(), Workflow), source) from None
    if broken := list(broken_rules(workflow)):
        marks = find_marks()
        raise WorkflowError([_located(*rule, marks) for rule in broken], source)
    return workflow


def validated(model: type[_Validated], data: Any, as_text: Callable[[ValidationError], Any]) -> _Validated:
    """Data as a model; what YAML reads as numbers and truth values is the text that is written, where text is wanted.

    Raises:
        ValidationError: it is not valid.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        text = as_text(error)
        if text is None:
            raise
        return model.model_validate(text)


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


def _marks_in(text: str) -> Marks:
    from deepsquare.workflow.safe_yaml import read_yaml

    try:
        return read_yaml(text, "").marks
    except WorkflowError:
        return {}


def with_lines(problems: Sequence[Problem], file: Path) -> WorkflowError:
    """The error of problems of a file that were found after it was loaded, with the lines and columns of their places."""
    try:
        marks = _marks_in(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        marks = {}
    places = {path_text(place): place for place in marks}

    def located(problem: Problem) -> Problem:
        path = problem.path
        while path and path not in places:
            path = _LAST_PART.sub("", path)
        return _located(places[path], problem.message, problem.tag, marks, problem.path) if path else problem

    return WorkflowError(list(map(located, problems)), str(file))


# What is left out for the place around.
_LAST_PART = re.compile(r"(?:(?:^|\.)[^.\[\]]*|\[\d*\]|.)$", re.DOTALL)


def problems_of(error: ValidationError, marks: Marks, model: type[BaseModel]) -> list[Problem]:
    """What is wrong with data that was to be a model, the first hundred, with the places of `marks`."""
    items = error.errors()
    places = [item["loc"] for item in items]
    # pydantic counts only the good items of a list, and so calls a list of bad ones too short as well.
    wrong = [
        item
        for item in items
        if item["type"] != "too_short"
        or not any(len(place) > len(item["loc"]) and place[: len(item["loc"])] == item["loc"] for place in places)
    ]
    problems = [_problem(item, marks, model) for item in wrong[:_MOST_PROBLEMS]]
    if more := len(wrong) - len(problems):
        problems.append(Problem("", f"and {more} more", "more"))
    return problems


_MESSAGES = {
    "missing": "is missing",
    "int_type": "must be a whole number, not {here}",
    "bool_type": "must be true or false, not {here}",
    "string_type": "must be text, not {here}",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "model_type": "must be a mapping, not {here}",
    "dict_type": "must be a mapping, not {here}",
    "tuple_type": "must be a list, not {here}",
}
_VARIABLE = "write - {key: ..., value: ...}"
_LIST = "write it as a list: [...]"
# What to write instead, by what is wrong and by the field.
_HINTS = {
    ("tuple_type", "env"): _VARIABLE,
    ("tuple_type", "args"): _VARIABLE,
    ("tuple_type", "dependsOn"): _LIST,
    ("tuple_type", "items"): _LIST,
    ("tuple_type", "dns"): _LIST,
    ("tuple_type", "address"): _LIST,
    ("tuple_type", "allowedIPs"): _LIST,
    ("model_type", "container"): "write {image: ...}",
    ("model_type", "run"): "write {command: ...}",
    ("int_type", "memPerCpu"): "in MB, such as 2000",
    ("int_type", "inputMode"): "in decimal, such as 493 for 0755",
    ("less_than", "inputMode"): "in decimal, such as 493 for 0755",
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


def _kind_of(value: Any) -> str:
    return "a mapping" if isinstance(value, Mapping) else _KINDS.get(type(value), "something else")


def _problem(item: Any, marks: Marks, model: type[BaseModel]) -> Problem:
    location: Location = item["loc"]
    kind: str = item["type"]
    if kind == "extra_forbidden":
        message = f"is an unknown field{_suggestion(location, model)}"
    elif kind in _MESSAGES:
        message = _MESSAGES[kind].format(here=_kind_of(item["input"]))
        if kind == "string_type" and isinstance(item["input"], int | float):
            message += "; put it in quotes"
        elif kind == "string_type" and item["input"] is None:
            message += '; write "" for an empty one'
    elif kind in ("greater_than_equal", "less_than_equal", "less_than"):
        message = f"is {item['input']}, but must be {item['msg'].removeprefix('Input should be ')}"
    elif kind == "literal_error":
        *first, last = map(repr, _allowed_words(item))
        message = f"must be one of {', '.join(first)} or {last}{_nearest_word(item)}"
    else:
        message = item["msg"]
    if hint := _HINTS.get((kind, str(location[-1]) if location else "")):
        message += f": {hint}"
    return _located(location, message, "unknown" if kind == "extra_forbidden" else kind, marks)


def _allowed_words(item: Any) -> list[str] | list[int]:
    """What a field may be that may only be some words or numbers; an empty word is none that people write."""
    words = [word for word in item["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ") if word]
    return sorted(map(int, words)) if all(map(str.isdecimal, words)) else sorted(words)


def _nearest_word(item: Any) -> str:
    """The allowed word that is nearest to one that is not; such words are names, and no secrets."""
    allowed = list(map(str, _allowed_words(item)))
    if not isinstance(item["input"], str):
        return ""
    written = item["input"]
    near = [word for word in allowed if word.endswith(f"/{written}")] or difflib.get_close_matches(
        written, allowed, 1, 0.5
    )
    return f"; did you mean {near[0]}?" if near else ""


def _located(location: Location, message: str, tag: str, marks: Marks, path: str = "") -> Problem:
    places = (location[:length] for length in range(len(location), -1, -1))
    line, column = next((marks[place] for place in places if place in marks), (None, None))
    return Problem(path or path_text(location), message, tag, line, column)


def _suggestion(location: Location, whole: type[BaseModel]) -> str:
    """The nearest name that is allowed in the place of the last part of a location."""
    model: type[BaseModel] | None = whole
    around: type[BaseModel] | None = None
    for part in location[:-1]:
        if model is not None and isinstance(part, str):
            around, model = model, _model_of(model, part)
    if model is None:
        return ""
    if around is Step and location[-1] in _BESIDE and isinstance(location[-2], str):
        return f"; it belongs beside {location[-2]}, in the step"
    names = [field.alias or name for name, field in _fields_of(model).items()]
    if location[-2:] == ("resources", "gpusPerTask") and len(location) == 2:
        return "; it is an old name: write gpus, the GPUs of the whole job"
    for name, field in _fields_of(model).items():
        inner = _find_model(field.annotation)
        if inner is not None and inner is not model and _model_has(inner, str(location[-1])):
            return f"; it belongs in {field.alias or name}"
    near = difflib.get_close_matches(str(location[-1]), names, 1, 0.5)
    return f"; did you mean {near[0]}?" if near else f"; allowed are {', '.join(names)}"


# What a step has beside the one thing that it is.
_BESIDE = ("name", "dependsOn", "if", "catch", "finally")


def _fields_of(model: type[BaseModel]) -> Mapping[str, FieldInfo]:
    # The type of a field that is a model further down in its file is known only then.
    model.model_rebuild()
    return model.model_fields


def _model_has(model: type[BaseModel], alias: str) -> bool:
    return any((field.alias or name) == alias for name, field in _fields_of(model).items())


def _model_of(model: type[BaseModel], alias: str) -> type[BaseModel] | None:
    for field in _fields_of(model).values():
        if field.alias == alias:
            return _find_model(field.annotation)
    return None


def _find_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner: Sequence[Any] = getattr(annotation, "__args__", ())
    return next((found for found in map(_find_model, inner) if found is not None), None)
