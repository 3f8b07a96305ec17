"""The types of the generated module for grpc.aio, which the generator leaves untyped."""

from grpc import aio

from deepsquare.wire import sbatchapi_v1alpha1_pb2 as pb

class AuthAPIStub:
    Challenge: aio.UnaryUnaryMultiCallable[pb.ChallengeRequest, pb.ChallengeResponse]
    def __init__(self, channel: aio.Channel) -> None: ...

class AuthAPIServicer:
    async def Challenge(
        self,
        request: pb.ChallengeRequest,
        context: aio.ServicerContext[pb.ChallengeRequest, pb.ChallengeResponse],
    ) -> pb.ChallengeResponse: ...

def add_AuthAPIServicer_to_server(servicer: AuthAPIServicer, server: aio.Server) -> None: ...

class SBatchAPIStub:
    GetSBatch: aio.UnaryUnaryMultiCallable[pb.GetSBatchRequest, pb.GetSBatchResponse]
    def __init__(self, channel: aio.Channel) -> None: ...

class SBatchAPIServicer:
    async def GetSBatch(
        self,
        request: pb.GetSBatchRequest,
        context: aio.ServicerContext[pb.GetSBatchRequest, pb.GetSBatchResponse],
    ) -> pb.GetSBatchResponse: ...

def add_SBatchAPIServicer_to_server(servicer: SBatchAPIServicer, server: aio.Server) -> None: ...
