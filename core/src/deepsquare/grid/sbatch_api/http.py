"""The HTTP side of the sbatch API: GraphQL at /graphql, bounded in every direction, and /health."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable
from concurrent.futures import Executor
from importlib.resources import files
from typing import Any

from ariadne import MutationType, QueryType, make_executable_schema
from ariadne.asgi import GraphQL
from ariadne.asgi.handlers import GraphQLHTTPHandler
from graphql import DocumentNode, GraphQLError, GraphQLResolveInfo, parse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from deepsquare.chain.wallet import recover
from deepsquare.grid.sbatch_api.compile import Problem, RejectedError, check_module, compile_job
from deepsquare.grid.sbatch_api.limits import MAX_DEPTH, QueryLimits, check_query
from deepsquare.grid.sbatch_api.modules import GitModules
from deepsquare.grid.sbatch_api.scripts import ScriptStore
from deepsquare.wire.messages import CUSTOMER_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, is_fresh, submit_text
from deepsquare.workflow.depth import is_deep_json

MAX_BODY_BYTES = 2 * 1024 * 1024
BODY_SECONDS = 30

# How graphql-core words what is wrong with a variable.
_WRONG_TYPE = re.compile(r"Variable '\$\w+' has invalid value(?: at \.(\S+))?: (.*)", re.DOTALL)
_REPRESENT = re.compile(r"(cannot represent .*?value): .*", re.DOTALL)
_FOUND = re.compile(r", found: .*", re.DOTALL)

_log = logging.getLogger(__name__)


class _RefusedError(Exception):
    """The request is answered with an error before GraphQL sees it."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.response = JSONResponse(
            {"errors": [{"message": message, "extensions": {"type": kind}}]}, status_code=status
        )


class _Handler(GraphQLHTTPHandler):
    """Takes JSON by POST only; checks size, depth and the customer's signature before anything is executed."""

    async def handle_request(self, request: Request) -> Response:
        if request.method != "POST":
            refusal: Response = self.handle_not_allowed_method(request)
            return refusal
        try:
            body = await _body(request)
            customer = _signer(request, body)
            data = _json(body)
        except _RefusedError as refused:
            return refused.response
        _, result = await self.execute_graphql_query(request, data, context_value={"customer": customer})
        if "errors" in result:
            # One exception stands for several errors when several fields are wrong.
            result["errors"] = [error for group in result["errors"] for error in group["group"]]
        # As the reference does: 422 for what is no valid query, 200 for what was executed, even when it failed.
        return JSONResponse(result, status_code=200 if "data" in result else 422)


def make_app(store: ScriptStore, modules: GitModules, compilers: Executor) -> Starlette:
    """The ASGI application that puts scripts into `store`; what it compiles may wait in `compilers` for modules."""
    query, mutation = QueryType(), MutationType()

    async def compiled(function: Callable[[dict[str, Any], GitModules], str], value: dict[str, Any]) -> str:
        return await asyncio.get_running_loop().run_in_executor(compilers, function, value, modules)

    @query.field("job")
    def resolve_job(_: Any, info: GraphQLResolveInfo[Any], batchLocationHash: str) -> str:
        raise GraphQLError("scripts are not given away here: they may hold secrets", extensions={"type": "forbidden"})

    @mutation.field("submit")
    async def resolve_submit(_: Any, info: GraphQLResolveInfo[Any], job: dict[str, Any]) -> str:
        script = await compiled(compile_job, job)
        return await store.add(script, info.context["customer"])

    @mutation.field("validate")
    async def resolve_validate(_: Any, info: GraphQLResolveInfo[Any], module: dict[str, Any]) -> str:
        return await compiled(check_module, module)

    sdl = files("deepsquare.wire").joinpath("sbatch.graphql").read_text(encoding="utf-8")
    # ariadne logs each error with its text, which may quote a value of the workflow: only `_format` logs here.
    silent = logging.Logger("silent")
    silent.disabled = True
    graphql = GraphQL(
        make_executable_schema(sdl, query, mutation),
        query_parser=_parse,
        validation_rules=[QueryLimits],
        error_formatter=_format,
        logger=silent,
        explorer=None,
        http_handler=_Handler(),
    )
    return Starlette(
        routes=[Route("/health", _health), Route("/graphql", graphql)],
        # The web portal calls from another origin; there are no cookies that an origin could abuse.
        middleware=[Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["POST"], allow_headers=["*"])],
    )


async def _health(request: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise _RefusedError(413, "too_large", f"the request is larger than {MAX_BODY_BYTES} bytes")
    except TimeoutError:
        raise _RefusedError(408, "timeout", f"the request took longer than {BODY_SECONDS} seconds to arrive") from None
    return bytes(body)


def _signer(request: Request, body: bytes) -> str | None:
    """The customer who signed the request, or None when it carries no signature at all."""
    names = (CUSTOMER_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER)
    values = [request.headers.get(name) for name in names]
    if not any(values):
        return None
    refused = _RefusedError(401, "unauthenticated", f"the signature in the headers {', '.join(names)} is not valid")
    try:
        customer, timestamp, signature = (
            values[0] or "",
            int(values[1] or ""),
            bytes.fromhex((values[2] or "").removeprefix("0x")),
        )
    except ValueError:
        raise refused from None
    if not is_fresh(timestamp):
        raise _RefusedError(
            401, "unauthenticated", "the request was signed too long ago; is this machine's clock right?"
        )
    signer = recover(submit_text(customer, body, timestamp), signature)
    if signer is None or signer.lower() != customer.lower():
        raise refused
    return signer


def _json(body: bytes) -> Any:
    if is_deep_json(body, MAX_DEPTH):
        raise _RefusedError(422, "graphql", f"the request is nested more than {MAX_DEPTH} levels deep")
    try:
        return json.loads(body)
    except ValueError:
        raise _RefusedError(400, "graphql", "the request is no valid JSON") from None


def _parse(context: Any, data: dict[str, Any]) -> DocumentNode:
    check_query(data["query"])
    return parse(data["query"])


def _format(error: GraphQLError, debug: bool = False) -> dict[str, Any]:
    """The errors that one exception stands for."""
    cause = error.original_error
    if isinstance(cause, RejectedError):
        return {"group": [_problem(error, problem) for problem in cause.problems]}
    message = _without_values(error.message)
    if wrong_type := _WRONG_TYPE.fullmatch(message):
        return {"group": [_problem(error, Problem(wrong_type[1] or "", wrong_type[2], "type"))]}
    formatted: dict[str, Any] = {**error.formatted, "message": message}
    if cause is not None and not isinstance(cause, GraphQLError):
        # Neither answered nor logged with its text: that may hold a part of the script.
        _log.error("a GraphQL request failed with %s", type(cause).__name__)
        formatted |= {"message": "internal error", "extensions": {"type": "internal"}}
    formatted.setdefault("extensions", {"type": "graphql"})
    return {"group": [formatted]}


def _without_values(message: str) -> str:
    """A message of graphql-core without the value that it complains about: answers end up in logs and tickets."""
    return _FOUND.sub("", _REPRESENT.sub(r"\1", message))


def _problem(error: GraphQLError, problem: Problem) -> dict[str, Any]:
    return {
        "message": f"{problem.path}: {problem.message}" if problem.path else problem.message,
        "path": error.path,
        "extensions": {
            "type": "validation",
            "tag": problem.tag,
            "namespace": f"Job.{problem.path}" if problem.path else "Job",
            "field": problem.path.rpartition(".")[2],
            "original_message": problem.message,
        },
    }
