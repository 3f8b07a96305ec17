"""A step in a container, by Apptainer: what comes before its command, and the ways to its image."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import PurePosixPath

from deepsquare.compiler.quoting import quote
from deepsquare.workflow.run import Container, Run

ROOT = "/deepsquare"
"""Where a container sees its job's scratch."""

# What a container sees, below ROOT, of what the host has; the variable on both sides.
_FOLDERS = {
    "DEEPSQUARE_SHARED_TMP": "tmp",
    "DEEPSQUARE_SHARED_WORLD_TMP": "world-tmp",
    "DEEPSQUARE_DISK_TMP": "disk/tmp",
    "DEEPSQUARE_DISK_WORLD_TMP": "disk/world-tmp",
}
_INSIDE = {
    "STORAGE_PATH": ROOT,
    "DEEPSQUARE_INPUT": f"{ROOT}/input",
    "DEEPSQUARE_OUTPUT": f"{ROOT}/output",
    "DEEPSQUARE_ENV": f"{ROOT}/env",
    "DEEPSQUARE_TMP": f"{ROOT}/tmp",  # noqa: S108 - in a container of its own
} | {name: f"{ROOT}/{folder}" for name, folder in _FOLDERS.items()}


def obstacle(run: Run) -> tuple[str, str] | None:
    """The field of a step in a container that this version can't carry out, and why; None when there is none."""
    container = run.container
    assert container is not None
    if not (container.apptainer or container.deepsquare_hosted):
        return (
            "container",
            "Enroot is not supported by this version; set apptainer: true, which most images run with too",
        )
    if container.x11:
        return "container.x11", "X11 is not supported by this version; leave it out"
    if container.mounts:
        return "container.mounts", "mounts are not supported by this version; use $STORAGE_PATH and what lies below it"
    if "://" in container.image:
        return "container.image", "has a scheme, which images don't have here: write REGISTRY/IMAGE alone"
    is_path = container.deepsquare_hosted or container.image.startswith("/")
    if is_path and ".." in PurePosixPath(f"{container.registry or ''}/{container.image}").parts:
        return "container.image", "the path of an image can't have .."
    if run.shell == "ENTRYPOINT":
        try:
            shlex.split(run.command)
        except ValueError as error:
            return "command", f"can't be split into the arguments of the image's entry point: {error}"
    return None


def prepare(run: Run) -> str:
    """Shell lines that make `$@` the command line of Apptainer, up to the image.

    They run before the customer's variables are there, and leave nothing behind but `$@`: those may have any name.
    """
    container = run.container
    assert container is not None
    verb = "run" if run.shell == "ENTRYPOINT" else "exec"
    # Without evaluation: values of variables are text, not shell.
    options = ["--silent", verb, "--no-eval", "--contain", "--workdir", '"$STORAGE_PATH/.deepsquare/container"']
    if not container.read_only_root_fs:
        options.append("--writable-tmpfs")
    if not container.mount_home:
        options += ["--home", f'"$STORAGE_PATH/.deepsquare/home:{ROOT}/.deepsquare/home"']
    options += ["--pwd", quote(run.work_dir or ROOT), "--bind", f'"$STORAGE_PATH:{ROOT}"']
    folders = " ".join(f'"$STORAGE_PATH/{folder}"' for folder in _FOLDERS.values())
    lines = [
        # Scratch for /tmp and /var/tmp: without, they would be small and in memory. The folders are places to mount on.
        f'mkdir -p "$STORAGE_PATH/.deepsquare/container" {folders}',
        *_image(container),
        f'set -- "${{DEEPSQUARE_APPTAINER:-apptainer}}" {" ".join(options)}',
        *(
            f'if [ -d "${name}" ]; then set -- "$@" --bind "${name}:{ROOT}/{folder}"; fi'
            for name, folder in _FOLDERS.items()
        ),
        'IFS=: read -r -a binds <<<"${DEEPSQUARE_BINDS:-}"',
        'for bind in "${binds[@]}"; do set -- "$@" --bind "$bind"; done',
        "unset bind binds",
    ]
    if run.resources.gpus_per_task:
        lines.append('if [ -e /dev/nvidiactl ]; then set -- "$@" --nv; fi')
    lines.append('set -- "$@" -- "$image"\nunset image\n')
    return "\n".join(lines)


def _image(container: Container) -> Iterator[str]:
    """Lines that make `$image` the image."""
    name = container.image.lstrip("/")
    if container.registry:
        name = f"{container.registry.rstrip('/')}/{name}"
    if container.deepsquare_hosted:
        yield f'image="${{DEEPSQUARE_IMAGES_ROOT:-/cvmfs/containers.deepsquare.run}}"/{quote(name)}'
        yield 'if [ ! -e "$image" ] && [ -e "$image.sif" ]; then image=$image.sif; fi'
        yield f'if [ ! -e "$image" ]; then printf "This provider has no image %s\\n" {quote(name)}; exit 1; fi'
    elif container.image.startswith("/"):
        yield f'image="$STORAGE_PATH"/{quote(name)}'
        yield f'if [ ! -e "$image" ]; then printf "There is no image %s below STORAGE_PATH\\n" {quote(name)}; exit 1; fi'
    else:
        yield f"image={quote(f'docker://{name}')}"


def environment(run: Run) -> str:
    """Shell lines behind the customer's variables: the paths that hold inside, the step's own variables, credentials.

    What is exported is passed on into the container, where the image's own variables win; `APPTAINERENV_...` overrides those.
    """
    container = run.container
    assert container is not None
    lines = [f"export {name}={quote(path)}" for name, path in _INSIDE.items()]
    lines += [f"export APPTAINERENV_{variable.key}={quote(variable.value)}" for variable in run.env]
    # Once a job: a second step finds what the first has fetched.
    lines.append('export APPTAINER_CACHEDIR="${0%/*}/images" APPTAINER_TMPDIR="${0%/*}/container"')
    if container.username is not None:
        lines.append(f"export APPTAINER_DOCKER_USERNAME={quote(container.username)}")
    if container.password is not None:
        lines.append(f"export APPTAINER_DOCKER_PASSWORD={quote(container.password.get_secret_value())}")
    return "\n".join(lines) + "\n"


def command(run: Run, number: int) -> str:
    """The words behind the image: the step's shell and its file, or the arguments of the image's entry point."""
    if run.shell == "ENTRYPOINT":
        return " ".join(quote(word) for word in shlex.split(run.command))
    return f"{run.shell or '/bin/bash'} {ROOT}/.deepsquare/command-{number}"
