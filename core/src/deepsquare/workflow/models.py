"""The workflow language as pydantic models, with the names of the file in camelCase and of Python in snake_case.

The language is DeepSquare's (its GraphQL schema lists every field). Fields that this version can't carry out yet are refused
by name, since ignoring them would run something else than what was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, WithJsonSchema, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from deepsquare.workflow.problems import Location

_ENV_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HANDLE = re.compile(r"[A-Za-z0-9_]+")
PROVIDERS_KEYS = ("PATH", "LD_LIBRARY_PATH")
"""Variables that keep the provider's value."""
SHELLS_KEYS = (
    *("_", "BASHOPTS", "BASHPID", "BASH_ARGV0", "BASH_COMMAND", "BASH_SUBSHELL", "BASH_VERSINFO", "DIRSTACK"),
    *("EPOCHREALTIME", "EPOCHSECONDS", "EUID", "FUNCNAME", "GROUPS", "HISTCMD", "IFS", "LINENO", "PIPESTATUS", "PPID"),
    *("RANDOM", "SECONDS", "SHELLOPTS", "SHLVL", "SRANDOM", "UID"),
)
"""Variables that bash sets itself (bash(1), "Shell Variables"): a value of somebody else's would be lost, or be an error."""
# Linux gives a program no longer string (MAX_ARG_STRLEN).
_VARIABLE_BYTES = 128 * 1024
_GRAPHQL_INT_MAX = 2**31 - 1
_TEXT_BYTES = 1 << 20
_MOST_TURNS = 100_000


def _text(value: str) -> str:
    if "\0" in value:
        raise PydanticCustomError("nul", "has a NUL character, which no program can be given")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise PydanticCustomError("unicode", "has half of a surrogate pair, which is no Unicode character") from None
    if size > _TEXT_BYTES:
        raise PydanticCustomError("size", "is longer than 1 MiB")
    return value


def _env_key(value: str) -> str:
    if not _ENV_KEY.fullmatch(value):
        raise PydanticCustomError(
            "env_key",
            "{key} is not a variable's name: letters, digits and _ are allowed, no digit first",
            {"key": repr(value)},
        )
    if value in PROVIDERS_KEYS:
        raise PydanticCustomError("env_key", "{key} can't be set: the provider's own must stay", {"key": value})
    if value in SHELLS_KEYS:
        raise PydanticCustomError("env_key", "{key} can't be set: it is the shell's own variable", {"key": value})
    return value


def _secret(value: SecretStr) -> SecretStr:
    _text(value.get_secret_value())
    return value


def _fits(value: str) -> str:
    if len(value.encode()) > _VARIABLE_BYTES - 64:
        raise PydanticCustomError("size", "is longer than 128 KiB, more than a program can be given; use a file")
    return value


def _handle(value: str) -> str:
    if not _HANDLE.fullmatch(value):
        raise PydanticCustomError("handle", "is not the name of a handle: letters, digits and _ are allowed")
    return value


def _absolute(value: str) -> str:
    if not value.startswith("/"):
        raise PydanticCustomError("path", "must be an absolute path, one that begins with /")
    return value


Text = Annotated[str, AfterValidator(_text)]
EnvKey = Annotated[
    str,
    AfterValidator(_text),
    AfterValidator(_env_key),
    WithJsonSchema({"type": "string", "pattern": f"^{_ENV_KEY.pattern}$"}),
]
AbsolutePath = Annotated[
    str, AfterValidator(_text), AfterValidator(_absolute), WithJsonSchema({"type": "string", "pattern": "^/"})
]
Secret = Annotated[SecretStr, AfterValidator(_secret), Field(strict=False)]
Value = Annotated[str, AfterValidator(_text), AfterValidator(_fits)]
Handle = Annotated[str, AfterValidator(_handle), WithJsonSchema({"type": "string", "pattern": f"^{_HANDLE.pattern}$"})]
Integer = Annotated[int, Field(ge=-_GRAPHQL_INT_MAX - 1, le=_GRAPHQL_INT_MAX)]
Positive = Annotated[int, Field(ge=1, le=_GRAPHQL_INT_MAX)]
Natural = Annotated[int, Field(ge=0, le=_GRAPHQL_INT_MAX)]


class _Model(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        strict=True,
        hide_input_in_errors=True,
    )

    _unsupported: ClassVar[frozenset[str]] = frozenset()
    """Fields of the language that this version can't carry out."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        used = sorted(key for key in cls._unsupported & data.keys() if not _asks_for_nothing(data[key]))
        if used:
            raise PydanticCustomError(
                "unsupported", "{fields} is not supported by this version; leave it out", {"fields": ", ".join(used)}
            )
        return {key: value for key, value in data.items() if key not in cls._unsupported}


def _asks_for_nothing(value: Any) -> bool:
    # 0 is a value: root, or no permission at all.
    return value is None or value is False or value in ([], {})


class EnvVar(_Model):
    """A variable of a step's or of the job's environment."""

    key: EnvKey
    value: Text = Field(repr=False)

    @model_validator(mode="after")
    def _fits(self) -> EnvVar:
        if len(f"{self.key}={self.value}\0".encode()) > _VARIABLE_BYTES:
            raise PydanticCustomError("size", "is longer than 128 KiB, more than a program can be given; use a file")
        return self


class Resources(_Model):
    """What the whole job gets: `tasks` tasks of `cpus_per_task` CPUs with `mem_per_cpu` MB each, and `gpus` GPUs in all."""

    tasks: Positive
    cpus_per_task: Positive
    mem_per_cpu: Positive
    gpus: Natural


class StepResources(_Model):
    """What one step uses of the job's resources; what is left out is 1 task with the job's CPUs and memory, and no GPU."""

    tasks: Positive | None = None
    cpus_per_task: Positive | None = None
    mem_per_cpu: Positive | None = None
    gpus_per_task: Natural | None = None


class Mount(_Model):
    """A folder of the host in a container (deprecated by the language)."""

    host_dir: AbsolutePath
    container_dir: AbsolutePath
    options: Text


class Container(_Model):
    """The image that a step runs in."""

    image: Text = Field(min_length=1)
    mounts: tuple[Mount, ...] = Field(default=(), strict=False)
    username: Text | None = None
    password: Secret | None = None
    registry: Text | None = None
    apptainer: bool | None = None
    deepsquare_hosted: bool | None = None
    x11: bool | None = None
    mount_home: bool | None = None
    read_only_root_fs: bool | None = Field(default=None, alias="readOnlyRootFS")


class Run(_Model):
    """A command, as one `srun` step."""

    _unsupported = frozenset({"network", "dns", "customNetworkInterfaces", "mapUid", "mapGid", "mpi"})

    command: Text = Field(repr=False)
    shell: Literal["/bin/bash", "/bin/ash", "/bin/sh", "ENTRYPOINT"] | None = None
    work_dir: AbsolutePath | None = None
    env: tuple[EnvVar, ...] = Field(default=(), strict=False)
    resources: StepResources = StepResources()
    disable_cpu_binding: bool | None = None
    container: Container | None = None


class ForRange(_Model):
    """Numbers from `begin` to `end`, both included."""

    begin: Integer
    end: Integer
    increment: Integer | None = None
    """1 if it is left out; the numbers go down where it is negative."""

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


class For(_Model):
    """Steps for each number of a range (`$index`) or each of some texts (`$item`)."""

    parallel: bool
    items: tuple[Value, ...] | None = Field(default=None, strict=False, repr=False)
    range: ForRange | None = None
    steps: tuple[Step, ...] = Field(strict=False)

    @model_validator(mode="after")
    def _one_source(self) -> For:
        if (self.items is None) == (self.range is None):
            raise PydanticCustomError("kind", "needs either range or items")
        if self.range is not None and self.range.count() > _MOST_TURNS:
            raise PydanticCustomError("size", "goes round more than {most} times", {"most": _MOST_TURNS})
        return self


class Launch(_Model):
    """Steps that run beside those that follow."""

    handle_name: Handle | None = None
    signal_on_parent_step_exit: Literal[0, 1, 2, 3, 9, 15] | None = None
    steps: tuple[Step, ...] = Field(strict=False)

    @property
    def signal(self) -> int:
        """What these steps get when those beside them have ended; 0 means that they are waited for instead."""
        return 15 if self.signal_on_parent_step_exit is None else self.signal_on_parent_step_exit


class Step(_Model):
    """A step: a command or other steps, once or more often; and what comes before and after it."""

    _unsupported = frozenset({"use"})

    name: Text | None = None
    depends_on: tuple[Handle, ...] = Field(default=(), strict=False)
    if_: Text | None = Field(default=None, alias="if", repr=False)
    run: Run | None = None
    steps: tuple[Step, ...] = Field(default=(), strict=False)
    for_: For | None = Field(default=None, alias="for")
    launch: Launch | None = None
    catch: tuple[Step, ...] = Field(default=(), strict=False)
    finally_: tuple[Step, ...] = Field(default=(), alias="finally", strict=False)

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
        yield ("catch",), self.catch
        yield ("finally",), self.finally_

    def kinds(self) -> dict[str, Any]:
        """What a step may be, of which it is one at most."""
        return {"run": self.run, "steps": self.steps, "for": self.for_, "launch": self.launch}


class Workflow(_Model):
    """A whole job (the reference calls it Job)."""

    _unsupported = frozenset({"input", "inputMode", "output", "continuousOutputSync", "virtualNetworks"})

    resources: Resources
    steps: tuple[Step, ...] = Field(strict=False, min_length=1)
    env: tuple[EnvVar, ...] = Field(default=(), strict=False)
    enable_logging: bool | None = None
    """False: the output of the steps is thrown away. Left out, it is kept as with True."""

    def to_dict(self) -> dict[str, Any]:
        """The workflow as the sbatch API's GraphQL input type `Job`: names in camelCase, nothing that was left out."""
        plain: dict[str, Any] = _plain(self)
        return plain

    def runs(self) -> list[Run]:
        """All commands; those of outer lists of steps before those of inner ones."""
        return [run for _, run in self.located_runs()]

    def located_runs(self) -> list[tuple[Location, Run]]:
        """Like `runs`, each with its place, such as `("steps", 0, "run")`."""
        return [
            ((*place, number, "run"), step.run)
            for place, steps in self.located_lists()
            for number, step in enumerate(steps)
            if step.run is not None
        ]

    def located_lists(self) -> Iterator[tuple[Location, tuple[Step, ...]]]:
        """All lists of steps, each with its place, such as `("steps", 0, "for", "steps")`; outer ones before inner ones."""
        yield from _lists(("steps",), self.steps)


def _plain(value: Any) -> Any:
    """Plain data of a model, secrets included: the sbatch API needs them."""
    if isinstance(value, _Model):
        fields = type(value).model_fields
        return {
            fields[name].alias or name: _plain(getattr(value, name))
            for name in fields
            if name in value.model_fields_set
        }
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _lists(place: Location, steps: tuple[Step, ...]) -> Iterator[tuple[Location, tuple[Step, ...]]]:
    yield place, steps
    for number, step in enumerate(steps):
        for names, inner in step.lists():
            yield from _lists((*place, number, *names), inner)
