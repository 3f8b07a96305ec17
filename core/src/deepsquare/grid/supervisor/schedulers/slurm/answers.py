"""What Slurm's commands are asked for, and what they answer."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from deepsquare.errors import SchedulerError
from deepsquare.grid.supervisor.labels import NodeFacts
from deepsquare.grid.supervisor.schedulers.base import BatchState, Phase

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

# Why Slurm lets jobs wait that it will never start; by default it takes them all the same (EnforcePartLimits=NO).
_NEVER = frozenset(
    {
        "PartitionTimeLimit",
        "AssocMaxWallDurationPerJobLimit",
        "QOSMaxWallDurationPerJobLimit",
        "DependencyNeverSatisfied",
        "BadConstraints",
    }
)

# [days-][hours:]minutes:seconds, as squeue and sacct print times.
_DURATION = re.compile(r"(?:(?P<days>\d+)-)?(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+)")


_FIELDS = (
    *("JobID", "Name", "Comment", "UserID", "SubmitTime", "State", "StartTime", "EndTime", "TimeUsed", "exit_code"),
    *("NodeList", "TimeLimit", "RestartCnt", "Reason"),
)
# The same of sacct, whose older versions know no number of restarts: a field that is always there takes its place.
_ACCOUNTING_FIELDS = (
    "JobIDRaw,JobName,Comment,UID,Submit,State,Start,End,Elapsed,ExitCode,NodeList,Timelimit,Flags,Reason"
)


def new_separator() -> str:
    """What parts the fields of one answer: nobody can have put it into the name of a job, which may be any text."""
    return f"\x1f{secrets.token_hex(8)}"


def queue_format(separator: str) -> str:
    """The option of squeue that asks for what `parse` reads."""
    return "--Format=" + ",".join(f"{field}:{separator}" for field in _FIELDS)


def accounting_format(separator: str) -> list[str]:
    """The same of sacct."""
    return ["--parsable", f"--delimiter={separator}", f"--format={_ACCOUNTING_FIELDS}"]


def parse(text: str, separator: str, program: str, mark: str) -> list[tuple[str, BatchState]]:
    """Names and states of jobs, from an answer of squeue or sacct; `mark` is the comment of jobs of this grid.

    Raises:
        SchedulerError: the answer is not understood.
    """
    # Each field has a separator behind it, each job a newline behind that.
    *fields, rest = text.split(separator)
    if len(fields) % len(_FIELDS) or rest.strip():
        raise SchedulerError(f"{program} gave an answer that is not understood, of {len(fields)} fields")
    return [
        _job([field.strip() for field in fields[start : start + len(_FIELDS)]], program, mark)
        for start in range(0, len(fields), len(_FIELDS))
    ]


def _job(fields: list[str], program: str, mark: str) -> tuple[str, BatchState]:
    scheduler_id, name, comment, uid, submitted, state, start, end, used, code, nodes, limit, restarts, reason = fields
    exit_code, signal = _exit_code(code)
    # "CANCELLED by 0" in accounting, "CANCELLED+" where it is cut off.
    phase = _PHASES.get(re.split(r"[+ ]", state)[0], Phase.RUNNING)
    restarted = restarts.isdigit() and int(restarts) > 0
    if phase is Phase.QUEUED and (restarted or ("launch" in reason and "held" in reason)):
        phase = Phase.REQUEUED
    elif phase is Phase.QUEUED and reason in _NEVER:
        phase = Phase.STUCK
    elif program == "sacct" and state == "CANCELLED":
        # Whom somebody cancelled is "CANCELLED by UID". Without, it is what the controller did not know when it came back.
        phase = Phase.LOST
    return name, BatchState(
        scheduler_id=scheduler_id,
        phase=phase,
        # Slurm gives a job that was cancelled in its queue a start, and one that waits an expected start, but no node.
        start_time=_seconds(start) if nodes not in ("", "None assigned") else 0,
        end_time=_seconds(end) if phase.is_end else 0,
        exit_code=exit_code,
        signal=signal,
        reason=state if reason in ("None", "") else f"{state} ({reason})",
        minutes=None if (seconds := _duration(limit)) is None else seconds // 60,
        restarted=restarted,
        # Accounting keeps comments only where AccountingStoreFlags says so.
        is_foreign=comment != mark and (program != "sacct" or comment not in ("", "(null)")),
        uid=int(uid) if uid.isdigit() else -1,
        submitted_at=_seconds(submitted),
        ran_seconds=_duration(used) or 0,
    )


def _exit_code(text: str) -> tuple[int, int]:
    """Code and signal, of wait(2)'s number as squeue has it or of sacct's `code:signal`."""
    if text.isdigit():
        return (int(text) >> 8) & 0xFF, int(text) & 0x7F
    code, _, signal = text.partition(":")
    return (int(code), int(signal)) if code.isdigit() and signal.isdigit() else (0, 0)


def _seconds(text: str) -> int:
    if text.isdigit():
        return int(text)
    # Older squeue ignores SLURM_TIME_FORMAT; the time is that of TZ, which is UTC.
    try:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
    except ValueError:
        return 0


def _duration(text: str) -> int | None:
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


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
