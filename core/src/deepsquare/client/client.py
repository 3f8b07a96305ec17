"""The customer's client: buys jobs, follows them, reads their output. `BlockingClient` is its blocking twin."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from deepsquare import contexts
from deepsquare.chain.market import Market
from deepsquare.chain.types import JobDefinition, parse_job_id, to_hex
from deepsquare.client.account import AccountNews, AccountWatch
from deepsquare.client.allowance import Allowance, EnsureAllowance, Policy, parse_policy
from deepsquare.client.auto_topup import AutoTopUp, AutoTopUps
from deepsquare.client.budget import Budget, Budgets
from deepsquare.client.cancelling import cancel_all
from deepsquare.client.funding import Funding, Offer, needs_of, offers
from deepsquare.client.handle import Job
from deepsquare.client.job import JobInfo
from deepsquare.client.journal import Journal
from deepsquare.client.logs import LogLine, LogReader
from deepsquare.client.many import Buy, submit_together
from deepsquare.client.orders import Order, Submission, Terms, check_kinds, job_name, look_at
from deepsquare.client.output import Output
from deepsquare.client.purchases import Purchase, Purchases, Purpose, digest_of
from deepsquare.client.sbatch import open_http, submit_workflow
from deepsquare.client.subscriber import Subscriber
from deepsquare.client.text import sanitize
from deepsquare.client.topup import TopUps
from deepsquare.client.watching import Watcher
from deepsquare.credits import from_wei, to_wei
from deepsquare.errors import (
    ConfigError,
    UnknownJobError,
)
from deepsquare.workflow.results import new_tag

if TYPE_CHECKING:
    import httpx

    from deepsquare.workflow import Workflow

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Client:
    """A connection to a grid as one customer.

    Use it as an async context manager, on one event loop:

        async with Client() as client:
            job = await client.submit(workflow, time_limit=timedelta(minutes=5))
            info = await job.wait()
    """

    def __init__(self, context: str | None = None, *, sealed: bool = False) -> None:
        """Choose the grid: the name of a context, or None for the current one.

        With `sealed`, the wallet is opened when something is to be signed: who only looks needs no password.

        Raises:
            ConfigError: no such context, or its wallet can't be opened.
        """
        self.context = contexts.load(context)
        self._wallet = contexts.open_wallet(self.context, sealed=sealed)
        self._market: Market | None = None
        self._http: httpx.AsyncClient | None = None
        self._journal = Journal(contexts.home() / "journal.db")
        self._output = Output(self, self._journal, LogReader(self.context.logger_grpc, self._wallet))
        self._watcher: Watcher | None = None
        self._purchases: Purchases | None = None
        self._auto_top_ups: AutoTopUps | None = None
        self._in_flight: set[asyncio.Task[Any]] = set()
        self._paying: weakref.WeakSet[Any] = weakref.WeakSet()

    async def __aenter__(self) -> Self:
        self._market = await Market.open(
            self.context.rpc_url,
            self.context.metascheduler,
            wallet=self._wallet,
            lock_folder=contexts.home() / "locks",
            chain_id=self.context.chain_id,
            max_fee_wei=self.context.max_fee_wei,
            cache_folder=contexts.home() / "cache",
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections, when the purchases and top-ups in flight are done; jobs go on running."""
        if self._auto_top_ups is not None:
            await self._auto_top_ups.close()
            self._auto_top_ups = None
        if self._in_flight:
            await asyncio.wait(self._in_flight)
        if self._watcher is not None:
            await self._watcher.close()
            self._watcher = None
        await self._output.close()
        if self._http is not None:
            await self._http.aclose()
            self._http = None
        if self._market is not None:
            await self._market.close()
            self._market = None
        self._journal.close()

    @property
    def account(self) -> str:
        """The customer's address."""
        return self._wallet.address

    @property
    def market(self) -> Market:
        """The contracts.

        Raises:
            ConfigError: the client is not open.
        """
        if self._market is None:
            raise ConfigError("the client is not open: use `async with Client() as client`")
        return self._market

    @property
    def purchases(self) -> Purchases:
        """What buys jobs.

        Raises:
            ConfigError: the client is not open.
        """
        if self._purchases is None:
            self._purchases = Purchases(
                self.market,
                self._wallet,
                self._journal,
                context=self._grid(),
                lock_folder=contexts.home() / "locks",
            )
        return self._purchases

    @property
    def _watching(self) -> Watcher:
        """What tells of the chain.

        Raises:
            ConfigError: the client is not open.
        """
        if self._watcher is None:
            self._watcher = Watcher(self.market, self.context.ws_url)
        return self._watcher

    # ------------------------------------------------------------------ buying

    async def submit(
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
    ) -> Job:
        """Buy one job, or with a key find the one that was bought before.

        When the call is cancelled while the purchase is in flight, the purchase goes on, and `close` waits for it.

        Args:
            workflow: what to run.
            time_limit: how long it may run; the credits for that are locked, what isn't used comes back.
            credits: lock exactly this amount instead.
            max_price: the most credits that the whole job may lock, automatic top-ups included: nothing is bought when the time
                limit would cost more at the dearest provider that could get the job. Given alone, all of it is locked, as with
                `credits`: then the job may run as long as it buys, and what isn't used comes back.
            margin_percent: lock so much more than the time limit costs now, so that the job has its whole time also if prices
                rise before the market fixes its own, at the assignment. If they don't, it may run that much longer.
            name: its public name on chain, at most 32 bytes of UTF-8; a random tag when left out.
            labels: names of yours for it, kept on this machine only.
            key: your name for the piece of work. As long as the last job under it is hot, or has finished and was not delivered
                (see `Job.deliver`), that one is returned and nothing is bought, whatever was cut off in between and whichever
                machine it was. After a job that failed, was cancelled or was delivered, the key buys anew. It is private: on
                chain stands what only your wallet can make of it.
            ensure_allowance: what happens when the market may take less than the job locks. "never": nothing is bought.
                "exact": the allowance is raised to what this job locks. An amount of credits: it is raised to that amount, so
                that it lasts for more jobs; it is never raised beyond. Such purchases of this machine take turns; for many jobs
                at once, give an allowance before (`set_allowance`).
            auto_top_up: lock more before the job runs dry: by this client as long as it is open, or by the grid. For a job that
                the key finds, only what the client does begins anew.
            budget: what all jobs of its scope may cost together; this one's top-ups count too, and what the grid may add.
            result: have the job send what its commands write to `$DEEPSQUARE_RESULT`, at most 1 MiB, for `Job.result`.

        Returns:
            The job's handle, as soon as the purchase is in a block.

        Raises:
            ValueError: `time_limit`, `credits` and `max_price` are all missing or contradict each other, one is out of range, or
                the key is empty.
            NoProviderError: no provider could run it; nothing was bought.
            MaxPriceError: it would lock more than `max_price`; nothing was bought.
            FundingError: balance or allowance too low; nothing was bought.
            BudgetError: the budget has not so much left; nothing was bought.
            WorkflowError: it can't send a result; nothing was bought.
            WorkflowRejectedError: the sbatch API found the workflow invalid; nothing was bought.
            ContractError: the contract refused; nothing was bought.
            KeyUsedError: the job under the key was bought for another workflow; nothing was bought.
            PurchaseUnknownError: the purchase was sent, and its answer was lost for good: look before you buy again, or submit
                with the same key.
            ConnectionFailedError: the grid can't be reached; nothing was bought.
        """
        wanted = Submission(
            workflow,
            time_limit=time_limit,
            credits=credits,
            max_price=max_price,
            margin_percent=margin_percent,
            name=name,
            labels=labels,
            key=key,
            auto_top_up=auto_top_up,
            budget=budget,
            result=result,
        )
        order = self._order(wanted, parse_policy(ensure_allowance))

        async def buy(purchase: Purchase) -> str:
            async with self._allowance.ensured(purchase.locked, order.ensure_allowance):
                return await self.purchases.buy(purchase)

        if key is None:
            return await self._buy(order, buy)
        return await self._until_paid(self._buy_alone(key, wanted, order, buy))

    async def _buy_alone(self, key: str, wanted: Submission, order: Order, buy: Buy) -> Job:
        async with self.purchases.alone([key]):
            return await self._buy_under_key(wanted, order, buy)

    async def submit_many(
        self, submissions: Sequence[Submission], *, ensure_allowance: EnsureAllowance = "never"
    ) -> list[Job | Exception]:
        """Buy many jobs, with few transactions where the market can.

        When the call is cancelled while purchases are in flight, they go on, and `close` waits for them.

        Args:
            submissions: what to buy. Of several with the same key one is bought.
            ensure_allowance: as `submit` has it, for all of them together.

        Returns:
            For each submission, in their order, the job's handle, or the error that `submit` would have raised for it: then it
            was not bought, unless it is a `PurchaseUnknownError`.

        Raises:
            ValueError: `ensure_allowance` is no policy.
            FundingError: it allows less than they need together; nothing was bought.
        """
        policy = parse_policy(ensure_allowance)

        looking: asyncio.Task[Terms] | None = None

        async def look() -> Terms:
            # Once for all of them; one that is cancelled doesn't end it for the others.
            nonlocal looking
            looking = looking or asyncio.create_task(look_at(self.market, self.account))
            return await asyncio.shield(looking)

        async def buy_one(wanted: Submission, buy: Buy) -> Job:
            order = replace(self._order(wanted, policy), look=look)
            return await (self._buy(order, buy) if wanted.key is None else self._buy_under_key(wanted, order, buy))

        async def buy_all() -> list[Job | Exception]:
            whole = asyncio.current_task()

            async def pay(purchases: Sequence[Purchase]) -> list[str | Exception]:
                self._paying.add(whole)
                async with self._allowance.ensured(sum(purchase.locked for purchase in purchases), policy):
                    return await self.purchases.buy_many(purchases)

            return await submit_together(submissions, buy_one, pay=pay, alone=self.purchases.alone)

        return await self._until_paid(buy_all())

    def _order(self, wanted: Submission, policy: Policy) -> Order:
        check_kinds(wanted)
        if wanted.key == "":
            raise ValueError("key is empty: give the work a name, or leave the key out")
        order = Order(
            wanted.workflow,
            Funding(wanted.time_limit, wanted.credits, wanted.max_price, wanted.margin_percent),
            job_name(wanted.name),
            wanted.name,
            wanted.labels or {},
            policy,
            look=partial(look_at, self.market, self.account),
            auto_top_up=wanted.auto_top_up,
            budget=wanted.budget,
            tag=new_tag() if wanted.result else None,
        )
        order.delegate_cap(self.market)
        # Whether it can send a result is known before anything is asked for.
        _ = order.script
        return order

    async def _buy_under_key(self, wanted: Submission, order: Order, buy: Buy) -> Job:
        """Find the job of a key, or buy it; nobody else on this machine buys under the key meanwhile."""
        assert wanted.key is not None
        digest = digest_of(wanted.workflow, result=wanted.result)
        record, generation = await self.purchases.known(wanted.key, digest)
        if wanted.result:
            order = replace(order, tag=self.purchases.result_tag(wanted.key, generation))
        if record is not None:
            if order.tag is not None:
                # It may have been another machine.
                self._journal.keep_tag(record.definition.batch_location_hash, order.tag)
            await self._budgets.adopt(wanted.budget, record)
            self._watch_over(to_hex(record.job_id), wanted.auto_top_up)
            return Job(self, to_hex(record.job_id), from_wei(record.max_cost), adopted=True)
        if wanted.name is None and not self.market.extended:
            order = replace(order, job_name=self.purchases.tag(wanted.key, generation))
        return await self._buy(replace(order, purpose=Purpose(wanted.key, generation, digest)), buy)

    async def _buy(self, order: Order, buy: Buy) -> Job:
        needs = needs_of(order.workflow)
        locked = order.locked(needs, await order.look())
        if self._http is None:
            self._http = open_http()
        location = await submit_workflow(self.context.sbatch_url, order.script.to_dict(), self._wallet, http=self._http)
        if order.tag is not None:
            self._journal.keep_tag(location, order.tag)
        self._paying.add(asyncio.current_task())
        job_id = await self._whole(self._pay(order, replace(needs, batch_location_hash=location), locked, buy))
        self._watch_over(job_id, order.auto_top_up)
        return Job(self, job_id, from_wei(locked))

    async def _until_paid(self, work: Coroutine[Any, Any, T]) -> T:
        """Carry out what prepares a payment and pays, with its locks: an interrupt ends it before it pays, and not after."""
        task = asyncio.create_task(work)
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)
        task.add_done_callback(self._paying.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task not in self._paying:
                task.cancel()
                await asyncio.wait({task})
            raise

    async def _whole(self, payment: Coroutine[Any, Any, T]) -> T:
        """Carry out what pays in a task of its own: an interrupt must not cut off half-way what may be paid already."""
        task = asyncio.create_task(payment)
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)
        return await asyncio.shield(task)

    async def _pay(self, order: Order, definition: JobDefinition, locked: int, buy: Buy) -> str:
        delegate_cap = order.delegate_cap(self.market)
        # What the grid may add, nobody asks for once more.
        whole, location = locked + (delegate_cap or 0), definition.batch_location_hash
        async with self._budgets.reserved(order.budget, whole, location=location):
            return await buy(
                Purchase(definition, locked, order.job_name, order.labels, order.purpose, delegate_cap, order.name)
            )

    async def estimate(self, workflow: Workflow, time_limit: timedelta | None = None) -> list[Offer]:
        """What a job would cost at each provider that could get it, the cheapest first; nothing is signed or paid.

        Raises:
            NoProviderError: no provider could run it.
            ValueError: the time limit is not positive.
            ConnectionFailedError: the chain can't be reached.
        """
        return offers(needs_of(workflow), await self.market.providers(), time_limit)

    async def funds(self) -> tuple[Decimal, Decimal]:
        """The own balance, and what the market may still take of it, in credits."""
        balance, allowance = await asyncio.gather(
            self.market.balance_of(self.account), self.market.allowance_of(self.account)
        )
        return from_wei(balance), from_wei(allowance)

    async def set_allowance(self, credits: Decimal | int | str) -> None:
        """Let the market lock up to this amount of the own credits from now on; it replaces the allowance of before."""
        await self._allowance.set(to_wei(credits, field="allowance"))

    async def raise_allowance(self, credits: Decimal | int | str) -> None:
        """Let the market lock this amount more than it may at the moment, whatever is bought meanwhile.

        Raises:
            ValueError: it is no amount, or more than there can be.
        """
        await self._allowance.raise_by(to_wei(credits, field="credits"))

    async def revoke_allowance(self) -> None:
        """Let the market lock no more of the own credits; what is locked already stays so."""
        await self._allowance.set(0)

    @property
    def _allowance(self) -> Allowance:
        return Allowance(self.market, self._journal, context=self._grid(), lock_folder=contexts.home() / "locks")

    async def top_up(
        self, job_id: str, *, credits: Decimal | int | str | None = None, time: timedelta | None = None
    ) -> Decimal:
        """Lock more credits for an own job that a provider has; what isn't used comes back when it ends.

        When the call is cancelled while the top-up is in flight, it goes on, and `close` waits for it.

        Args:
            job_id: the job's id.
            credits: how many, at least a minute's worth.
            time: or for how much longer it may run, in started minutes at the price that its assignment fixed.

        Returns:
            The credits that were locked.

        Raises:
            ValueError: neither or both of `credits` and `time`, or one that is out of range.
            UnknownJobError: the id is no job's.
            TopUpError: the job is another customer's, waits for a provider, or has ended; nothing was locked.
            FundingError: balance or allowance too low; nothing was locked.
            BudgetError: the job's budget has not so much left; nothing was locked.
            ContractError: the contract refused; nothing was locked.
            TopUpUnknownError: it was sent, and its answer was lost: look before you add it again.
        """
        return from_wei(await self._whole(self._top_ups.add(parse_job_id(job_id), credits=credits, time=time)))

    async def auto_top_up(self, job_id: str, wanted: AutoTopUp) -> None:
        """Top up a job of before from now on, as long as this client is open.

        Raises:
            ValueError: it is to be done by the grid, which the purchase alone can authorise.
            UnknownJobError: the id is no job's.
        """
        if wanted.by == "grid":
            raise ValueError(
                'by is "grid", which only a purchase can authorise: say it to submit, or let the client do it'
            )
        (info,) = await self.jobs([job_id])
        self._watch_over(info.id, wanted)

    def _watch_over(self, job_id: str, wanted: AutoTopUp | None) -> None:
        if wanted is None or wanted.by == "grid":
            return
        if self._auto_top_ups is None:
            self._auto_top_ups = AutoTopUps(
                self.market, self._top_ups, ensure_watcher=self._watching.start, whole=self._whole
            )
            self._watching.add(self._auto_top_ups.subscriber)
        self._auto_top_ups.add(parse_job_id(job_id), wanted)

    @property
    def _top_ups(self) -> TopUps:
        return TopUps(
            self.market, self._journal, self._budgets, context=self._grid(), lock_folder=contexts.home() / "locks"
        )

    async def spent(self, scope: str) -> Decimal:
        """The credits that the jobs of a budget have locked, as long as they are hot, or were billed."""
        return from_wei(await self._budgets.spent(scope))

    @property
    def _budgets(self) -> Budgets:
        return Budgets(self.market, self._journal, context=self._grid(), customer=self.account)

    # ------------------------------------------------------------------ looking

    def job(self, job_id: str) -> Job:
        """The handle of a job by its id (0x-hex or number), also of another process's.

        Raises:
            ValueError: that is no job id.
        """
        return Job(self, to_hex(parse_job_id(job_id)), None)

    async def jobs(self, job_ids: Iterable[str] | None = None) -> list[JobInfo]:
        """How jobs stand, with one call for many, in the order of the ids; None means all of this customer's, oldest first.

        A job whose purchase the chain took back is bought again by the same transaction; its `JobInfo.id` may be another then.

        Raises:
            UnknownJobError: an id is no job's.
            PurchaseUnknownError: a job that this machine bought is on the chain no longer, or not yet.
        """
        if job_ids is None:
            return [JobInfo.of(record) for record in await self.market.jobs_of(self.account)]
        ids = [parse_job_id(job_id) for job_id in job_ids]
        records = await self.purchases.reinstate(ids, await self.market.get_jobs(ids))
        unknown = [to_hex(job_id) for job_id, record in zip(ids, records, strict=True) if record is None]
        if unknown:
            raise UnknownJobError(unknown)
        return [JobInfo.of(record) for record in records if record is not None]

    async def find(self, key: str) -> Job | None:
        """The last job that was bought under a key, by whichever machine; None if there is none."""
        record = await self.purchases.find(key)
        return None if record is None else Job(self, to_hex(record.job_id), from_wei(record.max_cost))

    async def find_by(self, *, name: str | None = None, labels: Mapping[str, str] | None = None) -> list[JobInfo]:
        """The jobs that were bought from this machine under a public name, or with labels (these, and maybe others); oldest first.

        Raises:
            ValueError: neither is given.
        """
        if name is None and not labels:
            raise ValueError("give a name or labels to find jobs by; jobs() lists all")
        found = self._journal.job_ids(self._grid(), self.account, name=name, labels=labels)
        ids = [parse_job_id(job_id) for job_id in found]
        records = await self.purchases.reinstate(ids, await self.market.get_jobs(ids))
        for job_id, record in zip(found, records, strict=True):
            if record is None:
                _log.warning("the node does not know the job %s: it is left out", job_id)
        return [JobInfo.of(record) for record in records if record is not None]

    def labels(self) -> dict[str, dict[str, str]]:
        """The labels that this machine gave to its submissions, by `JobInfo.location_hash`."""
        return self._journal.labels(self._grid(), self.account)

    def names(self) -> dict[str, str]:
        """The public names that this machine gave to its submissions, by `JobInfo.location_hash`; most have a random one."""
        return self._journal.given_names(self._grid(), self.account)

    def _grid(self) -> str:
        """The grid's name in the journal: its contract, as CAIP-10 writes it. A context's name may come to mean another grid."""
        return f"eip155:{self.context.chain_id}:{self.context.metascheduler.lower()}"

    async def watch(self, job_ids: Sequence[str]) -> AsyncIterator[JobInfo]:
        """Yield how each job stands, at first and whenever its status changes, until all are at their end.

        All watches of a client share one subscription, however many jobs they follow.
        """
        subscriber = Subscriber({parse_job_id(job_id) for job_id in job_ids})
        with self._watching.tells(subscriber):
            seen: dict[bytes, int] = {}
            changed: set[bytes] = set(subscriber.job_ids)
            while True:
                await self._watching.start()
                looked_at = sorted(changed)
                for asked, info in zip(looked_at, await self.jobs(to_hex(job_id) for job_id in looked_at), strict=True):
                    job_id = parse_job_id(info.id)
                    if job_id != asked:
                        subscriber.job_ids.discard(asked)
                        subscriber.job_ids.add(job_id)
                    if seen.get(job_id) != info.status:
                        seen[job_id] = info.status
                        yield info
                    if info.status.is_cold:
                        subscriber.job_ids.discard(job_id)
                if not subscriber.job_ids:
                    return
                changed = await subscriber.next()

    async def changes(self) -> AsyncIterator[AccountNews]:
        """Yield all of the account's jobs and its money at first, and then what changes, for ever; see `AccountNews`.

        It shares the subscription of `watch`, and finds jobs that other processes buy, too. The calls to the node grow with its
        blocks, not with the jobs.

        Raises:
            DeepSquareError: the node can't be asked, after the retries; what changes meanwhile the next call tells.
        """
        account = AccountWatch(self.market, self._watching.start)
        with self._watching.tells(account.listener):
            async with contextlib.aclosing(account.news()) as all_news:
                async for news in all_news:
                    yield news

    # ------------------------------------------------------------------ ending

    async def cancel(self, job_ids: Iterable[str]) -> None:
        """Ask for the end of jobs; those at their end already are left alone.

        Raises:
            DeepSquareError: some could not be cancelled; the text says which and why, the others are cancelled all the same.
        """
        hot = [info for info in await self.jobs(list(job_ids)) if info.status.is_hot]
        await cancel_all(self.market, hot)

    # ------------------------------------------------------------------ output

    async def logs(
        self, job_id: str, *, follow: bool = True, trouble: Callable[[str], None] | None = None
    ) -> AsyncIterator[LogLine]:
        """The lines of a job's output, oldest first; with `follow` until the job is at its end, else what there is now.

        While the logger can't be reached, it is tried again for two minutes; `trouble` is told so in words, each time.

        Raises:
            UnknownJobError: the id is no job's.
            ApiError: the logger refuses, for example because the job is another customer's.
            ConnectionFailedError: the logger or the chain can't be reached.
        """
        async with contextlib.aclosing(self._output.lines(job_id, follow=follow, trouble=trouble)) as lines:
            async for line in lines:
                yield line

    async def result(self, job_id: str) -> bytes | None:
        """What a job that was submitted with `result=True` wrote to `$DEEPSQUARE_RESULT`, when it is at its end.

        It is the provider's word: treat it as data from a stranger, and never unpickle it.

        Returns:
            The file's bytes, or None if there was none.

        Raises:
            ResultError: it is incomplete, too large, damaged or no file; or the job was not asked for one on this machine, and not
                under a key.
            UnknownJobError: the id is no job's.
        """
        return await self._output.result(job_id)

    async def log_tail(self, job_id: str, lines: int = 20) -> list[str]:
        """The last lines of a job's output so far, safe to print on a terminal."""
        return await self._output.tail(job_id, lines)

    async def log_times(self, job_id: str) -> tuple[datetime, datetime] | None:
        """When the provider saw the first and the last line of a job's output so far; None when there is none.

        Raises:
            ApiError: the logger refuses, for example because the job is another customer's.
            ConnectionFailedError: the logger can't be reached.
        """
        return await self._output.times(to_hex(parse_job_id(job_id)))


__all__ = ["Client", "Job", "JobInfo", "LogLine", "sanitize"]
