"""The blocking twin of the client, for callers without an event loop: the same code on one portal a process."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from deepsquare.client.allowance import EnsureAllowance
from deepsquare.client.auto_topup import AutoTopUp
from deepsquare.client.budget import Budget
from deepsquare.client.client import Client, Job
from deepsquare.client.funding import Offer
from deepsquare.client.job import JobInfo
from deepsquare.client.logs import LogLine
from deepsquare.client.orders import Submission
from deepsquare.errors import ConfigError

if TYPE_CHECKING:
    from deepsquare.contexts import Context
    from deepsquare.workflow import Workflow

T = TypeVar("T")

_CANCEL_SECONDS = 5.0
_LOOK_SECONDS = 1.0

_lock = threading.Lock()
_portal: BlockingPortal | None = None


def _get_portal() -> BlockingPortal:
    """This process's event loop in a thread of its own, made at the first use."""
    global _portal  # noqa: PLW0603 (one a process is the point)
    with _lock:
        if _portal is None:
            started: Future[BlockingPortal] = Future()
            # A daemon: a process may end whenever it likes, also with a client that nobody closed.
            threading.Thread(target=anyio.run, args=(_serve, started), name="deepsquare", daemon=True).start()
            _portal = started.result()
        return _portal


async def _serve(started: Future[BlockingPortal]) -> None:
    try:
        async with BlockingPortal() as portal:
            started.set_result(portal)
            await portal.sleep_until_stopped()
    except BaseException as error:
        if not started.done():
            started.set_exception(error)
        raise


def _forget_portal() -> None:
    """Threads don't survive a fork: the child makes a portal of its own."""
    global _lock, _portal
    _lock, _portal = threading.Lock(), None


os.register_at_fork(after_in_child=_forget_portal)


class BlockingClient:
    """`Client` for synchronous code; usable from several threads.

    Use it as a context manager, or call `close`.
    """

    def __init__(self, context: str | None = None, *, sealed: bool = False) -> None:
        """Connect; see `Client` for the arguments and the errors."""
        self._portal = _get_portal()
        self._pid = os.getpid()
        self._client = self._portal.call(self._open, context, sealed)

    @staticmethod
    async def _open(context: str | None, sealed: bool) -> Client:
        client = Client(context, sealed=sealed)
        try:
            return await client.__aenter__()
        except BaseException:
            await client.close()
            raise

    def _call(self, function: Callable[..., Awaitable[T]], *arguments: Any, **options: Any) -> T:
        if self._pid != os.getpid():
            raise ConfigError("this client was made before a fork; make a new one in the child process")
        future = self._portal.start_task_soon(partial(function, *arguments, **options))
        try:
            # A signal that comes just before the waiting begins does not end it: its handler runs at the next look.
            while not wait([future], timeout=_LOOK_SECONDS).done:
                pass
            return future.result()
        except BaseException:
            # An interrupt ends the waiting here; without this the call would go on over there.
            future.cancel()
            wait([future], timeout=_CANCEL_SECONDS)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections, when the purchases in flight are done; jobs go on running."""
        self._call(self._client.close)

    @property
    def account(self) -> str:
        """The customer's address."""
        return self._client.account

    @property
    def context(self) -> Context:
        """The context in use."""
        return self._client.context

    def submit(
        self,
        workflow: Workflow,
        *,
        time_limit: timedelta | None = None,
        credits: Decimal | int | str | None = None,
        max_price: Decimal | int | str | None = None,
        margin_percent: int = 0,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        key: str | None = None,
        ensure_allowance: EnsureAllowance = "never",
        auto_top_up: AutoTopUp | None = None,
        budget: Budget | None = None,
        result: bool = False,
    ) -> BlockingJob:
        """Buy one job; see `Client.submit`."""
        job = self._call(
            self._client.submit,
            workflow,
            time_limit=time_limit,
            credits=credits,
            max_price=max_price,
            margin_percent=margin_percent,
            name=name,
            labels=labels,
            key=key,
            ensure_allowance=ensure_allowance,
            auto_top_up=auto_top_up,
            budget=budget,
            result=result,
        )
        return BlockingJob(self, job)

    def estimate(self, workflow: Workflow, time_limit: timedelta | None = None) -> list[Offer]:
        """What a job would cost at each provider that could get it; see `Client.estimate`."""
        return self._call(self._client.estimate, workflow, time_limit)

    def submit_many(
        self, submissions: Sequence[Submission], *, ensure_allowance: EnsureAllowance = "never"
    ) -> list[BlockingJob | Exception]:
        """Buy many jobs; see `Client.submit_many`."""
        found = self._call(self._client.submit_many, submissions, ensure_allowance=ensure_allowance)
        return [one if isinstance(one, Exception) else BlockingJob(self, one) for one in found]

    def job(self, job_id: str) -> BlockingJob:
        """The handle of a job by its id."""
        return BlockingJob(self, self._client.job(job_id))

    def jobs(self, job_ids: Iterable[str] | None = None) -> list[JobInfo]:
        """How jobs stand, with one call for all; see `Client.jobs`."""
        return self._call(self._client.jobs, job_ids)

    def find(self, key: str) -> BlockingJob | None:
        """The last job that was bought under a key; see `Client.find`."""
        job = self._call(self._client.find, key)
        return None if job is None else BlockingJob(self, job)

    def find_by(self, *, name: str | None = None, labels: Mapping[str, str] | None = None) -> list[JobInfo]:
        """The jobs that were bought from this machine under a name or with labels; see `Client.find_by`."""
        return self._call(self._client.find_by, name=name, labels=labels)

    def labels(self) -> dict[str, dict[str, str]]:
        """The labels of this machine's submissions, by `JobInfo.location_hash`."""
        return self._client.labels()

    def names(self) -> dict[str, str]:
        """The public names that this machine gave; see `Client.names`."""
        return self._client.names()

    def watch(self, job_ids: Sequence[str]) -> Iterator[JobInfo]:
        """Yield how each job stands until all are at their end; see `Client.watch`."""
        return self._iterate(self._client.watch(job_ids))

    def top_up(
        self, job_id: str, *, credits: Decimal | int | str | None = None, time: timedelta | None = None
    ) -> Decimal:
        """Lock more credits for a job; see `Client.top_up`."""
        return self._call(self._client.top_up, job_id, credits=credits, time=time)

    def spent(self, scope: str) -> Decimal:
        """The credits that the jobs of a budget have locked or were billed; see `Client.spent`."""
        return self._call(self._client.spent, scope)

    def auto_top_up(self, job_id: str, wanted: AutoTopUp) -> None:
        """Top a job up from now on, as long as this client is open; see `Client.auto_top_up`."""
        self._call(self._client.auto_top_up, job_id, wanted)

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Ask for the end of jobs; see `Client.cancel`."""
        self._call(self._client.cancel, list(job_ids))

    def logs(self, job_id: str, *, follow: bool = True) -> Iterator[LogLine]:
        """The lines of a job's output; see `Client.logs`."""
        return self._iterate(self._client.logs(job_id, follow=follow))

    def result(self, job_id: str) -> bytes | None:
        """What a job wrote to `$DEEPSQUARE_RESULT`; see `Client.result`."""
        return self._call(self._client.result, job_id)

    def log_tail(self, job_id: str, lines: int = 20) -> list[str]:
        """The last lines of a job's output so far, safe to print on a terminal."""
        return self._call(self._client.log_tail, job_id, lines)

    def log_times(self, job_id: str) -> tuple[datetime, datetime] | None:
        """When the provider saw the first and the last line of a job's output; see `Client.log_times`."""
        return self._call(self._client.log_times, job_id)

    def funds(self) -> tuple[Decimal, Decimal]:
        """The own balance and allowance, in credits."""
        return self._call(self._client.funds)

    def set_allowance(self, credits: Decimal | int | str) -> None:
        """Let the market lock up to this amount of the own credits from now on."""
        self._call(self._client.set_allowance, credits)

    def raise_allowance(self, credits: Decimal | int | str) -> None:
        """Let the market lock this amount more than it may at the moment."""
        self._call(self._client.raise_allowance, credits)

    def revoke_allowance(self) -> None:
        """Let the market lock no more of the own credits."""
        self._call(self._client.revoke_allowance)

    def _iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        end = object()

        async def step() -> Any:
            return await anext(source, end)

        async def stop() -> None:
            await source.aclose()  # type: ignore[attr-defined]  # the client's iterators are generators

        try:
            while (item := self._call(step)) is not end:
                yield item
        finally:
            self._call(stop)


class BlockingJob:
    """The handle of one job, for synchronous code."""

    def __init__(self, client: BlockingClient, job: Job) -> None:
        self._client, self._job = client, job

    def __repr__(self) -> str:
        return f"BlockingJob({self.id})"

    @property
    def id(self) -> str:
        """0x and 64 hex digits."""
        return self._job.id

    @property
    def adopted(self) -> bool:
        """Whether `submit` found it by its key, and bought nothing."""
        return self._job.adopted

    @property
    def locked(self) -> Decimal | None:
        """The credits that its purchase locked; None for a handle made from an id."""
        return self._job.locked

    def info(self) -> JobInfo:
        """How the job stands now."""
        return self._client._call(self._job.info)

    def wait(self) -> JobInfo:
        """How the job stands at its end."""
        return self._client._call(self._job.wait)

    def top_up(self, *, credits: Decimal | int | str | None = None, time: timedelta | None = None) -> Decimal:
        """Lock more credits for it, by amount or for a time; see `Client.top_up`."""
        return self._client.top_up(self.id, credits=credits, time=time)

    def auto_top_up(self, wanted: AutoTopUp) -> None:
        """Top it up from now on, as long as the client is open; see `Client.auto_top_up`."""
        self._client.auto_top_up(self.id, wanted)

    def cancel(self) -> None:
        """Ask for its end."""
        self._client.cancel([self.id])

    def deliver(self) -> None:
        """Note that its result has reached you; see `Job.deliver`."""
        self._job.deliver()

    def result(self) -> bytes | None:
        """What it wrote to `$DEEPSQUARE_RESULT`, when it is at its end; see `Client.result`."""
        return self._client.result(self.id)

    def logs(self, *, follow: bool = True) -> Iterator[LogLine]:
        """Its output; see `Client.logs`."""
        return self._client.logs(self.id, follow=follow)
