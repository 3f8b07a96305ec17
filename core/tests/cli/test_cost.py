"""`deepsquare cost`: sums, charts, what programs get, and which options exclude each other."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from deepsquare import contexts
from deepsquare.chain.market import Assignment
from deepsquare.chain.types import UNLIMITED, JobDefinition, JobReport, JobStatus, to_hex
from deepsquare.cli.chart import print_bars
from deepsquare.client.journal import Journal
from deepsquare.credits import from_wei
from deepsquare.tasks import short_id

from core.tests.chain.conftest import PRICES, Parties
from core.tests.cli.conftest import Said

NAME = b"=1+1".ljust(32, b"\0")


def definition(location: str) -> JobDefinition:
    return JobDefinition(1, 1, 1000, 0, location)


MINUTE = definition("").cost_per_minute(PRICES)


async def run(parties: Parties, location: str, seconds: int) -> bytes:
    """Buy a job, and end it with a report of some seconds."""
    job_id = await parties.customer.request_job(definition(location), 5 * MINUTE, NAME)
    await parties.scheduler.meta_schedule([Assignment(job_id, parties.provider.account, UNLIMITED)])
    await parties.provider.claim_jobs(1)
    await parties.provider.report([JobReport(job_id, JobStatus.RUNNING)])
    await parties.provider.report([JobReport(job_id, JobStatus.FINISHED, seconds)])
    return job_id


@pytest.fixture
async def cost(
    cli: Callable[..., Said], home: Path, parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Said]:
    """Run `deepsquare cost` as the customer, who has one job of the run 7 more that took a minute, and one that is hot."""
    monkeypatch.setenv("DEEPSQUARE_PRIVATE_KEY", "04" * 32)
    customer, house = parties.customer.account, parties.customer.address("MetaScheduler")
    contexts.save(
        contexts.Context(
            name="local",
            chain_id=179188,
            rpc_url=parties.url,
            metascheduler=house,
            sbatch_url="http://127.0.0.1:1/graphql",
            sbatch_grpc="127.0.0.1:1",
            logger_grpc="127.0.0.1:1",
            account=customer,
            wallet="none",
        )
    )
    contexts.use("local")
    journal = Journal(contexts.home() / "journal.db")
    journal.intend(
        location_hash="seven",
        context=f"eip155:179188:{house.lower()}",
        customer=customer,
        labels={"run": "7"},
        locked=5 * MINUTE,
    )
    journal.close()
    await run(parties, "seven", 60)
    await parties.customer.request_job(definition("other"), 5 * MINUTE, NAME)
    return lambda *arguments: cli("cost", *arguments)


async def test_programs_get_exact_money_and_transactions(cost: Callable[..., Said], parties: Parties) -> None:
    shown = json.loads((await asyncio.to_thread(cost, "--json", "--by", "run")).out)
    rows = list(csv.DictReader(io.StringIO((await asyncio.to_thread(cost, "--csv")).out, newline="")))
    assert len(shown["jobs"]) == len(rows) > 1
    for job, row in zip(shown["jobs"], rows, strict=True):
        assert row["name"] == "'=1+1"
        assert (row["id"], row["purchase_transaction"]) == (job["id"], job["purchase_transaction"])
        assert row["end_transaction"] == (job["end_transaction"] or "")
        assert row["locked_wei"] == job["locked_wei"] == str(5 * MINUTE)
        assert row["label.run"] == job["labels"].get("run", "")
    ended, hot = shown["jobs"][-2:]
    assert (ended["billed_wei"], ended["billed"]) == (str(MINUTE), f"{from_wei(MINUTE):f}")
    assert ended["price_per_minute"] == (f"{from_wei(MINUTE):f}" if parties.customer.extended else None)
    assert (hot["billed_wei"], hot["end_transaction"]) == (None, None)
    assert [group["name"] for group in shown["groups"]] == ["7", None]
    assert shown["groups"][0]["billed_wei"] == str(sum(int(job["billed_wei"] or 0) for job in shown["jobs"]))


async def test_people_get_sums_and_bars(cost: Callable[..., Said]) -> None:
    table = (await asyncio.to_thread(cost, "--by", "run")).out.splitlines()
    assert table[0].split() == ["RUN", "JOBS", "LOCKED", "BILLED", "REFUNDED"]
    assert [line.split()[0] for line in table[1:]] == ["7", "-", "all"]
    assert (await asyncio.to_thread(cost, "--by", "day")).out.startswith("by the day of the purchase, in local time (")
    bars = (await asyncio.to_thread(cost, "--chart", "--by", "run")).out.splitlines()
    assert bars[1].endswith("#" * 40)
    assert bars[2].split() == ["-", "0.0000"]
    assert len((await asyncio.to_thread(cost, "--chart", "--until", "2020-01-01")).out.splitlines()) == 2
    wrong = await asyncio.to_thread(cost, "--by", "rnu")
    assert (wrong.code, "no job has the label 'rnu'; group by one of run, or by day" in wrong.err) == (1, True)


async def test_an_audit_that_points_at_somebody_or_can_not_read_ends_with_1(
    cost: Callable[..., Said], parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepsquare.client.logs.GIVE_UP_SECONDS", 0)
    said = await asyncio.to_thread(cost, "--audit")
    assert said.code == 1
    assert "could not be read: the grid logger at 127.0.0.1:1 can't be reached" in said.err
    assert "0 suspicious of" in said.out
    assert ("at the prices that providers have now" in said.out) is not parties.customer.extended
    greedy = await run(parties, "other", 300)
    (line,) = [line for line in (await asyncio.to_thread(cost, "--audit")).out.splitlines() if "SUSPICIOUS" in line]
    assert line.startswith(
        f"SUSPICIOUS {short_id(to_hex(greedy))} (FINISHED, {parties.provider.account}): billed 5m00s, but"
    )
    audit = json.loads((await asyncio.to_thread(cost, "--audit", "--json")).out)["audit"]
    assert [(one["id"], one["exceeds"]) for one in audit["suspicious"]] == [(to_hex(greedy), ["chain"])]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--csv", "--json"), "--csv prints a row a job"),
        (("--csv", "--audit"), "--csv prints a row a job"),
        (("--chart", "--json"), "--chart is for people"),
        (("--since", "2026-02-02", "--until", "2026-02-01"), "--since 2026-02-02 is after --until 2026-02-01"),
        (("--since", "yesterday"), "'yesterday' does not match the format"),
    ],
)
def test_what_makes_no_sense_is_wrong_use(cli: Callable[..., Said], arguments: tuple[str, ...], words: str) -> None:
    said = cli("cost", *arguments)
    assert said.code == 2
    assert words in " ".join(said.err.replace("│", " ").split())


def test_bars_are_plain_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    print_bars([("a", 10**30, "much"), ("long", 1, "1"), ("none", 0, "0")])
    assert capsys.readouterr().out.splitlines() == [f"a     much  {'#' * 40}", "long     1  #", "none     0"]
    print_bars([("none", 0, "0")])
    assert capsys.readouterr().out == "none  0\n"
    print_bars([])


def test_bars_are_drawn_on_a_terminal_and_obey_no_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_bars([("[red]a[/red]", 2, "2"), ("b", 1, "1")])
    first, second = capsys.readouterr().out.splitlines()
    assert "[red]a[/red]" in first
    assert first.count("█") > second.count("█") > 0
