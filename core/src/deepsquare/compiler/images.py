"""The images of containers: where they are, and how those of registries are fetched, once a job."""

from __future__ import annotations

from collections.abc import Iterator

from deepsquare.compiler.quoting import fill, quote, write_file
from deepsquare.workflow.run import Container

_DOCKER_HUB = "registry-1.docker.io"

# Steps side by side may want the same. Where files can't be locked both fetch it, each for itself.
_ONCE = """\
umask 077
image=${0%/*}/images/__FILE__
part=$image.$$
child=''
trap 'rm -rf "$part" "$part".*' EXIT
exec 8>"$image.lock"
# In the background, so that a signal ends it at once.
flock 8 2>/dev/null &
child=$!
trap 'kill -s TERM "$child" 2>/dev/null; exit 143' TERM
wait "$child"
[ ! -e "$image" ] || exit 0
trap '[ -z "$child" ] || kill -s TERM "$child" 2>/dev/null; exit 143' TERM
for try in 1 2 3; do
    fetch >"$part.log" 2>&1 8>&- &
    child=$!
    wait "$child" && break
    child=''
    if [ "$try" = 3 ]; then
        cat "$part.log"
        printf 'The image %s could not be fetched.\\n' __NAME__
        exit 1
    fi
    sleep $((try * 2 + RANDOM % 3))
done
mv "$part" "$image" || exit
# From here on there is nothing to do, and no credentials are needed. Not emptied: others, who wait for the lock, still read it.
: >"$part.done" && mv "$part.done" "$0"
"""

_MISSING = {
    "apptainer": "This provider's nodes have no Apptainer, in which the step was to run.",
    "enroot": "This provider's nodes have no Enroot, in which the step was to run; with apptainer: true it runs in Apptainer.",
}

_PULL = """\
# Credentials are the environment's, which nobody else sees.
fetch() {
    __CREDENTIALS__export APPTAINER_CACHEDIR="$part.cache" APPTAINER_TMPDIR="$part.work"
    rm -rf "$part" "$part.work" && mkdir -p "$part.work" || return
    exec "${DEEPSQUARE_APPTAINER:-apptainer}" --silent pull --disable-cache "$part" __SOURCE__
}
"""

_IMPORT = """\
fetch() {
    export ENROOT_CONFIG_PATH="$part.config" ENROOT_CACHE_PATH="$part.cache" ENROOT_DATA_PATH="$part.work"
    export ENROOT_RUNTIME_PATH="$part.work" ENROOT_TEMP_PATH="$part.work"
    rm -rf "$part" "$part.work"
    mkdir -p "$part.work" "$part.config" || return
    __CREDENTIALS__exec "${DEEPSQUARE_ENROOT:-enroot}" import --output "$part" __SOURCE__
}
"""


class Images:
    """The images that a workflow's steps fetch from registries; `files` write the scripts that do it."""

    def __init__(self) -> None:
        self._numbers: dict[Container, int] = {}
        self.files: list[str] = []

    def number(self, container: Container) -> int | None:
        """The number of a container's image: the same for all steps with the same one; None where nothing is to fetch."""
        if container.deepsquare_hosted or container.image.startswith("/"):
            return None
        # What else a container says makes no other image.
        names = ("image", "registry", "username", "password", "apptainer")
        key = Container(**{name: getattr(container, name) for name in names})
        if key not in self._numbers:
            self._numbers[key] = len(self._numbers) + 1
            self.files.append(write_file(f'"$private/image-{self._numbers[key]}"', _script(key, self._numbers[key])))
        return self._numbers[key]


def locate(container: Container, number: int | None) -> Iterator[str]:
    """Shell lines of a step that make `$image` its image, or end it with the reason why there is none."""
    name = container.image.lstrip("/")
    yield _present(container)
    if container.deepsquare_hosted:
        if container.registry:
            name = f"{container.registry}/{name}"
        root = '"${DEEPSQUARE_IMAGES_ROOT:-/cvmfs/containers.deepsquare.run}"'
        yield f"image={root}/{quote(name)}"
        yield 'if [ ! -e "$image" ] && [ -e "$image.sif" ]; then image=$image.sif; fi'
        yield 'if [ ! -e "$image" ]; then'
        yield f'    others=$(cd {root} 2>/dev/null && set -- * && set -- "${{@%.sif}}" && echo "${{@:1:20}}")'
        yield f'    printf "This provider has no image %s. It has: %s\\n" {quote(name)} "$others"'
        yield "    exit 1"
        yield "fi"
    elif number is None:
        yield f'image="$STORAGE_PATH"/{quote(name)}'
        yield f'if [ ! -e "$image" ]; then printf "There is no image %s below STORAGE_PATH\\n" {quote(name)}; exit 1; fi'
    else:
        yield f'image="${{0%/*}}"/images/{_file(container, number)}'


def _present(container: Container) -> str:
    """A shell line that ends a script with the reason where the program is not there that runs a container."""
    variable = f"DEEPSQUARE_{container.runtime.upper()}"
    program = f'"${{{variable}:-{container.runtime}}}"'
    return f"if ! command -v {program} >/dev/null; then echo {quote(_MISSING[container.runtime])}; exit 1; fi"


def _file(container: Container, number: int) -> str:
    return f"{number}.{'sif' if container.runtime == 'apptainer' else 'sqsh'}"


def _script(container: Container, number: int) -> str:
    username = container.username.get_secret_value() if container.username is not None else None
    password = container.password.get_secret_value() if container.password is not None else None
    if container.runtime == "apptainer":
        name = f"{container.registry}/{container.image}" if container.registry else container.image
        values = {"APPTAINER_DOCKER_USERNAME": username, "APPTAINER_DOCKER_PASSWORD": password}
        credentials = "".join(f"export {key}={quote(text)}\n    " for key, text in values.items() if text is not None)
        fetch = _PULL
    else:
        # For whom the registry sends asking, which may be another host, the same holds.
        account = f"login {username} password {password}"
        text = f"machine {(container.registry or _DOCKER_HUB).partition(':')[0]} {account}\ndefault {account}"
        credentials = (
            f'printf "%s\\n" {quote(text)} >"$part.config/.credentials"\n    ' if username and password else ""
        )
        name = f"{container.registry}#{container.image}" if container.registry else container.image
        if username:
            name = f"{username}@{name}"
        fetch = _IMPORT
    return fill(
        f"{_present(container)}\n{fetch}{_ONCE}".rstrip("\n"),
        FILE=_file(container, number),
        NAME=quote(container.image),
        SOURCE=quote(f"docker://{name}"),
        CREDENTIALS=credentials,
    )
