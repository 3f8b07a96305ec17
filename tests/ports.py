"""Ports for what the tests start."""

import secrets
import socket

# Below those that the system gives to connections as they come: until somebody listens, one could have it.
_FIRST, _COUNT = 20_000, 12_000


def free_port() -> int:
    """A port of this machine that nobody has at the moment."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """As many different ones."""
    found: set[int] = set()
    while len(found) < count:
        port = _FIRST + secrets.randbelow(_COUNT)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.add(port)
    return list(found)
