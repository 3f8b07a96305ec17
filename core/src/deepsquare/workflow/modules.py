"""Modules: somebody's steps from a git repository, put in the place of each `use`.

`resolve` fetches nothing itself: what does is given to it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from deepsquare.errors import DeepSquareError
from deepsquare.workflow.fields import EnvKey, Model, Natural, Positive, Text
from deepsquare.workflow.loading import problems_of, validated
from deepsquare.workflow.models import Resources, Step, Use, Workflow
from deepsquare.workflow.module_data import template_data
from deepsquare.workflow.problems import Location, Problem, WorkflowError, path_text
from deepsquare.workflow.rules import broken_rules
from deepsquare.workflow.run import EnvVar
from deepsquare.workflow.safe_yaml import read_yaml
from deepsquare.workflow.templates import Budget, Record, TemplateError, render

MOST_FILE_BYTES = 128 << 10
"""Of a module file."""
# Of all modules of a job together, after their templates.
_MOST_BYTES = 1 << 20
_MOST_NODES = 50_000
_MOST_NESTED = 5
_MOST_USES = 50
_MOST_STEPS = 5_000


class ModuleError(DeepSquareError):
    """A module can't be fetched; the text says why and what to do."""


class _Described(Model):
    """A part of a module's file, which users of the module can't mend: what it has beside its fields is left alone."""

    model_config = ConfigDict(extra="ignore")


class MinimumResources(_Described):
    """What a job must have for a module."""

    tasks: Positive = Field(default=1, description="How many tasks.")
    cpus_per_task: Positive = Field(default=1, description="CPUs of each task.")
    mem_per_cpu: Positive = Field(default=1, description="MB of memory a CPU.")
    gpus: Natural = Field(default=0, description="GPUs of the whole job.")


class ModuleInput(_Described):
    """What a module can be given: a variable of its steps."""

    key: EnvKey = Field(description="The variable's name.")
    description: Text = Field(default="", description="What it means.")
    default: Text | None = Field(default=None, description="Its value where no args gives one; else it is empty.")

    @model_validator(mode="after")
    def _fits(self) -> ModuleInput:
        EnvVar(key=self.key, value=self.default or "")
        return self


class ModuleOutput(_Described):
    """What a module gives: a variable that its steps append to $DEEPSQUARE_ENV."""

    key: EnvKey = Field(description="The variable's name, to which exportEnvAs puts its prefix.")
    description: Text = Field(default="", description="What it means.")


class Module(_Described):
    """The file `module.yaml`, after its template was carried out."""

    name: Text = Field(default="", description="What people call it.")
    description: Text = Field(default="", description="What it does.")
    minimum_resources: MinimumResources = Field(
        default_factory=MinimumResources, description="What a job must have to use it."
    )
    inputs: tuple[ModuleInput, ...] = Field(default=(), strict=False, description="What it can be given by args.")
    outputs: tuple[ModuleOutput, ...] = Field(default=(), strict=False, description="What it gives by exportEnvAs.")
    steps: tuple[Step, ...] = Field(strict=False, description="What it does.")

    @model_validator(mode="after")
    def _different_keys(self) -> Module:
        for what, items in (("input", self.inputs), ("output", self.outputs)):
            if twice := _first_twice([item.key for item in items]):
                raise PydanticCustomError("twice", "has the {what} {key} twice", {"what": what, "key": twice[1]})
        return self


class ResolvedUse(Use):
    """A `use` with its module. Never read from files: `resolve` makes it."""

    module: Module = Field(description="The module as this job and this step have it.")
    commit: str = Field(description="The commit that it was read from.")

    def step_lists(self) -> Iterator[tuple[tuple[str, ...], tuple[Step, ...]]]:
        """The module's steps, in which the children are where the module has its place for them."""
        yield ("module", "steps"), self.module.steps

    def inputs(self) -> tuple[EnvVar, ...]:
        """Each of the module's inputs with its value: the arg, else the default, else nothing."""
        given = {arg.key: arg.value for arg in self.args}
        return tuple(
            EnvVar(key=wanted.key, value=given.get(wanted.key, wanted.default or "")) for wanted in self.module.inputs
        )


@dataclass(frozen=True, slots=True)
class FetchedModule:
    """The file `module.yaml` of a source, and its commit."""

    text: str
    commit: str


Fetch = Callable[[str], FetchedModule]
"""Fetches the module of a source; raises ModuleError."""


def resolve(workflow: Workflow, fetch: Fetch, source: str = "the workflow") -> Workflow:
    """The workflow with each `use` made a ResolvedUse; one that uses nothing is given back as it is. `source` names it in errors.

    Raises:
        WorkflowError: a module can't be fetched, is not valid, or doesn't fit the job or the step that uses it. Each problem has
            the place of the `use` in the workflow, also those of modules that modules use.
    """
    steps = [step for _, step in workflow.located_steps()]
    if all(step.use is None for step in steps):
        return workflow
    if len(steps) > _MOST_STEPS:
        # Templates are shown these steps, also those that modules leave out.
        raise WorkflowError(
            [Problem("steps", f"a job that uses modules has at most {_MOST_STEPS} steps", "module")], source
        )
    try:
        resolved_steps = _Resolver(workflow, fetch).resolved_steps(workflow.steps, _Context(("steps",)))
    except WorkflowError as error:
        raise WorkflowError(error.problems, source) from None
    resolved = workflow.model_copy(update={"steps": resolved_steps})
    if broken := list(_broken_by_modules(resolved)):
        raise WorkflowError(broken, source)
    return resolved


@dataclass(frozen=True, slots=True)
class _Context:
    """Where steps are: their place in the user's file, or, in a module, that of the `use` in the user's file."""

    place: Location
    chain: tuple[str, ...] = ()
    """The sources of the modules that these steps are in."""
    depth: int = 0
    children: Sequence[tuple[Use, _Context]] = ()
    """The `use`s of children that were given to this module, each with its own context."""

    def inner(self, *parts: str | int) -> _Context:
        """The context of something in the place, which in a module stays the place of the `use`."""
        return self if self.chain else _Context((*self.place, *parts), (), self.depth)

    def problem(self, message: str, field: Sequence[str | int] = ("source",)) -> WorkflowError:
        """The error of a `use` in this place."""
        place = self.place if self.chain else (*self.place, *field)
        through = "".join(f"in module {source}: " for source in self.chain)
        return WorkflowError([Problem(path_text(place), f"{through}{message}", "module")])


@dataclass(slots=True)
class _Resolver:
    workflow: Workflow
    fetch: Fetch
    _fetched: dict[str, FetchedModule] = field(default_factory=dict)
    _job: Any = None
    _uses: int = 0
    _steps: int = 0
    _bytes: int = 0
    _nodes: int = 0
    _templates: Budget = field(default_factory=Budget)

    def resolved_steps(self, steps: tuple[Step, ...], context: _Context) -> tuple[Step, ...]:
        """The steps with each `use` resolved; the same objects where there is none."""
        self._steps += len(steps)
        if self._steps > _MOST_STEPS:
            raise context.problem(f"with its modules the job has more than {_MOST_STEPS} steps", ())
        resolved = tuple(self._step(step, context.inner(number)) for number, step in enumerate(steps))
        return resolved if any(new is not old for new, old in zip(resolved, steps, strict=True)) else steps

    def _step(self, step: Step, context: _Context) -> Step:
        changed: dict[str, Any] = {}
        for name in ("steps", "catch", "finally_"):
            old = getattr(step, name)
            new = self.resolved_steps(old, context.inner(name.rstrip("_"))) if old else old
            if new is not old:
                changed[name] = new
        for name in ("for_", "launch"):
            block = getattr(step, name)
            if block is not None:
                new = self.resolved_steps(block.steps, context.inner(name.rstrip("_"), "steps"))
                if new is not block.steps:
                    changed[name] = block.model_copy(update={"steps": new})
        if step.use is not None:
            changed["use"] = self._use(step, step.use, context.inner("use"))
        return step.model_copy(update=changed) if changed else step

    def _use(self, step: Step, use: Use, context: _Context) -> ResolvedUse:
        # A child of a `use` is in the file of whom uses the module, also where the module hands it on.
        while (own := next((own for child, own in context.children if child == use), None)) is not None:
            context = replace(own, depth=context.depth)
        self._check_bounds(use, context)
        if use.source not in self._fetched:
            try:
                self._fetched[use.source] = self.fetch(use.source)
            except ModuleError as error:
                raise context.problem(f"module {use.source}: {error}") from None
        fetched = self._fetched[use.source]
        module = self._module(step, use, fetched, context)
        self._check_fit(use, module, context)
        children = [
            (inner.use, context.inner(*place, "use"))
            for place, inner in _steps_in(use.steps, ("steps",))
            if inner.use is not None
        ]
        in_module = _Context(
            context.place if context.chain else (*context.place, "source"),
            (*context.chain, use.source),
            context.depth + 1,
            children,
        )
        steps = self.resolved_steps(module.steps, in_module)
        if steps is not module.steps:
            module = module.model_copy(update={"steps": steps})
        given = {name: getattr(use, name) for name in use.model_fields_set}
        return ResolvedUse(**given, module=module, commit=fetched.commit)

    def _check_bounds(self, use: Use, context: _Context) -> None:
        if use.source in context.chain:
            chain = " uses ".join((*context.chain[context.chain.index(use.source) :], use.source))
            raise context.problem(f"module {use.source} uses itself: {chain}")
        if context.depth >= _MOST_NESTED:
            raise context.problem(f"module {use.source} is nested deeper than {_MOST_NESTED} modules in each other")
        self._uses += 1
        if self._uses > _MOST_USES:
            raise context.problem(
                f"module {use.source}: with what modules use, the job uses more than {_MOST_USES} modules"
            )

    def _module(self, step: Step, use: Use, fetched: FetchedModule, context: _Context) -> Module:
        name = f"module {use.source} (commit {fetched.commit[:12]})"
        if len(fetched.text.encode("utf-8", "replace")) > MOST_FILE_BYTES:
            raise context.problem(f"{name}: module.yaml is larger than 128 KiB")
        if self._job is None:
            self._job = template_data(self.workflow, with_secrets=False)
        try:
            text = render(fetched.text, _data(self._job, step), self._templates)
            if use.steps and text == render(
                fetched.text, _data(self._job, _without_children(step, use)), self._templates
            ):
                raise context.problem(
                    f"{name} has no place for steps: leave out the steps of this use, or put {{{{- .Step.Use.Steps | toYaml | "
                    "nindent 2 }} into the module",
                    ("steps",),
                )
        except TemplateError as error:
            raise context.problem(f"{name}: the template in module.yaml, line {error.line}: {error.message}") from None
        self._bytes += len(text)
        if self._bytes > _MOST_BYTES:
            raise context.problem(f"{name}: all modules of the job have more than 1 MiB together")
        where = "module.yaml" if text == fetched.text else "module.yaml, after its template"
        try:
            read = read_yaml(text, "")
            self._nodes += len(read.marks)
            if self._nodes > _MOST_NODES:
                text = f"has more than {_MOST_NODES} names and values, with the modules before it"
                raise WorkflowError([Problem("", text, "size")])
            if not isinstance(read.data, dict):
                raise WorkflowError([Problem("", "must be a mapping with steps", "type")])
            return validated(Module, read.data, read.as_text)
        except ValidationError as error:
            problems = problems_of(error, read.marks, Module)
        except WorkflowError as error:
            problems = error.problems
        raise WorkflowError(
            [problem for found in problems for problem in context.problem(f"{name}: {where}, {found}").problems]
        )

    def _check_fit(self, use: Use, module: Module, context: _Context) -> None:
        keys = [known.key for known in module.inputs]
        for number, arg in enumerate(use.args):
            if arg.key not in keys:
                near = difflib.get_close_matches(arg.key, keys, 1, 0.5)
                known = f"its inputs are {', '.join(keys)}" if keys else "it has none"
                hint = f"did you mean {near[0]}? {known}" if near else known
                raise context.problem(f"{arg.key} is no input of module {use.source}; {hint}", ("args", number, "key"))
        if twice := _first_twice([arg.key for arg in use.args]):
            number, key = twice
            raise context.problem(
                f"{key} is given to module {use.source} twice; leave one out", ("args", number, "key")
            )
        lacking = [
            f"{alias} must be {least} or more, and is {has}"
            for alias, least, has in _compared(module.minimum_resources, self.workflow.resources)
            if has < least
        ]
        if lacking:
            raise context.problem(
                f"module {use.source} needs more than the job has: in its resources {'; '.join(lacking)}"
            )


def _compared(least: MinimumResources, job: Resources) -> Iterator[tuple[str, int, int]]:
    for name, information in MinimumResources.model_fields.items():
        yield information.alias or name, getattr(least, name), getattr(job, name)


def _first_twice(keys: Sequence[str]) -> tuple[int, str] | None:
    """The first key that was there before, with its number."""
    seen: set[str] = set()
    for number, key in enumerate(keys):
        if key in seen:
            return number, key
        seen.add(key)
    return None


def _steps_in(steps: tuple[Step, ...], place: Location) -> Iterator[tuple[Location, Step]]:
    for number, step in enumerate(steps):
        yield (*place, number), step
        for names, inner in step.lists():
            yield from _steps_in(inner, (*place, number, *names))


def _without_children(step: Step, use: Use) -> Step:
    return step.model_copy(update={"use": use.model_copy(update={"steps": ()})})


def _data(job: Any, step: Step) -> Record:
    """The data of a module's template; of secrets it has those of the children that the module is given."""
    shown: Record = template_data(step, with_secrets=False)
    fields = {**shown.fields, "Use": template_data(step.use, with_secrets=True)}
    return Record("the data", {"Job": job, "Step": Record(shown.kind, fields, shown.names)}, {})


def _broken_by_modules(resolved: Workflow) -> Iterator[Problem]:
    """The rules that the whole breaks: the job had kept them without its modules."""
    uses = {place: step.use for place, step in resolved.located_steps() if isinstance(step.use, ResolvedUse)}
    for place, text, tag in broken_rules(resolved):
        numbers = [number for number, part in enumerate(place) if part == "module"]
        names = [uses[place[: number - 1]].source for number in numbers]
        where = path_text(place[numbers[-1] + 1 :]) if numbers else ""
        path = (*place[: numbers[0]], "source") if numbers else place
        yield Problem(path_text(path), f"module {' uses '.join(names)}: its {where} {text}" if numbers else text, tag)
