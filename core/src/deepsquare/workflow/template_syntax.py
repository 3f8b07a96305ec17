"""Reading templates: from text to nodes. What is no part of the subset is refused here, with its line."""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from deepsquare.errors import DeepSquareError

_MOST_TOKENS = 50_000
_MOST_LEVELS = 40
_INT64 = 1 << 63

_SPACE = " \t\r\n"
# After a comment there is nothing but the end.
_COMMENT = re.compile(r"/\*(?:[^*]++|\*(?!/))*+\*/(?P<trim>[ \t\r\n]+-)?\}\}")
_TOKEN = re.compile(
    r"""(?P<end>(?:[ \t\r\n]+-)?\}\})
      | (?P<space>[ \t\r\n]+)
      | (?P<text>"(?:[^"\\\n]|\\.)*+")
      | (?P<raw>`[^`]*+`)
      | (?P<number>[-+]?[0-9][0-9A-Za-z_.]*+)
      | (?P<field>\.[A-Za-z_][A-Za-z0-9_]*+)
      | (?P<variable>\$[A-Za-z0-9_]*+)
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*+)
      | (?P<sign>:=|[=|(),.])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:([abfnrtv\\\"'])|x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([0-7]{3})|(.))")
_ESCAPED = dict(zip("abfnrtv\\\"'", "\a\b\f\n\r\t\v\\\"'", strict=True))
_WORDS = frozenset({"if", "else", "end", "range", "with"})
_OTHERS = frozenset({"define", "template", "block", "break", "continue"})


class TemplateError(DeepSquareError):
    """A template is not valid, or can't be carried out. The text never has values that the template was given."""

    def __init__(self, line: int, message: str) -> None:
        self.line, self.message = line, message
        super().__init__(f"line {line}: {message}")

    def __reduce__(self) -> tuple[type[TemplateError], tuple[int, str]]:
        return type(self), (self.line, self.message)


@dataclass(frozen=True, slots=True)
class Text:
    """What is printed as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A value that is written down."""

    value: str | int | bool | None


@dataclass(frozen=True, slots=True)
class Function:
    """A function by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Chain:
    """Fields of fields: of the current value, a variable (`$` is the whole data), or a pipeline in parentheses."""

    base: str | Pipeline | None
    """A variable with its `$`, a pipeline, or None: the current value."""
    fields: tuple[str, ...]


Operand = Literal | Function | Chain


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Commands, each given to the next; the last value goes to variables, if it declares or sets any."""

    commands: tuple[tuple[Operand, ...], ...]
    line: int
    variables: tuple[str, ...] = ()
    is_new: bool = True


@dataclass(frozen=True, slots=True)
class Print:
    """A pipeline whose value is printed."""

    pipeline: Pipeline


@dataclass(frozen=True, slots=True)
class Branch:
    """if, with and range: what is done for a pipeline that isn't empty, and what otherwise."""

    kind: str
    pipeline: Pipeline
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]


Node = Text | Print | Branch


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    line: int
    is_joined: bool = False
    """It follows the token before without a space."""


def parse(text: str, functions: frozenset[str]) -> tuple[Node, ...]:
    """The nodes of a template that may call these functions.

    Raises:
        TemplateError: it is not valid.
    """
    return _Parser(text, functions).parse()


class _Parser:
    def __init__(self, text: str, functions: frozenset[str]) -> None:
        self._functions = functions
        self._tokens = list(_tokens(text))
        self._at = 0
        self._levels = 0

    def parse(self) -> tuple[Node, ...]:
        nodes, end = self._body()
        if end is not None:
            raise TemplateError(end.line, f"{{{{ {end.text} }}}} ends nothing: no if, range or with is open here")
        return nodes

    def _next(self) -> _Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    @property
    def _peek(self) -> _Token:
        return self._tokens[self._at]

    def _body(self) -> tuple[tuple[Node, ...], _Token | None]:
        """Nodes up to an `else` or `end`, which is given with them, or to the end of the text."""
        nodes: list[Node] = []
        while self._peek.kind != "eof":
            token = self._next()
            if token.kind == "outside":
                nodes.append(Text(token.text))
            elif self._peek.kind == "word" and self._peek.text in ("else", "end"):
                return tuple(nodes), self._next()
            elif self._peek.kind == "word" and self._peek.text in ("if", "range", "with"):
                nodes.append(self._branch(self._next()))
            else:
                nodes.append(Print(self._pipeline(token)))
                self._close()
        return tuple(nodes), None

    def _branch(self, opening: _Token) -> Branch:
        self._deeper(opening)
        pipeline = self._pipeline(opening)
        self._close()
        body, end = self._body()
        otherwise: tuple[Node, ...] = ()
        if end is not None and end.text == "else":
            if self._peek.kind == "word" and self._peek.text == "if" and opening.text == "if":
                # Its `end` is that of the whole.
                inner = self._branch(self._next())
                self._levels -= 1
                return Branch(opening.text, pipeline, body, (inner,))
            self._close()
            otherwise, end = self._body()
        if end is None:
            raise TemplateError(opening.line, f"{{{{ {opening.text} }}}} has no {{{{ end }}}}")
        if end.text == "else":
            raise TemplateError(end.line, f"{{{{ {opening.text} }}}} has a second else")
        self._close()
        self._levels -= 1
        return Branch(opening.text, pipeline, body, otherwise)

    def _deeper(self, token: _Token) -> None:
        self._levels += 1
        if self._levels > _MOST_LEVELS:
            raise TemplateError(token.line, f"is nested deeper than {_MOST_LEVELS} levels")

    def _close(self) -> None:
        token = self._next()
        if token.kind != "end":
            raise _unexpected(token)

    def _pipeline(self, before: _Token) -> Pipeline:
        """A pipeline behind a token; stops before `)` and the end of the action."""
        variables, is_new = self._variables(before)
        commands = [self._command()]
        while self._peek.text == "|" and self._peek.kind == "sign":
            self._next()
            commands.append(self._command())
        for command in commands[1:]:
            if not isinstance(command[0], Function):
                raise TemplateError(before.line, "what follows a | must be a function")
        return Pipeline(tuple(commands), before.line, variables, is_new)

    def _variables(self, before: _Token) -> tuple[tuple[str, ...], bool]:
        start = self._at
        names: list[str] = []
        while self._peek.kind == "variable" and len(names) < 2:
            names.append(self._next().text)
            if self._peek.kind == "sign" and self._peek.text in (":=", "="):
                if "$" in names:
                    raise TemplateError(before.line, "$ is the whole data, and can't be set")
                if len(names) == 2 and before.text != "range":
                    raise TemplateError(before.line, "only range sets two variables")
                return tuple(names), self._next().text == ":="
            if self._peek.text != "," or self._peek.kind != "sign":
                break
            self._next()
        self._at = start
        return (), True

    def _command(self) -> tuple[Operand, ...]:
        first = self._peek
        operands: list[Operand] = []
        while self._peek.kind not in ("end", "eof") and not (
            self._peek.kind == "sign" and self._peek.text in ("|", ")")
        ):
            if operands and self._peek.is_joined:
                raise _unexpected(self._peek)
            operands.append(self._operand())
        if not operands:
            raise TemplateError(first.line, "a value or a function is missing")
        if len(operands) > 1 and not isinstance(operands[0], Function):
            raise TemplateError(first.line, f"{first.text} is no function, and can't be given anything")
        return tuple(operands)

    def _operand(self) -> Operand:
        token = self._next()
        if token.kind == "word":
            return self._word(token)
        if token.kind == "text":
            return Literal(_unquoted(token))
        if token.kind == "raw":
            return Literal(token.text[1:-1].replace("\r", ""))
        if token.kind == "number":
            return Literal(_number(token))
        base: str | Pipeline | None = None
        fields: list[str] = []
        if token.kind == "variable":
            base = token.text
        elif token.kind == "field":
            fields.append(token.text[1:])
        elif token.text == "(":
            self._deeper(token)
            base = self._pipeline(token)
            if base.variables:
                raise TemplateError(token.line, "variables can't be set in parentheses")
            self._levels -= 1
            if self._peek.text != ")":
                raise TemplateError(token.line, "a ( has no )")
            self._next()
        elif token.text != ".":
            raise _unexpected(token)
        while token.text != "." and self._peek.kind == "field" and self._peek.is_joined:
            fields.append(self._next().text[1:])
        return Chain(base, tuple(fields))

    def _word(self, token: _Token) -> Operand:
        constants: dict[str, bool | None] = {"true": True, "false": False, "nil": None}
        if token.text in constants:
            return Literal(constants[token.text])
        if token.text in self._functions:
            return Function(token.text)
        if token.text in _WORDS:
            raise _unexpected(token)
        what = "no part" if token.text in _OTHERS else "no function"
        known = ", ".join(sorted(self._functions))
        raise TemplateError(
            token.line,
            f"{token.text} is {what} of templates here; known are if, range, with, and the functions {known}",
        )


def _unexpected(token: _Token) -> TemplateError:
    if token.kind == "end":
        return TemplateError(token.line, "something is missing before }}")
    return TemplateError(token.line, f"{token.text[:40]} is not expected here")


def _tokens(text: str) -> Iterator[_Token]:
    """The text between actions, and what actions are made of: `start`, the tokens, `end`."""
    breaks = [match.start() for match in re.finditer("\n", text)]
    position, count = 0, 0
    trims = False
    while True:
        opening = text.find("{{", position)
        outside = text[position : opening if opening >= 0 else len(text)]
        position = opening + 2
        trims_left = text[position : position + 1] == "-" and text[position + 1 : position + 2] in tuple(_SPACE)
        if trims:
            outside = outside.lstrip(_SPACE)
        if opening >= 0 and trims_left:
            outside = outside.rstrip(_SPACE)
        line = bisect(breaks, position) + 1
        if outside:
            yield _Token("outside", outside, line)
        if opening < 0:
            yield _Token("eof", "", len(breaks) + 1)
            return
        if trims_left:
            position += 1
            while text[position : position + 1] in tuple(_SPACE):
                position += 1
        if text.startswith("/*", position):
            comment = _COMMENT.match(text, position)
            if comment is None:
                raise TemplateError(line, "a comment has no end: {{/* ... */}} is one")
            position, trims = comment.end(), comment["trim"] is not None
            count += 1
        else:
            yield _Token("start", "{{", line)
            for token, after in _action(text, position, breaks, line):
                yield token
                position, trims = after, token.text != "}}"
                count += 1
                if count > _MOST_TOKENS:
                    raise TemplateError(line, f"the template has more than {_MOST_TOKENS} parts")


def _action(text: str, position: int, breaks: list[int], opened: int) -> Iterator[tuple[_Token, int]]:
    is_joined = False
    while True:
        match = _TOKEN.match(text, position)
        if match is None:
            _refuse(text, position, bisect(breaks, position) + 1, opened)
        kind = str(match.lastgroup)
        line = bisect(breaks, position) + 1
        position = match.end()
        if kind == "space":
            is_joined = False
            continue
        yield _Token(kind, match[0], line, is_joined), position
        if kind == "end":
            return
        # A ( begins something new; what follows it is not joined to anything.
        is_joined = match[0] not in ("(", "|", ",", ":=", "=")


def _refuse(text: str, position: int, line: int, opened: int) -> NoReturn:
    if position >= len(text):
        raise TemplateError(opened, "{{ has no }}")
    if text[position] in "\"`'":
        what = "a text has no end" if text[position] != "'" else "'...' is nothing here: texts are in \" or `"
        raise TemplateError(line, what)
    raise TemplateError(line, f"{text[position]!r} is not expected here")


def _number(token: _Token) -> int:
    try:
        number = int(token.text, 0)
    except ValueError:
        number = _INT64
    if not -_INT64 <= number < _INT64:
        raise TemplateError(token.line, f"{token.text[:40]} is no whole number of 64 bits")
    return number


def _unquoted(token: _Token) -> str:
    def meant(match: re.Match[str]) -> str:
        if match[1]:
            return _ESCAPED[match[1]]
        digits = match[2] or match[3] or match[4]
        code = int(digits, 16) if digits else int(match[5], 8) if match[5] else -1
        if not 0 <= code < 0x110000 or 0xD800 <= code < 0xE000:
            raise TemplateError(token.line, f"{match[0]} is no escape in a text")
        return chr(code)

    return _ESCAPE.sub(meant, token.text[1:-1])
