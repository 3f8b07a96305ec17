"""One `run`: an srun step that executes a command, on the host or in a container."""

from __future__ import annotations

from dataclasses import dataclass

from deepsquare.compiler import containers
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
    {_IGNORED} | "$line" | *[!A-Za-z0-9_]* | [0-9]* | '') echo "Ignored a line of DEEPSQUARE_ENV: no KEY=value" >&2 ;;
    *) printf 'export %s=%q\\n' "$key" "${{line#*=}}" ;;
    esac
done <"$DEEPSQUARE_ENV"
"""
"""The text of the script `passed-on`, which a process of its own runs, so that no name of a variable is in its way."""


ENVIRONMENT = """\
set -- "$(/bin/bash "${0%/*}/passed-on")" "$scope" "$@"
unset scope
. "$2"
eval "$1"
shift 2
"""
"""What a script of a step's begins with that sees the customer's variables: `$scope` is the file that they are in."""

# Its arguments are that file, and another that gets the number of the step.
_BEGIN = """\
exec 2>&1
scope=$1
[ "${SLURM_PROCID:-0}" != 0 ] || printf '%s\\n' "${SLURM_STEP_ID:-}" >"$2"
set --
"""


@dataclass(frozen=True, slots=True)
class CompiledRun:
    """A command as shell."""

    files: str
    """Lines that write what it runs, in files of mode 0600, so that it is in no process list."""
    options: list[str]
    """Those of srun."""


def compile_run(run: Run, job: Resources, number: int) -> CompiledRun:
    """One command.

    Args:
        run: the step.
        job: the job's resources, the default of the step's.
        number: the number in the names of its files.
    """
    # Without variables of its own: customers' may have any name. The outputs share a pipe, so that lines stay in order.
    launch = _BEGIN + (_on_host(run, number) if run.container is None else _in_container(run, number))
    return CompiledRun(
        write_file(f'"$private/command-{number}"', run.command) + write_file(f'"$private/step-{number}"', launch),
        _options(run, job),
    )


def _on_host(run: Run, number: int) -> str:
    step_env = "".join(f"export {variable.key}={quote(variable.value)}\n" for variable in run.env)
    directory = '"$STORAGE_PATH"' if run.work_dir is None else quote(run.work_dir)
    return (
        f'{ENVIRONMENT}cd {directory} || exit\n{step_env}exec {run.shell or "/bin/bash"} "${{0%/*}}/command-{number}"'
    )


def _in_container(run: Run, number: int) -> str:
    return (
        f"{containers.prepare(run)}{ENVIRONMENT}{containers.environment(run)}"
        f'exec "$@" {containers.command(run, number)}'.rstrip()
    )


def _options(run: Run, job: Resources) -> list[str]:
    asked = run.resources
    words = [
        f"--ntasks={asked.tasks or 1}",
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
    return words
