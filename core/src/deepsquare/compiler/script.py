"""The batch script of a workflow."""

from __future__ import annotations

from deepsquare.compiler.flow import FUNCTIONS, IMAGE_FUNCTIONS, MODULE_FUNCTIONS, Flow, group
from deepsquare.compiler.network import GATEWAY_FUNCTIONS, Networks
from deepsquare.compiler.quoting import quote, write_file
from deepsquare.compiler.staging import FUNCTIONS as STAGE_FUNCTIONS
from deepsquare.compiler.staging import SYNC_FUNCTIONS, Staging
from deepsquare.compiler.steps import CACHES, PASSED_ON, Runs
from deepsquare.workflow.models import Resources, Workflow
from deepsquare.workflow.modules import ResolvedUse
from deepsquare.workflow.problems import Problem, WorkflowError, path_text

LATE_BOUND = (
    "DEEPSQUARE_SHARED_ROOT",
    "DEEPSQUARE_PERSISTENT_ROOT",
    "DEEPSQUARE_WORLD_TMP_ROOT",
    "DEEPSQUARE_DISK_ROOT",
    "DEEPSQUARE_RUNTIME",
    "DEEPSQUARE_APPTAINER",
    "DEEPSQUARE_ENROOT",
    "DEEPSQUARE_S5CMD",
    "DEEPSQUARE_BORE",
    "DEEPSQUARE_IMAGES_ROOT",
    "DEEPSQUARE_BINDS",
)
"""The variables that a supervisor may set at submission; the package's description says what they mean."""

EXIT_STARTED_BEFORE = 120
"""The exit code of a script that finds that its job was started before."""

_HEAD = f"""\
#!/bin/bash
# shellcheck disable=SC1003,SC2016,SC2030,SC2031,SC2034
# Made by DeepSquare's compiler. What a provider decides comes in variables: DEEPSQUARE_SHARED_ROOT and others.
set -u
umask 077
account=$(id -u)
shared=${{DEEPSQUARE_SHARED_ROOT:-/opt/cache/shared}}/$account

# A job runs once. Making a folder either works or finds it made: of two starts, one wins.
mkdir -p "$shared/started" || exit 1
if ! mkdir "$shared/started/$SLURM_JOB_NAME"; then
    [ -d "$shared/started/$SLURM_JOB_NAME" ] || exit 1
    echo "This job was started before, and is not started again." >&2
    exit {EXIT_STARTED_BEFORE}
fi

export STORAGE_PATH="$shared/$SLURM_JOB_NAME.$SLURM_JOB_ID"
# What steps in containers don't see: the scripts, and with them the job's keys.
private=$shared/.$SLURM_JOB_NAME.$SLURM_JOB_ID
no_room() {{
    echo "deepsquare: the files of this job can't be written: is the provider's disk full?" >&2
    exit 1
}}
# remove FOLDER: a second time for what a step made read-only.
remove() {{
    rm -rf "$1" 2>/dev/null || {{ chmod -R u+rwX "$1"; rm -rf "$1"; }}
}}
clean_up() {{
    cd /
    local process
    for process in ${{gateways:-}} ${{syncing:-}}; do kill -s TERM "$process" 2>/dev/null; done
    remove "$private"
    remove "$STORAGE_PATH"
}}
trap clean_up EXIT
# Before there are steps.
trap 'exit 143' TERM INT
"""

_FOLDERS = """
export DEEPSQUARE_INPUT="$STORAGE_PATH/input"
export DEEPSQUARE_OUTPUT="$STORAGE_PATH/output"
export DEEPSQUARE_ENV="$STORAGE_PATH/env"
export DEEPSQUARE_SHARED_TMP="${DEEPSQUARE_PERSISTENT_ROOT:-/opt/cache/persistent}/user-$account"
export DEEPSQUARE_TMP="$DEEPSQUARE_SHARED_TMP"
export DEEPSQUARE_SHARED_WORLD_TMP="${DEEPSQUARE_WORLD_TMP_ROOT:-/opt/cache/world-tmp}"
export DEEPSQUARE_DISK_TMP="${DEEPSQUARE_DISK_ROOT:-/opt/cache/disk}/tmp/user-$account"
export DEEPSQUARE_DISK_WORLD_TMP="${DEEPSQUARE_DISK_ROOT:-/opt/cache/disk}/world-tmp"
mkdir -p "$private/images" "$STORAGE_PATH/.deepsquare/home" "$DEEPSQUARE_INPUT" "$DEEPSQUARE_OUTPUT" || no_room
: >"$DEEPSQUARE_ENV" || no_room
# Homes are shared by all jobs of an account, so that each job gets one of its own.
export HOME="$STORAGE_PATH/.deepsquare/home"
if [ -n "${DEEPSQUARE_RUNTIME:-}" ]; then export PATH="$DEEPSQUARE_RUNTIME/bin:$PATH"; fi
# sbatch --export=NAMES would make srun pass on those names alone.
export SLURM_EXPORT_ENV=ALL
# What sbatch was asked for is no step's request: each says for itself what GPUs it takes.
unset SLURM_GPUS SLURM_GPUS_PER_NODE SLURM_GPUS_PER_TASK SLURM_GRES
"""

_VARIABLES = (
    "STORAGE_PATH",
    "DEEPSQUARE_INPUT",
    "DEEPSQUARE_OUTPUT",
    "DEEPSQUARE_ENV",
    "DEEPSQUARE_TMP",
    "DEEPSQUARE_SHARED_TMP",
    "DEEPSQUARE_SHARED_WORLD_TMP",
    "DEEPSQUARE_DISK_TMP",
    "DEEPSQUARE_DISK_WORLD_TMP",
    "NTASKS",
    "CPUS_PER_TASK",
    "MEM_PER_CPU",
    "GPUS",
    "CPUS",
    "MEM",
)


def compile_workflow(workflow: Workflow) -> str:
    """The bash script that runs a workflow inside of an sbatch allocation.

    Resources are not in it: the supervisor gives them to sbatch.

    Raises:
        WorkflowError: a step uses a module that was not fetched (`deepsquare.workflow.modules.resolve`).
    """
    _refuse_modules(workflow)
    networks = Networks(workflow)
    runs = Runs(workflow.resources, networks)
    flow = Flow(workflow.steps, workflow.resources, runs)
    stages = Staging(workflow)
    parts = [_HEAD, *_pins(workflow)]
    if workflow.enable_logging is False:
        parts.append("exec >/dev/null 2>&1\n")
    parts += [_FOLDERS, _resources(workflow.resources)]
    job_env = "".join(f"export {variable.key}={quote(variable.value)}\n" for variable in workflow.env)
    parts.append("\n# What each step sees: the job's own environment, what earlier steps left, then these variables.\n")
    parts.append(write_file('"$private/environment"', job_env.rstrip("\n")))
    parts.append(f'declare -p {" ".join(_VARIABLES)} >"$private/variables" || no_room\n')
    parts.append(write_file('"$private/passed-on"', PASSED_ON.rstrip("\n")))
    parts.append(write_file('"$private/caches"', CACHES.rstrip("\n")))
    parts.append('/bin/bash "$private/caches"\n')
    parts.append("\n# What the steps run.\n")
    parts += [*flow.files, *runs.shared_files(), *stages.files, FUNCTIONS]
    optional = {
        IMAGE_FUNCTIONS: runs.fetches,
        MODULE_FUNCTIONS: flow.exports,
        STAGE_FUNCTIONS: stages.is_used,
        SYNC_FUNCTIONS: stages.syncs,
        GATEWAY_FUNCTIONS: bool(workflow.virtual_networks),
    }
    parts += [text for text, is_used in optional.items() if is_used]
    steps = group(*flow.lines) if stages.syncs else flow.lines
    lines = [*networks.lines(), *stages.before(), *steps, *stages.behind()]
    parts += ["\n# The steps.\n", *(f"{line}\n" for line in lines)]
    return "".join(parts)


def _pins(workflow: Workflow) -> list[str]:
    """What the modules were when the script was made, for people who read it."""
    uses = (step.use for _, step in workflow.located_steps())
    pins = (
        f"# The module {use.source} is that of commit {use.commit}.\n" for use in uses if isinstance(use, ResolvedUse)
    )
    return list(dict.fromkeys(pins))


def _refuse_modules(workflow: Workflow) -> None:
    problems = [
        Problem(path_text((*place, "use")), "is a module, whose steps the sbatch API fetches; they are not here", "use")
        for place, step in workflow.located_steps()
        if step.use is not None and not isinstance(step.use, ResolvedUse)
    ]
    if problems:
        raise WorkflowError(problems)


def _resources(resources: Resources) -> str:
    cpus = resources.tasks * resources.cpus_per_task
    values = {
        "NTASKS": resources.tasks,
        "CPUS_PER_TASK": resources.cpus_per_task,
        "MEM_PER_CPU": resources.mem_per_cpu,
        "GPUS": resources.gpus,
        "CPUS": cpus,
        "MEM": cpus * resources.mem_per_cpu,
    }
    return "".join(f"export {name}={value}\n" for name, value in values.items())
