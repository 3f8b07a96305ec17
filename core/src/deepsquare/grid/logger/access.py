"""Who may read and write a log."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from deepsquare.chain.types import JobRecord
from deepsquare.chain.wallet import recover
from deepsquare.wire.messages import (
    PROVIDER_METADATA,
    SIGNATURE_METADATA,
    TIMESTAMP_HEADER,
    is_fresh,
    read_text,
    watch_list_text,
    write_text,
)

Metadata = Sequence[tuple[str, str | bytes]]

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_JOB_ID = re.compile(r"0x[0-9a-f]{64}")


class JobReader(Protocol):
    """Reads jobs from the chain; `deepsquare.chain.market.Market` is one."""

    async def get_job(self, job_id: bytes) -> JobRecord | None:
        """A job, or None when there is no such job."""


class UnauthenticatedError(Exception):
    """The caller did not prove who it is."""


class ForbiddenError(Exception):
    """The caller is somebody, but not who may do this."""


class Access:
    """Checks the signatures of readers and writers, and compares writers with the chain."""

    def __init__(self, chain: JobReader, *, allow_unauthenticated_writers: bool) -> None:
        self._chain = chain
        self._allow_unauthenticated_writers = allow_unauthenticated_writers

    async def reader(self, address: str, log_name: str, timestamp: int, signature: bytes) -> str:
        """The owner (in lower case) as whom the caller may read the log.

        Raises:
            UnauthenticatedError: the signature is not the address's, or not fresh.
            ForbiddenError: the log is another customer's.
            DeepSquareError: the chain can't be read.
        """
        _check_name(log_name)
        owner = _signer(address, timestamp, read_text(address, log_name, timestamp), signature)
        if _JOB_ID.fullmatch(log_name):
            job = await self._chain.get_job(bytes.fromhex(log_name[2:]))
            # A job that this node does not know yet: its log will come.
            if job is not None and job.customer.lower() != owner:
                raise ForbiddenError("only the job's customer reads its log")
        return owner

    def lister(self, address: str, timestamp: int, signature: bytes) -> str:
        """The owner (in lower case) whose logs the caller may list.

        Raises:
            UnauthenticatedError: the signature is not the address's, or not fresh.
        """
        return _signer(address, timestamp, watch_list_text(address, timestamp), signature)

    async def writer(self, metadata: Metadata, log_name: str, user: str) -> str:
        """The owner (in lower case) into whose log the caller may write.

        Raises:
            UnauthenticatedError: the metadata has no signature, a wrong one, or one that is not fresh.
            ForbiddenError: the chain has not assigned this job to the signer, or the user is not its customer.
            DeepSquareError: the chain can't be read.
        """
        _check_name(log_name)
        values = dict(metadata)
        if SIGNATURE_METADATA not in values:
            if self._allow_unauthenticated_writers:
                return user.lower()
            raise UnauthenticatedError("this logger takes lines only under the signature of the job's provider")
        provider = str(values.get(PROVIDER_METADATA, ""))
        signature = values[SIGNATURE_METADATA]
        try:
            timestamp = int(values.get(TIMESTAMP_HEADER, ""))
        except ValueError:
            raise UnauthenticatedError("the time of signing is missing") from None
        text = write_text(provider, log_name, timestamp)
        signer = _signer(provider, timestamp, text, signature if isinstance(signature, bytes) else b"")
        job = await self._chain.get_job(bytes.fromhex(log_name[2:])) if _JOB_ID.fullmatch(log_name) else None
        if job is None or job.provider.lower() != signer:
            raise ForbiddenError("only the provider to which the job is assigned writes its log")
        if job.customer.lower() != user.lower():
            raise ForbiddenError("the user is not the job's customer")
        return user.lower()


def _check_name(log_name: str) -> None:
    if not _NAME.fullmatch(log_name):
        raise ForbiddenError("a log's name is 1 to 128 letters, digits, dots, dashes and underscores")


def _signer(address: str, timestamp: int, text: bytes, signature: bytes) -> str:
    """`address` in lower case, if it signed `text` just now."""
    if not is_fresh(timestamp):
        raise UnauthenticatedError("the request was signed too long ago; is the clock right?")
    signer = recover(text, signature)
    if signer is None or signer.lower() != address.lower():
        raise UnauthenticatedError("the request was not signed by the address that it names")
    return address.lower()
