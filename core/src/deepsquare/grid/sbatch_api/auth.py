"""The gRPC side of the sbatch API: challenges, and scripts for the providers that run them."""

from __future__ import annotations

import logging
from typing import NoReturn

import grpc
from grpc import aio

from deepsquare.chain.wallet import recover
from deepsquare.errors import DeepSquareError
from deepsquare.grid.sbatch_api.chain import JobReader
from deepsquare.grid.sbatch_api.challenges import Challenges
from deepsquare.grid.sbatch_api.scripts import ScriptStore, UnknownScriptError, UsedNonceError, WrongCustomerError
from deepsquare.wire import sbatchapi_v1alpha1_pb2 as pb
from deepsquare.wire.sbatchapi_v1alpha1_pb2_grpc import AuthAPIServicer, SBatchAPIServicer

_log = logging.getLogger(__name__)

ChallengeContext = aio.ServicerContext[pb.ChallengeRequest, pb.ChallengeResponse]
ScriptContext = aio.ServicerContext[pb.GetSBatchRequest, pb.GetSBatchResponse]


class AuthService(AuthAPIServicer):
    """Hands out challenges."""

    def __init__(self, challenges: Challenges) -> None:
        self._challenges = challenges

    async def Challenge(self, request: pb.ChallengeRequest, context: ChallengeContext) -> pb.ChallengeResponse:
        """A new challenge."""
        return pb.ChallengeResponse(challenge=self._challenges.issue())


class ScriptService(SBatchAPIServicer):
    """Hands out scripts, each only to the provider to which the chain assigned a job of the script's customer."""

    def __init__(self, chain: JobReader, store: ScriptStore, challenges: Challenges, logger_endpoint: str) -> None:
        self._chain = chain
        self._store = store
        self._challenges = challenges
        self._logger_endpoint = logger_endpoint

    async def GetSBatch(self, request: pb.GetSBatchRequest, context: ScriptContext) -> pb.GetSBatchResponse:
        """The script of a job, and where its output goes."""
        nonce = self._challenges.open(request.challenge)
        if nonce is None:
            await _refuse(context, "the challenge was not issued here, or is older than ten minutes: ask for a new one")
        provider = recover(request.challenge, request.signed_challenge)
        if provider is None or bytes.fromhex(provider[2:]) != request.provider_address:
            await _refuse(context, "the challenge was not signed by this provider")
        if not await self._store.exists(request.batch_location_hash):
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such script, or no longer")
        customer = await self._customer(request, provider, context)
        try:
            script = await self._store.release(request.batch_location_hash, customer=customer, nonce=nonce)
        except UnknownScriptError:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such script, or no longer")
        except UsedNonceError:
            await _refuse(context, "this challenge has been used: ask for a new one")
        except WrongCustomerError:
            _log.warning("job %s names a script of another customer", request.job_id)
            await _refuse(context, "the script belongs to another customer than the job")
        return pb.GetSBatchResponse(sbatch=script, grid_logger_url=self._logger_endpoint)

    async def _customer(self, request: pb.GetSBatchRequest, provider: str, context: ScriptContext) -> str:
        """The customer of the request's job, after everything that the request says of it is found true on chain."""
        job_id = _job_id(request.job_id)
        if job_id is None:
            await _refuse(context, "the job id is not 0x and 64 hex digits")
        try:
            job = await self._chain.get_job(job_id)
        except DeepSquareError as error:
            _log.warning("the chain can't be read: %s", error)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the chain can't be read at the moment: try again")
        if job is None:
            await _refuse(context, "there is no such job")
        if job.definition.batch_location_hash != request.batch_location_hash:
            await _refuse(context, "the job names another script")
        if job.provider != provider:
            await _refuse(context, "the job is not assigned to this provider")
        if bytes.fromhex(job.customer[2:]) != request.customer_address:
            await _refuse(context, "the job belongs to another customer")
        if not job.status.is_hot:
            await _refuse(context, "the job has ended")
        return job.customer


def _job_id(text: str) -> bytes | None:
    """The 32 bytes of a job id, or None when `text` is none."""
    try:
        job_id = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        return None
    return job_id if len(job_id) == 32 else None


async def _refuse(context: ScriptContext, reason: str) -> NoReturn:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, reason)
