"""What fits into one call or transaction, and which of many is which."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from deepsquare.chain.types import JobReport, JobRequest

_T = TypeVar("_T")

# A job takes some 60,000 of a transaction's gas, with the largest definition or reason of a failure up to a million.
JOBS_A_TRANSACTION = 50
_GAS_A_TRANSACTION = 10_000_000
_GAS_A_REPORT = 100_000
_GAS_A_REQUEST = 150_000
_GAS_A_WORD = 23_000


def in_order(requests: Sequence[JobRequest], known: dict[bytes, bytes], made: Sequence[bytes]) -> list[bytes] | None:
    """The jobs of requests, of which some keys were known before, and the others' jobs are told in the order of the requests.

    None where there are more or fewer of them than requests that need one.
    """
    known = dict(known)
    new = iter(made)
    ids = []
    for request in requests:
        job_id = known.get(request.key) or next(new, None)
        if job_id is None:
            return None
        if any(request.key):
            known[request.key] = job_id
        ids.append(job_id)
    return None if next(new, None) else ids


def pages(items: Sequence[_T], size: int) -> Iterator[list[_T]]:
    """Cut a sequence into pages of so many items; the last may be shorter."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def _gas_of(report: JobReport) -> int:
    # The reason of a failure is stored, and costs by its length.
    return _GAS_A_REPORT + _GAS_A_WORD * (len(report.error.encode()) // 32 + 1)


def _gas_of_request(request: JobRequest) -> int:
    needs = request.definition
    labels = [*needs.uses, *(label for label, _ in needs.affinity)]
    texts = [needs.batch_location_hash, *(text for label in labels for text in (label.key, label.value))]
    return _GAS_A_REQUEST + _GAS_A_WORD * sum(len(text.encode()) // 32 + 1 for text in texts)


def pages_of_reports(reports: Sequence[JobReport]) -> Iterator[list[JobReport]]:
    """Cut reports into what fits into a transaction each, in their order."""
    return _of_gas(reports, _gas_of)


def pages_of_requests(requests: Sequence[JobRequest]) -> Iterator[list[JobRequest]]:
    """Cut requests into what fits into a transaction each, in their order."""
    return _of_gas(requests, _gas_of_request)


def _of_gas(items: Sequence[_T], gas_of: Callable[[_T], int]) -> Iterator[list[_T]]:
    """Cut what is to be sent into transactions."""
    page: list[_T] = []
    gas = 0
    for item in items:
        needed = gas_of(item)
        if page and (gas + needed > _GAS_A_TRANSACTION or len(page) == JOBS_A_TRANSACTION):
            yield page
            page, gas = [], 0
        page.append(item)
        gas += needed
    if page:
        yield page
