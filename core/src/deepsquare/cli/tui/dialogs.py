"""The dialogs of the screen: what costs or ends something is said and confirmed before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from deepsquare.cli.job import duration
from deepsquare.cli.tui import FAILURES
from deepsquare.cli.tui.board import money, one_line
from deepsquare.client.funding import started_minutes
from deepsquare.credits import from_wei, to_wei
from deepsquare.tasks.report import format_time

HELP = """\
up, down       choose a job; its output is below
c              cancel it (asks first)
t              top it up: more time, or more credits
l              the output: half the screen, most of it, none
tab            to the output and back, to scroll in it
/              show only jobs with these words in id, name or labels
a              all finished jobs, or the last 50
q              quit; jobs go on running

RAN/BUYS       how long it ran, and how long its credits last in all
USED/LOCKED    credits that its time has cost or that it was billed,
               and those that are locked for it; what isn't used comes back

                                                          esc closes"""


class Dialog(ModalScreen[None]):
    """A dialog that escape closes."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", "Close")]

    def action_close(self) -> None:
        """Close it; what was begun goes on."""
        self.dismiss()


class Help(Dialog):
    """What the keys do."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("q,question_mark", "close", show=False)]

    def compose(self) -> ComposeResult:
        """The text."""
        yield Static(HELP, classes="box", markup=False)


class Asking(Dialog):
    """A dialog that carries something out, and stays open with the reason in words when that fails."""

    busy = False

    def _say(self, text: str, *, wrong: bool = False) -> None:
        line = self.query_one("#said", Static)
        line.set_class(wrong, "trouble")
        line.update(text)

    def _carry_out(self, work: Callable[[], Awaitable[None]], meanwhile: str) -> None:
        """Carry it out, once; closing the dialog meanwhile does not stop it."""
        if self.busy:
            return
        # Before the next key is heard: two that come at once are one.
        self.busy = True
        self._say(meanwhile)
        self.app.run_worker(self._finish(work()))

    async def _finish(self, work: Awaitable[None]) -> None:
        try:
            await work
        except (*FAILURES, ValueError) as error:
            if self.is_attached:
                self._say(one_line(str(error)), wrong=True)
            else:
                self.app.notify(one_line(str(error)), severity="error", timeout=20, markup=False)
        else:
            if self.is_current:
                self.dismiss()
        finally:
            self.busy = False


class CancelDialog(Asking):
    """Asks whether a job shall be cancelled."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "yes", "Yes"), Binding("n", "close", "No")]

    def __init__(self, question: str, cancel: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._question, self._cancel = question, cancel

    def compose(self) -> ComposeResult:
        """The question."""
        with Vertical(classes="box"):
            yield Static(self._question, markup=False)
            yield Static("y  cancel it      n  let it run", id="said", markup=False)

    def action_yes(self) -> None:
        """Cancel it."""
        self._carry_out(self._cancel, "asking for its end ...")


class TopUpDialog(Asking):
    """Asks how much more a job may use, and says the price while one types."""

    def __init__(
        self,
        title: str,
        minute: int,
        top_up: Callable[[timedelta | None, Decimal | None], Awaitable[None]],
    ) -> None:
        """`minute` is what a minute of the job costs, in wei."""
        super().__init__()
        self._heading, self._minute, self._top_up = title, minute, top_up

    def compose(self) -> ComposeResult:
        """The price, and a field for what to add."""
        with Vertical(classes="box"):
            yield Static(self._heading, markup=False)
            yield Static(f"A minute costs {from_wei(self._minute):f} credits.", markup=False)
            yield Input(placeholder="a time (10m, 1h30m) or credits (2.5)", max_length=40, compact=True)
            yield Static("enter  lock them      esc  close", id="said", markup=False)

    def _read(self, text: str) -> tuple[timedelta | None, Decimal | None] | None:
        """What is to be added; None when it is none, which is said."""
        try:
            return parse_amount(text)
        except ValueError as error:
            self._say(one_line(str(error)), wrong=True)
            return None

    def on_input_changed(self, event: Input.Changed) -> None:
        """Say what it costs."""
        if self.busy or not event.value.strip():
            return
        if (amount := self._read(event.value)) is None:
            return
        time, credits = amount
        if time is not None:
            minutes = started_minutes(time, field="time")
            self._say(f"{minutes} min more cost {money(from_wei(minutes * self._minute))} credits: enter locks them")
        elif credits is not None:
            seconds = to_wei(credits) * 60 // self._minute if self._minute else 0
            lasts = format_time(timedelta(seconds=min(seconds, 10**9)))
            self._say(f"{money(credits)} credits more last for {lasts}: enter locks them")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Lock them."""
        if self.busy:
            return
        if (amount := self._read(event.value)) is None:
            return
        time, credits = amount
        self._carry_out(partial(self._top_up, time, credits), "locking them ...")


def parse_amount(text: str) -> tuple[timedelta | None, Decimal | None]:
    """What to add to a job: a time, or an amount of credits.

    Raises:
        ValueError: it is neither, or nothing.
    """
    text = text.strip()
    if text[-1:] in ("h", "m", "s"):
        try:
            time = duration(text, "the time")
        except OverflowError:
            raise ValueError("the time is longer than there can be") from None
        started_minutes(time, field="the time")
        return time, None
    if not text:
        raise ValueError("write how much more it may use: a time like 10m, or credits like 2.5")
    wei = to_wei(text, field="the amount")
    if not wei:
        raise ValueError("the amount is 0, which adds nothing: write for example 10m, or 2.5 for credits")
    return None, from_wei(wei)
