"""The functions of templates: those of Go's text/template and of sprig that modules use."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

MOST_TEXT = 1 << 20
_INT64 = 1 << 63
_ONE_LINE = 1 << 30
_MOST_INDENT = 1000
_VERB = re.compile(r"%([-+# 0]*[0-9]*(?:\.[0-9]+)?)(.?)", re.DOTALL)


class FunctionError(Exception):
    """A function can't be carried out; the text has no values."""


@dataclass(frozen=True, slots=True)
class Record:
    """A structure of the language: its fields by the names that templates have, and by those of files.

    `fields` has every field, None and empty ones too; `names` gives the file's name of those that were set.
    """

    kind: str
    fields: Mapping[str, Any]
    names: Mapping[str, str]


def is_empty(value: Any) -> bool:
    """Whether `if` and `with` take a value as false: nil, false, 0, and what has nothing in it."""
    return not isinstance(value, Record) and not value


def to_text(value: Any) -> str:
    """How a value is printed."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | str):
        return str(value)
    if isinstance(value, list):
        return f"[{' '.join(map(to_text, value))}]"
    # Go prints its fields; those who write a structure in a comment, as examples do, want none of them.
    return "{...}"


def _cost_of(value: Any) -> int:
    """How much work a value is for a function, in steps."""
    if isinstance(value, str):
        return len(value) >> 8
    return sum(1 + _cost_of(item) for item in value) if isinstance(value, list) else 0


def call(name: str, arguments: Sequence[Any], spend: Callable[[int], None]) -> Any:
    """The value of a function; `spend` is told how much work it is, and may refuse.

    Raises:
        FunctionError: it can't be carried out with these arguments.
    """
    function, least, most = FUNCTIONS[name]
    if not least <= len(arguments) <= most:
        count = str(least) if least == most else f"{least} or more" if most == _MANY else f"{least} to {most}"
        raise FunctionError(f"takes {count} values, and is given {len(arguments)}")
    spend(1 + sum(map(_cost_of, arguments)))
    if name == "toYaml":
        spend(sum(map(_size, arguments)))
    elif name == "printf" and isinstance(arguments[0], str):
        spend(arguments[0].count("%"))
    value = function(*arguments)
    if isinstance(value, str) and len(value) > MOST_TEXT:
        raise FunctionError("gives a text longer than 1 MiB")
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        raise FunctionError("gives a number of more than 64 bits")
    return value


def _size(value: Any) -> int:
    """The work of writing a value as YAML."""
    if isinstance(value, Record):
        return 10 + sum(10 + _size(value.fields[name]) for name in value.names)
    if isinstance(value, list):
        return 10 + sum(map(_size, value))
    return 10 + (len(value) >> 4 if isinstance(value, str) else 0)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines stay on one line, so that they can be indented without changing."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _represent_text)


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return {file_name: _plain(value.fields[name]) for name, file_name in value.names.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _to_yaml(value: Any) -> str:
    if value is None or value in ("", []):
        return ""
    data = yaml.dump(_plain(value), Dumper=_Dumper, sort_keys=False, width=_ONE_LINE, allow_unicode=True)
    return str(data).removesuffix("\n").removesuffix("\n...")


def _string(value: Any, what: str = "a text") -> str:
    if not isinstance(value, str):
        raise FunctionError(f"needs {what}, and is given {kind_of(value)}")
    return value


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    if isinstance(value, Record):
        return value.kind
    kinds = {type(None): "nil", bool: "true or false", int: "a number", str: "a text", list: "a list"}
    return kinds.get(type(value), "something else")


def _integer(value: Any) -> int:
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]{1,18}", value):
        return int(value)
    raise FunctionError(f"needs a whole number, and is given {kind_of(value)}")


def _count(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value <= _MOST_INDENT:
        raise FunctionError(f"needs a number from 0 to {_MOST_INDENT} first")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise FunctionError(f"needs a list, and is given {kind_of(value)}")
    return value


def _equal(first: Any, *others: Any) -> bool:
    for other in others:
        for value in (first, other):
            if isinstance(value, list | Record):
                raise FunctionError(f"can't compare {kind_of(value)}")
        if first is not None and other is not None and type(first) is not type(other):
            raise FunctionError(f"can't compare {kind_of(first)} with {kind_of(other)}")
        if first == other:
            return True
    return False


def _less(first: Any, second: Any) -> bool:
    if isinstance(first, str) and isinstance(second, str):
        return first < second
    if type(first) is int and type(second) is int:
        return first < second
    raise FunctionError(f"can't compare {kind_of(first)} with {kind_of(second)} by size")


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    return len(_list(value))


def _index(value: Any, *places: Any) -> Any:
    for place in places:
        items = _list(value)
        if type(place) is not int or not 0 <= place < len(items):
            raise FunctionError(f"needs a number from 0 to {len(items) - 1}" if items else "is given an empty list")
        value = items[place]
    return value


def _print(*values: Any) -> str:
    text = ""
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            text += " "
        text += to_text(value)
    return text


def quoted(value: str) -> str:
    """A text in double quotes, as Go's %q."""
    return json.dumps(value, ensure_ascii=False)


def _printf(pattern: Any, *values: Any) -> str:
    rest = list(values)

    def verb(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        if match[1] or match[2] not in "sdvq" or not match[2]:
            raise FunctionError(f"doesn't know {match[0]!r}; known are %s, %d, %v, %q and %%")
        if not rest:
            raise FunctionError("is given fewer values than its text has places")
        value = rest.pop(0)
        if match[2] == "d" and type(value) is not int:
            raise FunctionError(f"needs a number for %d, and is given {kind_of(value)}")
        return quoted(to_text(value)) if match[2] == "q" else to_text(value)

    text = _VERB.sub(verb, _string(pattern))
    if rest:
        raise FunctionError("is given more values than its text has places")
    return text


def _indent(count: Any, text: Any) -> str:
    pad = " " * _count(count)
    value = _string(text)
    _bounded(len(value) + len(pad) * (value.count("\n") + 1))
    return pad + value.replace("\n", f"\n{pad}")


def _replace(old: Any, new: Any, text: Any) -> str:
    value, before, after = _string(text), _string(old), _string(new)
    _bounded(len(value) + (value.count(before) * len(after)))
    return value.replace(before, after)


def _bounded(size: int) -> None:
    if size > MOST_TEXT:
        raise FunctionError("gives a text longer than 1 MiB")


def _product(*values: Any) -> int:
    product = 1
    for value in map(_integer, values):
        product *= value
        if not -_INT64 <= product < _INT64:
            raise FunctionError("gives a number of more than 64 bits")
    return product


def _divided(first: Any, second: Any) -> tuple[int, int]:
    """Quotient and remainder as Go has them: towards zero."""
    dividend, divisor = _integer(first), _integer(second)
    if divisor == 0:
        raise FunctionError("can't divide by 0")
    quotient = abs(dividend) // abs(divisor)
    quotient = quotient if (dividend < 0) == (divisor < 0) else -quotient
    return quotient, dividend - quotient * divisor


def _new_list(*values: Any) -> list[Any]:
    # A list of lists could be doubled again and again, and be huge with little work.
    for value in values:
        if isinstance(value, list | Record):
            raise FunctionError(f"takes texts and numbers, and is given {kind_of(value)}")
    return list(values)


def _join(separator: Any, values: Any) -> str:
    between = _string(separator, "a text between")
    texts = [to_text(value) for value in _list(values) if value is not None]
    _bounded(sum(map(len, texts)) + len(between) * len(texts))
    return between.join(texts)


def _quote(mark: Callable[[str], str]) -> Callable[..., str]:
    def quote(*values: Any) -> str:
        return " ".join(mark(to_text(value)) for value in values if value is not None)

    return quote


def _ternary(yes: Any, no: Any, condition: Any) -> Any:
    if not isinstance(condition, bool):
        raise FunctionError(f"needs true or false last, and is given {kind_of(condition)}")
    return yes if condition else no


_MANY = 1000
# Each with the least and the most values that it takes. The last comes by |.
FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "not": (is_empty, 1, 1),
    "eq": (_equal, 2, _MANY),
    "ne": (lambda first, second: not _equal(first, second), 2, 2),
    "lt": (_less, 2, 2),
    "le": (lambda first, second: not _less(second, first), 2, 2),
    "gt": (lambda first, second: _less(second, first), 2, 2),
    "ge": (lambda first, second: not _less(first, second), 2, 2),
    "len": (_length, 1, 1),
    "index": (_index, 2, _MANY),
    "print": (_print, 0, _MANY),
    "printf": (_printf, 1, _MANY),
    "quote": (_quote(quoted), 0, _MANY),
    "squote": (_quote(lambda text: f"'{text}'"), 0, _MANY),
    "default": (lambda other, value: other if is_empty(value) else value, 2, 2),
    "empty": (is_empty, 1, 1),
    "ternary": (_ternary, 3, 3),
    "toYaml": (_to_yaml, 1, 1),
    "indent": (_indent, 2, 2),
    "nindent": (lambda count, text: f"\n{_indent(count, text)}", 2, 2),
    "trim": (lambda text: _string(text).strip(), 1, 1),
    "upper": (lambda text: _string(text).upper(), 1, 1),
    "lower": (lambda text: _string(text).lower(), 1, 1),
    "replace": (_replace, 3, 3),
    "contains": (lambda part, text: _string(part) in _string(text), 2, 2),
    "hasPrefix": (lambda part, text: _string(text).startswith(_string(part)), 2, 2),
    "hasSuffix": (lambda part, text: _string(text).endswith(_string(part)), 2, 2),
    "join": (_join, 2, 2),
    "list": (_new_list, 0, _MANY),
    "toString": (to_text, 1, 1),
    "int": (_integer, 1, 1),
    "add": (lambda *values: sum(map(_integer, values)), 1, _MANY),
    "sub": (lambda first, second: _integer(first) - _integer(second), 2, 2),
    "mul": (_product, 1, _MANY),
    "div": (lambda first, second: _divided(first, second)[0], 2, 2),
    "mod": (lambda first, second: _divided(first, second)[1], 2, 2),
}
