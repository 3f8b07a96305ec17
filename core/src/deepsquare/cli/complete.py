"""What the shell completes beside commands and options: names that this machine knows."""

from __future__ import annotations


def context_names(incomplete: str) -> list[str]:
    """The contexts that begin so."""
    from deepsquare import contexts

    return [name for name in contexts.names() if name.startswith(incomplete)]


def wallet_names(incomplete: str) -> list[str]:
    """The wallets that begin so."""
    from deepsquare import wallets

    return [name for name in wallets.names() if name.startswith(incomplete)]
