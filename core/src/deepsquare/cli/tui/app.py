"""The screen: one look at all jobs of an account, live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

from rich.text import Text
from rich.traceback import Traceback
from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import DataTable, Footer, Input

from deepsquare.chain.types import JobStatus, parse_job_id
from deepsquare.cli.tui import FAILURES
from deepsquare.cli.tui.board import WIDE, Board, Columns, bought, money, one_line, ran, status_text, used
from deepsquare.cli.tui.dialogs import CancelDialog, Help, TopUpDialog
from deepsquare.cli.tui.line import Line
from deepsquare.cli.tui.log_pane import LogPane
from deepsquare.client.account import AccountJob, AccountNews
from deepsquare.client.client import Client
from deepsquare.tasks.report import format_time, short_id

_HEADER = ("ID", "NAME", "STATUS", "PROVIDER", "RAN/BUYS", "USED/LOCKED", "LABELS")
_RIGHT = {"RAN/BUYS", "USED/LOCKED"}
_LOG_SIZES = ("log-half", "log-large", "log-none")
_LONGEST_PAUSE_SECONDS = 15.0


class TopApp(App[None]):
    """The jobs of a client's account, the output of one of them, and the account's money."""

    CSS_PATH = "top.tcss"
    TITLE = "deepsquare top"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "cancel", "Cancel"),
        Binding("t", "top_up", "Top up"),
        Binding("l", "log", "Log"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("a", "all", "All"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("escape", "unfilter", show=False),
    ]

    def __init__(self, client: Client) -> None:
        """`client` is open, and stays so."""
        super().__init__()
        self.board = Board()
        self._client = client
        self._news: AccountNews | None = None
        self._columns = Columns(*[0] * len(_HEADER))
        self._rows: dict[str, AccountJob] = {}
        self._log_size = 0

    def compose(self) -> ComposeResult:
        """From top to bottom."""
        yield Line(id="where", classes="line")
        yield Line(id="funds", classes="line")
        yield Line(id="trouble", classes="trouble")
        with Horizontal(id="filter-line"):
            yield Line("filter", id="filter-name")
            yield Input(id="filter", placeholder="words in the id, name or labels", compact=True)
        table: DataTable[Text] = DataTable(id="jobs", cursor_type="row")
        yield table
        yield Line("reading your jobs ...", id="none")
        yield LogPane(self._client)
        yield Footer()

    def on_mount(self) -> None:
        """Begin."""
        self.query_one("#filter-line").display = False
        self._table.focus()
        self.set_interval(1.0, self._show)
        self._follow()

    def on_resize(self) -> None:
        """The columns are as wide as the terminal."""
        self._show()

    def _fatal_error(self) -> None:
        # As textual has it, but without the values of variables: some of them are secret.
        self.panic(Traceback(show_locals=False, width=None))

    @property
    def _table(self) -> DataTable[Text]:
        return self.screen_stack[0].query_one("#jobs", DataTable)

    def _say(self, line: str, text: str) -> None:
        self.screen_stack[0].query_one(f"#{line}", Line).say(text)

    # ------------------------------------------------------------------ what is known

    @work(exclusive=True, group="account")
    async def _follow(self) -> None:
        """Take what changes, for ever; while the node is lost, what was known stays on the screen."""
        pause = 1.0
        while True:
            try:
                async for news in self._client.changes():
                    pause = 1.0
                    self._take(news)
            except FAILURES as error:
                self._say_trouble(str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _take(self, news: AccountNews) -> None:
        if any(job.info.id not in self.board.jobs for job in news.jobs):
            self.board.labels, self.board.names = self._client.labels(), self._client.names()
        self._news = news
        self.board.take(news.jobs, news.gone)
        self._say_trouble(news.trouble)
        self._show()

    def _say_trouble(self, words: str) -> None:
        self._say("trouble", f"! {one_line(words)}" if words else "")

    # ------------------------------------------------------------------ what is shown

    def _show(self) -> None:
        """Say how everything stands, each second: times run on without a call."""
        now, table, chosen = datetime.now(UTC), self._table, self._chosen()
        jobs = self.board.shown()
        if self._columns != (columns := Columns.of(self.size.width)):
            self._columns = columns
            table.clear(columns=True)
            for name, width in self._widths():
                table.add_column(Text(name.rjust(width) if name in _RIGHT else name), width=width, key=name)
            self._rows = {}
        rows = {job.info.id: job for job in jobs}
        if list(rows) != list(self._rows):
            self._make_rows(jobs, chosen, now)
        else:
            # Of those at their end there may be thousands.
            for job in (job for job in jobs if job.info.status.is_hot or job is not self._rows[job.info.id]):
                for (name, _), cell in zip(self._widths(), self.board.cells(job, columns, now), strict=True):
                    if table.get_cell(job.info.id, name) != cell:
                        table.update_cell(job.info.id, name, cell)
        self._rows = rows
        table.display = bool(jobs)
        self._say_none(bool(jobs))
        self._say_money(now)
        self._choose()

    def _widths(self) -> list[tuple[str, int]]:
        """The names of the columns that there are, and their widths."""
        return [(name, width) for name, width in zip(_HEADER, self._columns, strict=True) if width]

    def _make_rows(self, jobs: list[AccountJob], chosen: AccountJob | None, now: datetime) -> None:
        """Make the rows anew; the job that is chosen stays so, or the one that has its place now is."""
        table, place, scrolled = self._table, self._table.cursor_row, self._table.scroll_y
        table.clear()
        for job in jobs:
            table.add_row(*self.board.cells(job, self._columns, now), key=job.info.id)
        ids = [job.info.id for job in jobs]
        if chosen is not None and chosen.info.id in ids:
            place = ids.index(chosen.info.id)
        table.scroll_to(y=scrolled, animate=False, immediate=True)
        table.move_cursor(row=min(place, max(len(jobs) - 1, 0)))

    def _say_none(self, any_shown: bool) -> None:
        if any_shown:
            self._say("none", "")
        elif self.board.words:
            self._say("none", f"no job has {self.board.words!r} in its id, name or labels (esc shows all)")
        elif self._news is not None:
            self._say("none", "no jobs yet: buy one with deepsquare submit FILE")

    def _say_money(self, now: datetime) -> None:
        context, news, wide = self._client.context, self._news, self.size.width >= WIDE
        account = self._client.account if wide else f"{self._client.account[:6]}…{self._client.account[-4:]}"
        block = "" if news is None else f"block {news.block:,}"
        self._say("where", _both_sides(f"{context.name}  {account}", block, self.size.width - 2))
        if news is None:
            return
        hot, decimals = self.board.hot, 4 if wide else 2
        locked = sum((job.info.locked for job in hot), Decimal())
        spent = sum((used(job, now) for job in hot), Decimal())
        left = f"balance {money(news.balance, decimals)}   allowance {money(news.allowance, decimals)}"
        right = f"{len(hot)} hot: {money(spent, decimals)} of {money(locked, decimals)} used"
        self._say("funds", _both_sides(left, right, self.size.width - 2))

    # ------------------------------------------------------------------ the chosen job

    def _chosen(self) -> AccountJob | None:
        place = self._table.cursor_row
        return self.board.jobs.get(list(self._rows)[place]) if 0 <= place < len(self._rows) else None

    @on(DataTable.RowHighlighted)
    def _choose(self) -> None:
        self.screen_stack[0].query_one(LogPane).show(self._chosen())

    def _hot_job(self) -> AccountJob | None:
        """The chosen job if it is not at its end; else that is said."""
        job = self._chosen()
        if job is not None and job.info.status.is_cold:
            self.notify(f"{short_id(job.info.id)} has ended ({job.info.status.name})", markup=False)
            return None
        return job

    async def _changed(self, job: AccountJob, *, is_cancelling: bool) -> None:
        """Show at once what was done to a job; markets of version 1.2 tell it by no event."""
        (info,) = await self._client.jobs([job.info.id])
        known = self.board.jobs.get(info.id, job)
        self.board.take([AccountJob(info, known.minute, known.is_cancelling or is_cancelling)])
        self._show()

    def action_cancel(self) -> None:
        """Ask whether the chosen job shall be cancelled."""
        if (job := self._hot_job()) is not None:
            self._with_chain(lambda: self._ask_to_cancel(job))

    async def _ask_to_cancel(self, job: AccountJob) -> None:
        info = job.info
        question = f"Cancel {short_id(info.id)} {self.board.name(job)}? It is {status_text(job)}.\n"
        if info.status is not JobStatus.RUNNING:
            question += f"It has not begun: all {money(info.locked)} credits come back."
        else:
            fee = int(await self._client.market.read("Constants", "cancellationFeeMinute"))
            now = datetime.now(UTC)
            question += (
                f"It has run for {format_time(ran(job, now))}, which costs {money(used(job, now))} credits so far. It is billed "
                f"until its provider ends it, for {fee} min at least; the rest of the {money(info.locked)} comes back."
            )

        async def cancel() -> None:
            await self._client.cancel([info.id])
            self.notify(f"{short_id(info.id)}: its end was asked for", markup=False)
            await self._changed(job, is_cancelling=True)

        self.push_screen(CancelDialog(question, cancel))

    def action_top_up(self) -> None:
        """Ask how much more the chosen job may use."""
        if (job := self._hot_job()) is not None:
            self._with_chain(lambda: self._ask_to_top_up(job))

    async def _ask_to_top_up(self, job: AccountJob) -> None:
        info = job.info
        record = await self._client.market.get_job(parse_job_id(info.id))
        if record is None or record.status < JobStatus.SCHEDULED:
            self.notify(
                f"{short_id(info.id)} is {status_text(job)}: it takes more credits once a provider has it (SCHEDULED)",
                markup=False,
            )
            return
        minute = await self._client.market.cost_per_minute_of(record)
        lasts = bought(job)
        title = f"Top up {short_id(info.id)} {self.board.name(job)}: {money(info.locked)} credits are locked"
        title += "." if lasts is None else f", which last for {format_time(lasts)}."

        async def top_up(time: timedelta | None, credits: Decimal | None) -> None:
            added = await self._client.top_up(info.id, credits=credits, time=time)
            self.notify(f"{short_id(info.id)}: {added:f} credits more are locked", markup=False)
            await self._changed(job, is_cancelling=False)

        self.push_screen(TopUpDialog(title, minute, top_up))

    def _with_chain(self, ask: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do what needs an answer of the node; what goes wrong is said."""

        async def carefully() -> None:
            try:
                await ask()
            except FAILURES as error:
                self.notify(one_line(str(error)), severity="error", timeout=20, markup=False)

        self.run_worker(carefully(), group="ask", exclusive=True)

    # ------------------------------------------------------------------ the other keys

    def action_log(self) -> None:
        """Show the output on half of the screen, on most of it, or not."""
        self._log_size = (self._log_size + 1) % len(_LOG_SIZES)
        for number, name in enumerate(_LOG_SIZES):
            self.screen.set_class(number == self._log_size, name)
        self._table.focus()

    def action_all(self) -> None:
        """Show all finished jobs, or the last ones."""
        self.board.show_all = not self.board.show_all
        self._show()
        self.notify("all finished jobs are shown" if self.board.show_all else "the last finished jobs are shown")

    def action_help(self) -> None:
        """Say what the keys do."""
        self.push_screen(Help())

    def action_filter(self) -> None:
        """Write which jobs to show."""
        self.query_one("#filter-line").display = True
        # At once, so that no letter of the first word is taken for a command.
        self.screen.set_focus(self.query_one("#filter", Input))

    def action_unfilter(self) -> None:
        """Show all jobs again."""
        self.query_one("#filter", Input).value = ""
        self.query_one("#filter-line").display = False
        self._table.focus()

    @on(Input.Changed, "#filter")
    def _filter(self, event: Input.Changed) -> None:
        self.board.words = event.value.strip()
        self._show()

    @on(Input.Submitted, "#filter")
    def _filtered(self) -> None:
        if self.board.words:
            self._table.focus()
        else:
            self.action_unfilter()


def _both_sides(left: str, right: str, width: int) -> str:
    return left + right.rjust(max(width - len(left), len(right) + 2))
