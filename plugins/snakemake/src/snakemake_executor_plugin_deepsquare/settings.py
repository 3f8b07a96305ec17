"""What users can set for the executor."""

from __future__ import annotations

from dataclasses import dataclass, field

from snakemake_interface_executor_plugins.settings import ExecutorSettingsBase


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    """The options `--deepsquare-...` of Snakemake."""

    context: str | None = field(
        default=None,
        metadata={
            "help": "Name of the context (grid and account) to buy jobs in. Default: the variable DEEPSQUARE_CONTEXT, "
            "else the current one (see `deepsquare context`).",
            "type": str,
        },
    )
    credits: str | None = field(
        default=None,
        metadata={
            "help": "Credits to lock for each job, whatever its rule asks for; they are its time limit. "
            "Default: what the rule's `runtime` (in minutes) costs at the dearest provider that may get the job.",
            "type": str,
        },
    )
    default_runtime: int = field(
        default=10,
        metadata={"help": "Time limit in minutes of jobs whose rule has no resource `runtime`.", "type": int},
    )
