from __future__ import annotations

from pathlib import Path

import pytest
from deepsquare.workflow import Problem
from deepsquare.workflow.loading import with_lines

YAML = """\
resources:
  tasks: 1
  cpuPerTask: 1
  memPerCpu: 0
  gpus: none
env:
- key: 1A
  value: secret
- key: B
steps:
- name: one
  run:
    comand: "true"
    container: {imge: python}
- nmae: two
colour: blue
"""


def test_all_mistakes_are_told_at_once_each_with_its_place(problems_of) -> None:
    assert {(problem.path, problem.line, problem.column) for problem in problems_of(YAML)} == {
        ("resources.cpusPerTask", 1, 1),
        ("resources.cpuPerTask", 3, 3),
        ("resources.memPerCpu", 4, 3),
        ("resources.gpus", 5, 3),
        ("env[0].key", 7, 3),
        ("env[1].value", 9, 3),
        ("steps[0].run.command", 12, 3),
        ("steps[0].run.comand", 13, 5),
        ("steps[0].run.container.image", 14, 5),
        ("steps[0].run.container.imge", 14, 17),
        ("steps[1].nmae", 15, 3),
        ("colour", 16, 1),
    }


def test_the_text_of_the_error_is_a_line_a_mistake(problems_of) -> None:
    text = [str(problem) for problem in problems_of(YAML)]
    assert "line 4, column 3: resources.memPerCpu: is 0, but must be greater than or equal to 1" in text
    unknown = "line 16, column 1: colour: is an unknown field; allowed are resources, steps, env, enableLogging, input"
    assert any(line.startswith(unknown) for line in text)


@pytest.mark.parametrize(
    ("change", "path", "name"),
    [
        ({"step": []}, "step", "steps"),
        ({"resources": {"cpu_per_task": 1}}, "resources.cpu_per_task", "cpusPerTask"),
        ({"resources": {"gpu": 1}}, "resources.gpu", "gpus"),
        ({"env": [{"key": "A", "value": "v", "vaule": "v"}]}, "env[0].vaule", "value"),
        ({"run": {"comand": "true"}}, "steps[0].run.comand", "command"),
        ({"run": {"workdir": "/"}}, "steps[0].run.workdir", "workDir"),
        ({"run": {"resources": {"gpus": 1}}}, "steps[0].run.resources.gpus", "gpusPerTask"),
        ({"run": {"container": {"image": "i", "passwd": "p"}}}, "steps[0].run.container.passwd", "password"),
        ({"steps": [{"steps": [{"steps": [{"stps": []}]}]}]}, "steps[0].steps[0].steps[0].stps", "steps"),
    ],
)
def test_an_unknown_field_comes_with_the_nearest_name_of_its_place(
    change: dict, path: str, name: str, job, problems_of
) -> None:
    (problem,) = problems_of(job(**change))
    assert (problem.path, problem.tag) == (path, "unknown")
    assert problem.message == f"is an unknown field; did you mean {name}?"


def test_of_many_mistakes_the_first_hundred_are_told(job, problems_of) -> None:
    problems = problems_of(job(steps=[{"x": 1}] * 120_000))
    assert len(problems) == 101
    assert str(problems[-1]) == "and 119900 more"


def test_what_is_found_later_has_its_line_too(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("resources: {}\nsteps:\n- use:\n    source: a\n")
    problems = [
        Problem("steps[0].use.source", "is gone", "module"),
        Problem("steps[0].use.steps[1].name", "is none", "module"),
        Problem("", "is too long", "max"),
        Problem("colour", "is blue", "max"),
    ]
    assert str(with_lines(problems, file)).splitlines() == [
        f"{file}:4:5: steps[0].use.source: is gone",
        f"{file}:3:3: steps[0].use.steps[1].name: is none",
        f"{file}: is too long",
        f"{file}: colour: is blue",
    ]
    assert str(with_lines(problems[:1], tmp_path / "gone")) == f"{tmp_path}/gone: steps[0].use.source: is gone"


def test_plain_data_has_no_lines(job, problems_of) -> None:
    (problem,) = problems_of(job(steps=[{"run": {}}]))
    assert (problem.line, problem.column) == (None, None)
    assert str(problem) == "steps[0].run.command: is missing"


def test_names_of_python_are_placed_like_those_of_the_file(problems_of) -> None:
    (problem,) = problems_of(
        "resources:\n  tasks: 1\n  cpus_per_task: 0\n  memPerCpu: 1\n  gpus: 0\nsteps: [{run: {command: x}}]\n"
    )
    assert problem.line == 3


def test_a_field_in_both_spellings_is_a_mistake(problems_of) -> None:
    (problem,) = problems_of(
        "resources: {tasks: 1, cpusPerTask: 1, cpus_per_task: 7, memPerCpu: 1, gpus: 0}\nsteps: [{run: {command: x}}]\n"
    )
    assert problem.path == "resources.cpus_per_task"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"resources": []}, "must be a mapping"),
        ({"resources": "small"}, "must be a mapping"),
        ({"steps": {}}, "must be a list"),
        ({"steps": "true"}, "must be a list"),
        ({"steps": ["true"]}, "must be a mapping"),
        ({"steps": [{"run": "true"}]}, "must be a mapping"),
        ({"steps": [{"run": {"command": ["true"]}}]}, "must be text"),
        ({"steps": [None]}, "must be a mapping"),
    ],
)
def test_the_wrong_kind_of_value_is_told_in_words(value: dict, words: str, job, problems_of) -> None:
    (problem,) = problems_of(job() | value)
    assert problem.message.startswith(words)


@pytest.mark.parametrize(
    ("text", "kind"), [("[]", "a list"), ("3", "a number"), ("text", "text"), ("- resources\n", "a list")]
)
def test_a_file_is_a_mapping(text: str, kind: str, problems_of) -> None:
    (problem,) = problems_of(text)
    assert str(problem) == f"must be a mapping with resources and steps, not {kind}"


@pytest.mark.parametrize("text", ["", "# nothing\n", "null", "---\n"])
def test_an_empty_file_is_called_so(text: str, problems_of) -> None:
    (problem,) = problems_of(text)
    assert str(problem) == "is empty"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": [{"run": {"command": "x", "container": "a"}}]}, "must be a mapping, not text: write {image: ...}"),
        ({"steps": [{"dependsOn": "a"}]}, "must be a list, not text: write it as a list: [...]"),
        ({"steps": [{"run": {"command": ["a"]}}]}, "must be text, not a list"),
        ({"steps": [{"run": {"command": 1}}]}, "must be text, not a number; put it in quotes"),
        ({"inputMode": "0755"}, "must be a whole number, not text: in decimal, such as 493 for 0755"),
        ({"inputMode": 755}, "is 755, but must be less than 512: in decimal, such as 493 for 0755"),
        ({"steps": [{"launch": {"signalOnParentStepExit": 5, "steps": []}}]}, "must be one of 0, 1, 2, 3, 9 or 15"),
        (
            {"steps": [{"name": "one"}, {"dependsOn": ["one"]}]},
            "one is no handle that an earlier step of the same list launches: none is launched before. It is a step's name: steps "
            "run in order anyway, and only what launch starts has a handle",
        ),
        (
            {"steps": [{"run": {"command": "a", "catch": []}}]},
            "is an unknown field; it belongs beside run, in the step",
        ),
        (
            {"steps": [{"for": {"parallel": True, "items": [], "steps": [{"run": {"command": "a", "if": "b"}}]}}]},
            "is an unknown field; it belongs beside run, in the step",
        ),
        ({"steps": [{"launch": {"run": {}, "steps": []}}]}, "is an unknown field; it belongs in steps"),
    ],
)
def test_what_is_wrong_comes_with_what_to_write(change: dict, message: str, job, problems_of) -> None:
    (problem,) = problems_of(job() | change)
    assert problem.message == message
