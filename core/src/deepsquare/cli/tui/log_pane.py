"""The output of one job at a time, live, as text that a terminal shows and never obeys."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, cast

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import RichLog

from deepsquare.cli.tui import FAILURES
from deepsquare.cli.tui.board import one_line, status_text
from deepsquare.cli.tui.line import Line
from deepsquare.client.text import sanitize
from deepsquare.tasks.report import short_id

if TYPE_CHECKING:
    from textual.timer import Timer
    from textual.worker import Worker

    from deepsquare.client.account import AccountJob
    from deepsquare.client.client import Client
    from deepsquare.client.logs import LogLine

_LINES = 5000
_LINE_BYTES = 4000
# Whoever walks through the list does not start a stream at each step.
_DEBOUNCE_SECONDS = 0.2
_WRITE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 30.0
# The logger is tried again at least this often: when no failure came for so long, it is there.
_TROUBLE_SECONDS = 15.0


class LogPane(Vertical):
    """The output of the job that was chosen last."""

    def __init__(self, client: Client) -> None:
        super().__init__(id="log-pane")
        self._client = client
        self._job: AccountJob | None = None
        self._lines: deque[bytes] = deque(maxlen=_LINES)
        self._begins, self._any, self._ended = False, False, False
        self._trouble, self._trouble_at = "", 0.0
        self._worker: Worker[None] | None = None
        self._starter: Timer | None = None

    def compose(self) -> ComposeResult:
        """A line that says whose output it is, one for what is wrong, and the output."""
        yield Line(id="log-title")
        yield Line(id="log-trouble", classes="trouble")
        yield RichLog(id="log", max_lines=_LINES, wrap=True, min_width=1, auto_scroll=False)

    def on_mount(self) -> None:
        """Begin to write what comes, some lines at once; whoever reads further up is not taken away from there."""
        self.query_one(RichLog).anchor()
        self.set_interval(_WRITE_SECONDS, self._write)

    def show(self, job: AccountJob | None) -> None:
        """Show the output of a job from now on; of the same one, how it stands now."""
        same = job is not None and self._job is not None and job.info.id == self._job.info.id
        self._job = job
        if not same:
            self._stop()
            self._begin()
            if job is not None:
                self._starter = self.set_timer(_DEBOUNCE_SECONDS, self._start)
        self._tell()

    def _begin(self) -> None:
        self._lines.clear()
        self._any = self._ended = self._begins = False
        self._trouble = ""
        log = self.query_one(RichLog)
        log.clear()
        log.anchor()

    def _stop(self) -> None:
        if self._starter is not None:
            self._starter.stop()
        if self._worker is not None:
            self._worker.cancel()
        self._worker = self._starter = None

    def _start(self) -> None:
        self._worker = self.run_worker(self._read(), group="log", exclusive=True)

    async def _read(self) -> None:
        pause = 1.0
        while (job := self._job) is not None:
            try:
                lines = self._client.logs(job.info.id, follow=job.info.status.is_hot, trouble=self._failed)
                async with contextlib.aclosing(cast("AsyncGenerator[LogLine]", lines)):
                    async for line in lines:
                        self._lines.append(line.data)
                        self._trouble, pause = "", 1.0
            except FAILURES as error:
                self._failed(str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                # What comes next is the output from its first line on.
                self._lines.clear()
                self._begins = True
            else:
                self._ended = True
                return

    def _failed(self, words: str) -> None:
        self._trouble, self._trouble_at = words, time.monotonic()

    def _write(self) -> None:
        log = self.query_one(RichLog)
        if self._lines:
            if self._begins:
                self._begins = False
                log.clear()
            for data in self._lines:
                text = sanitize(data[:_LINE_BYTES]) + ("…" if len(data) > _LINE_BYTES else "")
                log.write(Text(text))
            self._lines.clear()
            self._any = True
        self._tell()

    def _tell(self) -> None:
        if self._trouble and time.monotonic() - self._trouble_at > _TROUBLE_SECONDS and not self._begins:
            self._trouble = ""
        self.query_one("#log-trouble", Line).say(f"! {one_line(self._trouble)}; trying again" if self._trouble else "")
        self.query_one("#log-title", Line).say(self._title())

    def _title(self) -> str:
        if self._job is None:
            return "no job"
        info = self._job.info
        title = f"{short_id(info.id)}  {one_line(info.name)}  {status_text(self._job)}"
        if info.error:
            title += f": {one_line(info.error)}"
        if self._ended and not self._any:
            return f"{title}  (no output)"
        return title if self._any or self._trouble else f"{title}  (no output yet)"
