"""The texts that clients, providers and services sign, and how their signatures travel.

Every signature is EIP-191 (personal_sign), made by `Wallet.sign_message` and read by `deepsquare.chain.wallet.recover`.
Addresses in signed texts are in lower case.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time

FRESH_SECONDS = 300
"""How far the time of signing may lie from the server's clock, in either direction."""

MAX_LINE_BYTES = 64 * 1024
"""The longest line of output in one message; writers split longer ones."""

SUBMIT_MUTATION = "mutation Submit($job: Job!) { submit(job: $job) }"

# Headers of a signed submission (an addition of this project; other sbatch APIs ignore them).
CUSTOMER_HEADER = "x-deepsquare-customer"
TIMESTAMP_HEADER = "x-deepsquare-timestamp"
SIGNATURE_HEADER = "x-deepsquare-signature"

# Metadata of a log writer's call, also an addition; the time goes under TIMESTAMP_HEADER. gRPC wants "-bin" for bytes.
PROVIDER_METADATA = "x-deepsquare-provider"
SIGNATURE_METADATA = "x-deepsquare-signature-bin"

# Metadata of a log reader's call, also an addition. A request may ask the server to leave out the first lines (with a
# negative number: all but the last ones). Before the first line, the server says how many lines are stored when the read
# begins, and how many of them it leaves out.
SKIP_METADATA = "x-deepsquare-skip"
SKIPPED_METADATA = "x-deepsquare-skipped"
LINES_METADATA = "x-deepsquare-lines"

# Unix time reaches this number of seconds in the year 5138: what is larger was counted in milliseconds.
_MILLISECONDS_FROM = 100_000_000_000
_MAX_CHALLENGE_BYTES = 256


def login_challenge(nonce: bytes) -> bytes:
    """The challenge that a provider signs to get a script."""
    return json.dumps({"message": "login", "nonce": base64.b64encode(nonce).decode()}).encode()


def challenge_nonce(challenge: bytes) -> bytes | None:
    """The nonce of a login challenge, or None when `challenge` is none."""
    # Longer ones are not parsed at all: deep JSON could exhaust the stack.
    if len(challenge) > _MAX_CHALLENGE_BYTES:
        return None
    try:
        content = json.loads(challenge)
        if not isinstance(content, dict) or content.get("message") != "login":
            return None
        return base64.b64decode(content["nonce"], validate=True)
    except (ValueError, KeyError, TypeError):
        return None


def read_text(address: str, log_name: str, timestamp: int) -> bytes:
    """What the reader `address` signs to read a log."""
    return f"read:{address.lower()}/{log_name}/{timestamp}".encode()


def watch_list_text(address: str, timestamp: int) -> bytes:
    """What the reader `address` signs to list its logs."""
    return f"watchList:{address.lower()}/{timestamp}".encode()


def write_text(provider: str, log_name: str, timestamp: int) -> bytes:
    """What the provider signs to write the log of a job that it runs."""
    return f"write:{provider.lower()}/{log_name}/{timestamp}".encode()


def submit_text(customer: str, body: bytes, timestamp: int) -> bytes:
    """What the customer signs to submit a workflow; `body` is the HTTP request's, as it is sent."""
    return f"submit:{customer.lower()}/{hashlib.sha256(body).hexdigest()}/{timestamp}".encode()


def is_fresh(timestamp: int, *, now: float | None = None) -> bool:
    """Whether a text was signed about now; `timestamp` is unix time in seconds or in milliseconds."""
    seconds = timestamp / 1000 if timestamp >= _MILLISECONDS_FROM else float(timestamp)
    return abs((time.time() if now is None else now) - seconds) <= FRESH_SECONDS
