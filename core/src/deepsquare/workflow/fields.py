"""What the models of the workflow language are made of: their base, and the types of their fields."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, WithJsonSchema, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

PROVIDERS_KEYS = ("PATH", "LD_LIBRARY_PATH")
"""Variables that keep the provider's value."""
SHELLS_KEYS = (
    *("_", "BASHOPTS", "BASHPID", "BASH_ALIASES", "BASH_ARGC", "BASH_ARGV", "BASH_ARGV0", "BASH_CMDS", "BASH_COMMAND"),
    *("BASH_COMPAT", "BASH_LINENO", "BASH_SOURCE", "BASH_SUBSHELL", "BASH_VERSINFO", "BASH_XTRACEFD", "DIRSTACK"),
    *("EPOCHREALTIME", "EPOCHSECONDS", "EUID", "FUNCNAME", "GROUPS", "HISTCMD", "IFS", "LINENO", "OPTIND"),
    *("PIPESTATUS", "PPID", "RANDOM", "SECONDS", "SHELLOPTS", "SHLVL", "SRANDOM", "UID"),
)
"""Variables that bash sets or obeys itself (bash(1), "Shell Variables"): somebody else's value would be lost, or be an error."""
# Linux gives a program no longer string (MAX_ARG_STRLEN).
VARIABLE_BYTES = 128 * 1024
_GRAPHQL_INT_MAX = 2**31 - 1
_TEXT_BYTES = 1 << 20

_ENV_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HANDLE = re.compile(r"[A-Za-z0-9_]+")
_HOST = r"(?=.{1,253}(?::|$))[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
_REGISTRY = re.compile(rf"{_HOST}(:[0-9]{{1,5}})?")
_HOST_AND_PORT = re.compile(rf"({_HOST}|\[[0-9A-Fa-f:.]+\]):[0-9]{{1,5}}")
_WEB_URL = re.compile(r"https?://[^\s\x00-\x1f\x7f/?#\\]+([/?#][^\s\x00-\x1f\x7f]*)?")
_BUCKET_URL = re.compile(r"s3://[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
# 32 bytes in base64 (wg(8)).
_WIREGUARD_KEY = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")
_MODULE = re.compile(
    rf"{_HOST}(:[0-9]{{1,5}})?(/[A-Za-z0-9_][A-Za-z0-9._-]*){{2,}}(@[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*)?"
)


def _shown(value: str) -> str:
    """What was there, for errors; never used for what may be secret."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


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


def _wireguard_secret(value: SecretStr) -> SecretStr:
    _wireguard_key(value.get_secret_value())
    return value


def _wireguard_key(value: str) -> str:
    if not _WIREGUARD_KEY.fullmatch(value):
        raise PydanticCustomError("key", "is not a WireGuard key: 44 characters, as `wg genkey` and `wg pubkey` print")
    return value


def _condition(value: str) -> str:
    if not value.strip():
        raise PydanticCustomError("condition", "is blank: write a test of bash, as between [[ and ]], or leave it out")
    return value


def _fits(value: str) -> str:
    if len(value.encode()) > VARIABLE_BYTES - 64:
        raise PydanticCustomError("size", "is longer than 128 KiB, more than a program can be given; use a file")
    return value


def _handle(value: str) -> str:
    if not _HANDLE.fullmatch(value):
        raise PydanticCustomError(
            "handle", "{what} is not the name of a handle: letters, digits and _ are allowed", {"what": _shown(value)}
        )
    return value


def _absolute(value: str) -> str:
    if not value.startswith("/"):
        raise PydanticCustomError("path", "must be an absolute path, one that begins with /")
    return value


def _registry(value: str) -> str:
    if not _REGISTRY.fullmatch(value):
        raise PydanticCustomError(
            "registry", "{what} is not a registry: write HOST or HOST:PORT, such as ghcr.io", {"what": _shown(value)}
        )
    return value


def _host_and_port(value: str) -> str:
    if not _HOST_AND_PORT.fullmatch(value) or not 0 < int(value.rpartition(":")[2]) < 65536:
        raise PydanticCustomError(
            "endpoint",
            "{what} is not an address with a port: write HOST:PORT, such as vpn.example:51820",
            {"what": _shown(value)},
        )
    return value


def _host(value: str) -> str:
    if not re.fullmatch(_HOST, value):
        raise PydanticCustomError("host", "{what} is not a host's name or address", {"what": _shown(value)})
    return value


def _web_url(value: str) -> str:
    if not _WEB_URL.fullmatch(value):
        raise PydanticCustomError("url", "is not a URL of the web: http://... or https://..., with spaces as %20")
    return value


def _bucket_url(value: str) -> str:
    if not _BUCKET_URL.fullmatch(value):
        raise PydanticCustomError("url", "is not a bucket: {why}", {"why": _why_no_bucket(value)})
    return value


def _why_no_bucket(value: str) -> str:
    scheme, separator, name = value.partition("://")
    if (scheme, separator) != ("s3", "://"):
        return "write s3://NAME"
    if name.endswith("/"):
        return "write s3://NAME, without / at the end"
    if "/" in name:
        return "write s3://NAME alone; what is in the bucket belongs in path"
    if not 2 <= len(name) <= 255:
        return "its name must have 2 to 255 characters"
    if not re.match(r"[A-Za-z0-9]", name):
        return "its name must begin with a letter or a digit"
    return "its name may have letters, digits, '.', '_' and '-'"


def _ip(value: str) -> str:
    from ipaddress import ip_address

    try:
        # Python takes also the name of an interface behind %, whatever it is.
        if not re.fullmatch(r"[0-9A-Fa-f:.]+", value):
            raise ValueError
        ip_address(value)
    except ValueError:
        raise PydanticCustomError("ip", "{what} is not an IP address", {"what": _shown(value)}) from None
    return value


def _cidr(value: str) -> str:
    from ipaddress import ip_interface

    try:
        if not re.fullmatch(r"[0-9A-Fa-f:.]+/[0-9]{1,3}", value):
            raise ValueError
        ip_interface(value)
    except ValueError:
        raise PydanticCustomError(
            "cidr", "{what} is not an address with its prefix, such as 10.0.0.2/24", {"what": _shown(value)}
        ) from None
    return value


def _module_source(value: str) -> str:
    if not _MODULE.fullmatch(value) or ".." in value:
        raise PydanticCustomError(
            "source",
            "{what} is not the source of a module: write HOST/OWNER/REPOSITORY[/FOLDER][@TAG or commit], such as "
            "github.com/example/modules/fetch@v1; it is fetched by https",
            {"what": _shown(value)},
        )
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
WireguardSecret = Annotated[SecretStr, AfterValidator(_wireguard_secret), Field(strict=False)]
WireguardKey = Annotated[str, AfterValidator(_wireguard_key)]
Value = Annotated[str, AfterValidator(_text), AfterValidator(_fits)]
Condition = Annotated[
    str, AfterValidator(_text), AfterValidator(_condition), WithJsonSchema({"type": "string", "pattern": r"\S"})
]
Handle = Annotated[str, AfterValidator(_handle), WithJsonSchema({"type": "string", "pattern": f"^{_HANDLE.pattern}$"})]
Registry = Annotated[str, AfterValidator(_registry)]
HostAndPort = Annotated[str, AfterValidator(_host_and_port)]
Host = Annotated[str, AfterValidator(_host)]
WebUrl = Annotated[str, AfterValidator(_text), AfterValidator(_web_url)]
BucketUrl = Annotated[
    str, AfterValidator(_bucket_url), WithJsonSchema({"type": "string", "pattern": f"^{_BUCKET_URL.pattern}$"})
]
Ip = Annotated[str, AfterValidator(_ip)]
Cidr = Annotated[str, AfterValidator(_cidr)]
ModuleSource = Annotated[
    str, AfterValidator(_module_source), WithJsonSchema({"type": "string", "pattern": f"^{_MODULE.pattern}$"})
]
Integer = Annotated[int, Field(ge=-_GRAPHQL_INT_MAX - 1, le=_GRAPHQL_INT_MAX)]
Positive = Annotated[int, Field(ge=1, le=_GRAPHQL_INT_MAX)]
Natural = Annotated[int, Field(ge=0, le=_GRAPHQL_INT_MAX)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Model(BaseModel):
    """A part of the language: its fields have the file's names, in camelCase; it takes no others and doesn't change."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        strict=True,
        hide_input_in_errors=True,
        # Programs that only name these types start sooner.
        defer_build=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nothing(cls, data: Any) -> Any:
        # The public language has null for what is left out.
        if not isinstance(data, dict) or None not in data.values():
            return data
        needed = {field.alias or name for name, field in cls.model_fields.items() if field.is_required()}
        return {key: value for key, value in data.items() if value is not None or key in needed}


def plain(value: Any) -> Any:
    """Plain data of a model, with the file's names and nothing that was left out; secrets included."""
    if isinstance(value, Model):
        fields = type(value).model_fields
        return {
            fields[name].alias or name: plain(getattr(value, name)) for name in fields if name in value.model_fields_set
        }
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value.get_secret_value() if isinstance(value, SecretStr) else value
