"""The login challenges: made without being remembered, so that asking for many of them fills nothing."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time

from deepsquare.wire.messages import challenge_nonce, login_challenge

CHALLENGE_SECONDS = 600


class Challenges:
    """Issues challenges and recognises its own.

    The nonce is 16 bytes: the time (4), random bytes (4), and a keyed hash of both (8). That the nonce works only once
    is the business of who accepts it.
    """

    def __init__(self, key: bytes) -> None:
        """`key` is secret; services that share it accept each other's challenges."""
        self._key = key

    def issue(self) -> bytes:
        """A new challenge, valid for ten minutes."""
        head = int(time.time()).to_bytes(4, "big") + secrets.token_bytes(4)
        return login_challenge(head + self._tag(head))

    def open(self, challenge: bytes) -> bytes | None:
        """The nonce of `challenge`, or None when it was not issued here or is too old."""
        nonce = challenge_nonce(challenge)
        if nonce is None or len(nonce) != 16 or not hmac.compare_digest(self._tag(nonce[:8]), nonce[8:]):
            return None
        # The text around the nonce must be ours too: only then is the nonce the challenge's only name.
        if challenge != login_challenge(nonce):
            return None
        age = time.time() - int.from_bytes(nonce[:4], "big")
        return nonce if -1 <= age <= CHALLENGE_SECONDS else None

    def _tag(self, head: bytes) -> bytes:
        return hmac.digest(self._key, head, hashlib.sha256)[:8]
