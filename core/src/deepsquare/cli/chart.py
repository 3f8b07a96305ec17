"""A chart for the terminal: horizontal bars."""

from __future__ import annotations

import sys
from collections.abc import Sequence

# In a pipe, where nobody says how wide it may be.
_PLAIN_WIDTH = 40


def print_bars(bars: Sequence[tuple[str, int, str]]) -> None:
    """Print a bar for each name, amount and text of the amount: drawn with rich on a terminal, else of plain characters.

    The longest bar is that of the largest amount; one of more than nothing is never empty.
    """
    most = max((amount for _, amount, _ in bars), default=0) or 1
    if sys.stdout.isatty():
        from rich.bar import Bar
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(ratio=1)
        for name, amount, text in bars:
            share = max(amount / most, 0.01) if amount else 0
            table.add_row(Text(name), Text(text), Bar(1, 0, share, color="cyan"))
        Console().print(table)
        return
    names = max((len(name) for name, _, _ in bars), default=0)
    texts = max((len(text) for _, _, text in bars), default=0)
    for name, amount, text in bars:
        length = max(round(_PLAIN_WIDTH * amount / most), int(amount > 0))
        print(f"{name.ljust(names)}  {text.rjust(texts)}  {'#' * length}".rstrip())
