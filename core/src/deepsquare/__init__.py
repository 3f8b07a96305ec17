"""DeepSquare for pipelines: buy a job on chain, have it run on a provider's Slurm, follow it to its end.

Everything that users need is importable from here. Names load on first use, so that `import deepsquare` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepsquare.chain.errors import ContractError as ContractError
    from deepsquare.chain.types import JobStatus as JobStatus
    from deepsquare.client.auto_topup import AutoTopUp as AutoTopUp
    from deepsquare.client.blocking import BlockingClient as BlockingClient
    from deepsquare.client.blocking import BlockingJob as BlockingJob
    from deepsquare.client.budget import Budget as Budget
    from deepsquare.client.budget import BudgetError as BudgetError
    from deepsquare.client.client import Client as Client
    from deepsquare.client.client import Job as Job
    from deepsquare.client.funding import FundingError as FundingError
    from deepsquare.client.funding import MaxPriceError as MaxPriceError
    from deepsquare.client.funding import NoProviderError as NoProviderError
    from deepsquare.client.funding import Offer as Offer
    from deepsquare.client.job import JobInfo as JobInfo
    from deepsquare.client.logs import LogLine as LogLine
    from deepsquare.client.orders import Submission as Submission
    from deepsquare.client.topup import TopUpError as TopUpError
    from deepsquare.client.topup import TopUpUnknownError as TopUpUnknownError
    from deepsquare.errors import ApiError as ApiError
    from deepsquare.errors import ConfigError as ConfigError
    from deepsquare.errors import ConnectionFailedError as ConnectionFailedError
    from deepsquare.errors import DeepSquareError as DeepSquareError
    from deepsquare.errors import KeyUsedError as KeyUsedError
    from deepsquare.errors import PurchaseUnknownError as PurchaseUnknownError
    from deepsquare.errors import TransactionError as TransactionError
    from deepsquare.errors import UnknownJobError as UnknownJobError
    from deepsquare.workflow import Workflow as Workflow
    from deepsquare.workflow import WorkflowError as WorkflowError

_HOMES = {
    "ApiError": "errors",
    "AutoTopUp": "client.auto_topup",
    "BlockingClient": "client.blocking",
    "BlockingJob": "client.blocking",
    "Budget": "client.budget",
    "BudgetError": "client.budget",
    "Client": "client.client",
    "ConfigError": "errors",
    "ConnectionFailedError": "errors",
    "ContractError": "chain.errors",
    "DeepSquareError": "errors",
    "FundingError": "client.funding",
    "Job": "client.client",
    "JobInfo": "client.job",
    "JobStatus": "chain.types",
    "KeyUsedError": "errors",
    "LogLine": "client.logs",
    "MaxPriceError": "client.funding",
    "NoProviderError": "client.funding",
    "Offer": "client.funding",
    "PurchaseUnknownError": "errors",
    "Submission": "client.orders",
    "TopUpError": "client.topup",
    "TopUpUnknownError": "client.topup",
    "TransactionError": "errors",
    "UnknownJobError": "errors",
    "Workflow": "workflow",
    "WorkflowError": "workflow",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 (the table above is the list)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"deepsquare.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
