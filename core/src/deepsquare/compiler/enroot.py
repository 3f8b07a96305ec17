"""A step in a container by Enroot: an unpacked image a step and node, and what its start is told in files.

Enroot reads its container's variables from lines of a file, in which quotes and line ends don't survive. So the customer's come
to it as shell text that the container's own `/bin/sh` reads first. What Enroot is known for here is its command line and its
documented files: `#ENROOT_...` directives, `environ`, `mounts`, `/etc/rc` (which starts the command) and `/etc/rc.local` (which
that reads before it starts the image's entry point).
"""

from __future__ import annotations

from deepsquare.compiler import containers, images
from deepsquare.compiler.containers import COMMAND, FOLDERS, HOME, INSIDE, ROOT, X11
from deepsquare.compiler.quoting import fill, quote, write_file
from deepsquare.workflow.run import Container, Mount, Run

HELPERS = write_file(
    '"$private/customers"',
    """\
# Prints the customer's variables and those of the job, each ended by a NUL.
set -- "$(/bin/bash "${0%/*}/passed-on")" "$1"
. "${0%/*}/environment"
eval "$1"
. "$2"
exec env --null""",
) + write_file(
    '"$private/enroot-task"',
    f"""\
# Writes what one task's container is told: $1.environ, lines for Enroot; $1.rc, shell text for the container.
umask 077
LC_ALL=C
task=$1 scope=$2 home=$3
declare -A known=()
# In a variable: older bash takes backslashes in the place of it as they are.
quoted="'\\\\''"
# say WORD KEY VALUE: a variable as any shell reads it.
say() {{ printf "%sexport %s='%s'\\n" "$1" "$2" "${{3//\\'/$quoted}}"; }}
# Where the image has none.
unset_only() {{ say "[ -n \\"\\${{$1+x}}\\" ] || " "$1" "$2"; }}
{{
    unset_only PATH /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    unset_only HOME "$home"
    while IFS= read -r -d '' entry; do
        key=${{entry%%=*}}
        known[$key]=1
        case $key in
        PWD | OLDPWD | SHLVL | _ | {" | ".join(INSIDE)}) ;;
        *) unset_only "$key" "${{entry#*=}}" ;;
        esac
    done < <(env -i DEEPSQUARE_ENV="$DEEPSQUARE_ENV" /bin/bash "${{0%/*}}/customers" "$scope")
    {"; ".join(f"unset_only {name} {value}" for name, value in INSIDE.items())}
}} >"$task.rc"
while IFS= read -r -d '' entry; do
    key=${{entry%%=*}}
    case $key in
    # The host's own, and what Enroot is told by.
    PATH | LD_LIBRARY_PATH | HOME | PWD | OLDPWD | SHLVL | SHELL | TMPDIR | _ | BASH_* | ENROOT_* | DEEPSQUARE_*) continue ;;
    esac
    [ -n "${{known[$key]+x}}" ] || [[ $entry == *$'\\n'* ]] || printf '%s\\n' "$entry"
done < <(env --null) >"$task.environ"
""",
)
"""Lines that write what the tasks of all steps use."""

_CONF = """\
#ENROOT_LOGIN_SHELL=no
#ENROOT_REMAP_ROOT=no
#ENROOT_MOUNT_HOME=no
#ENROOT_ROOTFS_WRITABLE=__WRITABLE__
environ() {
    cat "$DEEPSQUARE_TASK.environ"
    # The image's own win.
    [ ! -e "$ENROOT_ROOTFS/etc/environment" ] || cat "$ENROOT_ROOTFS/etc/environment"
}
mounts() { cat "$DEEPSQUARE_TASK.mounts"; }
"""

# Its variables have names of ours alone: the customer's are not there.
_LAUNCH = """\
export ENROOT_DATA_PATH="${0%/*}/enroot/data" ENROOT_RUNTIME_PATH="${0%/*}/enroot/runtime"
export ENROOT_CACHE_PATH="${0%/*}/enroot/cache" ENROOT_TEMP_PATH="${0%/*}/enroot" ENROOT_CONFIG_PATH="${0%/*}/enroot/config"
mkdir -p "${0%/*}"/enroot/{data,runtime,cache,config} "$STORAGE_PATH/.deepsquare/container/tmp"
# An unpacked image for each step and node, so that no step sees what another changed.
name=${SLURM_STEP_ID:-direct-$$}.${SLURM_NODEID:-0}
if [ "${SLURM_LOCALID:-0}" = 0 ]; then
    if ! "${DEEPSQUARE_ENROOT:-enroot}" create --name "$name" "$image" >"${0%/*}/enroot/$name.log" 2>&1; then
        cat "${0%/*}/enroot/$name.log"
        exit 1
    fi
    : >"${0%/*}/enroot/$name.made"
else
    until [ -e "${0%/*}/enroot/$name.made" ]; do sleep 0.1; done
fi
export DEEPSQUARE_TASK="${0%/*}/enroot/$name.${SLURM_PROCID:-0}"
/bin/bash "${0%/*}/enroot-task" "$DEEPSQUARE_TASK" "$scope" __HOME__ || exit 1
cat "${0%/*}/enroot-__NUMBER__.rc" >>"$DEEPSQUARE_TASK.rc"
# mount FROM TO OPTIONS: a line of fstab(5).
mount() {
    local from=${1//\\\\/\\\\134}
    from=${from// /\\\\040} from=${from//$'\\t'/\\\\011} from=${from//$'\\n'/\\\\012}
    printf '%s %s none %s\\n' "$from" "$2" "$3"
}
{
    mount "$STORAGE_PATH" __ROOT__ x-create=dir,bind,rw
    mount "${0%/*}/command-__NUMBER__" __INSIDE__ x-create=file,bind,ro
    mount "$STORAGE_PATH/.deepsquare/container/tmp" /tmp x-create=dir,bind,rw
__MOUNTS__
    mount "$DEEPSQUARE_TASK.rc" __RC__ x-create=file,bind,ro
} >"$DEEPSQUARE_TASK.mounts"
exec "${DEEPSQUARE_ENROOT:-enroot}" start --conf "${0%/*}/enroot-__NUMBER__.conf" "$name" __COMMAND__"""


def files(run: Run, number: int) -> str:
    """Lines that write a step's files beside its command."""
    container = run.container
    assert container is not None
    conf = fill(_CONF, WRITABLE="no" if container.read_only_root_fs else "yes")
    lines = [f"export {variable.key}={quote(variable.value)}" for variable in run.env]
    lines.append(f"cd {quote(run.work_dir or ROOT)} || exit")
    if run.shell != "ENTRYPOINT":
        lines.append('exec "$@"')
    return write_file(f'"$private/enroot-{number}.conf"', conf.rstrip("\n")) + write_file(
        f'"$private/enroot-{number}.rc"', "\n".join(lines)
    )


def launch(run: Run, number: int, image: int | None) -> str:
    """The shell text of one task; like that of Apptainer, but the customer's variables are never in this shell."""
    container = run.container
    assert container is not None
    text = fill(
        _LAUNCH,
        HOME='"$HOME"' if container.mount_home else HOME,
        NUMBER=str(number),
        ROOT=ROOT,
        INSIDE=COMMAND,
        MOUNTS="\n".join(f"    {line}" for line in _mounts(container)),
        # What starts the command, or what the image's own start of its entry point reads first.
        RC="/etc/rc.local" if run.shell == "ENTRYPOINT" else "/etc/rc",
        COMMAND=containers.command(run),
    )
    return "\n".join([containers.make_places(), *images.locate(container, image), text]).rstrip()


def _mounts(container: Container) -> list[str]:
    lines = [
        f'if [ -d "${name}" ]; then mount "${name}" {ROOT}/{folder} x-create=dir,bind,rw; fi'
        for name, folder in FOLDERS.items()
    ]
    lines += [
        'IFS=: read -r -a binds <<<"${DEEPSQUARE_BINDS:-}"',
        'for bind in "${binds[@]}"; do mount "$bind" "$bind" x-create=auto,bind,rw; done',
    ]
    if container.mount_home:
        lines.append('mount "$HOME" "$HOME" x-create=dir,bind,rw')
    if container.x11:
        lines.append(f"if [ -d {X11} ]; then mount {X11} {X11} x-create=dir,bind,ro; fi")
    return lines + [f"printf '%s\\n' {quote(_fstab(mount))}" for mount in container.mounts]


def _fstab(mount: Mount) -> str:
    return f"{_octal(mount.host_dir)} {_octal(mount.container_dir)} none x-create=auto,bind,{mount.options or 'rw'}"


def _octal(path: str) -> str:
    """A path as fstab(5) has it."""
    return "".join(f"\\{ord(character):03o}" if character in " \t\n\\" else character for character in path)
