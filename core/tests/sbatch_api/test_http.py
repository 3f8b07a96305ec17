"""The HTTP side: GraphQL's answers, its bounds, and one port for HTTP and gRPC."""

import asyncio
import hashlib
import json
import logging
import time

import httpx
import pytest
from deepsquare.client.sbatch import WorkflowRejectedError, submit_workflow
from deepsquare.errors import ApiError, ConnectionFailedError
from deepsquare.grid.sbatch_api.http import MAX_BODY_BYTES
from deepsquare.wire import sbatchapi_v1alpha1_pb2 as pb
from deepsquare.wire.messages import (
    CUSTOMER_HEADER,
    SIGNATURE_HEADER,
    SUBMIT_MUTATION,
    TIMESTAMP_HEADER,
    submit_text,
)
from deepsquare.wire.sbatchapi_v1alpha1_pb2_grpc import AuthAPIStub
from graphql import build_client_schema, get_introspection_query
from grpc import aio


@pytest.fixture
async def http():
    async with httpx.AsyncClient() as client:
        yield client


def body_of(workflow: dict) -> bytes:
    return json.dumps({"query": SUBMIT_MUTATION, "variables": {"job": workflow}}).encode()


def signed(customer, body: bytes, *, timestamp: int | None = None) -> dict[str, str]:
    timestamp = int(time.time()) if timestamp is None else timestamp
    return {
        "content-type": "application/json",
        CUSTOMER_HEADER: customer.address,
        TIMESTAMP_HEADER: str(timestamp),
        SIGNATURE_HEADER: customer.sign_message(submit_text(customer.address, body, timestamp)).hex(),
    }


async def test_one_port_speaks_http_and_grpc(http, api, endpoint):
    async with aio.insecure_channel(endpoint) as channel:
        health, challenge = await asyncio.gather(
            http.get(f"http://{endpoint}/health"), AuthAPIStub(channel).Challenge(pb.ChallengeRequest())
        )
    assert (health.status_code, health.text) == (200, "ok")
    content = json.loads(challenge.challenge)
    assert content["message"] == "login"
    assert len(content["nonce"]) == 24


async def test_introspection_gives_the_whole_schema(http, url):
    response = await http.post(url, json={"query": get_introspection_query()})
    schema = build_client_schema(response.json()["data"])
    assert set(schema.mutation_type.fields) == {"submit", "validate"}
    assert set(schema.query_type.fields) == {"job"}


async def test_each_invalid_field_is_an_error_of_its_own(http, url, workflow):
    workflow["steps"] = [{"run": {"command": "true", "shell": "/bin/bad"}} for _ in range(2)]
    response = await http.post(url, content=body_of(workflow), headers={"content-type": "application/json"})
    assert response.status_code == 200
    errors = response.json()["errors"]
    assert len(errors) == 2
    for index, error in enumerate(errors):
        extensions = error["extensions"]
        assert extensions["type"] == "validation"
        assert extensions["namespace"] == f"Job.steps[{index}].run.shell"
        assert extensions["field"] == "shell"
        assert extensions["tag"]
        assert extensions["original_message"] in error["message"]


async def test_the_client_names_each_invalid_field(url, workflow, customer):
    workflow["steps"] = [{"run": {"command": "true", "shell": "/bin/bad"}} for _ in range(2)]
    with pytest.raises(WorkflowRejectedError, match=r"steps\[1\]\.run\.shell") as error:
        await submit_workflow(url, workflow, customer)
    assert len(error.value.problems) == 2


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        ({"resources": {"tasks": "the-secret"}}, "resources.tasks", "Int cannot represent non-integer value"),
        ({"resources": {"tasks": "the-secret"}}, "resources", "include required field 'gpus'"),
        ({"env": [{"key": "K", "value": {"the-secret": 1}}]}, "env[0].value", "cannot represent a non string value"),
        ({"unknown": "the-secret"}, "", "unknown field 'unknown'"),
        ({"inputMode": 2**31}, "inputMode", "32-bit"),
    ],
)
async def test_what_does_not_fit_the_schema_is_named_without_its_value(
    http, url, workflow, customer, change, path, message
):
    body = body_of(workflow | change)
    errors = (await http.post(url, content=body, headers=signed(customer, body))).json()["errors"]
    assert {error["extensions"]["type"] for error in errors} == {"validation"}
    assert any(
        error["extensions"]["namespace"] == f"Job.{path}".rstrip(".") and message in error["message"]
        for error in errors
    )
    assert "the-secret" not in json.dumps(errors)
    with pytest.raises(WorkflowRejectedError):
        await submit_workflow(url, workflow | change, customer)


async def test_values_in_the_text_of_a_query_are_not_repeated(http, url):
    query = 'mutation { submit(job: {resources: {tasks: "the-secret"}, steps: []}) }'
    response = await http.post(url, json={"query": query})
    assert response.status_code == 422
    assert "the-secret" not in response.text


async def test_null_is_as_good_as_leaving_out(url, workflow, customer):
    workflow |= {"env": None, "inputMode": None}
    assert await submit_workflow(url, workflow, customer)


async def test_modules_are_validated(http, url, workflow):
    module = {"name": "m", "description": "d", "minimumResources": workflow["resources"], "steps": workflow["steps"]}
    query = "mutation V($module: Module!) { validate(module: $module) }"

    async def validate(module):
        return (await http.post(url, json={"query": query, "variables": {"module": module}})).json()["data"]["validate"]

    assert await validate(module) == "valid"
    assert "inputs[0].key" in await validate(module | {"inputs": [{"key": "not a name", "description": ""}]})
    assert "PATH can't be set" in await validate(module | {"outputs": [{"key": "PATH", "description": ""}]})
    assert "twice" in await validate(module | {"inputs": [{"key": "A", "description": ""}] * 2})
    bad = {"run": {"command": "true", "shell": "/bin/bad"}}
    assert "shell" in await validate(module | {"steps": [bad]})


async def test_scripts_are_not_given_away(http, url):
    response = await http.post(url, json={"query": '{ job(batchLocationHash: "x") }'})
    assert response.json()["errors"][0]["extensions"]["type"] == "forbidden"


@pytest.mark.parametrize("change", ["body", "customer", "timestamp", "missing", "garbage"])
async def test_a_wrong_signature_is_refused(http, url, workflow, customer, thief, change):
    body = body_of(workflow)
    headers = signed(customer, body, timestamp=int(time.time()) - 3600 if change == "timestamp" else None)
    match change:
        case "body":
            body += b" "
        case "customer":
            headers[CUSTOMER_HEADER] = thief.address
        case "missing":
            del headers[SIGNATURE_HEADER]
        case "garbage":
            headers[SIGNATURE_HEADER] = "zz"
    response = await http.post(url, content=body, headers=headers)
    assert response.status_code == 401
    assert response.json()["errors"][0]["extensions"]["type"] == "unauthenticated"


async def test_the_time_of_signing_may_be_in_milliseconds(http, url, workflow, customer):
    body = body_of(workflow)
    response = await http.post(url, content=body, headers=signed(customer, body, timestamp=int(time.time() * 1000)))
    assert response.json()["data"]["submit"]


class TestBounds:
    async def test_of_the_body(self, http, url):
        response = await http.post(url, content=b" " * (MAX_BODY_BYTES + 1))
        assert response.status_code == 413

    @pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'"' * 99_999, b'\\"' * 100_000])
    async def test_of_what_is_json(self, http, url, body):
        assert (await http.post(url, content=body)).status_code == 400

    @pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000])
    async def test_of_the_depth_of_json(self, http, url, body):
        response = await http.post(url, content=body)
        assert (response.status_code, "levels deep" in response.text) == (422, True)

    async def test_brackets_in_strings_are_not_depth(self, url, workflow, customer):
        workflow["steps"][0]["run"]["command"] = 'echo "' + "[{(" * 1000 + "\\"
        assert await submit_workflow(url, workflow, customer)

    async def test_of_the_depth_of_variables(self, http, url, workflow):
        step = {"run": {"command": "true"}}
        for _ in range(60):
            step = {"steps": [step]}
        workflow["steps"] = [step]
        response = await http.post(url, content=body_of(workflow))
        assert (response.status_code, "levels deep" in response.text) == (422, True)

    @pytest.mark.parametrize("depth", [60, 150, 5000])
    async def test_of_the_depth_of_the_query(self, http, url, depth):
        query = "mutation { submit(job: {steps: " + "[{steps: " * depth + "[]" + "}]" * depth + "}) }"
        response = await http.post(url, json={"query": query})
        assert response.status_code == 422
        assert "deep" in response.text

    async def test_of_the_number_of_fields(self, http, url):
        many = " ".join(f'a{number}: job(batchLocationHash: "x")' for number in range(11))
        response = await http.post(url, json={"query": "{" + many + "}"})
        assert (response.status_code, "root" in response.text) == (422, True)
        many = " ".join(f"a{number}: name" for number in range(501))
        response = await http.post(url, json={"query": "{ __schema { types {" + many + "} } }"})
        assert (response.status_code, "more than 500 fields" in response.text) == (422, True)

    async def test_of_the_number_of_tokens(self, http, url):
        response = await http.post(url, json={"query": "{ job(batchLocationHash: " + "[1]" * 60_000 + ") }"})
        assert response.status_code == 422

    @pytest.mark.parametrize("data", ["[]", "1", "{}", '{"query": 1}', '{"query": "{ x }"}', '{"query": "{"}'])
    async def test_of_what_is_a_query(self, http, url, data):
        response = await http.post(url, content=data.encode())
        assert response.status_code == 422
        assert response.json()["errors"]

    async def test_of_methods_and_paths(self, http, url, endpoint):
        assert (await http.get(url)).status_code == 405
        assert (await http.get(f"http://{endpoint}/other")).status_code == 404


async def test_other_origins_may_call(http, url):
    response = await http.options(
        url, headers={"origin": "https://app.example", "access-control-request-method": "POST"}
    )
    assert response.headers["access-control-allow-origin"] == "*"


async def test_nothing_of_a_workflow_is_logged(http, url, workflow, customer, caplog):
    caplog.set_level(logging.DEBUG)
    workflow["steps"].append({"run": {"command": "the-secret-of-the-job", "shell": "/bin/bad"}})
    with pytest.raises(WorkflowRejectedError):
        await submit_workflow(url, workflow, customer)
    workflow["resources"]["tasks"] = "the-secret-of-the-job"
    with pytest.raises(ApiError):
        await submit_workflow(url, workflow, customer)
    assert "the-secret" not in caplog.text


async def test_an_unexpected_failure_says_only_that_it_happened(http, url, workflow, customer, caplog, monkeypatch):
    def fail(job, modules):
        raise RuntimeError("the-secret-of-the-job")

    monkeypatch.setattr("deepsquare.grid.sbatch_api.http.compile_job", fail)
    with pytest.raises(ApiError, match="internal error"):
        await submit_workflow(url, workflow, customer)
    assert "RuntimeError" in caplog.text
    assert "the-secret" not in caplog.text


class TestTheClient:
    """Against answers that a healthy service doesn't give."""

    @staticmethod
    def answering(*answers: httpx.Response | Exception) -> httpx.AsyncClient:
        remaining = list(answers)

        def answer(request: httpx.Request) -> httpx.Response:
            response = remaining.pop(0) if len(remaining) > 1 else remaining[0]
            if isinstance(response, Exception):
                raise response
            return response

        return httpx.AsyncClient(transport=httpx.MockTransport(answer))

    async def submit(self, http, workflow, customer):
        async with http:
            return await submit_workflow("http://api.example/graphql", workflow, customer, http=http)

    async def test_retries_what_may_pass(self, workflow, customer):
        http = self.answering(
            httpx.ConnectError("refused"), httpx.Response(503), httpx.Response(200, json={"data": {"submit": "id"}})
        )
        assert await self.submit(http, workflow, customer) == "id"

    @pytest.mark.parametrize("answer", [httpx.ConnectError("refused"), httpx.Response(502)])
    async def test_gives_up_in_the_end(self, workflow, customer, answer, monkeypatch):
        monkeypatch.setattr("deepsquare.client.sbatch._RETRY_SECONDS", 0.3)
        with pytest.raises(ConnectionFailedError, match=r"api\.example"):
            await self.submit(self.answering(answer), workflow, customer)

    @pytest.mark.parametrize(
        "answer",
        [
            httpx.Response(200, text="<html>"),
            httpx.Response(404, json={"detail": "no"}),
            httpx.Response(200, json=[]),
            httpx.Response(200, json={"errors": ["text"]}),
        ],
    )
    async def test_says_when_it_is_no_sbatch_api(self, workflow, customer, answer):
        with pytest.raises(ApiError, match="not that of an sbatch API"):
            await self.submit(self.answering(answer), workflow, customer)

    async def test_signs_the_bytes_that_it_sends(self, workflow, customer):
        seen = []

        def answer(request: httpx.Request) -> httpx.Response:
            seen.append(request)
            return httpx.Response(200, json={"data": {"submit": "id"}})

        await self.submit(httpx.AsyncClient(transport=httpx.MockTransport(answer)), workflow, customer)
        request = seen[0]
        timestamp = int(request.headers[TIMESTAMP_HEADER])
        text = f"submit:{customer.address.lower()}/{hashlib.sha256(request.content).hexdigest()}/{timestamp}"
        assert request.headers[SIGNATURE_HEADER] == "0x" + customer.sign_message(text.encode()).hex()
