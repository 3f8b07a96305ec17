"""Many jobs bought together: in order, in few transactions, each with its own end. The sbatch API's answer is not real."""

from __future__ import annotations

import asyncio
import os
from decimal import Decimal
from typing import Any

import pytest
from deepsquare.chain.errors import ContractError
from deepsquare.chain.transactions import Sender, Sent
from deepsquare.chain.types import JobStatus
from deepsquare.client import client as client_module
from deepsquare.client.blocking import BlockingClient, BlockingJob
from deepsquare.client.budget import Budget, BudgetError
from deepsquare.client.client import Client
from deepsquare.client.funding import FundingError
from deepsquare.client.handle import Job
from deepsquare.client.orders import Submission
from deepsquare.errors import ConnectionFailedError, KeyUsedError

from core.tests.chain.conftest import Parties
from core.tests.client.test_keys import LIMIT, client, count, stand_in, workflow

__all__ = ["client"]


def ten(number: int, **options: Any) -> Submission:
    """A job of its own, for ten credits."""
    return Submission(workflow(), credits=10, labels={"number": str(number)}, **options)


def jobs(found: list[Job | Exception]) -> list[Job]:
    assert all(isinstance(one, Job) for one in found), found
    return [one for one in found if isinstance(one, Job)]


async def numbers(client: Client, bought: list[Job]) -> list[str]:
    labels = client.labels()
    return [labels[info.location_hash]["number"] for info in await client.jobs(job.id for job in bought)]


async def test_many_are_bought_in_order_and_in_few_transactions(parties: Parties, client: Client) -> None:
    before, block = await count(parties), await parties.customer.block_number()
    bought = jobs(await client.submit_many([ten(n) for n in range(60)]))
    assert await numbers(client, bought) == [str(n) for n in range(60)]
    assert await count(parties) == before + 60
    # A block a transaction.
    assert await parties.customer.block_number() - block == (2 if parties.customer.extended else 60)
    await client.cancel([job.id for job in bought])


async def test_what_is_wrong_with_one_is_no_other_ones_trouble(parties: Parties, client: Client) -> None:
    before = await count(parties)
    wanted = [
        ten(0),
        Submission(workflow(), credits=Decimal("0.001")),
        ten(2),
        Submission(workflow()),
        Submission(workflow(), credits=10**9),
        ten(5, key=""),
        ten(6, budget=Budget(5, "small")),
        ten(7, budget=Budget(15, "large")),
        ten(8, budget=Budget(15, "large")),
    ]
    found = await client.submit_many(wanted)
    kinds = [type(one) for one in found]
    assert kinds[:7] == [Job, ValueError, Job, ValueError, FundingError, ValueError, BudgetError]
    assert sorted(kind.__name__ for kind in kinds[7:]) == ["BudgetError", "Job"]
    assert await count(parties) == before + 3
    await client.cancel([one.id for one in found if isinstance(one, Job)])


async def test_when_the_credits_are_not_enough_for_all_some_are_bought(parties: Parties, client: Client) -> None:
    await client.set_allowance(45)
    found = await client.submit_many([ten(n) for n in range(8)])
    bought = [one for one in found if isinstance(one, Job)]
    assert len(bought) == 4
    assert all(isinstance(one, Job | ContractError) for one in found)
    assert (await client.funds())[1] == 5
    await client.set_allowance(10_000)
    await client.cancel([job.id for job in bought])


async def test_the_allowance_is_raised_for_all_together(client: Client) -> None:
    await client.set_allowance(0)
    with pytest.raises(ValueError, match="ensure_allowance"):
        await client.submit_many([ten(0)], ensure_allowance="sometimes")
    bought = jobs(await client.submit_many([ten(n) for n in range(4)], ensure_allowance="exact"))
    assert (await client.funds())[1] == 0
    assert all(isinstance(one, FundingError) for one in await client.submit_many([ten(0), ten(1)]))
    await client.set_allowance(10_000)
    await client.cancel([job.id for job in bought])


async def test_keys_of_before_and_keys_that_come_twice(parties: Parties, client: Client) -> None:
    old = await client.submit(workflow(), time_limit=LIMIT, key="old")
    before = await count(parties)
    wanted = [
        ten(0, key="new"),
        Submission(workflow(), credits=10, key="old"),
        ten(2, key="new"),
        Submission(workflow("false"), credits=10, key="new"),
        ten(4),
    ]
    new, again, same, other, last = await client.submit_many(wanted)
    assert isinstance(new, Job)
    assert isinstance(again, Job)
    assert isinstance(same, Job)
    assert isinstance(last, Job)
    assert (again.id, again.adopted) == (old.id, True)
    assert (same.id, same.adopted, new.adopted) == (new.id, True, False)
    assert isinstance(other, KeyUsedError)
    assert await count(parties) == before + 2
    assert (await client.find("new") or last).id == new.id
    await client.cancel([new.id, old.id, last.id])


async def test_two_that_buy_under_the_same_keys_at_once(parties: Parties, client: Client) -> None:
    before = await count(parties)
    first, second = await asyncio.gather(
        client.submit_many([ten(n, key=f"both {n}") for n in range(4)]),
        client.submit_many([ten(n, key=f"both {n}") for n in reversed(range(4))]),
    )
    assert [job.id for job in jobs(first)] == [job.id for job in reversed(jobs(second))]
    assert await count(parties) == before + 4
    await client.cancel([job.id for job in jobs(first)])


async def test_an_answer_that_is_lost_loses_no_job(
    parties: Parties, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, resend, lost = await count(parties), Sender._hand_in, [True]

    async def answer_lost(self: Sender, sent: Sent, *, is_new: bool) -> Sent:
        found = await resend(self, sent, is_new=is_new)
        if lost:
            lost.pop()
            raise ConnectionFailedError("the chain can't be reached")
        return found

    monkeypatch.setattr(Sender, "_hand_in", answer_lost)
    bought = jobs(await client.submit_many([ten(n) for n in range(5)]))
    assert await numbers(client, bought) == [str(n) for n in range(5)]
    assert await count(parties) == before + 5
    assert {info.status for info in await client.jobs(job.id for job in bought)} == {JobStatus.PENDING}
    await client.cancel([job.id for job in bought])


async def test_nothing_is_nothing(client: Client) -> None:
    assert await client.submit_many([]) == []


async def test_the_blocking_twin(client: Client) -> None:
    def buy() -> list[str]:
        with BlockingClient("grid") as own:
            good, bad = own.submit_many([ten(0), Submission(workflow())])
            assert isinstance(bad, ValueError)
            assert isinstance(good, BlockingJob)
            return [good.id]

    await client.cancel(await asyncio.to_thread(buy))


async def test_an_interrupt_before_it_is_paid_buys_nothing(
    parties: Parties, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, ready = await count(parties), 0
    stored = asyncio.Event()

    async def slow(*_: Any, **__: Any) -> str:
        nonlocal ready
        ready += 1
        if ready == 3:
            stored.set()
            await asyncio.sleep(60)
        return os.urandom(6).hex()

    monkeypatch.setattr(client_module, "submit_workflow", slow)
    submission = asyncio.create_task(client.submit_many([ten(n, key=f"interrupted {n}") for n in range(3)]))
    await stored.wait()
    submission.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submission
    assert await count(parties) == before
    monkeypatch.setattr(client_module, "submit_workflow", stand_in)
    # Its locks are free, and nothing waits for ever.
    bought = jobs(await asyncio.wait_for(client.submit_many([ten(n, key=f"interrupted {n}") for n in range(3)]), 60))
    await client.cancel([job.id for job in bought])


async def test_an_interrupt_while_it_is_paid_loses_nothing(
    parties: Parties, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, resend, leaving = await count(parties), Sender._hand_in, asyncio.Event()

    async def slow(self: Sender, sent: Sent, *, is_new: bool) -> Sent:
        leaving.set()
        await asyncio.sleep(0.5)
        return await resend(self, sent, is_new=is_new)

    monkeypatch.setattr(Sender, "_hand_in", slow)
    wanted = [ten(n, key=f"paid {n}") for n in range(3)]
    for buy in (client.submit_many(wanted), client.submit(workflow(), credits=10, key="paid alone")):
        # What goes on of the one before is none of this one's.
        while client._in_flight:
            await asyncio.sleep(0.1)
        submission = asyncio.create_task(buy)  # type: ignore[arg-type]
        leaving.clear()
        await leaving.wait()
        submission.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submission
    # Whoever comes next waits for the lock, and finds what was bought.
    again = jobs(await client.submit_many([*wanted, Submission(workflow(), credits=10, key="paid alone")]))
    assert all(job.adopted for job in again)
    assert await count(parties) == before + 4
    await client.cancel([job.id for job in again])


async def test_an_error_of_one_is_that_ones_alone(parties: Parties, client: Client) -> None:
    before = await count(parties)
    good, bad = await client.submit_many([ten(0), Submission(workflow(), time_limit="5m")])  # type: ignore[arg-type]
    assert isinstance(good, Job)
    assert isinstance(bad, ValueError)
    assert await count(parties) == before + 1
    await good.cancel()
