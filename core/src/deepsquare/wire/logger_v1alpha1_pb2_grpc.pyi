"""The types of the generated module for grpc.aio, which the generator leaves untyped."""

from collections.abc import AsyncIterator

from grpc import aio

from deepsquare.wire import logger_v1alpha1_pb2 as pb

class LoggerAPIStub:
    Write: aio.StreamUnaryMultiCallable[pb.WriteRequest, pb.WriteResponse]
    Read: aio.UnaryStreamMultiCallable[pb.ReadRequest, pb.ReadResponse]
    WatchList: aio.UnaryStreamMultiCallable[pb.WatchListRequest, pb.WatchListResponse]
    def __init__(self, channel: aio.Channel) -> None: ...

class LoggerAPIServicer:
    async def Write(
        self,
        request_iterator: AsyncIterator[pb.WriteRequest],
        context: aio.ServicerContext[pb.WriteRequest, pb.WriteResponse],
    ) -> pb.WriteResponse: ...
    async def Read(
        self,
        request: pb.ReadRequest,
        context: aio.ServicerContext[pb.ReadRequest, pb.ReadResponse],
    ) -> None: ...
    async def WatchList(
        self,
        request: pb.WatchListRequest,
        context: aio.ServicerContext[pb.WatchListRequest, pb.WatchListResponse],
    ) -> None: ...

def add_LoggerAPIServicer_to_server(servicer: LoggerAPIServicer, server: aio.Server) -> None: ...
