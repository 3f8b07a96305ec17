"""One `run`: an srun step that executes a command on the host."""

from __future__ import annotations

from deepsquare.compiler.quoting import quote, write_file
from deepsquare.workflow.models import Resources, Run

# What earlier steps left in $DEEPSQUARE_ENV is data: it is split and exported, never executed.
_EXPORTED_BEFORE = """\
while IFS= read -r line || [ -n "$line" ]; do
    key=${line%%=*}
    case $key in
    PATH | LD_LIBRARY_PATH | "$line" | *[!A-Za-z0-9_]* | [0-9]* | '') echo "Ignored a line of DEEPSQUARE_ENV: no KEY=value" >&2 ;;
    *) export "$key=${line#*=}" ;;
    esac
done <"$DEEPSQUARE_ENV"
unset line key
"""


def compile_run(run: Run, job: Resources, number: int) -> str:
    """Shell lines that run one command, and end the script with its exit code when it fails.

    The command and the environment go into files of mode 0600, so that they are in no process list.

    Args:
        run: the step.
        job: the job's resources, the default of the step's.
        number: its place in the order of execution, from 1.
    """
    command, launcher = f'"$private/command-{number}"', f'"$private/step-{number}"'
    step_env = "".join(f"export {variable.key}={quote(variable.value)}\n" for variable in run.env)
    shell = run.shell or "/bin/bash"
    directory = '"$STORAGE_PATH"' if run.work_dir is None else quote(run.work_dir)
    launch = (
        # One pipe for both, so that lines stay in the order in which they are written.
        'exec 2>&1\nprivate=${0%/*}\n. "$private/environment"\n'
        + _EXPORTED_BEFORE
        + f'command="$private/command-{number}"\ncd {directory} || exit\nunset private\n'
        + step_env
        + f'exec {shell} "$command"'
    )
    return (
        f"\n# Step {number}\n"
        + write_file(command, run.command)
        + write_file(launcher, launch)
        + f"{' '.join(_srun(run, job))} /bin/bash {launcher} &\n"
        + 'step=$!\nwait "$step"\ncode=$?\nstep=\n[ "$code" -eq 0 ] || exit "$code"\n'
    )


def _srun(run: Run, job: Resources) -> list[str]:
    asked = run.resources
    words = [
        "srun",
        f"--ntasks={asked.tasks or 1}",
        f"--cpus-per-task={asked.cpus_per_task or job.cpus_per_task}",
        f"--mem-per-cpu={asked.mem_per_cpu or job.mem_per_cpu}M",
        "--kill-on-bad-exit=1",
        "--quiet",
    ]
    if asked.gpus_per_task:
        words.append(f"--gpus-per-task={asked.gpus_per_task}")
    if run.disable_cpu_binding:
        words.append("--cpu-bind=none")
    return words
