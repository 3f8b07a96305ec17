from __future__ import annotations

import pytest
from deepsquare.workflow import from_dict

FIELDS = ("tasks", "cpusPerTask", "memPerCpu", "gpus")
STEP_FIELDS = ("tasks", "cpusPerTask", "memPerCpu", "gpusPerTask")


@pytest.mark.parametrize("field", FIELDS)
def test_each_resource_has_to_be_said(field: str, job, problems_of) -> None:
    plain = job()
    plain["resources"] = {name: value for name, value in plain["resources"].items() if name != field}
    assert [(problem.path, problem.message) for problem in problems_of(plain)] == [(f"resources.{field}", "is missing")]


@pytest.mark.parametrize(("field", "least"), [("tasks", 1), ("cpusPerTask", 1), ("memPerCpu", 1), ("gpus", 0)])
def test_the_least_of_a_resource(field: str, least: int, job, problems_of) -> None:
    assert from_dict(job(resources={field: least})).to_dict()["resources"][field] == least
    for too_few in (least - 1, -(2**70)):
        (problem,) = problems_of(job(resources={field: too_few}))
        assert problem.path == f"resources.{field}"
        assert problem.message == f"is {too_few}, but must be greater than or equal to {least}"


@pytest.mark.parametrize("field", FIELDS)
def test_the_most_of_a_resource_is_what_graphql_can_say(field: str, job, problems_of) -> None:
    from_dict(job(resources={field: 2**31 - 1}))
    (problem,) = problems_of(job(resources={field: 2**31}))
    assert "less than or equal to 2147483647" in problem.message


@pytest.mark.parametrize("value", [True, False, 1.0, 1.5, float("nan"), "1", "", None, [], {}, b"1"])
@pytest.mark.parametrize("field", FIELDS)
def test_only_whole_numbers_count(field: str, value: object, job, problems_of) -> None:
    (problem,) = problems_of(job(resources={field: value}))
    assert problem.path == f"resources.{field}"
    assert problem.message.startswith("must be a whole number, not ")


@pytest.mark.parametrize("value", [True, 1.0, "1", []])
@pytest.mark.parametrize("field", STEP_FIELDS)
def test_only_whole_numbers_count_in_steps_too(field: str, value: object, job, problems_of) -> None:
    (problem,) = problems_of(job(run={"resources": {field: value}}))
    assert problem.path == f"steps[0].run.resources.{field}"
    assert problem.message.startswith("must be a whole number, not ")


@pytest.mark.parametrize(
    ("field", "too_few"), [("tasks", 0), ("cpusPerTask", 0), ("memPerCpu", 0), ("gpusPerTask", -1)]
)
def test_the_least_of_a_steps_resource(field: str, too_few: int, job, problems_of) -> None:
    (problem,) = problems_of(job(run={"resources": {field: too_few}}))
    assert problem.path == f"steps[0].run.resources.{field}"


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"tasks": 2},
        {"cpusPerTask": 8},
        {"tasks": 8, "cpusPerTask": 1},
        {"memPerCpu": 512},
        {"gpusPerTask": 1},
        {"tasks": 2, "gpusPerTask": 0},
    ],
)
def test_a_step_may_use_all_that_the_job_has(asked: dict[str, int], job) -> None:
    from_dict(job(run={"resources": asked}))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"tasks": 3}, ["12 CPUs", "the job has 8"]),
        ({"cpusPerTask": 9}, ["9 CPUs", "the job has 8"]),
        ({"tasks": 3, "cpusPerTask": 3}, ["9 CPUs", "the job has 8"]),
        ({"gpusPerTask": 2}, ["2 GPUs", "the job has 1"]),
        ({"tasks": 2, "gpusPerTask": 1}, ["2 GPUs", "the job has 1"]),
    ],
)
def test_a_step_cannot_use_more_than_the_job_has(asked: dict[str, int], words: list[str], job, problems_of) -> None:
    (problem,) = problems_of(job(run={"resources": asked}))
    assert all(word in problem.message for word in words)


def test_a_step_cannot_use_more_memory_than_the_job_has(job, problems_of) -> None:
    (problem,) = problems_of(job(run={"resources": {"tasks": 2, "memPerCpu": 513}}))
    assert "memory" in problem.message or "MB" in problem.message


def test_steps_within_steps_have_the_same_bounds(job, problems_of) -> None:
    greedy = {"run": {"command": "true", "resources": {"gpusPerTask": 2}}}
    assert problems_of(job(steps=[{"steps": [{"steps": [greedy]}]}]))


def test_the_step_that_asks_for_too_much_is_named(problems_of) -> None:
    text = (
        "resources: {tasks: 1, cpusPerTask: 1, memPerCpu: 1, gpus: 0}\n"
        "steps:\n"
        "- run: {command: a}\n"
        "- run:\n"
        "    command: b\n"
        "    resources: {tasks: 2}\n"
    )
    (problem,) = problems_of(text)
    assert problem.path.startswith("steps[1]")
    assert problem.line is not None
    assert problem.line >= 4
