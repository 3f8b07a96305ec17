"""`deepsquare top` as a person uses it, with keys, on a real chain; its output comes from a real logger."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from deepsquare.chain.market import Market
from deepsquare.chain.types import JobReport, JobStatus, parse_job_id, to_hex
from deepsquare.chain.wallet import Wallet
from deepsquare.cli.tui.app import TopApp
from deepsquare.cli.tui.board import COLD_SHOWN, Board, Columns
from deepsquare.cli.tui.dialogs import CancelDialog, TopUpDialog, parse_amount
from deepsquare.cli.tui.line import Line
from deepsquare.client.account import AccountJob
from deepsquare.client.client import Client
from deepsquare.client.funding import needs_of
from deepsquare.client.job import JobInfo
from deepsquare.client.logs import LogReader
from deepsquare.grid.logger import GridLogger
from deepsquare.grid.supervisor.log_writer import LogWriter
from hypothesis import given
from hypothesis import strategies as st
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, RichLog, Static

from core.tests.chain.conftest import Parties
from core.tests.client.test_keys import client, finish, set_up, workflow
from core.tests.client.test_topup import MINUTE, run

__all__ = ["client"]

LIMIT = timedelta(minutes=2)


class Screen:
    """What a person sees, and the keys."""

    def __init__(self, pilot: Pilot[None]) -> None:
        assert isinstance(pilot.app, TopApp)
        self.pilot, self.app = pilot, pilot.app

    @property
    def rows(self) -> dict[str, str]:
        """The rows of the table from top to bottom, by the job's id."""
        table: DataTable[Any] = self.app.screen_stack[0].query_one("#jobs", DataTable)
        return {
            str(row.key.value): " ".join(cell.plain for cell in table.get_row(row.key)) for row in table.ordered_rows
        }

    def line(self, name: str) -> str:
        return self.app.screen_stack[0].query_one(f"#{name}", Line).text

    @property
    def log(self) -> list[str]:
        return [strip.text.rstrip() for strip in self.app.screen_stack[0].query_one(RichLog).lines]

    @property
    def dialog(self) -> str:
        return "\n".join(str(text.content) for text in self.app.screen.query(Static))

    @property
    def notices(self) -> str:
        return "\n".join(notice.message for notice in self.app._notifications)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(40):
            while not condition():
                await self.pilot.pause(0.05)

    async def choose(self, job_id: str) -> None:
        await self.until(lambda: job_id in self.rows)
        self.app._table.move_cursor(row=list(self.rows).index(job_id))
        await self.pilot.pause()

    async def type(self, text: str) -> None:
        self.app.screen.query_one(Input).value = text
        await self.pilot.press("enter")


@asynccontextmanager
async def screen(client: Client, size: tuple[int, int] = (120, 40)) -> AsyncIterator[Screen]:
    async with TopApp(client).run_test(size=size, notifications=True) as pilot:
        yield Screen(pilot)


async def buy(client: Client, **options: Any) -> str:
    return (await client.submit(workflow(), time_limit=LIMIT, **options)).id


async def test_jobs_appear_and_change_whoever_buys_them(parties: Parties, client: Client, tmp_path: Path) -> None:
    first = await buy(client, name="first", labels={"rule": "align"})
    async with screen(client) as seen:
        await seen.until(lambda: first in seen.rows)
        assert "first PENDING -" in " ".join(seen.rows[first].split())
        assert "rule=align" in seen.rows[first]
        await seen.choose(first)
        set_up(tmp_path / "second", parties)
        async with Client("grid") as elsewhere:
            second = await buy(elsewhere, name="second")
        await seen.until(lambda: list(seen.rows)[:2] == [second, first])
        assert "first" in seen.line("log-title")
        await run(parties, client.job(first))
        await seen.until(lambda: "RUNNING" in seen.rows[first] and "/2m00s" in seen.rows[first])
        await finish(parties, second, JobStatus.FAILED)
        await seen.until(lambda: "FAILED" in seen.rows[second])
        assert list(seen.rows).index(first) < list(seen.rows).index(second)
        balance, allowance = await client.funds()
        await seen.until(lambda: f"{balance:,.4f}" in seen.line("funds") and f"{allowance:,.4f}" in seen.line("funds"))
        assert f"block {await client.market.block_number()}" in seen.line("where")


async def test_another_customers_jobs_are_not_shown(parties: Parties, client: Client) -> None:
    await parties.admin.approve(10**20)
    mine = await buy(client)
    async with screen(client) as seen:
        await seen.until(lambda: mine in seen.rows)
        name = b"s".ljust(32, b"\0")
        strange = to_hex(await parties.admin.request_job(needs_of(workflow(), "stranger"), 3 * 10**18, name))
        later = await buy(client)
        await seen.until(lambda: later in seen.rows)
        assert strange not in seen.rows


async def test_a_quiet_chain_is_asked_for_its_block_alone(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [await buy(client) for _ in range(3)]
    async with screen(client) as seen:
        await seen.until(lambda: set(jobs) <= set(seen.rows) and "no output" in seen.line("log-title"))
        await seen.pilot.pause(1.0)
        asked: list[str] = []
        real = Market.read

        async def read(market: Market, name: str, function: str, *arguments: Any) -> Any:
            asked.append(function)
            return await real(market, name, function, *arguments)

        monkeypatch.setattr(Market, "read", read)
        await seen.pilot.pause(3.0)
        assert asked == []


async def test_cancel_asks_first_and_cancels(parties: Parties, client: Client) -> None:
    waiting, running = await buy(client, name="waiting"), await buy(client, name="running")
    await run(parties, client.job(running))
    async with screen(client) as seen:
        await seen.choose(waiting)
        await seen.pilot.press("c")
        await seen.until(lambda: isinstance(seen.app.screen, CancelDialog))
        assert "waiting? It is PENDING" in seen.dialog
        assert "all 2.0600 credits come back" in seen.dialog
        await seen.pilot.press("n")
        assert [info.status for info in await client.jobs([waiting])] == [JobStatus.PENDING]
        await seen.pilot.press("c")
        await seen.until(lambda: isinstance(seen.app.screen, CancelDialog))
        await seen.pilot.press("y")
        await seen.until(lambda: "CANCELLED" in seen.rows[waiting])
        assert [info.status for info in await client.jobs([waiting])] == [JobStatus.CANCELLED]

        await seen.choose(running)
        await seen.until(lambda: "/2m00s" in seen.rows[running])
        await seen.pilot.press("c")
        await seen.until(lambda: "for 1 min at least" in seen.dialog)
        await seen.pilot.press("y")
        await seen.until(lambda: "CANCELLING" in seen.rows[running])
        record = await client.market.get_job(parse_job_id(running))
        assert record is not None
        assert record.has_cancel_request
        await parties.provider.claim_cancelling_jobs(1)
        await parties.provider.report([JobReport(record.job_id, JobStatus.CANCELLED, 60)])
        await seen.until(lambda: "CANCELLED" in seen.rows[running])
        await seen.pilot.press("c")
        await seen.until(lambda: "has ended (CANCELLED)" in seen.notices)


async def test_top_up_says_the_price_and_locks_more(parties: Parties, client: Client) -> None:
    job_id = await buy(client)
    async with screen(client) as seen:
        await seen.choose(job_id)
        await seen.pilot.press("t")
        await seen.until(lambda: "once a provider has it (SCHEDULED)" in seen.notices)
        await run(parties, client.job(job_id))
        await seen.until(lambda: "/2m00s" in seen.rows[job_id])
        await seen.pilot.press("t")
        await seen.until(lambda: isinstance(seen.app.screen, TopUpDialog))
        assert "A minute costs 1.03 credits" in seen.dialog
        for amount, words in (
            ("soon", "not a number"),
            ("0.01", "buys no minute"),
            ("0m", "at least a second"),
            ("0", "adds nothing"),
            ("1000000", "the wallet has"),
            ("", "write how much more"),
        ):
            await seen.type(amount)
            await seen.until(lambda words=words: words in seen.dialog)  # type: ignore[misc]
        assert (await client.jobs([job_id]))[0].locked == 2 * MINUTE
        seen.app.screen.query_one(Input).value = "90s"
        await seen.until(lambda: "2 min more cost 2.0600 credits" in seen.dialog)
        # Somebody impatient: both are there before the first is heard.
        field = seen.app.screen.query_one(Input)
        for _ in range(2):
            field.post_message(Input.Submitted(field, field.value))
        await seen.until(lambda: "/4m00s" in seen.rows[job_id])
        await seen.pilot.pause(1)
        assert (await client.jobs([job_id]))[0].locked == 4 * MINUTE
        assert not isinstance(seen.app.screen, TopUpDialog)


async def test_the_filter_looks_at_id_name_and_labels(client: Client) -> None:
    one = await buy(client, name="map reads", labels={"sample": "birch"})
    two = await buy(client, name="merge", labels={"sample": "alder"})
    async with screen(client) as seen:
        await seen.until(lambda: {one, two} <= set(seen.rows))
        for words, found in (("BIRCH map", one), ("merge alder", two), (one, one)):
            await seen.pilot.press("slash")
            await seen.type(words)
            await seen.until(lambda found=found: found in seen.rows and len(seen.rows) == 1)  # type: ignore[misc]
        await seen.pilot.press("slash", *"quartz")
        await seen.until(lambda: "no job has 'quartz'" in seen.line("none") and not seen.rows)
        await seen.pilot.press("escape")
        await seen.until(lambda: {one, two} <= set(seen.rows))


async def test_the_other_keys_and_the_end_leave_jobs_alone(client: Client) -> None:
    job_id = await buy(client)
    async with screen(client, (80, 24)) as seen:
        await seen.until(lambda: job_id in seen.rows)
        for key in ("l", "l", "l", "a", "a", "question_mark", "escape", "tab", "tab", "down", "up", "pagedown"):
            await seen.pilot.press(key)
        await seen.pilot.resize_terminal(140, 40)
        await seen.pilot.resize_terminal(20, 5)
        await seen.pilot.press("q")
    assert seen.app.return_code == 0
    assert [info.status for info in await client.jobs([job_id])] == [JobStatus.PENDING]


async def test_the_command_on_a_terminal(client: Client) -> None:
    job_id = await buy(client)

    def use() -> tuple[int, bytes]:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        command = [Path(sys.executable).parent / "deepsquare", "top"]
        environment = os.environ | {"DEEPSQUARE_CONTEXT": "grid", "TERM": "xterm-256color"}
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
            os.close(theirs)
            guard = threading.Timer(50, process.kill)
            guard.start()
            seen, pressed = b"", False
            # At its end a terminal that nobody holds open any more fails to be read.
            with contextlib.suppress(OSError):
                while data := os.read(ours, 65536):
                    seen += data
                    if b"PENDING" in seen and not pressed:
                        pressed = bool(os.write(ours, b"q"))
            guard.cancel()
        os.close(ours)
        return process.returncode, seen

    code, seen = await asyncio.to_thread(use)
    assert code == 0, seen[-2000:]
    assert b"look again: deepsquare top" in seen
    assert [info.status for info in await client.jobs([job_id])] == [JobStatus.PENDING]


async def test_a_lost_node_is_said_and_comes_back(
    parties: Parties, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await buy(client)
    provider: Any = client.market.w3.provider
    monkeypatch.setattr(provider, "_retry_seconds", 0.2)
    async with screen(client) as seen:
        await seen.until(lambda: job_id in seen.rows)
        there, provider._urls = provider._urls, ["http://127.0.0.1:1"]
        await seen.until(lambda: "the chain at http://127.0.0.1:1 can't be reached" in seen.line("trouble"))
        assert job_id in seen.rows
        await run(parties, client.job(job_id))
        await seen.pilot.press("c")
        await seen.until(lambda: "can't be reached" in seen.notices or isinstance(seen.app.screen, CancelDialog))
        await seen.pilot.press("escape")
        provider._urls = there
        await seen.until(lambda: not seen.line("trouble") and "RUNNING" in seen.rows[job_id])


async def test_a_lost_logger_is_said(client: Client) -> None:
    job_id = await buy(client)
    async with screen(client) as seen:
        await seen.choose(job_id)
        await seen.until(lambda: "the grid logger at 127.0.0.1:1 can't be reached" in seen.line("log-trouble"))


async def test_output_is_live_and_drives_no_terminal(parties: Parties, client: Client, tmp_path: Path) -> None:
    name = b"\x1b[2J\x1b]0;x\x07[red]\xff\t".ljust(32, b"\0")
    evil = to_hex(await client.market.request_job(needs_of(workflow(), os.urandom(6).hex()), 3 * 10**18, name))
    quiet = await buy(client)
    await run(parties, client.job(evil))
    async with GridLogger(chain=parties.provider, state_dir=tmp_path / "logger") as logger:
        endpoint = f"127.0.0.1:{logger.port}"
        await client._output.close()
        client._output._logs = LogReader(endpoint, client._wallet)
        writer = LogWriter(endpoint, Wallet.from_key(bytes([3]) * 32))
        lines = [b"\x1b[31mred\x1b[0m \x07", b"\x1b[2J[bold]kept[/bold]", "\u202eturned".encode(), b"x" * 5000]
        await writer.write(evil, client.account, [(line, 1, offset) for offset, line in enumerate(lines, start=1)])
        async with screen(client) as seen:
            await seen.choose(evil)
            await seen.until(lambda: any("turned" in line for line in seen.log))
            assert seen.log[:3] == ["red \\x07", "[bold]kept[/bold]", "\\x202eturned"]
            assert "[red]\ufffd " in seen.rows[evil]
            assert "\x1b" not in seen.rows[evil] + seen.line("log-title")
            await writer.write(evil, client.account, [(b"later", 2, 5)])
            await seen.until(lambda: seen.log[-1] == "later")
            await seen.choose(quiet)
            await seen.until(lambda: not seen.log and "no output yet" in seen.line("log-title"))
            await seen.choose(evil)
            await seen.until(lambda: bool(seen.log) and seen.log[-1] == "later")
        await writer.close()
        await client._output.close()


@given(name=st.binary(max_size=32), labels=st.dictionaries(st.text(), st.text()), width=st.integers(10, 300))
def test_no_text_leaves_its_cell(name: bytes, labels: dict[str, str], width: int) -> None:
    from deepsquare.client.text import sanitize

    now = datetime.now(UTC)
    info = JobInfo(
        id="0x2a",
        status=JobStatus.RUNNING,
        provider=None,
        locked=Decimal(5),
        billed=None,
        refunded=None,
        submitted_at=now,
        started_at=now - timedelta(seconds=90),
        ended_at=None,
        exit_code=0,
        signal=0,
        error="",
        name=sanitize(name),
        location_hash="there",
    )
    board = Board(labels={"there": labels})
    cells = board.cells(AccountJob(info, Decimal("0.5"), False), Columns.of(width), now)
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for cell in cells for character in cell.plain)
    assert cells[4].plain.strip() == "1m30s/10m00s"
    assert cells[5].plain.split("/")[0].strip().startswith("0.75")


@given(st.text())
def test_what_is_written_is_an_amount_or_a_mistake(text: str) -> None:
    try:
        time, credits = parse_amount(text)
    except ValueError:
        return
    assert (time is None) != (credits is None)
    assert (time or timedelta(1)) > timedelta()
    assert (credits or 1) > 0


@pytest.mark.parametrize("text", ["9" * 30 + "h", "1e999999999", "nan", "-1", "1h 30m"])
def test_amounts_beyond_all_bounds_are_mistakes(text: str) -> None:
    with pytest.raises(ValueError, match=r"amount|time"):
        parse_amount(text)


def test_hot_jobs_come_first_and_old_ones_on_demand() -> None:
    class Info:
        """Enough of a job for its place."""

        def __init__(self, number: int, status: JobStatus) -> None:
            self.id, self.status, self.name, self.location_hash = hex(number), status, "", ""

    statuses = [JobStatus.RUNNING, *[JobStatus.FINISHED] * 100, JobStatus.PENDING]
    infos: list[Any] = [Info(number, status) for number, status in enumerate(statuses)]
    board = Board()
    board.take(AccountJob(info, None, False) for info in infos)
    places = [int(job.info.id, 16) for job in board.shown()]
    assert places == [101, 0, *range(100, 100 - COLD_SHOWN, -1)]
    board.show_all = True
    assert len(board.shown()) == 102
    board.take([], gone=[hex(101)])
    assert len(board.shown()) == 101


def test_without_a_terminal_it_names_what_programs_use(cli: Callable[..., Any]) -> None:
    said = cli("top")
    assert said.code == 2
    assert "deepsquare job list --json" in said.err
    assert "Example: deepsquare top" in cli("top", "--help").out


def test_the_command_loads_the_screen_only_to_run_it() -> None:
    code = "import sys\nfrom deepsquare.cli.app import add_commands\nadd_commands()\nprint('textual' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
