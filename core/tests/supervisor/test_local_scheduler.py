"""The local scheduler with real processes: limits, order, accounts, and what happens when somebody is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shlex
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
from deepsquare.compiler import compile_workflow
from deepsquare.errors import ConfigError
from deepsquare.grid.supervisor.hosts.local import own_account
from deepsquare.grid.supervisor.schedulers.base import BatchJob, BatchState, Phase, RefusedError
from deepsquare.grid.supervisor.schedulers.local import runner
from deepsquare.grid.supervisor.schedulers.local.queue import JobQueue
from deepsquare.grid.supervisor.schedulers.local.scheduler import Local, stop
from deepsquare.workflow import from_dict

# Whoever runs the tests as root has jobs run as somebody else, as operators do.
ACCOUNT = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
_WAIT_SECONDS = 30.0


class Machine:
    """A local scheduler, and what a supervisor would do with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scheduler = Local(folder / "scheduler", account=ACCOUNT)
        self.jobs = 0
        (folder / "shared").mkdir(mode=0o777)
        (folder / "shared").chmod(0o777)

    async def submit(
        self, command: str, *, tasks: int = 1, cpus: int = 1, mem_mb: int = 100, minutes: int = 1, gpus: int = 0
    ) -> str:
        """Submit a workflow of one step, compiled as for any provider; its id."""
        self.jobs += 1
        output = self.output(self.jobs)
        output.touch(mode=0o600)
        account = own_account(ACCOUNT)
        os.chown(output, account.uid, account.gid)
        resources = {"tasks": tasks, "cpusPerTask": cpus, "memPerCpu": mem_mb, "gpus": 0}
        run = {"command": command, "resources": {"tasks": tasks}}
        return await self.scheduler.submit(
            BatchJob(
                name=f"0x{self.jobs}",
                script=compile_workflow(from_dict({"resources": resources, "steps": [{"run": run}]})),
                minutes=minutes,
                tasks=tasks,
                cpus_per_task=cpus,
                mem_per_cpu_mb=mem_mb,
                gpus=gpus,
                account=account,
                output=output,
                variables={"DEEPSQUARE_SHARED_ROOT": str(self.folder / "shared")},
            )
        )

    def output(self, number: int) -> Path:
        return self.folder / f"{number}.out"

    def lines(self, number: int = 1) -> list[str]:
        """What a job wrote, without srun's own words."""
        return [line for line in self.output(number).read_text().splitlines() if not line.startswith("srun: ")]

    async def state(self, job_id: str) -> BatchState:
        return next(state for _, state in await self.scheduler.states() if state.scheduler_id == job_id)

    async def wait(self, job_id: str, phase: Phase | None = None) -> BatchState:
        """How a job stands as soon as it is in a phase, or at its end."""
        async with asyncio.timeout(_WAIT_SECONDS):
            while True:
                state = await self.state(job_id)
                if state.phase is phase or (phase is None and state.phase.is_end):
                    return state
                await asyncio.sleep(0.05)

    async def wait_for_output(self, text: str) -> None:
        async with asyncio.timeout(_WAIT_SECONDS):
            while text not in self.output(self.jobs).read_text():
                await asyncio.sleep(0.05)

    def runner_of(self, job_id: str) -> psutil.Process:
        queue = JobQueue(self.scheduler._host.folder)
        job = queue.get(int(job_id))
        queue.close()
        assert job is not None
        return psutil.Process(job.runner_pid)


def sleeping(seconds: str) -> list[int]:
    """The processes that sleep for so long; tests choose lengths that nobody else does."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if process.info["cmdline"] == ["sleep", seconds]:
            found.append(process.pid)
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not in pytest's own folder, which other accounts can't enter.
    folder = Path(tempfile.mkdtemp(prefix="deepsquare-local-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def machine(folder: Path) -> AsyncIterator[Machine]:
    machine = Machine(folder)
    yield machine
    await asyncio.to_thread(stop, folder / "scheduler")


async def test_a_job_runs_as_the_account_in_its_own_scratch_and_leaves_nothing(machine: Machine) -> None:
    job = await machine.submit("id -un; umask; pwd; scontrol show hostnames; cat")
    ended = await machine.wait(job)
    assert (ended.phase, ended.exit_code, ended.signal) == (Phase.COMPLETED, 0, 0)
    user, umask, directory, node = machine.lines()
    assert (user, umask) == (ACCOUNT, "0022")
    assert directory == f"{machine.folder}/shared/{own_account(ACCOUNT).uid}/0x1.{job}"
    assert node == os.uname().nodename.split(".")[0]
    assert not Path(directory).exists()
    assert not list((machine.folder / "scheduler" / "scripts").iterdir())


async def test_exit_codes_and_signals_arrive(machine: Machine) -> None:
    first, second = await machine.submit("exit 42"), await machine.submit("kill -9 $PPID $$")
    assert ((await machine.wait(first)).phase, (await machine.wait(first)).exit_code) == (Phase.FAILED, 42)
    assert ((await machine.wait(second)).phase, (await machine.wait(second)).exit_code) == (Phase.FAILED, 137)


async def test_a_job_sees_nothing_of_the_supervisors_environment(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_OPERATOR", "s3cret")
    await machine.wait(await machine.submit("env; tr '\\0' '\\n' </proc/$PPID/environ"))
    assert not [line for line in machine.lines() if "s3cret" in line]


async def test_a_job_hears_signals_that_the_supervisor_ignores(machine: Machine) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup starts it
    try:
        job = await machine.submit("trap 'echo told; exit 3' HUP; kill -s HUP $$; sleep 1")
        assert ((await machine.wait(job)).exit_code, machine.lines()[0]) == (3, "told")
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_tasks_have_ranks_and_a_bad_one_takes_the_others_along(machine: Machine) -> None:
    if machine.scheduler._host.cpus < 2:
        pytest.fail("this test needs two CPUs")
    job = await machine.submit("echo rank $SLURM_PROCID; [ $SLURM_PROCID = 0 ] && exit 5; sleep 4201", tasks=2)
    assert (await machine.wait(job)).phase is Phase.FAILED
    assert sorted(machine.lines()) == ["deepsquare: steps[0] failed with exit code 5", "rank 0", "rank 1"]
    assert not sleeping("4201")


async def test_a_task_that_ignores_being_asked_is_killed_and_the_next_step_starts_clean(machine: Machine) -> None:
    if machine.scheduler._host.cpus < 2:
        pytest.fail("this test needs two CPUs")
    bad = (
        "if [ $SLURM_PROCID = 0 ]; then until [ -e deaf ]; do sleep 0.1; done; exit 5; fi; "
        "trap '' TERM; touch deaf; sleep 4214 & wait; sleep 4214"
    )
    job = await machine.submit(
        f"srun --ntasks=2 --kill-on-bad-exit=1 /bin/bash -c {shlex.quote(bad)}; echo code $?; pgrep -fx 'sleep 4214'; "
        "srun /bin/bash -c 'sleep 4215 >/dev/null 2>&1 &'; pgrep -fx 'sleep 4215'; true",
        tasks=1,
        cpus=2,
    )
    assert (await machine.wait(job)).phase is Phase.COMPLETED
    # As Slurm, srun ends with the highest code: that of the killed one.
    assert machine.lines() == ["code 137"]


async def test_a_job_over_its_memory_is_ended_as_slurm_would_report_it(machine: Machine) -> None:
    job = await machine.submit("python3 -c 'x = bytearray(400 << 20); import time; time.sleep(60)'", mem_mb=100)
    ended = await machine.wait(job)
    assert (ended.phase, ended.signal, ended.reason) == (Phase.FAILED, 125, "OUT_OF_MEMORY")


async def test_a_job_out_of_time_is_ended_even_if_it_ignores_that(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await machine.submit("pwd; trap '' TERM; sleep 4202 & wait; sleep 4202", minutes=1)
    await machine.wait(job, Phase.RUNNING)
    await machine.scheduler.set_time_limit(job, 0)
    ended = await machine.wait(job)
    # It ignored SIGTERM, so SIGKILL came.
    assert ended.phase is Phase.TIMED_OUT
    assert not sleeping("4202")


async def test_a_longer_limit_counts_from_the_start_and_the_bill_by_the_same_clock(machine: Machine) -> None:
    job = await machine.submit("sleep 5", minutes=1)
    await machine.wait(job, Phase.RUNNING)
    # The queue is shared: what is noted there reaches the runner at its next look.
    await machine.scheduler.set_time_limit(job, 30)
    ended = await machine.wait(job)
    assert ended.phase is Phase.COMPLETED
    assert 5 <= ended.end_time - ended.start_time <= 7


async def test_a_job_that_forks_all_the_time_is_ended_whole(machine: Machine) -> None:
    # Each process lives for a moment only: whoever kills what is in a list of processes is always too late.
    program = "import os, time\nos.setsid()\nuntil = time.time() + 30\nwhile time.time() < until:\n    os.fork() and os._exit(0)"
    job = await machine.submit(f"(python3 -c '{program}' forker-4209 >/dev/null 2>&1 &); sleep 0.5")
    assert (await machine.wait(job)).phase is Phase.COMPLETED

    def forkers() -> int:
        return sum("forker-4209" in (process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))

    assert sum(forkers() for _ in range(20)) == 0


async def test_cancelled_jobs_end_with_everything_that_they_started(machine: Machine) -> None:
    job = await machine.submit("(setsid sleep 4204 >/dev/null 2>&1 &); echo started; sleep 4204")
    await machine.wait_for_output("started")
    assert sleeping("4204")
    await machine.scheduler.cancel(job)
    await machine.scheduler.cancel(job)
    assert (await machine.wait(job)).phase is Phase.CANCELLED
    assert not sleeping("4204")


async def test_what_a_script_leaves_running_ends_with_it(machine: Machine) -> None:
    job = await machine.submit("(setsid sleep 4205 >/dev/null 2>&1 &)")
    assert (await machine.wait(job)).phase is Phase.COMPLETED
    assert not sleeping("4205")


async def test_jobs_wait_in_order_until_there_is_room(machine: Machine) -> None:
    everything = machine.scheduler._host.cpus
    gate = machine.folder / "shared" / "gate"
    large = await machine.submit(f"until [ -e {gate} ]; do sleep 0.05; done", cpus=everything, mem_mb=20)
    waiting = [await machine.submit(f"echo {number}", cpus=everything, mem_mb=20) for number in range(3)]
    await machine.wait(large, Phase.RUNNING)
    assert [(await machine.state(job)).phase for job in waiting] == [Phase.QUEUED] * 3
    await machine.scheduler.cancel(waiting[1])
    gate.touch()
    ends = [await machine.wait(job) for job in waiting]
    assert [end.phase for end in ends] == [Phase.COMPLETED, Phase.CANCELLED, Phase.COMPLETED]
    assert ends[1].start_time == 0
    assert ends[0].end_time <= ends[2].start_time + 1


async def test_jobs_share_the_machine_as_far_as_its_memory_goes(machine: Machine) -> None:
    assert machine.scheduler._host.cpus >= 2, "this test needs two CPUs"
    half = machine.scheduler._host.mem_mb // 2 + 1
    first, second = await machine.submit("sleep 4206", mem_mb=half), await machine.submit("true", mem_mb=half)
    await machine.wait(first, Phase.RUNNING)
    assert (await machine.state(second)).phase is Phase.QUEUED
    await machine.scheduler.cancel(first)
    assert (await machine.wait(second)).phase is Phase.COMPLETED


async def test_a_job_that_no_longer_fits_is_given_up_and_holds_up_nobody(machine: Machine) -> None:
    everything = machine.scheduler._host.cpus
    running = await machine.submit("sleep 4210", cpus=everything, mem_mb=20)
    large, small = await machine.submit("true", cpus=everything, mem_mb=20), await machine.submit("true", mem_mb=20)
    machine.scheduler._host = machine.scheduler._host._replace(cpus=everything - 1)
    await machine.scheduler.cancel(running)
    # Whoever is first to look for room, the runner of before or the scheduler, knows of one size or the other.
    assert (await machine.wait(large)).phase in (Phase.LOST, Phase.COMPLETED)
    assert (await machine.wait(small)).phase is Phase.COMPLETED


async def test_the_script_of_a_waiting_job_is_the_supervisors_alone(machine: Machine) -> None:
    everything = machine.scheduler._host.cpus
    await machine.submit("sleep 4211", cpus=everything, mem_mb=20)
    waiting = await machine.submit("true", cpus=everything, mem_mb=20)
    script = machine.folder / "scheduler" / "scripts" / waiting
    assert (script.stat().st_uid, script.stat().st_mode & 0o077) == (os.geteuid(), 0)


async def test_jobs_that_never_fit_are_refused(machine: Machine) -> None:
    host = machine.scheduler._host
    for what in ({"cpus": host.cpus + 1}, {"mem_mb": host.mem_mb + 1}, {"gpus": 1}, {"minutes": 0}):
        with pytest.raises(RefusedError):
            await machine.submit("true", **what)
    assert await machine.scheduler.states() == []


async def test_a_job_outlives_the_supervisor(machine: Machine) -> None:
    gate = machine.folder / "shared" / "gate"
    job = await machine.submit(f"until [ -e {gate} ]; do sleep 0.05; done; echo done")
    await machine.wait(job, Phase.RUNNING)
    # What a supervisor that is started again has: the folder.
    again = Local(machine.folder / "scheduler", account=ACCOUNT)
    gate.touch()
    machine.scheduler = again
    assert (await machine.wait(job)).phase is Phase.COMPLETED
    assert machine.lines() == ["done"]


async def test_a_job_whose_runner_is_killed_is_lost_and_nothing_of_it_goes_on(machine: Machine) -> None:
    job = await machine.submit("(setsid sleep 4207 >/dev/null 2>&1 &); echo started; sleep 4207")
    await machine.wait_for_output("started")
    machine.runner_of(job).kill()
    assert (await machine.wait(job)).phase is Phase.LOST
    assert not sleeping("4207")


async def test_strangers_that_have_a_lost_jobs_numbers_are_left_alone(machine: Machine) -> None:
    job = await machine.submit("sleep 4212")
    await machine.wait(job, Phase.RUNNING)
    stranger = subprocess.Popen(["sleep", "4213"], start_new_session=True)
    try:
        machine.runner_of(job).kill()
        with contextlib.closing(JobQueue(machine.folder / "scheduler")) as queue:
            queue._db.execute("UPDATE jobs SET runner_pid = ? WHERE id = ?", (stranger.pid, int(job)))
        assert (await machine.wait(job)).phase is Phase.LOST
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_an_end_is_noted_when_the_queue_can_be_written_again(machine: Machine) -> None:
    job = await machine.submit("sleep 1")
    await machine.wait(job, Phase.RUNNING)
    blocker = sqlite3.connect(machine.folder / "scheduler" / "queue.db", isolation_level=None)
    blocker.execute("CREATE TRIGGER full BEFORE UPDATE OF end_time ON jobs BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    await asyncio.sleep(2)
    assert (await machine.state(job)).phase is Phase.RUNNING
    blocker.execute("DROP TRIGGER full")
    blocker.close()
    ended = await machine.wait(job)
    assert (ended.phase, ended.end_time - ended.start_time <= 2) == (Phase.COMPLETED, True)


async def test_a_job_whose_runner_never_came_waits_again_and_runs_once(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner.subprocess, "run", lambda *_, **__: None)
    job = await machine.submit("echo once")
    monkeypatch.undo()
    assert (await machine.state(job)).phase is Phase.QUEUED
    monkeypatch.setattr("deepsquare.grid.supervisor.schedulers.local.queue._STARTING_SECONDS", 0)
    assert (await machine.wait(job)).phase is Phase.COMPLETED
    assert machine.lines() == ["once"]


async def test_stop_ends_waiting_and_running_jobs(machine: Machine) -> None:
    jobs = [await machine.submit("sleep 4208", cpus=machine.scheduler._host.cpus, mem_mb=20) for _ in "ab"]
    await machine.wait(jobs[0], Phase.RUNNING)
    await asyncio.to_thread(stop, machine.folder / "scheduler")
    assert [(await machine.state(job)).phase for job in jobs] == [Phase.CANCELLED] * 2
    assert not sleeping("4208")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--exclusive", "true"], "does not know the option --exclusive"),
        (["--gpus-per-task=1", "true"], "no GPUs"),
        (["--ntasks=3", "true"], "More processors requested than permitted"),
        (["--ntasks=1", "--mem-per-cpu=999M", "true"], "Memory required by task is not available"),
        (["--ntasks=x", "true"], "not a number: 'x'"),
        (["--quiet"], "no command"),
    ],
)
async def test_srun_refuses_what_it_can_not_do_as_asked(machine: Machine, words: list[str], reason: str) -> None:
    job = await machine.submit(f"srun {' '.join(words)}; echo $?")
    await machine.wait(job)
    output = machine.output(1).read_text()
    assert reason in output
    assert output.splitlines()[-1] == "1"


async def test_scontrol_refuses_what_it_does_not_know(machine: Machine) -> None:
    await machine.wait(await machine.submit("scontrol update JobId=1 TimeLimit=9"))
    assert "knows only" in machine.output(1).read_text()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("$SLURM_JOB_ID", "knows only"),
        ("--signal=TERM 999999.1", "knows only"),
        ("--signal=TERM $SLURM_JOB_ID.x", "not a step"),
        ("--signal=NONE $SLURM_JOB_ID.1", "not a signal"),
        ("--state=PENDING", "knows only"),
    ],
)
async def test_scancel_sends_signals_to_the_own_jobs_steps_only(machine: Machine, words: str, reason: str) -> None:
    await machine.wait(await machine.submit(f"scancel {words}; echo $?"))
    assert reason in machine.output(1).read_text()
    assert machine.output(1).read_text().splitlines()[-1] == "1"


def test_jobs_never_run_as_root_or_nobody_in_particular(folder: Path) -> None:
    for account, reason in (("root", "never run as root"), ("no-such-account", "does not exist")):
        with pytest.raises(ConfigError, match=reason):
            Local(folder / "scheduler", account=account)


def test_the_queue_is_for_its_owner_alone(folder: Path) -> None:
    umask = os.umask(0o077)
    try:
        Local(folder / "scheduler", account=ACCOUNT)
    finally:
        os.umask(umask)
    with contextlib.closing(JobQueue(folder / "scheduler")):
        paths = list((folder / "scheduler").glob("queue.db*"))
        assert len(paths) == 3
        for path in paths:
            assert path.stat().st_mode & 0o077 == 0, path
    # But jobs pass through the folder to their scripts and programs, whatever the operator's umask is.
    modes = [(folder / "scheduler" / name).stat().st_mode & 0o777 for name in (".", "scripts", "programs", "runners")]
    assert modes == [0o711, 0o711, 0o755, 0o700]
