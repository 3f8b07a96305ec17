"""Loops, launches, conditions: what is allowed."""

from __future__ import annotations

import pytest
from deepsquare.workflow import WorkflowError, from_dict
from hypothesis import given, settings
from hypothesis import strategies as st

NOTHING = {"name": "nothing"}


def loop(**fields):
    return {"for": {"parallel": False, "steps": [NOTHING]} | fields}


def launch(**fields):
    return {"launch": {"steps": [NOTHING]} | fields}


@pytest.mark.parametrize(
    ("step", "path", "words"),
    [
        (loop(), "steps[0].for", "needs either range or items"),
        (loop(items=["a"], range={"begin": 1, "end": 2}), "steps[0].for", "needs either range or items"),
        (loop(range={"begin": 1, "end": 2, "increment": 0}), "steps[0].for.range", "would never end"),
        (loop(range={"begin": 1, "end": 200_000}), "steps[0].for", "more than 100000 times"),
        (loop(items=[1]), "steps[0].for.items[0]", "put it in quotes"),
        (loop(items=["x" * 140_000]), "steps[0].for.items[0]", "longer than 128 KiB"),
        ({"for": {"items": [], "steps": []}}, "steps[0].for.parallel", "is missing"),
        ({"for": {"items": [], "parallel": True}}, "steps[0].for.steps", "is missing"),
        (launch(handleName="a-b"), "steps[0].launch.handleName", "letters, digits and _"),
        (launch(handleName=""), "steps[0].launch.handleName", "letters, digits and _"),
        (launch(signalOnParentStepExit=4), "steps[0].launch.signalOnParentStepExit", "one of 0, 1, 2, 3, 9 or 15"),
        ({"if": 1}, "steps[0].if", "must be text"),
        ({"catch": NOTHING}, "steps[0].catch", "must be a list"),
        ({**loop(items=[]), **launch()}, "steps[0]", "a step has one of for and launch"),
        ({"run": {"command": "a"}, "steps": [NOTHING]}, "steps[0]", "a step has one of run and steps"),
        ({"finaly": []}, "steps[0].finaly", "did you mean finally?"),
        ({"for": {"paralel": True, "steps": [], "items": []}}, "steps[0].for.paralel", "did you mean parallel?"),
    ],
)
def test_mistakes_are_told_with_their_place(step: dict, path: str, words: str, job, problems_of) -> None:
    problem = next(problem for problem in problems_of(job(steps=[step])) if problem.path == path)
    assert words in problem.message


@pytest.mark.parametrize(
    ("steps", "path", "known"),
    [
        ([{"dependsOn": ["a"]}], "steps[0].dependsOn[0]", "none is launched before"),
        ([{"dependsOn": ["a"]}, launch(handleName="a")], "steps[0].dependsOn[0]", "none is launched before"),
        (
            [launch(handleName="a"), launch(handleName="b"), {"dependsOn": ["a", "c"]}],
            "steps[2].dependsOn[1]",
            "launched before are a, b",
        ),
        ([launch(handleName="a"), {"steps": [{"dependsOn": ["a"]}]}], "steps[1].steps[0].dependsOn[0]", "none"),
        ([loop(items=[], steps=[{"dependsOn": ["a"]}])], "steps[0].for.steps[0].dependsOn[0]", "none"),
        ([{"catch": [{"dependsOn": ["a"]}]}], "steps[0].catch[0].dependsOn[0]", "none"),
        ([{"finally": [{"dependsOn": ["a"]}]}], "steps[0].finally[0].dependsOn[0]", "none"),
        ([launch(steps=[{"dependsOn": ["a"]}])], "steps[0].launch.steps[0].dependsOn[0]", "none"),
    ],
)
def test_a_handle_is_launched_before_in_the_same_list(steps, path: str, known: str, job, problems_of) -> None:
    (problem,) = problems_of(job(steps=steps))
    assert (problem.path, problem.tag) == (path, "handle")
    assert known in problem.message


def test_a_handle_is_launched_once(job, problems_of) -> None:
    (problem,) = problems_of(job(steps=[launch(handleName="a"), launch(handleName="A")]))
    assert (problem.path, problem.tag) == ("steps[1].launch.handleName", "handle")
    from_dict(job(steps=[launch(handleName="a"), {"steps": [launch(handleName="a")]}]))


def test_handles_know_no_case(job) -> None:
    from_dict(job(steps=[launch(handleName="aB_1"), {"dependsOn": ["Ab_1", "AB_1"]}]))


def test_commands_anywhere_ask_for_no_more_than_the_job_has(job, problems_of) -> None:
    step = {"run": {"command": "a", "resources": {"tasks": 99}}}
    places = [
        {"steps": [step]},
        loop(items=[], steps=[step]),
        launch(steps=[step]),
        {"catch": [step]},
        {"finally": [step]},
    ]
    assert [problem.path for problem in problems_of(job(steps=places))] == [
        "steps[0].steps[0].run.resources",
        "steps[1].for.steps[0].run.resources",
        "steps[2].launch.steps[0].run.resources",
        "steps[3].catch[0].run.resources",
        "steps[4].finally[0].run.resources",
    ]


@given(st.integers(1, 5000))
@settings(max_examples=5, deadline=None)
def test_of_many_mistakes_the_first_hundred_are_told(count: int) -> None:
    steps = [{"dependsOn": ["nobody"]}] * count
    with pytest.raises(WorkflowError) as caught:
        from_dict({"resources": {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 1, "gpus": 0}, "steps": steps})
    paths = [problem.path for problem in caught.value.problems]
    assert paths == [f"steps[{number}].dependsOn[0]" for number in range(min(count, 100))]
