"""What Slurm's commands are asked for, and what they answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from deepsquare.compiler import EXIT_STARTED_BEFORE
from deepsquare.errors import SchedulerError
from deepsquare.grid.supervisor.labels import NodeFacts
from deepsquare.grid.supervisor.schedulers.base import BatchState, Phase

# The unit separator can't be in any of the fields asked for.
_SEPARATOR = "\x1f"

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

# [days-][hours:]minutes:seconds, as squeue and sacct print a time limit.
_LIMIT = re.compile(r"(?:(?P<days>\d+)-)?(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+)")


_FIELDS = (
    *("JobID", "Name", "State", "StartTime", "EndTime", "exit_code", "NodeList", "TimeLimit", "RestartCnt", "Reason"),
)
QUEUE_FORMAT = "--Format=" + ",".join(f"{field}:{_SEPARATOR}" for field in _FIELDS)
"""What squeue is asked for."""
ACCOUNTING_FORMAT = (
    "--parsable2",
    f"--delimiter={_SEPARATOR}",
    # Older sacct knows no number of restarts: a field that is always there takes its place.
    "--format=JobIDRaw,JobName,State,Start,End,ExitCode,NodeList,Timelimit,Flags,Reason",
)
"""The same of sacct."""


def parse(line: str, program: str) -> tuple[str, BatchState]:
    """A job's name and state, from a line of squeue or sacct.

    Raises:
        SchedulerError: the line is not understood.
    """
    fields = [field.strip() for field in line.split(_SEPARATOR)[: len(_FIELDS)]]
    if len(fields) != len(_FIELDS):
        raise SchedulerError(f"{program} answered with a line that is not understood: {line!r}")
    scheduler_id, name, state, start, end, code, nodes, limit, restarts, reason = fields
    exit_code, signal = _exit_code(code)
    # "CANCELLED by 0" in accounting, "CANCELLED+" where it is cut off.
    phase = _PHASES.get(re.split(r"[+ ]", state)[0], Phase.RUNNING)
    if _was_restarted(restarts):
        # Somebody made Slurm start it again, which --no-requeue is against, and its script refused.
        if phase is Phase.QUEUED:
            phase = Phase.REQUEUED
        elif phase is Phase.CANCELLED or (phase is Phase.FAILED and exit_code == EXIT_STARTED_BEFORE):
            phase = Phase.LOST
    elif phase is Phase.QUEUED and "launch" in reason and "held" in reason:
        phase = Phase.REQUEUED
    return name, BatchState(
        scheduler_id=scheduler_id,
        phase=phase,
        # Slurm gives a job that was cancelled in its queue a start, and one that waits an expected start, but no node.
        start_time=_seconds(start) if nodes not in ("", "None assigned") else 0,
        end_time=_seconds(end) if phase.is_end else 0,
        exit_code=exit_code,
        signal=signal,
        reason=state if reason in ("None", "") else f"{state} ({reason})",
        minutes=_minutes(limit),
    )


def _was_restarted(text: str) -> bool:
    return text.isdigit() and int(text) > 0


def _exit_code(text: str) -> tuple[int, int]:
    """Code and signal, of wait(2)'s number as squeue has it or of sacct's `code:signal`."""
    if text.isdigit():
        return (int(text) >> 8) & 0xFF, int(text) & 0x7F
    code, _, signal = text.partition(":")
    return (int(code), int(signal)) if code.isdigit() and signal.isdigit() else (0, 0)


def _seconds(text: str) -> int:
    if text.isdigit():
        return int(text)
    # Older squeue ignores SLURM_TIME_FORMAT and prints local time.
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except ValueError:
        return 0


def _minutes(text: str) -> int | None:
    found = _LIMIT.fullmatch(text)
    if found is None:
        return None
    days, hours, minutes, _ = (int(part or 0) for part in found.groups())
    return (days * 24 + hours) * 60 + minutes


def node_facts(line: str, partition: str) -> NodeFacts | None:
    """What a line of `scontrol show node --oneliner` tells of a node; None for one of other partitions."""

    def field(name: str) -> str:
        # Values may hold spaces, such as that of OS; the next field begins with a word and `=`.
        found = re.search(rf"(?:^|\s){name}=(.*?)(?=\s+\w+=|\s*$)", line)
        return found[1] if found else ""

    if partition not in field("Partitions").split(","):
        return None
    return NodeFacts(os=field("OS"), machine=field("Arch"), gres=field("Gres"))


def gpus(gres: str) -> int:
    """The GPUs in a node's gres, such as `gpu:a100:4(S:0-1),shard:8`."""
    total = 0
    for entry in gres.split(","):
        parts = entry.split("(")[0].split(":")
        if parts[0] == "gpu":
            total += int(parts[-1]) if parts[-1].isdigit() else 1
    return total


def list_of(values: Sequence[object]) -> str:
    """Several values as one argument of Slurm's."""
    return ",".join(map(str, values))
