"""Slurm's commands, as the supervisor's scheduler."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from deepsquare.chain.types import Hardware
from deepsquare.errors import ConfigError, ConnectionFailedError, SchedulerError
from deepsquare.grid.supervisor.accounts import Accounts
from deepsquare.grid.supervisor.hosts.base import EXIT_NOT_FOUND, EXIT_TIMED_OUT, Account, Host, NotSentError
from deepsquare.grid.supervisor.labels import NodeFacts
from deepsquare.grid.supervisor.schedulers.base import BatchJob, BatchState, NotSubmittedError, RefusedError
from deepsquare.grid.supervisor.schedulers.slurm.answers import (
    accounting_format,
    gpus,
    list_of,
    new_separator,
    node_facts,
    parse,
    queue_format,
)

_log = logging.getLogger(__name__)

# How long a probe waits for free nodes.
_PROBE_SECONDS = 5
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
_UNCERTAIN = (
    *("timed out", "Zero Bytes were transmitted", "Unexpected message received", "receive failure", "send failure"),
    *("Message receive", "Message send", "ommunication", "reset by peer"),
)
_NOT_SUBMITTED = "Batch job submission failed:"
_NO_ACCOUNTING = "accounting storage is disabled"
_UP = frozenset({"idle", "mix", "alloc", "comp", "plnd", "resv", "boot"})
# Powered off until there is a job, planned for one, and the like; not `*`, no answer, nor `$`, maintenance.
_PASSING = "-~#!%^@+"


class Slurm:
    """See `Scheduler`. Jobs are submitted as their accounts; all else is done as the own one, in the best case an operator's."""

    def __init__(
        self, host: Host, accounts: Accounts, *, mark: str, partition: str = "main", slurm_conf: str | None = None
    ) -> None:
        """Make the scheduler; nothing runs yet.

        Args:
            host: where Slurm's commands are.
            accounts: whom jobs run as.
            mark: the comment of its jobs in Slurm, different for each grid: on another chain the same job ids come again.
            partition: where jobs go.
            slurm_conf: None means the cluster that the commands find by themselves.
        """
        self._mark = mark
        self._host, self._accounts, self._partition = host, accounts, partition
        self._environment = {"LANG": "C.UTF-8", "HOME": "/", "SLURM_TIME_FORMAT": "%s", "TZ": "UTC"}
        if slurm_conf is not None:
            self._environment["SLURM_CONF"] = slurm_conf

    async def submit(self, job: BatchJob) -> str:
        """See `Scheduler.submit`. The script travels on standard input, so it is in no process list and no spool of ours."""
        if job.minutes < 1:
            # Slurm takes --time=0 for no limit at all.
            raise RefusedError(f"a time limit of {job.minutes} minutes buys no run time")
        variables = {**job.variables, "USER": job.account.name, "LOGNAME": job.account.name}
        names = [*variables, *(["SLURM_CONF"] if "SLURM_CONF" in self._environment else [])]
        output = await self._run(
            "sbatch",
            "--parsable",
            f"--job-name={job.name}",
            f"--comment={self._mark}",
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
            f"--export={','.join([*names, 'PATH', 'LANG'])}",
            stdin=job.script,
            variables=variables,
            account=job.account,
        )
        scheduler_id = output.strip().split(";")[0]
        if not scheduler_id.isdigit():
            raise SchedulerError("sbatch printed no id of a job")
        return scheduler_id

    async def states(self) -> list[tuple[str, BatchState]]:
        """See `Scheduler.states`."""
        users = await self._uids()
        if not users:
            return []
        separator = new_separator()
        output = await self._run(
            "squeue", "--noheader", "--states=all", f"--user={users}", "--sort=i", queue_format(separator)
        )
        return parse(output, separator, "squeue", self._mark)

    async def accounted(self, ids: Sequence[str], names: Sequence[str]) -> list[tuple[str, BatchState]]:
        """See `Scheduler.accounted`: sacct knows jobs after `MinJobAge`, where there is slurmdbd."""
        questions = []
        if ids:
            questions.append([f"--jobs={list_of(ids)}"])
        if names:
            # Without a start, names are looked for in the present day only.
            questions.append([f"--name={list_of(names)}", "--starttime=now-30days"])
        found = []
        for question in questions:
            separator = new_separator()
            try:
                # Of all users: one whose account is gone would be an error.
                output = await self._run(
                    "sacct", "--noheader", "--allusers", "--allocations", *question, *accounting_format(separator)
                )
            except SchedulerError as error:
                if _NO_ACCOUNTING in str(error):
                    return []
                raise
            found += parse(output, separator, "sacct", self._mark)
        return found

    async def cancel(self, scheduler_id: str) -> None:
        """See `Scheduler.cancel`."""
        await self._run("scancel", "--quiet", scheduler_id)

    async def set_time_limit(self, scheduler_id: str, minutes: int) -> None:
        """See `Scheduler.set_time_limit`: only root, SlurmUser and Slurm's operators may raise a limit."""
        await self._run("scontrol", "update", f"JobId={scheduler_id}", f"TimeLimit={minutes}")

    async def probe(self) -> Hardware:
        """See `Scheduler.probe`: CPUs, memory and GPUs of each node of the partition that is up.

        Raises:
            SchedulerError: the partition has no node that is up.
        """
        output = await self._run(
            "sinfo", "--noheader", "--Node", f"--partition={self._partition}", "--format=%N %c %m %G %t"
        )
        if not output.strip():
            raise SchedulerError(
                f"this Slurm has no partition {self._partition!r}: name one with --partition (sinfo shows them)"
            )
        nodes = [line.split() for line in output.splitlines()]
        nodes = [node for node in nodes if node[4].rstrip(_PASSING) in _UP]
        if not nodes:
            raise SchedulerError(
                f"the partition {self._partition!r} of this Slurm has no node that is up: see why with sinfo "
                "--list-reasons, and bring one back with scontrol update NodeName=... State=RESUME"
            )
        return Hardware(
            gpus=tuple(gpus(node[3]) for node in nodes),
            cpus=tuple(int(node[1]) for node in nodes),
            mem_mb=tuple(int(node[2].rstrip("+")) for node in nodes),
        )

    async def facts(self) -> list[NodeFacts]:
        """See `Scheduler.facts`: Slurm knows all but the processors, which a step of a moment looks at on every node."""
        lines = (await self._run("scontrol", "show", "node", "--oneliner")).splitlines()
        nodes = [facts for line in lines if (facts := node_facts(line, self._partition)) is not None]
        try:
            processors = await self._processors(len(nodes))
        except SchedulerError as error:
            _log.info("the nodes' processors can't be looked at now: %s", error)
            return nodes
        return [replace(facts, cpuinfo=text) for facts, text in zip(nodes, processors, strict=False)]

    async def _processors(self, nodes: int) -> list[str]:
        """What /proc/cpuinfo says of the first processor of each node, in no order."""
        accounts = await self._accounts.all()
        output = await self._run(
            "srun",
            f"--partition={self._partition}",
            f"--nodes={nodes}",
            "--ntasks-per-node=1",
            "--cpus-per-task=1",
            "--mem=16M",
            "--time=1",
            f"--immediate={_PROBE_SECONDS}",
            "--quiet",
            "--chdir=/",
            "--job-name=deepsquare-probe",
            "sh",
            "-c",
            # Lines of several nodes come mixed, and srun cuts those of more than a kilobyte.
            "sed '/^$/q' /proc/cpuinfo | base64 --wrap=512 | sed \"s/^/$SLURM_PROCID /\"",
            # Where root looks around, it does so as somebody who may do nothing.
            account=accounts[0] if accounts else await self._nobody(),
        )
        found: dict[str, str] = {}
        for line in output.splitlines():
            node, _, text = line.partition(" ")
            found[node] = found.get(node, "") + text
        try:
            return [base64.b64decode(text).decode("utf-8", "replace") for text in found.values()]
        except ValueError:
            return []

    async def _nobody(self) -> Account | None:
        return await self._host.account("nobody") if await self._host.is_root() else None

    async def _uids(self) -> str:
        return list_of([account.uid for account in await self._accounts.all()])

    async def _run(
        self,
        program: str,
        *arguments: str,
        stdin: str = "",
        variables: Mapping[str, str] | None = None,
        account: Account | None = None,
    ) -> str:
        """Run a command, and return what it says."""
        environment = self._environment | dict(variables or {})
        try:
            answer = await self._host.run(program, *arguments, stdin=stdin, environment=environment, account=account)
        except (NotSentError, ConfigError) as error:
            raise NotSubmittedError(str(error)) from None
        except ConnectionFailedError as error:
            raise SchedulerError(f"{program}: {error}") from None
        if answer.code == 0:
            return answer.output
        if answer.code == EXIT_NOT_FOUND:
            raise NotSubmittedError(f"{program} is not installed on {self._host.name} (Debian's package: slurm-client)")
        if answer.code == EXIT_TIMED_OUT:
            raise SchedulerError(f"{program} gave no answer in a minute; is slurmctld running?")
        text = answer.errors.strip().replace(f"{program}: error: ", "")
        if program == "sbatch" and any(words in text for words in _REFUSALS):
            raise RefusedError(text)
        if program == "sbatch" and _NOT_SUBMITTED in text and not any(words in text for words in _UNCERTAIN):
            raise NotSubmittedError(text)
        raise SchedulerError(f"{program} failed: {text or f'exit code {answer.code}'}")
