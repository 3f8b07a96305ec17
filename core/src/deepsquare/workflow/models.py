"""The workflow language as pydantic models, with the names of the file in camelCase and of Python in snake_case.

The language is DeepSquare's (its GraphQL schema lists every field). Fields that this version can't carry out yet are refused
by name, since ignoring them would run something else than what was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from deepsquare.workflow.problems import Location

_ENV_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
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


def _absolute(value: str) -> str:
    if not value.startswith("/"):
        raise PydanticCustomError("path", "must be an absolute path, one that begins with /")
    return value


Text = Annotated[str, AfterValidator(_text)]
EnvKey = Annotated[str, AfterValidator(_text), AfterValidator(_env_key)]
AbsolutePath = Annotated[str, AfterValidator(_text), AfterValidator(_absolute)]
Secret = Annotated[SecretStr, AfterValidator(_secret), Field(strict=False)]
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


class Step(_Model):
    """A step: a command, or steps."""

    _unsupported = frozenset({"dependsOn", "if", "for", "launch", "use", "catch", "finally"})

    name: Text | None = None
    run: Run | None = None
    steps: tuple[Step, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _one_kind(self) -> Step:
        if self.run is not None and self.steps:
            raise PydanticCustomError("kind", "a step has either run or steps, not both; make two steps of it")
        return self


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
        """All commands, in the order in which they run."""
        return [run for _, run in self.located_runs()]

    def located_runs(self) -> list[tuple[Location, Run]]:
        """Like `runs`, each with its place, such as `("steps", 0, "run")`."""
        return list(_runs(self.steps, ("steps",)))


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


def _runs(steps: Iterable[Step], place: Location) -> Iterable[tuple[Location, Run]]:
    for number, step in enumerate(steps):
        if step.run is not None:
            yield (*place, number, "run"), step.run
        yield from _runs(step.steps, (*place, number, "steps"))
