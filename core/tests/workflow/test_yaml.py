from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from typing import Any

import pytest
from deepsquare.workflow import Workflow, WorkflowError, from_dict, parse

JOB = """\
resources: {{tasks: {tasks}, cpusPerTask: 1, memPerCpu: 1, gpus: 0}}
enableLogging: {logging}
env: [{{key: A, value: {value}}}]
steps: [{{run: {{command: x}}}}]
"""


def text(tasks: str = "1", logging: str = "true", value: str = "v") -> str:
    return JOB.format(tasks=tasks, logging=logging, value=value)


def value_of(workflow: Workflow) -> str:
    return workflow.env[0].value


@pytest.mark.parametrize(
    "scalar",
    ["2024-01-01", "2024-01-01T10:00:00Z", "1.2.3", "v1", "=", "<<", "0o17", "1e3", "a b", "y", "n", "NULLABLE"],
)
def test_what_looks_like_something_else_only_to_yaml_is_the_text_that_was_written(scalar: str) -> None:
    assert value_of(parse(text(value=scalar))) == scalar


@pytest.mark.parametrize("scalar", ["yes", "No", "on", "OFF", "true", "12", "1.10", "-0", "007", "1_000"])
def test_what_yaml_reads_as_something_else_is_the_text_that_was_written_where_text_is_wanted(scalar: str) -> None:
    assert value_of(parse(text(value=scalar))) == scalar
    assert value_of(parse(text(value=f'"{scalar}"'))) == scalar


def test_that_holds_everywhere_and_for_numbers_nothing_changes(job, problems_of) -> None:
    lines = "resources: {tasks: 2, cpusPerTask: 1, memPerCpu: 1, gpus: 0}\nsteps:\n- name: 1\n  if: true\n"
    lines += "  for: {parallel: true, items: [1, no], steps: [{run: {command: false}}]}\n"
    step = parse(lines).steps[0]
    assert step.for_ is not None
    assert (step.name, step.if_, step.for_.items, step.for_.steps[0].run.command) == ("1", "true", ("1", "no"), "false")  # type: ignore[union-attr]
    (problem,) = problems_of(lines.replace("parallel: true", "parallel: 1"))
    assert problem.message == "must be true or false, not a number"


@pytest.mark.parametrize("scalar", ["~", "null", ""])
def test_nothing_is_no_text(scalar: str, problems_of) -> None:
    (problem,) = problems_of(text(value=scalar))
    assert (problem.path, problem.line) == ("env[0].value", 3)
    assert problem.message == 'must be text, not nothing; write "" for an empty one'


@pytest.mark.parametrize("scalar", ["12:30:45", "0x1f", "010", "1_000", "+5", "0b_", "1:30.5", ".inf"])
def test_what_only_old_yaml_reads_as_a_number_is_refused_or_the_text_that_was_written(scalar: str) -> None:
    with contextlib.suppress(WorkflowError):
        assert value_of(parse(text(value=scalar))) == scalar


@pytest.mark.parametrize(
    ("word", "meaning"), [("yes", True), ("On", True), ("TRUE", True), ("no", False), ("off", False)]
)
def test_yes_and_no_are_true_and_false_where_that_is_asked(word: str, meaning: bool) -> None:
    assert parse(text(logging=word)).enable_logging is meaning


@pytest.mark.parametrize("scalar", ["010", "1:30", "-1:30", "1_0:00"])
def test_a_number_is_never_read_as_another_than_people_read(scalar: str, problems_of) -> None:
    (problem,) = problems_of(text(tasks=scalar))
    assert problem.path == "resources.tasks"


@pytest.mark.parametrize("scalar", ["yes", "1.0", "1e3", '"1"', "2024-01-01", ".inf", ".nan", "~", "[1]"])
def test_what_is_no_number_is_refused(scalar: str, problems_of) -> None:
    (problem,) = problems_of(text(tasks=scalar))
    assert (problem.path, problem.line) == ("resources.tasks", 1)
    assert problem.message.startswith("must be a whole number, not ")


@pytest.mark.parametrize(
    "scalar",
    [
        *("0b_", "0x_", "!!int x", "!!float x", "!!bool maybe"),
        pytest.param("9" * 5000, id="5000 digits"),
        pytest.param("1" + ":00" * 200 + ".0", id="sexagesimal"),
    ],
)
def test_what_pythons_yaml_stumbles_over_is_a_mistake_like_any_other(scalar: str, problems_of) -> None:
    assert problems_of(text(tasks=scalar))
    with contextlib.suppress(WorkflowError):
        parse(text(value=scalar))


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!secret", "!!binary", "!!timestamp"])
def test_tags_run_nothing(tag: str) -> None:
    assert value_of(parse(text(value=f"{tag} v"))) == "v"


def test_aliases_are_refused_where_they_stand(problems_of) -> None:
    (problem,) = problems_of(text(value="*anchor"))
    assert problem.message == "anchors and aliases are not allowed here"
    assert (problem.line, problem.column) == (3, 23)


def test_a_billion_laughs_are_not_laughed(problems_of) -> None:
    levels = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    (problem,) = problems_of("\n".join(levels))
    assert "aliases are not allowed" in problem.message


@pytest.mark.parametrize(
    ("file", "line", "column"),
    [
        ("steps: []\nresources: {}\nsteps: []\n", 3, 1),
        ("steps:\n- run:\n    command: a\n    command: b\n", 4, 5),
        ('{"steps": [],\n "steps": []}', 2, 2),
        ('steps: []\n"steps": []\n', 2, 1),
    ],
)
def test_a_doubled_key_is_refused_where_it_stands_again(file: str, line: int, column: int, problems_of) -> None:
    (problem,) = problems_of(file)
    assert re.search("is there twice; first on line [13]$", problem.message)
    assert (problem.line, problem.column) == (line, column)


@pytest.mark.parametrize("file", ["? [a]\n: 1\n", "{[a]: 1}", "{{a: b}: 1}"])
def test_a_key_is_text(file: str, problems_of) -> None:
    (problem,) = problems_of(file)
    assert problem.message == "a key must be text"


def test_a_merge_key_merges_nothing(problems_of) -> None:
    merged = "<<: {steps: [{run: {command: x}}]}\nresources: {tasks: 1, cpusPerTask: 1, memPerCpu: 1, gpus: 0}\n"
    assert {problem.path for problem in problems_of(merged)} == {"<<", "steps"}


def test_two_documents_are_refused(problems_of) -> None:
    (problem,) = problems_of(text() + "---\n" + text())
    assert problem.message == "has a second document here: write one document only"


@pytest.mark.parametrize(
    ("file", "line"), [("steps: [\n", 2), ("a: b: c\n", 1), ("steps:\n\t- run\n", 2), ("a: 'b\n", 2), ("a: @b\n", 1)]
)
def test_broken_text_is_told_with_its_place(file: str, line: int, problems_of) -> None:
    (problem,) = problems_of(file)
    assert problem.tag == "syntax"
    assert problem.line == line


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("a: {b\n", "expected ',' or '}', but got '<stream end>'"),
        ("a: [b}\n", "expected ',' or ']', but got '}'"),
        ("a:\n\t- b\n", "a tab; YAML is indented with spaces"),
        ("a: b: c\n", "text with ': ' in it needs quotes, or | and lines of its own"),
    ],
)
def test_broken_text_is_told_with_what_was_expected(file: str, words: str, problems_of) -> None:
    (problem,) = problems_of(file)
    assert words in problem.message


@pytest.mark.parametrize("character", ["\0", "\x07", "\x1b", "\ud800", "\ufffe"])
def test_characters_that_no_text_file_has_are_refused(character: str, problems_of) -> None:
    (problem,) = problems_of(text(value=f"a{character}b"))
    assert problem.tag == "syntax"


@pytest.mark.parametrize("escape", [r"\0", r"\ud800"])
def test_escapes_do_not_bring_in_what_is_refused(escape: str, problems_of) -> None:
    (problem,) = problems_of(text(value=f'"a{escape}b"'))
    assert problem.path == "env[0].value"


def test_a_file_has_at_most_a_mebibyte(problems_of) -> None:
    padding = (1 << 20) - len(text()) - 2
    assert parse(text() + "#" + "x" * padding + "\n")
    (problem,) = problems_of(text() + "#" + "é" * (padding // 2 + 1) + "\n")
    assert (problem.message, problem.tag) == ("is larger than 1 MiB", "size")


def test_yaml_has_at_most_so_many_values_as_are_read_soon(problems_of) -> None:
    started = time.monotonic()
    (problem,) = problems_of("x: [" + "a," * 500_000 + "]")
    assert problem.message == "has more than 50000 names and values: write what is longer as JSON"
    assert time.monotonic() - started < 10


def nested(levels: int) -> dict[str, Any]:
    step: dict[str, Any] = {"run": {"command": "x"}}
    for _ in range(levels):
        step = {"steps": [step]}
    return {"resources": {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 1, "gpus": 0}, "steps": [step]}


def test_steps_may_be_nested_a_good_deal() -> None:
    plain = nested(20)
    assert parse(json.dumps(plain)).to_dict() == plain


@pytest.mark.parametrize(
    "file",
    [
        json.dumps(nested(30)),
        "[" * 60 + "]" * 60,
        "[" * 100_000,
        "{a: " * 100_000,
        "- " * 100_000,
        "? " * 5_000,
    ],
    ids=["steps", "lists", "open lists", "open mappings", "dashes", "keys"],
)
def test_too_deep_nesting_is_refused(file: str, problems_of) -> None:
    (problem,) = problems_of(file)
    assert problem.message == "is nested deeper than 50 levels"


def test_no_depth_ends_the_process_of_one_who_allows_deep_recursion(problems_of) -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    try:
        for file in ("[" * 100_000, '{"a":' * 100_000):
            (problem,) = problems_of(file)
            assert problem.message == "is nested deeper than 50 levels"
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize("levels", [100, 180, 250, 300, 5_000])
def test_plain_data_is_either_too_deep_or_can_be_sent(levels: int) -> None:
    try:
        workflow = from_dict(nested(levels))
    except WorkflowError:
        return
    assert len(workflow.runs()) == 1
    assert workflow.to_dict()
    assert repr(workflow)


def test_data_that_holds_itself_is_refused(job, problems_of) -> None:
    endless: dict[str, Any] = {}
    endless["steps"] = [endless]
    assert problems_of(job(steps=[endless]))
