"""The workflow language as pydantic models, with the names of the file in camelCase and of Python in snake_case.

The language is DeepSquare's (its GraphQL schema lists every field).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from deepsquare.workflow.fields import (
    Cidr,
    Condition,
    EnvKey,
    Handle,
    Integer,
    Model,
    ModuleSource,
    Natural,
    Positive,
    Text,
    Value,
    plain,
)
from deepsquare.workflow.problems import Location
from deepsquare.workflow.run import EnvVar, Run
from deepsquare.workflow.staging import TransportData

_MOST_TURNS = 100_000


class Resources(Model):
    """What the whole job gets: `tasks` tasks of `cpus_per_task` CPUs with `mem_per_cpu` MB each, and `gpus` GPUs in all."""

    tasks: Positive = Field(description="How many tasks run at a time.")
    cpus_per_task: Positive = Field(description="CPUs of each task.")
    mem_per_cpu: Positive = Field(description="MB of memory a CPU.")
    gpus: Natural = Field(description="GPUs of the whole job.")


class VirtualNetwork(Model):
    """A private network of the job's steps, whatever node they run on."""

    name: Text = Field(description="What steps call it.")
    gateway_address: Cidr = Field(description="The gateway's address in it, such as 10.0.0.1/24.")


class ForRange(Model):
    """Numbers from `begin` to `end`, both included."""

    begin: Integer = Field(description="The first number.")
    end: Integer = Field(description="The last number.")
    increment: Integer | None = Field(
        default=None, description="From one to the next: 1 if it is left out; the numbers go down where it is negative."
    )

    @model_validator(mode="after")
    def _ends(self) -> ForRange:
        if self.increment == 0:
            raise PydanticCustomError("increment", "has an increment of 0, and would never end")
        return self

    def count(self) -> int:
        """How many numbers these are."""
        return len(range(self.begin, self.end + (1 if self.step > 0 else -1), self.step))

    @property
    def step(self) -> int:
        """From one number to the next."""
        return 1 if self.increment is None else self.increment


class For(Model):
    """Steps for each number of a range (`$index`) or each of some texts (`$item`)."""

    parallel: bool = Field(description="Side by side, as many at a time as the job has tasks.")
    items: tuple[Value, ...] | None = Field(
        default=None, strict=False, repr=False, description="Texts, each of them $item in its turn."
    )
    range: ForRange | None = Field(default=None, description="Numbers, each of them $index in its turn.")
    steps: tuple[Step, ...] = Field(strict=False, description="What is done for each.")

    @model_validator(mode="after")
    def _one_source(self) -> For:
        if (self.items is None) == (self.range is None):
            raise PydanticCustomError("kind", "needs either range or items")
        if self.range is not None and self.range.count() > _MOST_TURNS:
            raise PydanticCustomError("size", "goes round more than {most} times", {"most": _MOST_TURNS})
        return self


class Launch(Model):
    """Steps that run beside those that follow."""

    handle_name: Handle | None = Field(default=None, description="By which later steps wait for them (dependsOn).")
    signal_on_parent_step_exit: Literal[0, 1, 2, 3, 9, 15] | None = Field(
        default=None,
        description="The signal they get at the end of the list; 15 if it is left out, 0: they are waited for.",
    )
    steps: tuple[Step, ...] = Field(strict=False, description="What runs beside.")

    @property
    def signal(self) -> int:
        """What these steps get when those beside them have ended; 0 means that they are waited for instead."""
        return 15 if self.signal_on_parent_step_exit is None else self.signal_on_parent_step_exit


class Use(Model):
    """A module: somebody's steps, from a git repository."""

    source: ModuleSource = Field(description="HOST/OWNER/REPOSITORY[/FOLDER][@TAG or commit]")
    args: tuple[EnvVar, ...] = Field(default=(), strict=False, description="Values of the module's inputs.")
    export_env_as: EnvKey | None = Field(
        default=None, description="The module's outputs become variables of later steps, as PREFIX_NAME."
    )
    steps: tuple[Step, ...] = Field(default=(), strict=False, description="Steps that the module has a place for.")

    def step_lists(self) -> Iterator[tuple[tuple[str, ...], tuple[Step, ...]]]:
        """The lists of steps in it, each with its place."""
        yield ("steps",), self.steps


class Step(Model):
    """A step: a command or other steps, once or more often; and what comes before and after it."""

    name: Text | None = Field(default=None, description="What people call it.")
    depends_on: tuple[Handle, ...] = Field(
        default=(), strict=False, description="Handles of launched steps of the same list, to wait for first."
    )
    if_: Condition | None = Field(
        default=None, alias="if", repr=False, description="A test of bash, as between [[ and ]]; false leaves it out."
    )
    run: Run | None = Field(default=None, description="A command.")
    steps: tuple[Step, ...] = Field(default=(), strict=False, description="Other steps, one after the other.")
    for_: For | None = Field(default=None, alias="for", description="Steps for each of some numbers or texts.")
    launch: Launch | None = Field(default=None, description="Steps beside those that follow.")
    use: Use | None = Field(default=None, description="A module: somebody's steps, from a git repository.")
    catch: tuple[Step, ...] = Field(
        default=(), strict=False, description="Steps after its failure, with $DEEPSQUARE_ERROR_CODE."
    )
    finally_: tuple[Step, ...] = Field(
        default=(), alias="finally", strict=False, description="Steps after it, whatever happened."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Step:
        kinds = [kind for kind, value in self.kinds().items() if value]
        if len(kinds) > 1:
            raise PydanticCustomError(
                "kind", "a step has one of {kinds}; make a step of each", {"kinds": " and ".join(kinds)}
            )
        return self

    def lists(self) -> Iterator[tuple[tuple[str, ...], tuple[Step, ...]]]:
        """The lists of steps in it, each with its place, such as `("for", "steps")`."""
        yield ("steps",), self.steps
        if self.for_ is not None:
            yield ("for", "steps"), self.for_.steps
        if self.launch is not None:
            yield ("launch", "steps"), self.launch.steps
        if self.use is not None:
            yield from ((("use", *place), steps) for place, steps in self.use.step_lists())
        yield ("catch",), self.catch
        yield ("finally",), self.finally_

    def kinds(self) -> dict[str, Any]:
        """What a step may be, of which it is one at most."""
        return {"run": self.run, "steps": self.steps, "for": self.for_, "launch": self.launch, "use": self.use}


class Workflow(Model):
    """A whole job (the reference calls it Job)."""

    resources: Resources = Field(description="What the job gets.")
    steps: tuple[Step, ...] = Field(strict=False, min_length=1, description="What the job does, one after the other.")
    env: tuple[EnvVar, ...] = Field(default=(), strict=False, description="Variables of all steps.")
    enable_logging: bool | None = Field(
        default=None, description="False: what the steps print is thrown away. Left out, it is kept as with true."
    )
    input: TransportData | None = Field(default=None, description="What is fetched into $DEEPSQUARE_INPUT first.")
    input_mode: int | None = Field(
        default=None, ge=0, lt=512, description="Permissions of what was fetched, in decimal: 448 is rwx------."
    )
    output: TransportData | None = Field(
        default=None, description="Where $DEEPSQUARE_OUTPUT is sent at the end, if the steps did not fail."
    )
    continuous_output_sync: bool | None = Field(
        default=None, description="Send it all the time, and also after a failure; S3 alone can."
    )
    virtual_networks: tuple[VirtualNetwork, ...] = Field(
        default=(), strict=False, description="Private networks that steps may join."
    )

    def to_dict(self) -> dict[str, Any]:
        """The workflow as the sbatch API's GraphQL input type `Job`: names in camelCase, nothing that was left out."""
        data: dict[str, Any] = plain(self)
        return data

    def runs(self) -> list[Run]:
        """All commands; those of outer lists of steps before those of inner ones."""
        return [run for _, run in self.located_runs()]

    def located_steps(self) -> Iterator[tuple[Location, Step]]:
        """All steps, each with its place, such as `("steps", 0)`; those of outer lists before those of inner ones."""
        for place, steps in self.located_lists():
            yield from (((*place, number), step) for number, step in enumerate(steps))

    def located_runs(self) -> list[tuple[Location, Run]]:
        """Like `runs`, each with its place, such as `("steps", 0, "run")`."""
        return [((*place, "run"), step.run) for place, step in self.located_steps() if step.run is not None]

    def located_lists(self) -> Iterator[tuple[Location, tuple[Step, ...]]]:
        """All lists of steps, each with its place, such as `("steps", 0, "for", "steps")`; outer ones before inner ones."""
        yield from _lists(("steps",), self.steps)


def _lists(place: Location, steps: tuple[Step, ...]) -> Iterator[tuple[Location, tuple[Step, ...]]]:
    yield place, steps
    for number, step in enumerate(steps):
        for names, inner in step.lists():
            yield from _lists((*place, number, *names), inner)
