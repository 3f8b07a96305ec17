"""What changes for an account, on a real chain: also what others do, what the chain takes back, and what no event tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from deepsquare.chain import watch
from deepsquare.chain.market import Market
from deepsquare.chain.rpc import request
from deepsquare.chain.types import to_hex
from deepsquare.client import account
from deepsquare.client.account import AccountNews, Listener
from deepsquare.client.client import Client

from core.tests.chain.conftest import Parties
from core.tests.chain.test_market import DEFINITION, MINUTE, NAME
from core.tests.client.test_keys import LIMIT, client, workflow
from core.tests.client.test_topup import run

__all__ = ["client"]

Until = Callable[[Callable[[AccountNews], object]], Any]


@asynccontextmanager
async def changes(client: Client) -> AsyncIterator[Until]:
    async with aclosing(client.changes()) as all_news:  # type: ignore[type-var]
        first = await anext(all_news)
        assert {job.info for job in first.jobs} == set(await client.jobs())
        assert (first.balance, first.allowance) == await client.funds()

        async def until(condition: Callable[[AccountNews], object]) -> AccountNews:
            async with asyncio.timeout(40):
                async for news in all_news:
                    if condition(news):
                        return news
            raise AssertionError

        yield until
    assert not client._watching._subscribers


def ids(news: AccountNews) -> list[str]:
    return [job.info.id for job in news.jobs]


async def test_a_job_its_price_its_top_up_and_its_cancel(parties: Parties, client: Client) -> None:
    async with changes(client) as until:
        job = await client.submit(workflow(), time_limit=LIMIT)
        news = await until(lambda news: job.id in ids(news))
        assert (news.balance, news.allowance) == await client.funds()
        await run(parties, job)
        news = await until(lambda news: any(job.minute for job in news.jobs))
        assert news.jobs[-1].minute == await price(client, job.id)
        added = await job.top_up(credits=3)
        news = await until(lambda news: job.id in ids(news))
        assert news.jobs[-1].info.locked == job.locked + added
        await job.cancel()
        await until(lambda news: any(job.is_cancelling for job in news.jobs))


async def price(client: Client, job_id: str) -> Any:
    (info,) = await client.jobs([job_id])
    return info.locked / (LIMIT.seconds // 60)


async def test_jobs_that_the_chain_takes_back_are_gone(parties: Parties, client: Client) -> None:
    async with changes(client) as until:
        snapshot = await request(parties.customer.w3, "evm_snapshot")
        job_id = to_hex(await parties.customer.request_job(DEFINITION, MINUTE, NAME))
        await until(lambda news: job_id in ids(news))
        await request(parties.customer.w3, "evm_revert", snapshot)
        await request(parties.customer.w3, "evm_mine")
        await until(lambda news: job_id in news.gone)


async def test_what_no_event_tells_a_look_finds(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(Listener, "hear", lambda *_: None)
    async with changes(client) as until:
        job = await client.submit(workflow(), time_limit=LIMIT)
        await until(lambda news: job.id in ids(news))


async def test_a_node_that_does_not_answer_is_told_of(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_PATIENCE_SECONDS", 0.1)
    answers, real = asyncio.Event(), Market.head

    async def head(market: Market) -> Any:
        await answers.wait()
        return await real(market)

    async with changes(client) as until:
        monkeypatch.setattr(Market, "head", head)
        await until(lambda news: "does not answer" in news.trouble)
        answers.set()
        await until(lambda news: not news.trouble)
