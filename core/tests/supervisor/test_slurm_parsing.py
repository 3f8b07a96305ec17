from __future__ import annotations

import pytest
from deepsquare.errors import ConfigError, SchedulerError
from deepsquare.grid.supervisor.hosts.local import own_account
from deepsquare.grid.supervisor.schedulers.base import BatchState, Phase
from deepsquare.grid.supervisor.schedulers.slurm.answers import gpus, new_separator, parse

JOB = "0x" + "0" * 63 + "1"
MARK = "deepsquare:1:0x1"

SEPARATOR = new_separator()


def line(
    state: str,
    start: str,
    end: str,
    code: int | str,
    reason: str,
    *,
    nodes: str = "n1",
    limit: str = "1:00",
    restarts: str = "0",
    name: str = JOB,
    comment: str = MARK,
    used: str = "1:05",
) -> str:
    fields = [
        "17",
        name,
        comment,
        "1001",
        "1795531600",
        state,
        start,
        end,
        used,
        str(code),
        nodes,
        limit,
        restarts,
        reason,
    ]
    return "".join(f"{field}{SEPARATOR}" for field in fields) + "\n"


def parsed(text: str, program: str) -> tuple[str, BatchState]:
    (job,) = parse(text, SEPARATOR, program, MARK)
    return job


@pytest.mark.parametrize(
    ("state", "code", "phase", "exit_code", "signal"),
    [
        ("PENDING", 0, Phase.QUEUED, 0, 0),
        ("RUNNING", 0, Phase.RUNNING, 0, 0),
        ("COMPLETING", 0, Phase.RUNNING, 0, 0),
        ("COMPLETED", 0, Phase.COMPLETED, 0, 0),
        ("FAILED", 768, Phase.FAILED, 3, 0),
        ("FAILED", 9, Phase.FAILED, 0, 9),
        ("CANCELLED", 15, Phase.CANCELLED, 0, 15),
        ("TIMEOUT", 0, Phase.TIMED_OUT, 0, 0),
        ("OUT_OF_MEMORY", 125, Phase.FAILED, 0, 125),
        ("NODE_FAIL", 0, Phase.LOST, 0, 0),
    ],
)
def test_states_of_slurm(state: str, code: int, phase: Phase, exit_code: int, signal: int) -> None:
    name, found = parsed(line(state, "1795531625", "1795531626", code, "None"), "squeue")
    assert name == JOB
    assert (found.phase, found.exit_code, found.signal) == (phase, exit_code, signal)
    assert found.start_time == 1795531625
    assert found.end_time == (1795531626 if phase.is_end else 0)
    assert found.scheduler_id == "17"


def test_times_that_are_not_there_yet() -> None:
    _, found = parsed(line("PENDING", "N/A", "N/A", 0, "Resources", nodes=""), "squeue")
    assert (found.start_time, found.end_time, found.reason) == (0, 0, "PENDING (Resources)")


def test_a_job_that_never_had_a_node_never_started() -> None:
    _, waiting = parsed(line("PENDING", "1795531625", "1795531685", 0, "Priority", nodes=""), "squeue")
    _, cancelled = parsed(line("CANCELLED", "1795531625", "1795531625", 0, "Priority", nodes=""), "squeue")
    assert (waiting.start_time, cancelled.start_time) == (0, 0)


@pytest.mark.parametrize(
    ("state", "code", "phase", "exit_code", "signal"),
    [
        ("COMPLETED", "0:0", Phase.COMPLETED, 0, 0),
        ("FAILED", "3:0", Phase.FAILED, 3, 0),
        ("CANCELLED by 1000", "0:15", Phase.CANCELLED, 0, 15),
        ("CANCELLED", "0:0", Phase.LOST, 0, 0),
        ("OUT_OF_MEMORY", "0:125", Phase.FAILED, 0, 125),
        ("TIMEOUT", "0:0", Phase.TIMED_OUT, 0, 0),
    ],
)
def test_states_of_the_accounting(state: str, code: str, phase: Phase, exit_code: int, signal: int) -> None:
    _, found = parsed(line(state, "1795531625", "1795531626", code, ""), "sacct")
    assert (found.phase, found.exit_code, found.signal) == (phase, exit_code, signal)
    _, never = parsed(line("CANCELLED by 0", "None", "1795531626", "0:0", "None", nodes="None assigned"), "sacct")
    assert (never.phase, never.start_time) == (Phase.CANCELLED, 0)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("1:00", 1),
        ("0:30", 0),
        ("1:02:00", 62),
        ("2-00:00:00", 2880),
        ("UNLIMITED", None),
        ("NOT_SET", None),
        ("", None),
    ],
)
def test_time_limits(text: str, minutes: int | None) -> None:
    assert parsed(line("RUNNING", "1", "N/A", 0, "None", limit=text), "squeue")[1].minutes == minutes


@pytest.mark.parametrize(
    ("state", "code", "reason", "restarts", "phase"),
    [
        ("PENDING", 0, "BeginTime", "1", Phase.REQUEUED),
        ("PENDING", 0, "launch_failed_requeued_held", "0", Phase.REQUEUED),
        ("PENDING", 0, "JobHeldAdmin", "0", Phase.QUEUED),
        ("PENDING", 0, "PartitionTimeLimit", "0", Phase.STUCK),
        ("CANCELLED", 0, "None", "1", Phase.CANCELLED),
        ("FAILED", 3 << 8, "NonZeroExitCode", "1", Phase.FAILED),
        ("COMPLETED", 0, "None", "1", Phase.COMPLETED),
    ],
)
def test_jobs_that_somebody_starts_again(state: str, code: int, reason: str, restarts: str, phase: Phase) -> None:
    assert parsed(line(state, "1", "2", code, reason, restarts=restarts), "squeue")[1].phase is phase


@pytest.mark.parametrize(
    ("comment", "in_the_queue", "in_accounting"),
    [
        (MARK, False, False),
        ("deepsquare:2:0x1", True, True),
        ("x", True, True),
        # Accounting keeps comments only if it is told to; the queue always.
        ("", True, False),
        ("(null)", True, False),
    ],
)
def test_jobs_of_another_grid_on_the_same_cluster(comment: str, in_the_queue: bool, in_accounting: bool) -> None:
    text = line("RUNNING", "1", "N/A", 0, "None", comment=comment)
    assert parsed(text, "squeue")[1].is_foreign is in_the_queue
    assert parsed(text, "sacct")[1].is_foreign is in_accounting


@pytest.mark.parametrize(("used", "seconds"), [("0:07", 7), ("2:01:00", 7260), ("1-00:00:01", 86401), ("INVALID", 0)])
def test_what_is_billed_is_the_time_that_a_job_ran(used: str, seconds: int) -> None:
    found = parsed(line("COMPLETED", "1795531625", "1795631626", 0, "None", used=used), "squeue")[1]
    assert (found.ran_seconds, found.uid, found.submitted_at) == (seconds, 1001, 1795531600)


def test_a_line_that_is_not_understood_is_an_error() -> None:
    with pytest.raises(SchedulerError, match="not understood"):
        parse("slurm_load_jobs error", SEPARATOR, "squeue", MARK)


@pytest.mark.parametrize(
    ("gres", "count"),
    [("(null)", 0), ("gpu:4", 4), ("gpu:a100:4(S:0-1),shard:8", 4), ("gpu:a100:2,gpu:v100:1", 3), ("gpu", 1)],
)
def test_gpus_of_a_node(gres: str, count: int) -> None:
    assert gpus(gres) == count


def test_jobs_never_run_as_root() -> None:
    with pytest.raises(ConfigError, match="never run as root"):
        own_account("root")
    with pytest.raises(ConfigError, match="does not exist"):
        own_account("nobody-of-that-name")


def test_a_name_can_be_any_text_and_changes_no_other_job() -> None:
    victim = line("RUNNING", "1", "N/A", 0, "None")
    forged = f"x\n5{SEPARATOR[:1]}{JOB}{SEPARATOR[:1]}COMPLETED\n"
    attacker = line("RUNNING", "1", "N/A", 0, "None", name=forged)
    jobs = parse(attacker + victim, SEPARATOR, "squeue", MARK)
    assert [state.phase for _, state in jobs] == [Phase.RUNNING, Phase.RUNNING]
    assert [name for name, _ in jobs] == [forged.strip(), JOB]
    assert parse("", SEPARATOR, "squeue", MARK) == []
    assert new_separator() != new_separator()
