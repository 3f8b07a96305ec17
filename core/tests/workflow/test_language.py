from __future__ import annotations

import re

import pytest
from deepsquare.workflow import from_dict

ENDPOINT = {"http": {"url": "https://example.org/data"}}

UNSUPPORTED = [
    ("", "input", ENDPOINT),
    ("", "inputMode", 493),
    ("", "inputMode", 0),
    ("", "output", ENDPOINT),
    ("", "continuousOutputSync", True),
    ("", "virtualNetworks", [{"name": "net", "gatewayAddress": "10.0.0.1/24"}]),
    ("steps[0]", "use", {"source": "github.com/a/b@v1"}),
    ("steps[0].run", "network", "slirp4netns"),
    ("steps[0].run", "dns", ["10.0.0.1"]),
    ("steps[0].run", "customNetworkInterfaces", [{"bore": {"targetPort": 80}}]),
    ("steps[0].run", "mapUid", 1000),
    ("steps[0].run", "mapUid", 0),
    ("steps[0].run", "mapGid", 1000),
    ("steps[0].run", "mapGid", 0),
    ("steps[0].run", "mpi", "pmix_v4"),
]


def with_field(job, place: str, field: str, value: object):
    plain = job()
    {"": plain, "steps[0]": plain["steps"][0], "steps[0].run": plain["steps"][0]["run"]}[place][field] = value
    return plain


@pytest.mark.parametrize(("place", "field", "value"), UNSUPPORTED)
def test_what_cannot_be_carried_out_yet_is_refused_by_name(
    place: str, field: str, value: object, job, problems_of
) -> None:
    (problem,) = problems_of(with_field(job, place, field, value))
    assert problem.path == place
    assert problem.message == f"{field} is not supported by this version; leave it out"
    assert problem.tag == "unsupported"


@pytest.mark.parametrize(
    ("place", "field", "value"),
    [
        ("", "input", None),
        ("", "continuousOutputSync", False),
        ("", "virtualNetworks", []),
        ("steps[0]", "dependsOn", []),
        ("steps[0]", "if", None),
        ("steps[0].run", "dns", []),
    ],
)
def test_an_unsupported_field_that_asks_for_nothing_is_as_good_as_left_out(
    place: str, field: str, value: object, job
) -> None:
    assert from_dict(with_field(job, place, field, value)) == from_dict(job())


def test_all_unsupported_fields_of_a_step_are_named_at_once(job, problems_of) -> None:
    (problem,) = problems_of(job(run={"network": "host", "dns": ["10.0.0.1"], "mpi": "none"}))
    assert problem.message.startswith("dns, mpi, network ")


def test_a_step_is_either_a_command_or_steps(job, problems_of) -> None:
    (problem,) = problems_of(job(steps=[{}, {"run": {"command": "a"}, "steps": [{"run": {"command": "b"}}]}]))
    assert problem.path == "steps[1]"
    assert problem.message == "a step has one of run and steps; make a step of each"


def test_a_step_may_be_nothing(job) -> None:
    assert from_dict(job(steps=[{}, {"name": "later"}, {"steps": []}])).runs() == []


def test_a_job_has_steps(job, problems_of) -> None:
    (problem,) = problems_of(job(steps=[]))
    assert (problem.path, problem.message) == ("steps", "must not be empty")


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/ash", "/bin/sh", "ENTRYPOINT"])
def test_shells(shell: str, job) -> None:
    from_dict(job(run={"shell": shell}))


@pytest.mark.parametrize("shell", ["bash", "/bin/zsh", "", "/bin/bash -x", "entrypoint", 1])
def test_what_is_no_shell_is_told_with_those_that_are(shell: object, job, problems_of) -> None:
    (problem,) = problems_of(job(run={"shell": shell}))
    assert problem.path == "steps[0].run.shell"
    assert all(name in problem.message for name in ("/bin/bash", "/bin/ash", "/bin/sh", "ENTRYPOINT"))


@pytest.mark.parametrize("path", ["data", "./data", "", "~", "$STORAGE_PATH/data"])
def test_a_working_directory_is_absolute(path: str, job, problems_of) -> None:
    (problem,) = problems_of(job(run={"workDir": path}))
    assert (problem.path, problem.tag) == ("steps[0].run.workDir", "path")


@pytest.mark.parametrize("value", [1, "yes", "true", None])
def test_logging_is_on_off_or_left_out(value: object, job, problems_of) -> None:
    assert from_dict(job(enableLogging=False)).enable_logging is False
    if value is None:
        assert from_dict(job(enableLogging=value)).enable_logging is None
    else:
        assert [problem.message for problem in problems_of(job(enableLogging=value))] == ["must be true or false"]


def _in_container(**fields: object) -> dict:
    return {"run": {"container": {"image": "image"} | fields}}


TEXTS = {
    "steps[0].name": lambda text: {"steps": [{"name": text}]},
    "steps[0].run.command": lambda text: {"run": {"command": text}},
    "steps[0].run.workDir": lambda text: {"run": {"workDir": f"/{text}"}},
    "env[0].value": lambda text: {"env": [{"key": "A", "value": text}]},
    "steps[0].run.container.image": lambda text: _in_container(image=text),
    "steps[0].run.container.registry": lambda text: _in_container(registry=text),
    "steps[0].run.container.username": lambda text: _in_container(username=text),
    "steps[0].run.container.password": lambda text: _in_container(password=text),
    "steps[0].run.container.mounts[0].hostDir": lambda text: _in_container(
        mounts=[{"hostDir": f"/{text}", "containerDir": "/a", "options": "ro"}]
    ),
}


@pytest.mark.parametrize("path", TEXTS)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("a\0b", "NUL", id="NUL"),
        pytest.param("a\ud800b", "surrogate|unicode", id="surrogate"),
        pytest.param("é" * (1 << 19) + "x", "longer than 1 MiB", id="long"),
    ],
)
def test_text_that_no_program_can_be_given_is_refused_everywhere(
    path: str, text: str, words: str, job, problems_of
) -> None:
    (problem,) = problems_of(job(**TEXTS[path](text)))
    assert problem.path == path
    assert re.search(words, problem.message)


def test_an_image_has_a_name(job, problems_of) -> None:
    (problem,) = problems_of(job(**_in_container(image="")))
    assert (problem.path, problem.message) == ("steps[0].run.container.image", "must not be empty")
