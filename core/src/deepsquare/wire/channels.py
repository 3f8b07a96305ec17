"""How clients of the grid's gRPC services connect."""

from __future__ import annotations

import grpc
from grpc import aio

_OPTIONS = [
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    # A stream on which nothing happens for hours is kept alive through firewalls, and found out when it is dead. Servers
    # of DeepSquare allow a ping every 20 seconds.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]

FATAL_CODES = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
"""The status codes that say that the same call would fail again."""


def open_channel(endpoint: str, *, tls: bool) -> aio.Channel:
    """A channel to `endpoint` (host:port), which connects when it is used; it belongs to the running event loop.

    With `tls` the server's certificate is checked against the system's CAs.
    """
    if tls:
        return aio.secure_channel(endpoint, grpc.ssl_channel_credentials(), options=_OPTIONS)
    return aio.insecure_channel(endpoint, options=_OPTIONS)


def describe(error: aio.AioRpcError) -> str:
    """A failed call in a few words: its status and what the server said."""
    return f"{error.code().name}: {error.details() or 'no details'}"
