"""Fetches the scripts of claimed jobs from the sbatch API."""

from __future__ import annotations

from grpc import aio
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from deepsquare.chain.wallet import Wallet
from deepsquare.errors import ApiError, ConnectionFailedError
from deepsquare.wire import sbatchapi_v1alpha1_pb2 as pb
from deepsquare.wire.channels import FATAL_CODES, describe, open_channel
from deepsquare.wire.sbatchapi_v1alpha1_pb2_grpc import AuthAPIStub, SBatchAPIStub

_ATTEMPTS = 6
_MAX_WAIT_SECONDS = 5.0
_CALL_SECONDS = 20.0


async def fetch_script(
    endpoint: str, *, wallet: Wallet, job_id: str, batch_location_hash: str, customer: str, tls: bool = False
) -> tuple[str, str]:
    """The script of a job that the chain assigned to this provider, and the address (host:port) of its logger.

    Args:
        endpoint: host:port of the sbatch API.
        wallet: the provider's.
        job_id: the job's id, 0x and 64 hex digits.
        batch_location_hash: the script's id, from the job's definition.
        customer: the address of the job's customer.
        tls: connect with TLS.

    Raises:
        ApiError: the API refuses, or has no such script (any more).
        ConnectionFailedError: the API can't be reached, also after retries, or can't read the chain.
    """
    async with open_channel(endpoint, tls=tls) as channel:
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception(_may_pass),
                stop=stop_after_attempt(_ATTEMPTS),
                wait=wait_random_exponential(multiplier=0.2, max=_MAX_WAIT_SECONDS),
                reraise=True,
            ):
                with attempt:
                    # A new challenge at each attempt: one that was answered is used up, even when the answer was lost.
                    asked = await AuthAPIStub(channel).Challenge(pb.ChallengeRequest(), timeout=_CALL_SECONDS)
                    answer = await SBatchAPIStub(channel).GetSBatch(
                        pb.GetSBatchRequest(
                            batch_location_hash=batch_location_hash,
                            signed_challenge=wallet.sign_message(asked.challenge),
                            challenge=asked.challenge,
                            provider_address=bytes.fromhex(wallet.address[2:]),
                            customer_address=bytes.fromhex(customer[2:]),
                            job_id=job_id,
                        ),
                        timeout=_CALL_SECONDS,
                    )
        except aio.AioRpcError as error:
            if error.code() in FATAL_CODES:
                raise ApiError(f"the sbatch API at {endpoint} refuses the script: {describe(error)}") from None
            raise ConnectionFailedError(f"the sbatch API at {endpoint} can't be reached: {describe(error)}") from None
    return answer.sbatch, answer.grid_logger_url


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, aio.AioRpcError) and error.code() not in FATAL_CODES
