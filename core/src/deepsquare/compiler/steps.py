"""One `run`: an srun step that executes a command, on the host or in a container."""

from __future__ import annotations

from dataclasses import dataclass

from deepsquare.compiler import apptainer, enroot, network
from deepsquare.compiler.images import Images
from deepsquare.compiler.quoting import quote, write_file
from deepsquare.workflow.fields import PROVIDERS_KEYS, SHELLS_KEYS
from deepsquare.workflow.models import Resources
from deepsquare.workflow.run import Run

_IGNORED = " | ".join((*PROVIDERS_KEYS, *SHELLS_KEYS))

PASSED_ON = f"""\
# Prints what earlier steps left in $DEEPSQUARE_ENV as commands for bash. It is data: quoted, never executed.
LC_ALL=C
while IFS= read -r line || [ -n "$line" ]; do
    key=${{line%%=*}}
    case $key in
    # What `env` prints in a container is no good outside of it.
    HOME | PWD | OLDPWD | SLURM_* | APPTAINER* | SINGULARITY* | ENROOT_*) ;;
    {_IGNORED} | "$line" | *[!A-Za-z0-9_]* | [0-9]* | '') echo "Ignored a line of DEEPSQUARE_ENV: no KEY=value" >&2 ;;
    *) printf 'export %s=%q\\n' "$key" "${{line#*=}}" ;;
    esac
done <"$DEEPSQUARE_ENV"
"""
"""The text of the script `passed-on`, which a process of its own runs, so that no name of a variable is in its way."""


CACHES = """\
# Makes the caches that are not there. What the provider doesn't offer is no reason to fail: few jobs use them.
exec 2>/dev/null
disk=${DEEPSQUARE_DISK_TMP%/tmp/*}
for folder in "${DEEPSQUARE_SHARED_TMP%/*}" "$disk" "$disk/tmp" "$DEEPSQUARE_SHARED_WORLD_TMP" "$DEEPSQUARE_DISK_WORLD_TMP"; do
    # Who comes first must not shut out the others.
    [ -d "$folder" ] || { umask 022 && mkdir -p "$folder" && chmod 1777 "$folder"; }
done
umask 077
mkdir -p "$DEEPSQUARE_SHARED_TMP" "$DEEPSQUARE_DISK_TMP"
exit 0
"""
"""The text of the script `caches`, which runs once on the first node and wherever else a step begins."""


ENVIRONMENT = """\
set -- "$(/bin/bash "${0%/*}/passed-on")" "$scope" "$@"
unset scope
. "${0%/*}/environment"
eval "$1"
. "$2"
shift 2
"""
"""What a script of a step's begins with that sees the customer's variables: the job's, what earlier steps left, and those of
the file `$scope`, which win."""

# Its arguments are the file with the customer's variables, and another that gets the number of the step.
_BEGIN = """\
exec 2>&1
# On the nodes beside the first one nobody has made it.
[ -d "$DEEPSQUARE_DISK_TMP" ] || /bin/bash "${0%/*}/caches"
[ "${SLURM_PROCID:-0}" != 0 ] || printf '%s\\n' "${SLURM_STEP_ID:-}" >"$2"
"""
# The job's own folder is closed to others; what it puts into everybody's cache is for everybody.
_SCOPE = """\
umask 022
scope=$1
set --
"""


@dataclass(frozen=True, slots=True)
class CompiledRun:
    """A command as shell."""

    files: str
    """Lines that write what it runs, in files of mode 0600, so that it is in no process list."""
    options: list[str]
    """Those of srun."""
    image: int | None
    """The number of the image to fetch before."""


class Runs:
    """The commands of one workflow, and what they share: images and networks."""

    def __init__(self, job: Resources, networks: network.Networks) -> None:
        self._job = job
        self._networks = networks
        self._images = Images()
        self._uses_enroot = False
        self._uses_namespaces = False

    def shared_files(self) -> list[str]:
        """Lines that write what several of them use; known when all have been compiled."""
        files = list(self._images.files)
        if self._uses_enroot:
            files.append(enroot.HELPERS)
        if self._uses_namespaces or self._networks.are_any:
            files.append(network.ATTACH)
        return [*files, *self._networks.files()]

    @property
    def fetches(self) -> bool:
        """Whether there are images to fetch."""
        return bool(self._images.files)

    def compile(self, run: Run, number: int) -> CompiledRun:
        """One command; `number` is the one in the names of its files."""
        container = run.container
        image = None if container is None else self._images.number(container)
        # Without variables of its own: customers' may have any name. The outputs share a pipe, so that lines stay in order.
        if container is None:
            main, files = _on_host(run, number), ""
        elif container.runtime == "apptainer":
            main, files = apptainer.launch(run, number, image, ENVIRONMENT), ""
        else:
            self._uses_enroot = True
            main, files = enroot.launch(run, number, image), enroot.files(run, number)
        begin = _BEGIN + _ignored(run)
        if network.is_needed(run):
            self._uses_namespaces = True
            entry = network.entry(run, number, self._networks)
            files += entry.files + write_file(f'"$private/main-{number}"', _SCOPE + main)
            text = begin + entry.launch
        else:
            text = begin + _SCOPE + main
        files += write_file(f'"$private/command-{number}"', run.command) + write_file(f'"$private/step-{number}"', text)
        return CompiledRun(files, _options(run, self._job), image)


def _ignored(run: Run) -> str:
    if run.own_network is None and (run.dns or run.custom_network_interfaces):
        return "echo 'dns and customNetworkInterfaces count only with network: slirp4netns or pasta; ignored here.'\n"
    return ""


def _on_host(run: Run, number: int) -> str:
    step_env = "".join(f"export {variable.key}={quote(variable.value)}\n" for variable in run.env)
    directory = '"$STORAGE_PATH"' if run.work_dir is None else quote(run.work_dir)
    return (
        f'{ENVIRONMENT}cd {directory} || exit\n{step_env}exec {run.shell or "/bin/bash"} "${{0%/*}}/command-{number}"'
    )


def _options(run: Run, job: Resources) -> list[str]:
    asked = run.resources
    words = [
        f"--ntasks={asked.tasks or 1}",
        # Otherwise Slurm warns, in a job of several nodes, that one task can't be on them all.
        *["--nodes=1"] * ((asked.tasks or 1) == 1),
        f"--cpus-per-task={asked.cpus_per_task or job.cpus_per_task}",
        f"--mem-per-cpu={asked.mem_per_cpu or job.mem_per_cpu}M",
        "--kill-on-bad-exit=1",
        "--quiet",
    ]
    if asked.gpus_per_task:
        words.append(f"--gpus-per-task={asked.gpus_per_task}")
    elif job.gpus:
        # Slurm would give it all of the job's, and others would wait for them.
        words.append("--gres=none")
    if run.disable_cpu_binding:
        words.append("--cpu-bind=none")
    if run.mpi is not None:
        words.append(f"--mpi={run.mpi}")
    return words
