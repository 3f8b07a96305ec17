"""The exceptions of DeepSquare, one tree under `DeepSquareError`.

- DeepSquareError
    - WorkflowError             (deepsquare.workflow) the workflow file is not valid
    - ResultError               (deepsquare.workflow) what a job returned is incomplete, too large or damaged
    - TemplateError             (deepsquare.workflow.templates) the template of a module is not valid
    - ModuleError               (deepsquare.workflow.modules) a module can't be fetched
    - ConfigError               a context, wallet or setting is missing or wrong
    - ConnectionFailedError     a service or the chain can't be reached, after retries
    - ApiError                  a service answered with an error
    - TransactionError          a transaction was not carried out
        - TopUpUnknownError     (deepsquare.client.topup) a job may or may not have got more credits
        - PurchaseUnknownError  a job may or may not have been bought
        - ContractError         (deepsquare.chain.errors) the contract refused; one class for each of its errors
    - NoProviderError           (deepsquare.client.funding) no provider of the grid could run the job
    - MaxPriceError             (deepsquare.client.funding) the job would lock more than its max_price
    - BudgetError               (deepsquare.client.budget) a purchase or top-up would exceed a budget
    - TopUpError                (deepsquare.client.topup) the job can't be given more credits
    - KeyUsedError              the key of a submission stands for another workflow's job
    - UnknownJobError           the grid has no such job
    - GridError                 (operators) a service of the grid can't start or go on
        - SchedulerError        Slurm, or the local scheduler, refused or failed
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class DeepSquareError(Exception):
    """Base of every error that this package raises on purpose; the text says what happened and what to do next."""


class ConfigError(DeepSquareError):
    """A context, wallet or setting is missing or wrong."""


class ConnectionFailedError(DeepSquareError):
    """A service or the chain can't be reached, also after the retries."""


class ApiError(DeepSquareError):
    """A service of the grid answered with an error."""


class TransactionError(DeepSquareError):
    """A transaction was not carried out."""


class PurchaseUnknownError(TransactionError):
    """The purchase of a job was sent, and its answer was lost; `location_hash` finds the job, if there is one."""

    def __init__(self, location_hash: str, reason: str) -> None:
        self.location_hash, self.reason = location_hash, reason
        super().__init__(
            f"the job may have been bought, but its answer was lost ({reason}). Don't buy it again before you have looked: "
            "deepsquare job list"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.location_hash, self.reason)


class KeyUsedError(DeepSquareError):
    """The job under a submission's key, which is hot or not delivered yet, is another workflow's."""

    def __init__(self, key: str, job_id: str) -> None:
        self.key, self.job_id = key, job_id
        super().__init__(
            f"the key {key!r} stands for the job {hex(int(job_id, 16))}, which was bought for another workflow and runs or has "
            "finished: use another key"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.key, self.job_id)


class UnknownJobError(DeepSquareError):
    """The grid has no such job; `job_ids` has the ids that it doesn't know."""

    def __init__(self, job_ids: Sequence[str]) -> None:
        self.job_ids = tuple(job_ids)
        names = ", ".join(hex(int(job_id, 16)) for job_id in job_ids)
        super().__init__(f"no such job on this grid: {names} (list yours: deepsquare job list)")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.job_ids,)


class GridError(DeepSquareError):
    """A service of the grid can't start or go on."""


class SchedulerError(GridError):
    """The batch scheduler refused a command or could not be reached."""
