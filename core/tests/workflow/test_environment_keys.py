from __future__ import annotations

import contextlib
import re

import pytest
from deepsquare.workflow import WorkflowError, from_dict
from hypothesis import given
from hypothesis import strategies as st

JOB, STEP = "job", "step"


def with_variable(job, where: str, key: object, value: object = "v"):
    env = [{"key": key, "value": value}]
    return job(env=env) if where == JOB else job(run={"env": env})


@pytest.mark.parametrize("where", [JOB, STEP])
@pytest.mark.parametrize("key", ["A", "a", "_A", "A1", "__", "PATHS", "path", "LD_PRELOAD", "HOME", "k" * 500])
def test_names_of_variables(key: str, where: str, job) -> None:
    from_dict(with_variable(job, where, key))


@pytest.mark.parametrize("where", [JOB, STEP])
@pytest.mark.parametrize(
    "key", ["", "1A", "A-B", "A B", "A=B", "A\n", "\nA", "A.B", "É", "A١", "$(id)", "BASH_FUNC_x%%", " A", "A;id"]
)
def test_what_is_no_name_of_a_variable(key: str, where: str, job, problems_of) -> None:
    (problem,) = problems_of(with_variable(job, where, key))
    assert problem.path == {JOB: "env[0].key", STEP: "steps[0].run.env[0].key"}[where]
    assert repr(key) in problem.message
    assert "letters, digits and _" in problem.message


@given(st.text(max_size=12))
def test_exactly_the_names_of_the_language_are_taken(job, problems_of, key: str) -> None:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key, re.ASCII):
        return
    assert problems_of(job(env=[{"key": key, "value": ""}]))


@pytest.mark.parametrize("where", [JOB, STEP])
@pytest.mark.parametrize("key", ["PATH", "LD_LIBRARY_PATH"])
def test_the_providers_own_variables_stay(key: str, where: str, job, problems_of) -> None:
    (problem,) = problems_of(with_variable(job, where, key))
    assert problem.message == f"{key} can't be set: the provider's own must stay"


@pytest.mark.parametrize("key", ["UID", "EUID", "PPID", "SHELLOPTS", "BASHOPTS", "BASH_VERSINFO"])
def test_what_bash_lets_nobody_set_is_refused_before_it_costs_anything(key: str, job, problems_of) -> None:
    (problem,) = problems_of(with_variable(job, JOB, key))
    assert problem.message == f"{key} can't be set: it is the shell's own variable"


def test_what_bash_sets_again_itself_is_refused_since_the_value_would_be_lost(job) -> None:
    lost = (
        *("_", "BASHPID", "BASH_ARGV0", "BASH_COMMAND", "BASH_SUBSHELL", "DIRSTACK", "EPOCHREALTIME", "EPOCHSECONDS"),
        *("FUNCNAME", "GROUPS", "HISTCMD", "IFS", "LINENO", "PIPESTATUS", "RANDOM", "SECONDS", "SHLVL", "SRANDOM"),
        *("BASH_ALIASES", "BASH_CMDS", "BASH_ARGV", "BASH_ARGC", "BASH_SOURCE", "BASH_LINENO", "BASH_XTRACEFD"),
        *("BASH_COMPAT", "OPTIND"),
    )
    taken = []
    for key in lost:
        with contextlib.suppress(WorkflowError):
            from_dict(with_variable(job, STEP, key))
            taken.append(key)
    assert taken == []


@pytest.mark.parametrize("key", [None, 1, True, ["A"], {"A": "B"}, b"A"])
def test_a_key_is_text(key: object, job, problems_of) -> None:
    (problem,) = problems_of(with_variable(job, JOB, key))
    assert problem.message.startswith("must be text")


@pytest.mark.parametrize("value", [None, 1, 1.5, True, ["v"], {}])
def test_a_value_is_text(value: object, job, problems_of) -> None:
    (problem,) = problems_of(with_variable(job, STEP, "A", value))
    assert problem.path == "steps[0].run.env[0].value"
    assert re.fullmatch(
        r"must be text, not [a-z ]+(; put it in quotes|; write \"\" for an empty one)?", problem.message
    )
    assert ("put it in quotes" in problem.message) == isinstance(value, int | float)


def test_a_variable_has_a_key_and_a_value(job, problems_of) -> None:
    problems = problems_of(job(env=[{"key": "A"}, {"value": "v"}, {}]))
    assert [problem.path for problem in problems] == ["env[0].value", "env[1].key", "env[2].key", "env[2].value"]


def test_variables_are_a_list(job, problems_of) -> None:
    (problem,) = problems_of(job(env={"A": "v"}))
    assert (problem.path, problem.message) == ("env", "must be a list, not a mapping: write - {key: ..., value: ...}")


def test_a_variable_longer_than_a_program_can_be_given_is_refused(job, problems_of) -> None:
    key, terminator = "A=", 1
    longest = 131072 - len(key) - terminator
    from_dict(with_variable(job, JOB, "A", "x" * longest))
    assert problems_of(with_variable(job, JOB, "A", "x" * (longest + 1)))


def test_all_variables_of_a_step_together_fit_a_program(job, problems_of) -> None:
    def env(count: int, first: int = 0) -> list[dict[str, str]]:
        return [{"key": f"K{number}", "value": "x" * 100_000} for number in range(first, first + count)]

    from_dict(job(env=env(10), run={"env": env(5, 10)}))
    from_dict(job(env=env(10), run={"env": env(10)}))
    for change, path in [
        ({"env": env(16)}, "env"),
        ({"run": {"env": env(16)}}, "steps[0].run.env"),
        ({"env": env(10), "run": {"env": env(6, 10)}}, "steps[0].run.env"),
    ]:
        (problem,) = problems_of(job(**change))
        assert (problem.path, problem.tag) == (path, "size")
        assert "more than 1.5 MiB, with which no program can be started" in problem.message
