"""Engines hand errors from process to process: whatever is raised can be pickled."""

from __future__ import annotations

import pickle

import pytest
from deepsquare.chain.rpc import RpcError
from deepsquare.chain.transactions import NonceTakenError, UnminedError
from deepsquare.client.budget import BudgetError
from deepsquare.client.funding import FundingError
from deepsquare.client.sbatch import WorkflowRejectedError
from deepsquare.client.topup import TopUpUnknownError
from deepsquare.errors import DeepSquareError, KeyUsedError, PurchaseUnknownError, UnknownJobError
from deepsquare.workflow import Problem, WorkflowError


@pytest.mark.parametrize(
    "error",
    [
        FundingError("the balance is 1 credit", 10**18, 2 * 10**18),
        RpcError(-32000, "busy", "0x1234"),
        NonceTakenError("taken", is_final=True),
        UnminedError("in no block"),
        BudgetError("spent"),
        WorkflowRejectedError(["steps: missing"]),
        TopUpUnknownError("0x2a", "in no block"),
        KeyUsedError("run", "0x2a"),
        PurchaseUnknownError("0123456789ab", "in no block"),
        UnknownJobError(["0x2a"]),
        WorkflowError([Problem("steps", "is missing", "missing", 3, 1)], "hello.yaml"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_in_another_process_as_it_was(error: DeepSquareError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
