"""Slurm through its own commands on this host."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from deepsquare.chain.types import Hardware
from deepsquare.errors import SchedulerError
from deepsquare.grid.supervisor.schedulers.base import (
    BatchJob,
    BatchState,
    NotSubmittedError,
    Phase,
    RefusedError,
    jobs_account,
)

_COMMAND_TIMEOUT_SECONDS = 60.0
# The unit separator can't be in any of the fields asked for.
_SEPARATOR = "\x1f"
_STATE_FIELDS = ("JobID", "Name", "State", "StartTime", "EndTime", "exit_code", "NodeList", "Reason")

_PHASES = {
    "PENDING": Phase.QUEUED,
    "CONFIGURING": Phase.QUEUED,
    "REQUEUED": Phase.QUEUED,
    "REQUEUE_HOLD": Phase.QUEUED,
    "REQUEUE_FED": Phase.QUEUED,
    "SPECIAL_EXIT": Phase.QUEUED,
    "RESV_DEL_HOLD": Phase.QUEUED,
    "RUNNING": Phase.RUNNING,
    "COMPLETING": Phase.RUNNING,
    "STAGE_OUT": Phase.RUNNING,
    "SIGNALING": Phase.RUNNING,
    "RESIZING": Phase.RUNNING,
    "STOPPED": Phase.RUNNING,
    "SUSPENDED": Phase.RUNNING,
    "COMPLETED": Phase.COMPLETED,
    "FAILED": Phase.FAILED,
    "OUT_OF_MEMORY": Phase.FAILED,
    "CANCELLED": Phase.CANCELLED,
    "TIMEOUT": Phase.TIMED_OUT,
    "DEADLINE": Phase.TIMED_OUT,
    "NODE_FAIL": Phase.LOST,
    "BOOT_FAIL": Phase.LOST,
    "PREEMPTED": Phase.LOST,
    "REVOKED": Phase.LOST,
}
# What sbatch says when no later try would go better, in Slurm's own words (src/common/slurm_errno.c).
_REFUSALS = (
    "Requested node configuration is not available",
    "Memory specification can not be satisfied",
    "More processors requested than permitted",
    "Requested time limit is invalid",
    "Node count specification invalid",
    "Invalid generic resource (gres) specification",
)
# With these words sbatch does not know itself whether the controller has got the job.
_UNCERTAIN = ("timed out", "Zero Bytes were transmitted", "Unexpected message received")
_NOT_SUBMITTED = "Batch job submission failed:"
_UP = frozenset({"idle", "mix", "alloc", "comp", "plnd", "resv"})


class Slurm:
    """Slurm's commands, run as the account that jobs belong to."""

    def __init__(self, *, account: str, partition: str = "main", slurm_conf: Path | None = None) -> None:
        """`slurm_conf` None means the cluster that the commands find by themselves.

        Raises:
            ConfigError: there is no such account, or it is root.
        """
        entry = jobs_account(account)
        self.uid, self.gid = entry.pw_uid, entry.pw_gid
        self._partition = partition
        self._environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LANG": "C.UTF-8",
            "USER": account,
            "LOGNAME": account,
            "HOME": "/",
            "SLURM_TIME_FORMAT": "%s",
        }
        if slurm_conf is not None:
            self._environment["SLURM_CONF"] = str(slurm_conf)

    async def submit(self, job: BatchJob) -> str:
        """See `Scheduler.submit`. The script travels on standard input, so it is in no process list and no spool of ours."""
        if job.minutes < 1:
            # Slurm takes --time=0 for no limit at all.
            raise RefusedError(f"a time limit of {job.minutes} minutes buys no run time")
        names = [*job.variables, *(["SLURM_CONF"] if "SLURM_CONF" in self._environment else [])]
        output = await self._run(
            "sbatch",
            "--parsable",
            f"--job-name={job.name}",
            f"--partition={self._partition}",
            f"--time={job.minutes}",
            f"--ntasks={job.tasks}",
            f"--cpus-per-task={job.cpus_per_task}",
            f"--mem-per-cpu={job.mem_per_cpu_mb}M",
            *([f"--gpus={job.gpus}"] if job.gpus else []),
            f"--output={str(job.output).replace('%', '%%')}",
            "--open-mode=append",
            "--no-requeue",
            "--chdir=/",
            # Names only: the values come from the environment of sbatch itself.
            f"--export={','.join([*names, 'PATH', 'LANG', 'USER', 'LOGNAME'])}",
            stdin=job.script,
            variables=dict(job.variables),
        )
        return output.strip().split(";")[0]

    async def states(self) -> list[tuple[str, BatchState]]:
        """See `Scheduler.states`."""
        output = await self._run(
            "squeue",
            "--noheader",
            "--states=all",
            f"--user={self.uid}",
            "--sort=i",
            "--Format=" + ",".join(f"{field}:{_SEPARATOR}" for field in _STATE_FIELDS),
        )
        return [_parse(line) for line in output.splitlines() if line]

    async def cancel(self, scheduler_id: str) -> None:
        """See `Scheduler.cancel`."""
        await self._run("scancel", "--quiet", scheduler_id)

    async def set_time_limit(self, scheduler_id: str, minutes: int) -> None:
        """See `Scheduler.set_time_limit`: only root and SlurmUser may raise a limit."""
        await self._run("scontrol", "update", f"JobId={scheduler_id}", f"TimeLimit={minutes}", as_operator=True)

    async def probe(self) -> Hardware:
        """See `Scheduler.probe`: CPUs, memory and GPUs of each node of the partition that is not down.

        Raises:
            SchedulerError: the partition has no node.
        """
        output = await self._run(
            "sinfo", "--noheader", "--Node", f"--partition={self._partition}", "--format=%N %c %m %G %t"
        )
        nodes = [line.split() for line in output.splitlines()]
        # A node's state may carry a flag, such as `idle*` for one that doesn't answer.
        nodes = [node for node in nodes if node[4] in _UP]
        if not nodes:
            raise SchedulerError(
                f"the partition {self._partition!r} of this Slurm has no node that is up (sinfo shows them)"
            )
        return Hardware(
            gpus=tuple(_gpus(node[3]) for node in nodes),
            cpus=tuple(int(node[1]) for node in nodes),
            mem_mb=tuple(int(node[2].rstrip("+")) for node in nodes),
        )

    async def _run(
        self,
        program: str,
        *arguments: str,
        stdin: str = "",
        variables: dict[str, str] | None = None,
        as_operator: bool = False,
    ) -> str:
        """Run a command as the account of the jobs, or as the own one, and return what it says."""
        # Only root can become another account; others submit under their own.
        changes_account = os.geteuid() == 0 and not as_operator
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._environment | (variables or {}),
                cwd="/",
                user=self.uid if changes_account else None,
                group=self.gid if changes_account else None,
                extra_groups=() if changes_account else None,
                umask=0o077,
            )
        except FileNotFoundError:
            raise NotSubmittedError(
                f"{program} is not installed on this host (Debian's package: slurm-client)"
            ) from None
        except OSError as error:
            raise NotSubmittedError(f"{program} can't be started: {error.strerror}") from None
        try:
            output, errors = await asyncio.wait_for(process.communicate(stdin.encode()), _COMMAND_TIMEOUT_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise SchedulerError(
                f"{program} gave no answer in {_COMMAND_TIMEOUT_SECONDS:.0f} s; is slurmctld running?"
            ) from None
        if process.returncode == 0:
            return output.decode("utf-8", "replace")
        text = errors.decode("utf-8", "replace").strip().replace(f"{program}: error: ", "")
        if program == "sbatch" and any(words in text for words in _REFUSALS):
            raise RefusedError(text)
        if program == "sbatch" and _NOT_SUBMITTED in text and not any(words in text for words in _UNCERTAIN):
            raise NotSubmittedError(text)
        raise SchedulerError(f"{program} failed: {text or f'exit code {process.returncode}'}")


def _parse(line: str) -> tuple[str, BatchState]:
    scheduler_id, name, state, start, end, code, nodes, reason = _split(line)
    phase = _PHASES.get(state.split("+")[0].split(" ")[0], Phase.RUNNING)
    raw = int(code) if code.isdigit() else 0
    return name, BatchState(
        scheduler_id=scheduler_id,
        phase=phase,
        # Slurm gives a job that was cancelled in its queue a start, and one that waits an expected start, but no node.
        start_time=_seconds(start) if nodes else 0,
        end_time=_seconds(end) if phase.is_end else 0,
        exit_code=(raw >> 8) & 0xFF,
        signal=raw & 0x7F,
        reason=state if reason in ("None", "") else f"{state} ({reason})",
    )


def _split(line: str) -> Sequence[str]:
    fields = line.split(_SEPARATOR)[: len(_STATE_FIELDS)]
    if len(fields) != len(_STATE_FIELDS):
        raise SchedulerError(f"squeue answered with a line that is not understood: {line!r}")
    return [field.strip() for field in fields]


def _seconds(text: str) -> int:
    if text.isdigit():
        return int(text)
    # Older squeue ignores SLURM_TIME_FORMAT and prints local time.
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except ValueError:
        return 0


def _gpus(gres: str) -> int:
    """The GPUs in a node's gres, such as `gpu:a100:4(S:0-1),shard:8`."""
    total = 0
    for entry in gres.split(","):
        parts = entry.split("(")[0].split(":")
        if parts[0] == "gpu":
            total += int(parts[-1]) if parts[-1].isdigit() else 1
    return total
