"""Templates as modules have them: a small part of Go's text/template with some functions of sprig, safe and bounded.

Text, comments, trimming (`{{-`, `-}}`), fields, `$`, variables, pipelines, parentheses, texts, whole numbers, true, false and nil;
if, else if, else, range, with. Values are only what `render` is given: texts, numbers, true, false, None, lists, and `Record`s. As
in Go, what is nil is printed as <nil>.
"""

from __future__ import annotations

import difflib
from typing import Any

from deepsquare.workflow.template_functions import (
    FUNCTIONS,
    MOST_TEXT,
    FunctionError,
    Record,
    call,
    is_empty,
    kind_of,
    to_text,
)
from deepsquare.workflow.template_syntax import (
    Branch,
    Chain,
    Function,
    Literal,
    Node,
    Operand,
    Pipeline,
    Print,
    TemplateError,
    Text,
    parse,
)

__all__ = ["Budget", "Record", "TemplateError", "render"]

_MOST_STEPS = 200_000
# These two look at no more of their values than they must.
_LAZY = frozenset({"and", "or"})
_KNOWN = frozenset(FUNCTIONS) | _LAZY


class Budget:
    """How much work one or more templates may be; a step of it takes 15 microseconds at most."""

    def __init__(self) -> None:
        self._left = _MOST_STEPS

    def spend(self, steps: int, line: int) -> None:
        """Take steps from it, for something in that line of a template.

        Raises:
            TemplateError: there are not so many left.
        """
        self._left -= steps
        if self._left < 0:
            raise TemplateError(line, "the template, with those of modules before it, is too much work")


def render(text: str, data: Record, budget: Budget | None = None) -> str:
    """What a template makes of data, which is its `.` and `$`; a text without `{{` is given back as it is.

    Args:
        text: the template.
        data: what it is about.
        budget: what it shares with other templates; left out, it has one of its own.

    Raises:
        TemplateError: it is not valid, asks for what is not there, or is too much: 1 MiB of text, or too much work.
    """
    if "{{" not in text:
        return text
    budget = budget or Budget()
    budget.spend(len(text) >> 4, 1)
    evaluation = _Evaluation(data, budget)
    try:
        evaluation.run(parse(text, _KNOWN), data)
    except FunctionError as error:
        raise TemplateError(evaluation.line, f"{evaluation.name}: {error}") from None
    return "".join(evaluation.printed)


class _Evaluation:
    def __init__(self, data: Record, budget: Budget) -> None:
        self.printed: list[str] = []
        self.line = 1
        self.name = ""
        """The function, or what else was last done: told when it fails."""
        self._size = 0
        self._budget = budget
        self._variables: list[tuple[str, Any]] = [("$", data)]

    def run(self, nodes: tuple[Node, ...], dot: Any) -> None:
        """Carry out nodes; variables of theirs end with them."""
        depth = len(self._variables)
        for node in nodes:
            self._spend(1)
            if isinstance(node, Text):
                self._print(node.text)
            elif isinstance(node, Print):
                value = self._pipeline(node.pipeline, dot)
                if not node.pipeline.variables:
                    self.name = "printing"
                    self._print(to_text(value))
            else:
                self._branch(node, dot)
        del self._variables[depth:]

    def _spend(self, steps: int) -> None:
        self._budget.spend(steps, self.line)

    def _print(self, text: str) -> None:
        self._size += len(text)
        if self._size > MOST_TEXT:
            raise TemplateError(self.line, "the template gives more than 1 MiB")
        self.printed.append(text)

    def _branch(self, node: Branch, dot: Any) -> None:
        depth = len(self._variables)
        if node.kind == "range":
            self._range(node, dot)
        else:
            value = self._pipeline(node.pipeline, dot)
            if is_empty(value):
                self.run(node.otherwise, dot)
            else:
                self.run(node.body, value if node.kind == "with" else dot)
        del self._variables[depth:]

    def _range(self, node: Branch, dot: Any) -> None:
        pipeline = node.pipeline
        items = self._value(pipeline, dot)
        if items is None:
            items = []
        if not isinstance(items, list):
            raise TemplateError(pipeline.line, f"range needs a list, and is given {kind_of(items)}")
        for number, item in enumerate(items):
            depth = len(self._variables)
            values = (number, item) if len(pipeline.variables) == 2 else (item,)
            for name, value in zip(pipeline.variables, values, strict=False):
                self._set(name, value, pipeline)
            self.run(node.body, item)
            del self._variables[depth:]
        if not items:
            self.run(node.otherwise, dot)

    def _pipeline(self, pipeline: Pipeline, dot: Any) -> Any:
        value = self._value(pipeline, dot)
        for name in pipeline.variables:
            self._set(name, value, pipeline)
        return value

    def _set(self, name: str, value: Any, pipeline: Pipeline) -> None:
        if pipeline.is_new:
            self._variables.append((name, value))
            return
        for number in range(len(self._variables) - 1, 0, -1):
            self._spend(1)
            if self._variables[number][0] == name:
                self._variables[number] = (name, value)
                return
        raise TemplateError(pipeline.line, f"{name} is not declared; write {name} := ...")

    def _value(self, pipeline: Pipeline, dot: Any) -> Any:
        self.line = pipeline.line
        value: tuple[Any, ...] = ()
        for command in pipeline.commands:
            value = (self._command(command, value, dot),)
            self.line = pipeline.line
        return value[0]

    def _command(self, command: tuple[Operand, ...], last: tuple[Any, ...], dot: Any) -> Any:
        """The value of a function, or of a single operand; `last` is what came by |."""
        first = command[0]
        if not isinstance(first, Function):
            return self._operand(first, dot)
        if first.name in _LAZY:
            return self._lazy(first.name, command[1:], last, dot)
        arguments = [*(self._operand(operand, dot) for operand in command[1:]), *last]
        self.name = first.name
        return call(first.name, arguments, self._spend)

    def _lazy(self, name: str, operands: tuple[Operand, ...], last: tuple[Any, ...], dot: Any) -> Any:
        if not operands and not last:
            raise TemplateError(self.line, f"{name}: takes 1 or more values, and is given 0")
        value: Any = None
        for operand in operands:
            value = self._operand(operand, dot)
            if is_empty(value) == (name == "and"):
                return value
        return last[0] if last else value

    def _operand(self, operand: Operand, dot: Any) -> Any:
        self._spend(1)
        if isinstance(operand, Literal):
            return operand.value
        if isinstance(operand, Function):
            return self._command((operand,), (), dot)
        return self._chain(operand, dot)

    def _chain(self, chain: Chain, dot: Any) -> Any:
        if isinstance(chain.base, Pipeline):
            value = self._value(chain.base, dot)
        else:
            value = dot if chain.base is None else self._variable(chain.base)
        for name in chain.fields:
            if not isinstance(value, Record):
                raise TemplateError(self.line, f".{name} is asked of {kind_of(value)}, which has no fields")
            if name not in value.fields:
                near = difflib.get_close_matches(name, value.fields, 1, 0.6)
                known = f"did you mean .{near[0]}?" if near else f"it has {', '.join(value.fields)}"
                raise TemplateError(self.line, f".{name} is no field of {value.kind}; {known}")
            value = value.fields[name]
        return value

    def _variable(self, name: str) -> Any:
        for known, value in reversed(self._variables):
            self._spend(1)
            if known == name:
                return value
        raise TemplateError(self.line, f"{name} is not declared; write {name} := ...")
