"""A step in a container by Apptainer: what comes before its command."""

from __future__ import annotations

from deepsquare.compiler import containers, images
from deepsquare.compiler.containers import COMMAND, FOLDERS, HOME, INSIDE, ROOT, X11
from deepsquare.compiler.quoting import quote
from deepsquare.workflow.run import Mount, Run


def launch(run: Run, number: int, image: int | None, environment: str) -> str:
    """The shell text of one task.

    Args:
        run: the step.
        number: the number in the names of its files.
        image: the number of its image, if that is fetched.
        environment: shell lines behind which the customer's variables are there.
    """
    return f'{_prepare(run, number, image)}{environment}{_variables(run)}exec "$@" {containers.command(run)}'.rstrip()


def _prepare(run: Run, number: int, image: int | None) -> str:
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
    if container.mount_home:
        # A second time, since it may lie in /tmp, which is mounted over the first.
        options += ["--home", '"$HOME:$HOME"', "--bind", '"$HOME"']
    else:
        options += ["--home", f'"$STORAGE_PATH/.deepsquare/home:{HOME}"']
    options += ["--pwd", quote(run.work_dir or ROOT), "--bind", f'"$STORAGE_PATH:{ROOT}"']
    options += ["--bind", f'"${{0%/*}}/command-{number}:{COMMAND}:ro"']
    lines = [
        containers.make_places(),
        *images.locate(container, image),
        f'set -- "${{DEEPSQUARE_APPTAINER:-apptainer}}" {" ".join(options)}',
        *(
            f'if [ -d "${name}" ]; then set -- "$@" --bind "${name}:{ROOT}/{folder}"; fi'
            for name, folder in FOLDERS.items()
        ),
        'IFS=: read -r -a binds <<<"${DEEPSQUARE_BINDS:-}"',
        'for bind in "${binds[@]}"; do set -- "$@" --bind "$bind"; done',
        "unset bind binds",
        *(f'set -- "$@" --mount {quote(_mount(mount))}' for mount in container.mounts),
    ]
    if container.x11:
        lines.append(f'if [ -d {X11} ]; then set -- "$@" --bind {X11}:{X11}:ro; fi')
    if run.resources.gpus_per_task:
        lines.append('if [ -e /dev/nvidiactl ]; then set -- "$@" --nv; fi')
    lines.append('set -- "$@" -- "$image"\nunset image\n')
    return "\n".join(lines)


def _mount(mount: Mount) -> str:
    """A mount as the option `--mount` takes it: a record of CSV."""
    words = [f"source={mount.host_dir}", f"destination={mount.container_dir}", *["ro"] * (mount.options == "ro")]
    quoted = ['"' + word.replace('"', '""') + '"' for word in words]
    return ",".join(["type=bind", *quoted])


def _variables(run: Run) -> str:
    """Shell lines behind the customer's variables: the paths that hold inside, and the step's own variables.

    What is exported is passed on into the container, where the image's own variables win; `APPTAINERENV_...` overrides those.
    """
    # The first of them changes what the others are made from.
    names = sorted(INSIDE, key=lambda name: name == "STORAGE_PATH")
    lines = [f"export {name}={INSIDE[name]}" for name in names]
    lines += [f"export APPTAINERENV_{variable.key}={quote(variable.value)}" for variable in run.env]
    return "\n".join(lines) + "\n"
