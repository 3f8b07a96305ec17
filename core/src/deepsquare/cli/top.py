"""`deepsquare top`."""

from __future__ import annotations

import asyncio
import os
import sys

import typer

from deepsquare.cli.app import EXIT_WRONG_USE, fail


def top() -> None:
    """Show all your jobs on the whole screen, live: status, time and money, and the output of the one that you choose.

    The keys are in the last line, and ? explains them: c cancels the chosen job, t tops it up (both say first what it costs), l
    makes the output larger, / filters, q quits. Jobs go on running when you quit. It needs a terminal; programs use
    `deepsquare job list --json`.

    Example: deepsquare top
    """
    # textual draws on standard error.
    if not (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()):
        fail(
            "top needs a terminal; in a pipe or a script use `deepsquare job list --json`, or `deepsquare job logs ID --follow`",
            EXIT_WRONG_USE,
        )
    # The C library of gRPC writes its warnings past everything into the terminal.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")

    async def work() -> int:
        from deepsquare.cli.tui.app import TopApp
        from deepsquare.client.client import Client

        async with Client() as client:
            screen = TopApp(client)
            await screen.run_async()
            if screen.return_code:
                raise typer.Exit(screen.return_code)
            return len(screen.board.hot)

    if running := asyncio.run(work()):
        print(f"{running} job{'s go' if running > 1 else ' goes'} on; look again: deepsquare top")
