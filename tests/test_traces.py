"""Traces: OTLP that others can read, through the relay alone, with no text of a call, and never in a call's way."""

import asyncio
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from collector import Collector, attributes, spans_of
from harness import Running, Wire, ask, chat, get, post, serving, until
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from upstream import Upstream, authority

from freehold import traces
from freehold.config import Settings, TracesSettings, UpstreamSettings
from freehold.engine.upstream import Place, collector
from freehold.errors import BadConfig
from freehold.traces import BATCH, ROOM, Context, Traces, begun, read
from freehold.types import Kind, Outcome, Seen, Settlement, Usage

CHAT = "/v1/chat/completions"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ABOVE = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
SECRET = "the patient's name is Miriam"


def home(folder: Path, place: Collector, more: str = "", hosts: tuple[str, ...] = ()) -> Path:
    """A home whose traces go there."""
    (folder / "home").mkdir()
    allowed = json.dumps([place.host, *hosts])
    url = place.url.removesuffix("/v1")
    (folder / "home/freehold.toml").write_text(f'upstream_hosts = {allowed}\n[traces]\nendpoint = "{url}"\n{more}')
    return folder / "home"


@pytest.fixture(scope="module")
def place():
    """A collector, over plain HTTP."""
    made = Collector()
    yield made
    made.close()


@pytest.fixture(scope="module")
def traced(tmp_path_factory, tiny_model, place):
    """A server whose traces go to that collector, and an upstream."""
    folder = tmp_path_factory.mktemp("traced")
    far = Upstream()
    (folder / "key").write_text("collector-key-1")
    own = f'key_file = "{folder / "key"}"\nservice = "desk"\n'
    own += f'[upstreams.far]\nurl = "{far.url}"\nmodels = ["far-1"]\n'
    with serving(home(folder, place, own, (far.host,)), tiny_model) as server:
        server.far = far
        yield server
    far.close()


def of(place: Collector, call_id: str) -> list[Span]:
    """The spans of one call, the gateway's own first."""

    def there():
        mine = [span for span in place.spans if attributes(span).get("freehold.call.id") == call_id]
        return mine and [*mine, *(span for span in place.spans if span.parent_span_id == mine[0].span_id)]

    return until(there)


def facts(server: Running) -> dict:
    return json.loads(get(server, "/admin/status", server.key)[2])["traces"]


def test_a_call_is_two_spans_by_the_conventions(traced, place):
    """The gateway's, below the one that the request names, and the model's below it; read by OpenTelemetry's own
    types, which refuse a field that the protocol does not have."""
    began = time.time_ns()
    _, headers, _ = ask(traced, CHAT, chat({"tokens": 5, "first_ms": 30, "each_ms": 10}, stream=True), **ABOVE)
    ended = time.time_ns()
    server, client = of(place, headers["x-request-id"])
    assert (server.trace_id.hex(), server.parent_span_id.hex(), server.kind) == (TRACE, PARENT, Span.SPAN_KIND_SERVER)
    assert server.name == f"POST {CHAT}" and client.name == "chat tiny" and client.kind == Span.SPAN_KIND_CLIENT
    assert client.trace_id == server.trace_id and client.span_id != server.span_id
    assert began <= server.start_time_unix_nano <= client.start_time_unix_nano < client.end_time_unix_nano
    assert client.end_time_unix_nano <= server.end_time_unix_nano <= ended
    assert client.end_time_unix_nano - client.start_time_unix_nano >= 65e6
    said = attributes(client)
    first = traced.calls(1)[0]["first_token_ms"] / 1000
    assert said.pop("gen_ai.response.time_to_first_chunk") == pytest.approx(first)
    assert said.pop("freehold.model.digest").startswith("sha256:")
    assert said == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "freehold", "gen_ai.request.model": "tiny",
        "gen_ai.response.model": "tiny", "gen_ai.request.stream": True, "gen_ai.usage.input_tokens": 6,
        "gen_ai.usage.output_tokens": 5, "freehold.left_the_house": False,
    }  # fmt: skip
    own = attributes(server)
    assert own.pop("freehold.waited_seconds") >= 0 and own.pop("freehold.call.id") == headers["x-request-id"]
    assert own == {
        "http.request.method": "POST", "http.route": CHAT, "http.response.status_code": 200, "freehold.caller": "admin",
        "freehold.outcome": "answered",
    }  # fmt: skip
    assert server.status.code == client.status.code == Status.STATUS_CODE_UNSET


def test_the_request_to_the_collector_is_as_otlp_has_it(traced, place):
    """The path is completed, the key sent, the body JSON, and the resource names the service."""
    ask(traced, CHAT, chat("hi"))
    until(lambda: place.got)
    got, request = place.got[-1], place.requests[-1]
    assert got["line"] == "POST /v1/traces HTTP/1.1" and got["headers"]["content-type"] == "application/json"
    assert got["headers"]["authorization"] == "Bearer collector-key-1"
    about = attributes(request.resource_spans[0].resource)
    assert about["service.name"] == "desk" and about["service.version"] and len(about["service.instance.id"]) == 32
    assert request.resource_spans[0].scope_spans[0].scope.name == "freehold"


def test_every_kind_of_call_has_its_operation(traced, place):
    """As the conventions name them, with the model's name behind."""
    bodies = {
        "/v1/completions": ({"model": "tiny", "prompt": "x"}, "text_completion tiny"),
        "/v1/embeddings": ({"model": "tiny", "input": "x"}, "embeddings tiny"),
        "/v1/responses": ({"model": "tiny", "input": "x"}, "chat tiny"),
        "/v1/messages": (chat("hi") | {"max_tokens": 4}, "chat tiny"),
    }
    for path, (body, name) in bodies.items():
        status, headers, content = ask(traced, path, body)
        assert status == 200, content
        server, client = of(place, headers["x-request-id"])
        assert (server.name, client.name) == (f"POST {path}", name)


def test_a_call_that_left_the_house_says_where_it_went(traced, place):
    """Its provider is the upstream, with address and port; nothing of the trace goes along to it."""
    _, headers, _ = ask(traced, CHAT, chat("hi") | {"model": "far-1"}, **ABOVE)
    _, client = of(place, headers["x-request-id"])
    said = attributes(client)
    assert (said["server.address"], said["server.port"]) == ("127.0.0.1", traced.far.port)
    assert said["gen_ai.provider.name"] == "far" and said["freehold.left_the_house"] is True
    assert said["gen_ai.usage.input_tokens"] == 7
    assert "traceparent" not in traced.far.got[-1]["headers"]


def test_what_goes_wrong_is_said_and_what_was_sent_is_not(traced, place):
    """error.type and status for a call that failed, one that was refused and one that was abandoned; no text of a
    prompt, of an answer or of a name that a client made up is in any span."""
    message = chat({"tokens": 3, "die_after": 1, "mark": SECRET})
    status, headers, _ = ask(traced, CHAT, message)
    assert status == 502
    server, client = of(place, headers["x-request-id"])
    assert client.status.code == server.status.code == Status.STATUS_CODE_ERROR
    assert attributes(client)["error.type"] == attributes(server)["error.type"] == "engine_failed"
    until(lambda: get(traced, "/readyz")[0] == 200, 30)
    _, headers, _ = ask(traced, CHAT, chat(SECRET) | {"model": SECRET})
    (server,) = of(place, headers["x-request-id"])
    assert attributes(server)["http.response.status_code"] == 404 and server.status.code == Status.STATUS_CODE_UNSET
    with Wire(traced.port) as wire:
        wire.send(post(CHAT, chat({"tokens": 500, "each_ms": 20, "mark": SECRET}, stream=True), traced.key))
        heard = b""
        while b"word" not in heard:
            heard += wire.socket.recv(65536)
    left = until(lambda: [one for one in place.spans if attributes(one).get("freehold.outcome") == "abandoned"])
    _, client = of(place, attributes(left[0])["freehold.call.id"])
    assert attributes(client)["error.type"] == "abandoned"
    ask(traced, CHAT, chat(SECRET))
    until(lambda: facts(traced)["waiting"] == 0)
    everything = b"".join(got["body"] for got in place.got)
    assert b"Miriam" not in everything and b"word" not in everything and b"mark" not in everything


@pytest.mark.parametrize(
    "header",
    ["", "garbage", f"00-{TRACE}-{PARENT}", f"ff-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01-more",
     f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{PARENT}-01", "00-" + "é" * 53],
)  # fmt: skip
def test_a_traceparent_that_does_not_hold_is_no_context(header):
    """Then a trace begins here."""
    assert read(header) is None


def test_a_traceparent_that_holds_is_taken_up():
    """Of a later version, what the first has; its flag decides whether the call is traced."""
    assert read(f"00-{TRACE}-{PARENT}-01") == Context(TRACE, PARENT, True)
    assert read(f"00-{TRACE}-{PARENT}-02") == Context(TRACE, PARENT, False)
    assert read(f"cc-{TRACE}-{PARENT}-01-what-is-to-come") == Context(TRACE, PARENT, True)


def test_a_share_of_the_traces_that_begin_here_is_kept():
    """About as many as the share says; each has another number."""
    found = [begun(0.25) for _ in range(2000)]
    assert 400 < sum(one.sampled for one in found) < 600 and len({one.trace for one in found}) == 2000
    assert all(one.sampled for one in (begun(1.0) for _ in range(50)))
    assert not any(one.sampled for one in (begun(0.0) for _ in range(50)))


def test_a_call_whose_trace_is_not_kept_is_not_sent(traced, place):
    """As the caller's flag says."""
    _, headers, _ = ask(traced, CHAT, chat("hi"), traceparent=f"00-{TRACE}-{PARENT}-00")
    _, after, _ = ask(traced, CHAT, chat("hi"))
    of(place, after["x-request-id"])
    assert not [span for span in place.spans if attributes(span).get("freehold.call.id") == headers["x-request-id"]]


def test_a_collector_that_is_busy_is_asked_again(traced, place):
    """Nothing of the batch is lost; one that says that it took only some of them is believed."""
    before = facts(traced)
    place.order({"status": 503, "headers": {"Retry-After": "1"}})
    _, headers, _ = ask(traced, CHAT, chat("hi"))
    of(place, headers["x-request-id"])
    until(lambda: facts(traced)["exported"] == before["exported"] + 2)
    assert facts(traced)["why"] == "" and facts(traced)["failed"] == before["failed"]
    place.order({"body": b'{"partialSuccess": {"rejectedSpans": "1", "errorMessage": "odd"}}'})
    ask(traced, CHAT, chat("hi"))
    until(lambda: facts(traced)["rejected"] == before["rejected"] + 1)


def test_a_collector_that_refuses_is_not_asked_again(traced, place):
    """The batch is lost and counted, and the log says so once, and once that it is over."""
    before, sent = facts(traced), len(place.got)
    place.order({"status": 400})
    ask(traced, CHAT, chat("hi"))
    until(lambda: facts(traced)["failed"] == before["failed"] + 2)
    assert len(place.got) == sent + 1 and facts(traced)["why"] == "it answered with status 400"
    assert "Traces do not reach" in traced.output() and "answered with status 400" in traced.output()
    ask(traced, CHAT, chat("hi"))
    until(lambda: facts(traced)["why"] == "")
    until(lambda: "Traces reach" in traced.output())


def test_a_collector_that_hangs_delays_no_call(tmp_path, tiny_model):
    """While nothing comes back from it, calls are answered as fast as ever; the spans are counted as lost; the server
    stops in time all the same."""
    place = Collector()
    place.order(*[{"hang": 60}] * 50)
    try:
        with serving(home(tmp_path, place), tiny_model) as server:
            ask(server, CHAT, chat("hi"))
            until(lambda: place.got)
            longest = 0.0
            for _ in range(30):
                began = time.monotonic()
                assert ask(server, CHAT, chat("hi"))[0] == 200
                longest = max(longest, time.monotonic() - began)
            assert longest < 1.0
            assert facts(server)["waiting"] >= 29
            until(lambda: facts(server)["failed"] >= 2, 25)
            assert "said nothing for 10 s" in facts(server)["why"]
            began = time.monotonic()
            assert server.stop() == 0 and time.monotonic() - began < 8
    finally:
        place.close()


def test_without_a_relay_calls_go_on(tmp_path, tiny_model):
    """A killed relay costs the traces, and no call."""
    place = Collector()
    try:
        with serving(home(tmp_path, place), tiny_model) as server:
            status = json.loads(get(server, "/admin/status", server.key)[2])
            os.kill(status["relay"]["pid"], signal.SIGKILL)
            until(lambda: json.loads(get(server, "/admin/status", server.key)[2])["relay"]["state"] == "gone")
            assert ask(server, CHAT, chat("hi"))[0] == 200
            until(lambda: facts(server)["failed"] == 2, 20)
            assert facts(server)["why"] == "the relay does not answer"
    finally:
        place.close()


def test_traces_go_over_tls_and_only_to_a_certificate_that_holds(tmp_path, tiny_model):
    """With its CA they arrive; without it none does."""
    ca, tls = authority(tmp_path)
    place = Collector(tls)
    try:
        for folder, more, arrives in (("good", f'ca = "{ca}"\n', True), ("bad", "", False)):
            (tmp_path / folder).mkdir()
            with serving(home(tmp_path / folder, place, more), tiny_model) as server:
                ask(server, CHAT, chat("hi"))
                if arrives:
                    until(lambda: place.spans)
                else:
                    until(lambda server=server: "certificate that does not verify" in facts(server)["why"])
                    assert len(place.got) == 1
    finally:
        place.close()


def test_only_the_relay_has_a_network_and_status_says_where_it_may_go(traced, place):
    """The gateway wears its seal as before; status names the collector; the proof holds and names it too."""
    shown = traced.cli("status").stdout
    assert f"LEAVE THE HOUSE, for {place.host}; no texts" in shown
    gateway = next(one for one in traced.status()["seal"]["processes"] if one["who"] == "gateway")
    assert {layer["name"]: layer["active"] for layer in gateway["layers"]}["seccomp"]
    proof = json.loads(traced.cli("prove", "privacy", "--json").stdout)
    assert proof["verdict"] == "holds" and place.host in proof["claim"] and traced.far.host in proof["claim"]


@pytest.mark.parametrize(
    ("endpoint", "more", "said"),
    [
        ("http://127.0.0.1:4318", {"upstream_hosts": ()}, "not in upstream_hosts"),
        ("http://203.0.113.9:4318", {"upstream_hosts": ("203.0.113.9:4318",)}, "in the clear"),
        ("nonsense", {}, "cannot be used"),
        ("http://user:secret@127.0.0.1:4318", {}, "has a user"),
        ("ftp://127.0.0.1:4318", {}, "cannot be used"),
    ],
)
def test_an_endpoint_that_may_not_be_reached_is_refused_at_the_start(endpoint, more, said):
    """With the reason and the next step, and without repeating what may be a key."""
    with pytest.raises(BadConfig, match=said) as caught:
        collector(Settings(**({"traces": TracesSettings(endpoint), "upstream_hosts": ("127.0.0.1:4318",)} | more)))
    assert "secret" not in caught.value.sentence() and caught.value.hint


def test_an_endpoint_is_taken_as_it_is_or_completed():
    """A URL with a path is the whole of it; one without gets OTLP's own."""
    settings = lambda url: Settings(traces=TracesSettings(url), upstream_hosts=("127.0.0.1:4318",))  # noqa: E731
    assert collector(settings("http://127.0.0.1:4318")).path == "/v1/traces"
    assert collector(settings("http://127.0.0.1:4318/in/otlp")).path == "/in/otlp"
    assert collector(Settings()) is None


def seen(number: int = 0, **end) -> Seen:
    known = {"usage": Usage(1, 2), "total_ms": 5.0, "waited_ms": 1.0, "engine_ms": 2.0}
    return Seen(f"req_{number}", "admin", Kind.CHAT, Settlement(Outcome.ANSWERED, 200, **(known | end)), "tiny")


class Nowhere:
    """A relay that nobody listens behind."""

    def __init__(self, folder: Path):
        self.socket, self.headers = str(folder / "nobody.sock"), {}


def test_memory_is_bounded_and_what_does_not_fit_is_counted(tmp_path):
    """Past the bound nothing more is kept; at the stop what is left is counted too."""

    async def scenario() -> Traces:
        made = Traces(TracesSettings(), Place("http", "127.0.0.1", 1, "/v1/traces"), Nowhere(tmp_path), {})
        context = begun(1.0)
        for number in range(ROOM + 100):
            made.see(seen(number), context)
        assert (made.facts()["waiting"], made.dropped) == (ROOM, 200)
        made.start()
        await asyncio.sleep(0)
        await made.stop()
        return made

    made = asyncio.run(scenario())
    assert made.facts()["waiting"] == 0 and made.exported == 0
    assert made.dropped + made.failed == 2 * (ROOM + 100)


def test_a_provider_is_named_as_the_conventions_have_it():
    """By the host of the upstream where that is known, else by its name here."""
    place = lambda host: Place("https", host, 443, "/v1")  # noqa: E731
    known = {"api.openai.com": "openai", "desk.openai.azure.com": "azure.ai.openai", "api.mistral.ai": "mistral_ai",
             "notopenai.com": "far", "llm.example.com": "far", "api.x.ai": "x_ai"}  # fmt: skip
    assert {host: traces._provider("far", place(host)) for host in known} == known
    assert traces._provider("", None) == "freehold"


def test_many_calls_go_in_batches(traced, place):
    """All of them arrive, in fewer requests than calls."""
    before, sent = facts(traced)["exported"], len(place.got)

    def some():
        with Wire(traced.port) as wire:
            for _ in range(40):
                assert wire.send(post(CHAT, chat({"tokens": 1}), traced.key)).read()[0] == 200

    threads = [threading.Thread(target=some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: facts(traced)["exported"] >= before + 320)
    assert len(place.got) - sent < 60 and all(len(spans_of(one)) <= 2 * BATCH for one in place.requests)


def test_an_upstream_cannot_take_the_collectors_name():
    """Its name in the relay is none that the settings allow."""
    from freehold.engine.relay import TRACES
    from freehold.engine.upstream import all_of

    own = UpstreamSettings(url="http://127.0.0.1:9", models=("m",))
    with pytest.raises(BadConfig, match="cannot be an upstream's name"):
        all_of(Settings(upstreams={TRACES: own}, upstream_hosts=("127.0.0.1:9",)))
