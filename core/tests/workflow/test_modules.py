"""Modules: what takes the place of a `use`, and what is refused."""

from __future__ import annotations

import contextlib
import re
import time
from typing import Any

import pytest
import yaml
from deepsquare.workflow import WorkflowError, from_dict
from deepsquare.workflow.models import Workflow
from deepsquare.workflow.module_data import template_data
from deepsquare.workflow.modules import FetchedModule, Module, ModuleError, ResolvedUse, resolve
from deepsquare.workflow.run import EnvVar
from deepsquare.workflow.template_functions import FUNCTIONS
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.conftest import REPOSITORY

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HEAD = "name: greet\nminimumResources: {tasks: 1, cpusPerTask: 1, memPerCpu: 1, gpus: 0}\n"
SIMPLE = HEAD + "steps:\n- run: {command: echo}\n"
PLACE = HEAD + "steps:\n  - name: before\n  {{- .Step.Use.Steps | toYaml | nindent 2 }}\n  - name: after\n"


class Modules:
    """Modules by source, and what was fetched."""

    def __init__(self, **texts: str) -> None:
        self.texts = {f"git.example/a/{name}": text for name, text in texts.items()}
        self.fetched: list[str] = []

    def __call__(self, source: str) -> FetchedModule:
        self.fetched.append(source)
        if source not in self.texts:
            raise ModuleError("there is no such repository")
        return FetchedModule(self.texts[source], COMMIT)


def use(name: str, **fields: Any) -> dict[str, Any]:
    return {"use": {"source": f"git.example/a/{name}"} | fields}


def resolved(job: dict[str, Any], **texts: str) -> Workflow:
    return resolve(from_dict(job), Modules(**texts))


def only_use(workflow: Workflow) -> ResolvedUse:
    found = workflow.steps[0].use
    assert isinstance(found, ResolvedUse)
    return found


@pytest.fixture
def refused(job):
    """What is wrong with a job of these steps and its modules."""

    def find(steps: list[Any], **texts: str):
        with pytest.raises(WorkflowError) as caught:
            resolved(job(steps=steps), **texts)
        return caught.value.problems

    return find


def test_a_workflow_without_modules_is_the_same_object(job) -> None:
    workflow = from_dict(job())
    assert resolve(workflow, Modules()) is workflow


def test_a_use_becomes_the_modules_steps(job) -> None:
    found = only_use(resolved(job(steps=[use("m")]), m=SIMPLE))
    assert (found.module.name, found.commit) == ("greet", COMMIT)
    assert [step.run.command for step in found.module.steps if step.run] == ["echo"]


def test_commands_of_modules_are_commands_of_the_workflow(job) -> None:
    workflow = resolved(job(steps=[use("m")]), m=SIMPLE)
    assert workflow.located_runs()[0][0] == ("steps", 0, "use", "module", "steps", 0, "run")


def test_children_are_put_where_the_module_has_its_place(job) -> None:
    children = [{"name": "one"}, {"run": {"command": "two\n  lines: {{ .Job }}\n"}}]
    found = only_use(resolved(job(steps=[use("m", steps=children)]), m=PLACE))
    assert [step.name for step in found.module.steps] == ["before", "one", None, "after"]
    assert found.module.steps[2].run.command == "two\n  lines: {{ .Job }}\n"
    assert dict(found.step_lists()) == {("module", "steps"): found.module.steps}


def test_a_place_may_stay_empty(job) -> None:
    found = only_use(resolved(job(steps=[use("m")]), m=PLACE))
    assert [step.name for step in found.module.steps] == ["before", "after"]


def test_a_module_sees_the_secrets_of_its_children_and_no_others(job) -> None:
    def step(password: str) -> dict[str, Any]:
        return {"run": {"command": "a", "container": {"image": "a", "apptainer": True, "password": password}}}

    text = PLACE + (
        "  - name: {{ (index .Job.Steps 1).Run.Container.Password | quote }}\n"
        "  - name: {{ (index .Step.Catch 0).Run.Container.Password | quote }}\n"
        "  - name: {{ (index (index .Job.Steps 0).Use.Steps 0).Run.Container.Password | quote }}\n"
        "  - name: {{ .Job | toYaml | quote }}\n"
    )
    steps = [use("m", steps=[step("the-child's")]) | {"catch": [step("other-secret")]}, step("other-secret")]
    module = only_use(resolved(job(steps=steps), m=text)).module
    assert module.steps[1].run.container.password.get_secret_value() == "the-child's"
    assert [inner.name for inner in module.steps[3:6]] == ["", "", ""]
    assert "memPerCpu" in module.steps[6].name
    assert not any(word in module.steps[6].name for word in ("the-child's", "other-secret"))


def test_inputs_have_what_is_given_or_their_default_or_nothing(job) -> None:
    inputs = "inputs: [{key: A}, {key: B, default: b}, {key: C, default: c}]\n"
    args = [{"key": "C", "value": "given"}]
    found = only_use(resolved(job(steps=[use("m", args=args)]), m=SIMPLE + inputs))
    assert found.inputs() == (
        EnvVar(key="A", value=""),
        EnvVar(key="B", value="b"),
        EnvVar(key="C", value="given"),
    )


def test_outputs_need_no_prefix(job) -> None:
    outputs = "outputs: [{key: A, description: what}]\n"
    assert only_use(resolved(job(steps=[use("m")]), m=SIMPLE + outputs)).export_env_as is None
    found = only_use(resolved(job(steps=[use("m", exportEnvAs="PRE")]), m=SIMPLE + outputs))
    assert (found.export_env_as, found.module.outputs[0].key) == ("PRE", "A")


def test_the_template_sees_the_job_and_the_step(job) -> None:
    text = HEAD.replace("tasks: 1", "tasks: {{ .Job.Resources.Tasks }}") + (
        "steps:\n- name: {{ .Step.Name }} {{ .Step.Use.Source }} {{ .Job.Resources.CPUsPerTask }} {{ .Job.Resources.MemPerCPU }}"
        " {{ .Job.Resources.GPUs }} {{ .Job.EnableLogging }} {{ range .Job.Env }}{{ .Key }}{{ end }} {{ .Step.Use.ExportEnvAs }}\n"
        "- name: {{ range .Step.Use.Args }}{{ if eq .Key `B` }}{{ .Value }}{{ end }}{{ else }}none{{ end }}\n"
        "inputs: [{key: B}]\n"
    )
    step = {"name": "n"} | use("m", args=[{"key": "B", "value": "b"}], exportEnvAs="PRE")
    workflow = resolved(job(steps=[step], env=[{"key": "K", "value": "v"}], enableLogging=True), m=text)
    module = only_use(workflow).module
    assert module.steps[0].name == "n git.example/a/m 4 512 1 true K PRE"
    assert module.steps[1].name == "b"
    assert module.minimum_resources.tasks == 2


def test_every_field_of_the_language_has_a_name_in_templates(job) -> None:
    from pydantic import BaseModel

    seen: set[type[BaseModel]] = set()

    def visit(model: type[BaseModel]) -> None:
        if model in seen:
            return
        seen.add(model)
        data = template_data(model.model_construct(**dict.fromkeys(model.model_fields)), with_secrets=False)
        assert len(data.fields) == len(model.model_fields)
        assert all(name[0].isupper() for name in data.fields)
        for field in model.model_fields.values():
            inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
            for kind in inner:
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    visit(kind)

    visit(Workflow)
    names = {
        name
        for model in seen
        for name in template_data(model.model_construct(**dict.fromkeys(model.model_fields)), with_secrets=False).fields
    }
    assert {
        "CPUsPerTask",
        "MemPerCPU",
        "GPUs",
        "GPUsPerTask",
        "MapUID",
        "DNS",
        "HTTP",
        "S3",
        "X11",
        "ReadOnlyRootFS",
        "If",
    } <= names


PLACES = {
    "steps[0].steps[0]": lambda step: {"steps": [step]},
    "steps[0].for.steps[0]": lambda step: {"for": {"parallel": False, "items": ["a"], "steps": [step]}},
    "steps[0].launch.steps[0]": lambda step: {"launch": {"steps": [step]}},
    "steps[0].catch[0]": lambda step: {"catch": [step]},
    "steps[0].finally[0]": lambda step: {"finally": [step]},
}


@pytest.mark.parametrize("place", PLACES)
def test_modules_are_resolved_anywhere(place: str, job, refused) -> None:
    workflow = resolved(job(steps=[PLACES[place](use("m"))]), m=SIMPLE)
    assert [run.command for run in workflow.runs()] == ["echo"]
    (problem,) = refused([PLACES[place](use("missing"))])
    assert problem.path == f"{place}.use.source"
    assert problem.message == "module git.example/a/missing: there is no such repository"


def test_modules_use_modules_and_all_are_fetched_once(job) -> None:
    outer = HEAD + "steps: [{use: {source: git.example/a/inner}}, {use: {source: git.example/a/inner}}]\n"
    modules = Modules(outer=outer, inner=SIMPLE)
    workflow = resolve(from_dict(job(steps=[use("outer"), use("inner")])), modules)
    assert len(workflow.runs()) == 3
    assert modules.fetched == ["git.example/a/outer", "git.example/a/inner"]


def test_a_module_may_be_used_by_its_children(job) -> None:
    steps = [use("m", steps=[use("m", steps=[{"name": "inner"}])])]
    workflow = resolved(job(steps=steps), m=PLACE)
    assert [step.name for _, step in workflow.located_steps() if step.use is None] == [
        *("before", "after", "before", "inner", "after"),
    ]


def test_children_that_a_module_hands_on_stay_their_owners(job, refused) -> None:
    outer = (
        HEAD
        + "steps:\n- use:\n    source: git.example/a/m\n    steps:\n    {{- .Step.Use.Steps | toYaml | nindent 4 }}\n"
    )
    steps = [use("outer", steps=[use("outer", steps=[{"name": "inner"}])])]
    assert "inner" in [step.name for _, step in resolved(job(steps=steps), m=PLACE, outer=outer).located_steps()]
    (problem,) = refused([use("outer", steps=[use("missing")])], m=PLACE, outer=outer)
    assert problem.path == "steps[0].use.steps[0].use.source"


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        (
            {"args": [{"key": "AGE", "value": "x"}]},
            "steps[0].use.args[0].key",
            "AGE is no input of module git.example/a/m; did you mean AGES? its inputs are AGES, NAME",
        ),
        (
            {"args": [{"key": "ZZ", "value": "x"}]},
            "steps[0].use.args[0].key",
            "ZZ is no input of module git.example/a/m; its inputs are AGES, NAME",
        ),
        (
            {"args": [{"key": "NAME", "value": "x"}, {"key": "NAME", "value": "y"}]},
            "steps[0].use.args[1].key",
            "NAME is given to module git.example/a/m twice; leave one out",
        ),
        (
            {"steps": [{"name": "child"}]},
            "steps[0].use.steps",
            "module git.example/a/m (commit 0123456789ab) has no place for steps: leave out the steps of this use, or put "
            "{{- .Step.Use.Steps | toYaml | nindent 2 }} into the module",
        ),
    ],
)
def test_what_a_module_does_not_take(fields: dict[str, Any], path: str, message: str, refused) -> None:
    (problem,) = refused([use("m", **fields)], m=SIMPLE + "inputs: [{key: AGES}, {key: NAME}]\n")
    assert (problem.path, problem.message, problem.tag) == (path, message, "module")


def test_a_job_has_what_a_module_needs(refused) -> None:
    text = SIMPLE.replace(
        "tasks: 1, cpusPerTask: 1, memPerCpu: 1, gpus: 0", "tasks: 3, cpusPerTask: 4, memPerCpu: 513, gpus: 1"
    )
    (problem,) = refused([use("m")], m=text)
    assert problem.path == "steps[0].use.source"
    assert problem.message == (
        "module git.example/a/m needs more than the job has: in its resources tasks must be 3 or more, and is 2; memPerCpu must be "
        "513 or more, and is 512"
    )


NAME = "module git.example/a/m (commit 0123456789ab): "


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            HEAD + "steps:\n- run: {comand: a}\n",
            ["module.yaml, line 4, column 3: steps[0].run.command: is missing", "did you mean command?"],
        ),
        (HEAD + "stepz: []\n", ["steps: is missing"]),
        (HEAD + "steps: [{nme: x}]\n", ["steps[0].nme: is an unknown field; did you mean name?"]),
        (HEAD + "steps: [\n", ["is neither YAML nor JSON here"]),
        (HEAD + "steps: &a []\ninputs: *a\n", ["aliases are not allowed"]),
        ("- a\n", ["must be a mapping with steps"]),
        ("", ["must be a mapping"]),
        (HEAD + "steps: []\ninputs: [{key: A}, {key: A}]\n", ["has the input A twice"]),
        (HEAD + "steps: []\noutputs: [{key: A}, {key: A}]\n", ["has the output A twice"]),
        (HEAD + "steps: []\ninputs: [{key: PATH}]\n", ["PATH can't be set"]),
        (HEAD + "steps: {{ nope }}\n", ["the template in module.yaml, line 3: nope is no function"]),
        (
            HEAD + "steps:{{ `\n\n` }}\n- nope: 1\n",
            ["module.yaml, after its template, line 6, column 3: steps[0].nope"],
        ),
        (SIMPLE + "#" * (128 << 10), ["is larger than 128 KiB"]),
        (HEAD + "steps: " + "[" * 60 + "]" * 60, ["nested deeper than 50 levels"]),
    ],
)
def test_a_module_that_is_not_valid(text: str, words: list[str], refused) -> None:
    problems = refused([use("m")], m=text)
    assert {(problem.path, problem.tag) for problem in problems} == {("steps[0].use.source", "module")}
    assert all(problem.message.startswith(NAME) for problem in problems)
    for part in words:
        assert any(part in problem.message for problem in problems), problems


@pytest.mark.parametrize(
    "text",
    [
        "steps: [{}]\n",
        "name: 1\nminimumResources: {tasks: 1, gpusPerTask: 2}\nsteps: [{}]\n",
        "# {{ .Job }}\noutputs: [{key: A, despcription: x}]\nresources: {tasks: 1}\nsteps: [{}]\n",
    ],
)
def test_what_a_module_has_beside_and_what_it_leaves_out_is_left_alone(text: str) -> None:
    workflow = from_dict({"resources": {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 1, "gpus": 0}, "steps": [use("m")]})
    assert len(only_use(resolve(workflow, Modules(m=text))).module.steps) == 1


def test_steps_of_a_module_ask_for_no_more_than_the_job_has(refused) -> None:
    inner = HEAD + "steps: [{}, {run: {command: a, resources: {tasks: 99}}}]\n"
    outer = HEAD + "steps: [{use: {source: git.example/a/inner}}]\n"
    (problem,) = refused([{"steps": [use("outer")]}], inner=inner, outer=outer)
    assert (problem.path, problem.tag) == ("steps[0].steps[0].use.source", "resources")
    assert problem.message.startswith(
        "module git.example/a/outer uses git.example/a/inner: its steps[1].run.resources asks for 396 CPUs"
    )


def test_handles_of_modules_are_known_in_the_same_list_only(refused) -> None:
    (problem,) = refused([use("m")], m=HEAD + "steps: [{dependsOn: [a]}]\n")
    assert (problem.path, problem.tag) == ("steps[0].use.source", "handle")


def test_problems_of_nested_modules_have_the_place_of_the_outer_one(refused) -> None:
    outer = HEAD + "steps: [{steps: [{use: {source: git.example/a/missing}}]}]\n"
    (problem,) = refused([use("outer")], outer=outer)
    assert problem.path == "steps[0].use.source"
    assert problem.message == (
        "in module git.example/a/outer: module git.example/a/missing: there is no such repository"
    )


def test_a_module_does_not_use_itself(refused) -> None:
    first = HEAD + "steps: [{use: {source: git.example/a/second}}]\n"
    second = HEAD + "steps: [{use: {source: git.example/a/first}}]\n"
    (problem,) = refused([use("first")], first=first, second=second)
    assert problem.message.endswith(
        "module git.example/a/first uses itself: git.example/a/first uses git.example/a/second uses git.example/a/first"
    )


def test_modules_are_nested_five_deep_at_most(job, refused) -> None:
    texts = {f"m{n}": HEAD + f"steps: [{{use: {{source: git.example/a/m{n + 1}}}}}]\n" for n in range(6)}
    resolved(job(steps=[use("m1")]), **texts | {"m5": SIMPLE})
    (problem,) = refused([use("m0")], **texts | {"m5": SIMPLE})
    assert "nested deeper than 5 modules" in problem.message


def test_a_module_that_hands_itself_to_itself_comes_to_an_end(refused) -> None:
    text = (
        HEAD
        + "steps:\n- use:\n    source: git.example/a/m\n    steps:\n    {{- .Step.Use.Steps | toYaml | nindent 4 }}\n"
    )
    (problem,) = refused([use("m", steps=[use("m", steps=[{"name": "x"}])])], m=text)
    assert "uses itself" in problem.message or "nested deeper" in problem.message


@pytest.mark.parametrize("count", [8, 60])
def test_bombs_of_modules_are_refused(count: int, refused) -> None:
    """Each module uses the next one many times."""
    texts = {f"m{n}": HEAD + "steps:\n" + f"- use: {{source: git.example/a/m{n + 1}}}\n" * count for n in range(4)} | {
        "m4": SIMPLE
    }
    (problem,) = refused([use("m0")], **texts)
    assert "uses more than 50 modules" in problem.message


def test_bombs_of_steps_are_refused(refused) -> None:
    (problem,) = refused([use("m")], m=HEAD + "steps:\n" + "- {}\n" * 5001)
    assert "more than 5000 steps" in problem.message
    (problem,) = refused([use("m", steps=[{}] * 5000)], m=PLACE)
    assert problem.message == "a job that uses modules has at most 5000 steps"
    big = HEAD + "steps: []\n" + "#" * 120_000
    (problem,) = refused([use("m")] * 9, m=big)
    assert "more than 1 MiB together" in problem.message


def test_all_modules_of_a_job_share_what_work_they_may_be(job, refused) -> None:
    """Each of them alone would be little enough."""
    text = SIMPLE + "# {{ printf `" + "%%" * 20_000 + "` | len }}\n"
    resolved(job(steps=[use("m")] * 3), m=text)
    started = time.monotonic()
    (problem,) = refused([use("m")] * 20, m=text)
    assert problem.message.startswith(f"{NAME}the template in module.yaml, line ")
    assert problem.message.endswith("with those of modules before it, is too much work")
    text = SIMPLE + "x: [" + "a," * 20_000 + "]\n"
    (problem,) = refused([use("m")] * 3, m=text)
    assert problem.message == f"{NAME}module.yaml, has more than 50000 names and values, with the modules before it"
    assert time.monotonic() - started < 10


def test_children_are_not_multiplied_without_end(refused) -> None:
    doubling = HEAD + "steps:\n" + "{{- .Step.Use.Steps | toYaml | nindent 2 }}\n" * 30
    steps = [{"name": "x" * 1000}] * 50
    (problem,) = refused([use("m", steps=steps)], m=doubling)
    assert "1 MiB" in problem.message or "too much work" in problem.message


def test_a_module_is_never_in_a_file(job, problems_of) -> None:
    module = {"name": "a", "minimumResources": {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 1, "gpus": 0}, "steps": []}
    Module.model_validate(module)
    problems = problems_of(job(steps=[use("m", module=module, commit=COMMIT)]))
    assert [problem.tag for problem in problems] == ["unknown", "unknown"]


def test_deep_modules_are_carried_through(job) -> None:
    def deep(inner: str) -> str:
        return HEAD + "steps: " + "[{steps: " * 22 + f"[{inner}]" + "}]" * 22 + "\n"

    texts = {f"m{n}": deep(f"{{use: {{source: git.example/a/m{n + 1}}}}}") for n in range(4)} | {
        "m4": deep("{name: end}")
    }
    workflow = resolved(job(steps=[use("m0")]), **texts)
    assert [step.name for _, step in workflow.located_steps()][-1] == "end"


TOKENS = (
    *(
        "name: a",
        "minimumResources: {tasks: 1, cpusPerTask: 1, memPerCpu: 1, gpus: 0}",
        "steps:",
        "inputs: []",
        "- ",
        "\n",
    ),
    *(
        "  ",
        "use: {source: git.example/a/m}",
        "run: {command: a}",
        "{{ .Step.Use.Steps | toYaml | nindent 2 }}",
        "{{- ",
        "}}",
    ),
    *(
        "{{ range .Job.Steps }}",
        "{{ end }}",
        "{{ .Step.Name }}",
        "*a",
        "&a",
        "[",
        "]",
        "{",
        "}",
        ":",
        "'",
        '"',
        "\0",
        "\t",
        "é",
    ),
)


@settings(deadline=2000, max_examples=200)
@given(
    st.text() | st.lists(st.sampled_from(TOKENS), max_size=20).map("".join),
    st.lists(st.sampled_from(TOKENS), max_size=6).map("".join),
)
def test_any_module_is_resolved_or_refused(text: str, more: str) -> None:
    step = use("m", steps=[{"name": "child"}])
    resources = {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 1, "gpus": 0}
    workflow = from_dict({"resources": resources, "steps": [step]})
    for module in (text, SIMPLE + more, PLACE + text):
        with contextlib.suppress(WorkflowError):
            assert isinstance(resolve(workflow, Modules(m=module)).steps[0].use, ResolvedUse)


def test_the_documentation_is_right() -> None:
    text = (REPOSITORY / "docs" / "workflow.md").read_text()
    job, module = re.findall(r"```yml\n(.*?)```", text[text.index("## Modules") :], re.DOTALL)
    resources = {"tasks": 2, "cpusPerTask": 1, "memPerCpu": 100, "gpus": 0}
    workflow = from_dict({"resources": resources} | yaml.safe_load(job))
    found = only_use(resolve(workflow, lambda _: FetchedModule(module, COMMIT)))
    assert [step.run.command for step in found.module.steps if step.run][1:] == [
        *("echo in between", "echo greeted with 2 tasks"),
    ]
    assert f"{found.export_env_as}_{found.module.outputs[0].key}" in job
    functions = re.search(r"^> (.*?)\n\n", text, re.DOTALL | re.MULTILINE)
    assert functions
    assert set(functions[1].replace("\n> ", " ").split()) == {*FUNCTIONS, "and", "or"}


def test_defaults_fit_the_environment() -> None:
    with pytest.raises(ValidationError):
        Module.model_validate({"name": "a", "steps": [], "inputs": [{"key": "A", "default": "x" * 140_000}]})
