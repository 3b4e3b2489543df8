"""schemathesis on our own OpenAPI document: whatever fits or breaks the schemas, no 500, no traceback, no hang."""

import json

import pytest
import schemathesis
from harness import Running, get, until
from hypothesis import HealthCheck, Phase, assume, settings
from schemathesis.checks import not_a_server_error

from freehold.api import document

schema = schemathesis.openapi.from_dict(document.openapi())
calm = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def check(case: schemathesis.Case, server: Running) -> None:
    response = case.call(base_url=server.base, headers={"Authorization": f"Bearer {server.key}"}, timeout=60)
    case.validate_response(response, checks=[not_a_server_error])
    assert response.headers["x-request-id"][0].startswith("req_")
    if response.status_code >= 400:
        error = response.json()["error"]
        assert "Traceback" not in error["message"] and error["message"].strip(), error


@schema.parametrize()
@calm
def test_no_request_ends_in_a_fault_of_ours(case, fake):
    """On every path, with the fake engine."""
    check(case, fake)


@schema.include(path_regex="^/v1/(chat|comp|emb|resp|mess)").parametrize()
@pytest.mark.timeout(400)
@settings(calm, phases=[Phase.generate], max_examples=12)  # the many explicit examples are for the fake engine
def test_no_request_breaks_the_real_engine(case, real):
    """What gets through to it is answered or refused."""
    assume(len(str(case.body)) < 3000)  # a long prompt of rare characters takes this engine half a minute
    if isinstance(case.body, dict):
        case.body = case.body | {"model": "smollm2-135m-instruct"}
        for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
            if isinstance(case.body.get(name), int):
                case.body[name] = min(case.body[name], 4)
        if "messages" in case.body or "prompt" in case.body:
            case.body.setdefault("max_tokens", 4)
        if "input" in case.body and case.path == "/v1/responses":
            case.body.setdefault("max_output_tokens", 4)
    check(case, real)


def test_the_document_itself_is_sound_and_served(fake):
    """The same that the tests are made from."""
    status, _, body = get(fake, "/openapi.json", fake.key)
    assert status == 200 and json.loads(body) == json.loads(json.dumps(document.openapi()))
    assert {"/v1/chat/completions", "/v1/messages", "/healthz"} <= document.openapi()["paths"].keys()


@pytest.fixture(autouse=True)
def nothing_was_written_to_the_log(request):
    """A traceback in the server's log is a failure, whatever the client saw."""
    yield
    for name in ("fake", "real"):
        if name in request.fixturenames:
            server = request.getfixturevalue(name)
            assert "Traceback" not in server.output(), server.output()[-3000:]
            until(lambda server=server: get(server, "/readyz")[0] == 200, 30)
