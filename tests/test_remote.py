"""Upstreams: calls are passed on as they came, every fault is a sentence, and nothing but the relay reaches out."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import openai
import pytest
from harness import Running, Wire, ask, chat, cli, environment, get, post, until
from upstream import KEY, Upstream, answer, authority

from freehold import config
from freehold.engine import passage, remote
from freehold.engine.breaker import CLOSED, HALF_OPEN, OPEN, Breaker
from freehold.engine.meter import UpstreamMeter
from freehold.engine.upstream import all_of, check_names
from freehold.errors import BadConfig, EngineFailed
from freehold.seal import landlock
from freehold.types import Kind, Request

CHAT = "/v1/chat/completions"
QUICK = "connect_seconds = 1\nsilence_seconds = 1\nretries = 1\nbreaker_failures = 100\n"
FAR = chat("hi") | {"model": "far-1"}


def write(home: Path, *tables: str, hosts: tuple[str, ...]) -> Path:
    """A home whose settings have these upstreams."""
    home.mkdir()
    (home / "freehold.toml").write_text(f"upstream_hosts = {json.dumps(hosts)}\n" + "\n".join(tables))
    return home


def table(upstream: Upstream, key: Path, name: str = "far", more: str = QUICK, models: str = '["far-1"]') -> str:
    return f'[upstreams.{name}]\nurl = "{upstream.url}"\nkey_file = "{key}"\nmodels = {models}\n{more}\n'


@pytest.fixture(scope="module")
def key(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "key"
    path.write_text(KEY + "\n")
    return path


@pytest.fixture(scope="module")
def site(tmp_path_factory, tiny_model, key):
    """A gateway with a local model, an upstream over TLS, and one that gives up early."""
    folder = tmp_path_factory.mktemp("site")
    ca, tls = authority(folder)
    far, weak = Upstream(tls), Upstream()
    own = f'ca = "{ca}"\nnames = {{ here = "there" }}\n{QUICK}answer_bytes = 1000000\n'
    brittle = "connect_seconds = 1\nsilence_seconds = 1\nretries = 0\nbreaker_failures = 3\nbreaker_seconds = 2\n"
    home = write(
        folder / "home",
        table(far, key, more=own),
        table(weak, key, "weak", brittle + "count_streams = false\n", '["weak-1"]'),
        hosts=(far.host, weak.host),
    )
    server = Running(home, "--engine", "fake", "--model", str(tiny_model))
    server.far, server.weak = far, weak
    yield server
    server.stop()
    far.close()
    weak.close()


def said(content: bytes) -> str:
    return json.loads(content)["error"]["message"]


def facts(server) -> dict:
    return json.loads(get(server, "/admin/status", server.key)[2])


def relay(server) -> dict:
    return facts(server)["relay"]


# the request and the answer


def test_a_request_arrives_with_every_field_as_it_was_sent(site):
    """Unknown ones, nulls and numbers too, to the byte; only the key is the house's own."""
    body = b'{"model": "far-1", "messages": [{"role":"user","content":[{"type":"image_url"}]}], "temperature": 1.50,'
    body += b' "functions" : [ ], "nothing": null, "big": 123456789012345678901234567890, "text": "\\u00e9"}'
    status, headers, content = ask(site, CHAT, body)
    got = site.far.got[-1]
    assert status == 200 and headers["x-freehold-model"] == "far-1@upstream:far"
    for field in (b"[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]", b"1.50", b"null", b"\\u00e9",
                  b"123456789012345678901234567890", b'"functions":[ ]'):  # fmt: skip
        assert field in got["body"], field
    assert list(json.loads(got["body"])) == list(json.loads(body))
    assert got["headers"]["authorization"] == f"Bearer {KEY}" and got["line"] == f"POST {CHAT} HTTP/1.1"
    assert got["headers"]["accept-encoding"] == "identity" and site.key not in str(got)
    assert content == json.dumps(answer(got["line"], json.loads(body))).encode()


def test_of_a_field_that_is_there_twice_the_one_that_was_read_goes_out(site):
    """Otherwise the ledger could name another model than the one that answered."""
    ask(site, CHAT, b'{"model": "other", "messages": [], "model": "far-1"}')
    assert site.far.got[-1]["body"] == b'{"model":"far-1","messages":[]}'


def test_a_model_may_have_another_name_here(site):
    """The upstream hears its own."""
    assert ask(site, CHAT, FAR | {"model": "here"})[0] == 200
    assert json.loads(site.far.got[-1]["body"])["model"] == "there"
    assert site.calls(1)[0]["model"] == "here"


def test_connections_are_used_again(site):
    """Call after call over the same one."""
    ask(site, CHAT, FAR)
    before = site.far.connections
    for _ in range(5):
        assert ask(site, CHAT, FAR)[0] == 200
    assert site.far.connections == before


def test_a_connection_that_was_closed_meanwhile_is_replaced(site):
    """At once, whichever side noticed first."""
    bare = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    site.far.order({"headers": {"Connection": "close"}}, {"raw": bare, "keep": False})
    assert [ask(site, CHAT, FAR)[0] for _ in range(3)] == [200] * 3


@pytest.mark.parametrize("asked", [False, True])
def test_a_stream_comes_as_it_is_and_is_counted(site, asked):
    """With the counts for a client that asked for them, and without a trace of them for one that did not."""
    options = {"stream_options": {"include_usage": True}} if asked else {}
    status, headers, content = ask(site, CHAT, FAR | {"stream": True} | options)
    found = [json.loads(row[6:]) for row in content.decode().split("\n\n") if row.startswith("data: {")]
    assert status == 200 and headers["content-type"] == "text/event-stream" and content.endswith(b"data: [DONE]\n\n")
    assert "".join(row["choices"][0]["delta"]["content"] for row in found[:3]) == "over there"
    assert [("usage" in row) for row in found] == [asked] * (4 if asked else 3)
    call = site.calls(1)[0]
    assert (call["outcome"], call["prompt_tokens"], call["completion_tokens"]) == ("answered", 7, 3)
    assert call["first_token_ms"] is not None
    assert json.loads(site.far.got[-1]["body"])["stream_options"] == {"include_usage": True}


def test_an_upstream_that_is_not_to_be_asked_for_counts_is_not_asked(site):
    """count_streams = false: the request as it came, the stream to the byte, and no counts."""
    _, _, content = ask(site, CHAT, FAR | {"model": "weak-1", "stream": True})
    assert "stream_options" not in json.loads(site.weak.got[-1]["body"]) and b": " in content
    call = site.calls(1)[0]
    assert (call["outcome"], call["prompt_tokens"], call["completion_tokens"]) == ("answered", 0, 0)


def test_a_stream_comes_as_it_comes(site):
    """The first event long before the last."""
    site.far.order({"each": 0.3})
    with Wire(site.port) as wire:
        wire.send(post(CHAT, FAR | {"stream": True}, site.key))
        began = time.monotonic()
        heard = b""
        while b'"over"' not in heard:
            heard += wire.socket.recv(65536)
        first = time.monotonic() - began
        while b"[DONE]" not in heard:
            heard += wire.socket.recv(65536)
        assert time.monotonic() - began > first + 0.5


def test_the_sdk_notices_nothing(site):
    """OpenAI's, for a chat, a stream, vectors, a completion and a response."""
    client = openai.OpenAI(base_url=f"{site.base}/v1", api_key=site.key, max_retries=0)
    messages = [{"role": "user", "content": "hi"}]
    done = client.chat.completions.create(model="far-1", messages=messages, reasoning_effort="low", seed=3)
    assert (done.choices[0].message.content, done.usage.total_tokens) == ("over there", 10)
    stream = client.chat.completions.create(model="far-1", messages=messages, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "over there"
    vectors = client.embeddings.create(model="far-1", input="x", dimensions=2, encoding_format="float")
    assert vectors.data[0].embedding == [0.25, -1.5]
    assert client.completions.create(model="far-1", prompt="x").choices[0].text == "over there"
    response = client.responses.create(model="far-1", input="x", previous_response_id="resp_0")
    assert response.output_text == "over there"
    owners = {model.id: model.owned_by for model in client.models.list()}
    assert owners == {"far-1": "far", "here": "far", "weak-1": "weak", "tiny": "you"}
    kinds = [(call["kind"], call["prompt_tokens"], call["left_the_house"]) for call in site.calls(5)]
    assert set(kinds) == {(kind, 7, 1) for kind in ("chat.completions", "embeddings", "completions", "responses")}
    client.close()


def test_anthropics_endpoint_does_not_reach_an_upstream(site):
    """It speaks OpenAI's format; nothing is sent."""
    before = len(site.far.got)
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        status, _, content = ask(site, path, FAR | {"max_tokens": 5})
        assert (status, "speaks OpenAI's format alone" in said(content)) == (400, True)
        call = site.calls(1)[0]
        assert (call["outcome"], call["error"], call["left_the_house"]) == ("refused", "unsupported", 0)
    assert len(site.far.got) == before


def test_a_question_without_a_model_stays_in_the_house(site):
    """'freehold ask' takes the local model, as the one admitted last."""
    assert "word" in site.cli("ask", "hi").stdout
    assert site.calls(1)[0]["model"] == "tiny"


def test_a_local_model_stays_in_the_house(site):
    """Its answers name its digest, its entries say that nothing left."""
    _, headers, _ = ask(site, CHAT, chat("hi"))
    (model,) = site.status()["models"]
    assert headers["x-freehold-model"] == f"tiny@{model['digest']}"
    assert site.calls(1)[0]["left_the_house"] == 0
    assert ask(site, CHAT, chat("hi", odd=1))[0] == 400


# faults


def failed(server, code: int, what: str, body: dict = FAR, left: int = 1) -> dict:
    """One call that fails with these words, settled once, and no word of the key."""
    before = len(server.calls(1000))
    status, headers, content = ask(server, CHAT, body)
    assert (status, what in said(content)) == (code, True), content
    assert KEY not in content.decode() and "(127.0.0.1:" in said(content)
    call = server.calls(1)[0]
    assert (call["outcome"], call["status"], call["left_the_house"]) == ("failed", code, left)
    assert len(server.calls(1000)) == before + 1
    return headers


HTML = {"type": "text/html", "body": b"<html>maintenance</html>"}


@pytest.mark.parametrize(
    ("orders", "what"),
    [
        ([{"status": 500}, {"status": 503}], "answered with status 503"),
        ([{"reset": True}] * 4, "broke off before it answered"),
        ([HTML], "answered with text/html where JSON was due"),
        ([{"body": b"<html>"}], "no JSON object"),
        ([{"body": b'{"choices": ['}], "no JSON object"),
        ([{"body": b"[1]"}], "no JSON object"),
        ([{"cut": 10}], "broke off its answer"),
        ([{"headers": {"Content-Length": "100000"}}], "nothing more came for 1 s"),
        ([{"headers": {"Content-Length": "10"}}], "no JSON object"),
        ([{"headers": {"Content-Length": "999999999", "X": "y"}, "drip": True}], "more than 1000000 bytes"),
        ([{"hang": 3}], "said nothing for 1 s"),
        ([{"status": 302, "headers": {"Location": "http://127.0.0.1:1/"}}], "redirect (302)"),
        ([{"headers": {"Content-Encoding": "gzip"}}], "compressed its answer"),
        ([{"raw": b"not HTTP at all\r\n\r\n"}], "not HTTP"),
        ([{"raw": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 300000 + b"\r\n\r\n"}], "a head of more than"),
        ([{"raw": b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"}], "another protocol"),
        ([{"status": 401, "body": json.dumps({"error": {"message": f"Bad key: {KEY}"}}).encode()}], "take the key"),
        ([{"status": 403}], "does not take the key"),
    ],
)
def test_what_an_upstream_does_wrong_is_a_sentence_that_names_it(site, orders, what):
    """502, and one entry that says that the call failed."""
    site.far.order(*orders)
    failed(site, 502, what)
    site.far.orders.clear()
    assert ask(site, CHAT, FAR)[0] == 200


def test_an_answer_is_tried_for_again_while_nothing_of_it_has_come(site):
    """After a connection that broke and after 429 or 5xx; the client sees the answer alone."""
    for order in ({"reset": True}, {"status": 503}, {"status": 429, "headers": {"Retry-After": "1"}}):
        before, began = len(site.far.got), time.monotonic()
        site.far.order(order)
        assert ask(site, CHAT, FAR)[0] == 200
        assert len(site.far.got) == before + 2
        assert order.get("status") != 429 or time.monotonic() - began >= 1


def test_a_wait_that_is_too_long_is_the_clients_own(site):
    """429 with the upstream's words and its Retry-After, without another try."""
    before = len(site.far.got)
    body = json.dumps({"error": {"message": "Slow down.", "code": "rate_limit_exceeded"}}).encode()
    site.far.order({"status": 429, "headers": {"Retry-After": "3600"}, "body": body})
    status, headers, content = ask(site, CHAT, FAR)
    assert (status, headers["retry-after"], said(content)) == (429, "3600", "Slow down.")
    assert len(site.far.got) == before + 1


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
def test_what_an_upstream_refuses_is_refused_in_its_words(site, status):
    """With its status and its code, and without the key, should it repeat that."""
    error = {"message": f"No such thing as {KEY}.", "code": "context_length_exceeded", "param": "messages"}
    site.far.order({"status": status, "body": json.dumps({"error": error}).encode()})
    got, _, content = ask(site, CHAT, FAR)
    found = json.loads(content)["error"]
    assert (got, found["message"], found["param"]) == (status, "No such thing as [key].", "messages")
    call = site.calls(1)[0]
    assert (call["outcome"], call["status"], call["error"]) == ("refused", status, "context_length_exceeded")
    assert call["left_the_house"] == 1


@pytest.mark.parametrize("order", [{"cut": 2}, {"stall": 2}])
def test_a_stream_that_breaks_off_ends_with_an_error_event(site, order):
    """With what had come by then; the entry says failed."""
    site.far.order(order)
    status, _, content = ask(site, CHAT, FAR | {"stream": True})
    last = json.loads(content.decode().strip().split("\n\n")[-1].removeprefix("data: "))
    assert status == 200 and content.count(b'"delta"') == 2 and "broke off its answer" in last["error"]["message"]
    assert site.calls(1)[0]["outcome"] == "failed"


def test_a_whole_stream_is_whole_though_its_connection_stays_open(site):
    """Nobody waits for an upstream that has said [DONE] and nothing more."""
    site.far.order({"stall": 5})
    began = time.monotonic()
    status, _, content = ask(site, CHAT, FAR | {"stream": True})
    assert status == 200 and content.endswith(b"data: [DONE]\n\n") and time.monotonic() - began < 0.9
    assert site.calls(1)[0]["outcome"] == "answered"


def test_a_stream_without_an_end_is_ended(site):
    """At the longest answer that is taken, also where no line ever ends."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    for filling in (b"data: {}\n\n", b"x"):
        site.far.order({"raw": head + filling * (1200000 // len(filling)), "keep": True})
        content = ask(site, CHAT, FAR | {"stream": True})[2]
        assert b"more than 1000000 bytes" in content and len(content) < 1300000
        assert site.calls(1)[0]["outcome"] == "failed"


def test_a_client_that_leaves_ends_the_call_over_there(site):
    """The connection is closed at once, streamed or not."""
    for stream in (False, True):
        until(lambda: site.far.open <= 1)
        site.far.order({"hang": 0.9} if not stream else {"each": 0.5})
        before = site.far.open
        with Wire(site.port) as wire:
            count = len(site.far.got)
            wire.send(post(CHAT, FAR | {"stream": stream}, site.key))
            until(lambda count=count: len(site.far.got) > count)
        until(lambda before=before: site.far.open < max(before, 1), 0.8)
        assert until(lambda: site.calls(1)[0]["outcome"]) == "abandoned"
        assert site.calls(1)[0]["left_the_house"] == 1


def test_the_breaker_opens_fails_at_once_and_closes_again(site):
    """After three failures; one call is let through after a while, and it decides."""
    body = FAR | {"model": "weak-1"}

    def weak() -> dict:
        return next(one for one in facts(site)["upstreams"] if one["name"] == "weak")

    assert ask(site, CHAT, body)[0] == 200
    site.weak.order(*[{"status": 500}] * 3)
    for _ in range(3):
        failed(site, 502, "status 500", body)
    assert (weak()["breaker"], weak()["failures"]) == ("open", 3)
    asked = len(site.weak.got)
    headers = failed(site, 503, "failed 3 times in a row", body, left=0)
    assert int(headers["retry-after"]) >= 1 and len(site.weak.got) == asked
    time.sleep(2.1)
    assert weak()["breaker"] == "half-open"
    site.weak.order({"status": 500})
    failed(site, 502, "status 500", body)
    failed(site, 503, "in a row", body, left=0)
    time.sleep(2.1)
    assert ask(site, CHAT, body)[0] == 200
    assert (weak()["breaker"], weak()["failures"]) == ("closed", 0)


def test_an_upstream_that_is_not_there_is_a_sentence_and_nothing_left(tmp_path, key):
    """Nobody listens; a certificate by nobody known; a name that is not found."""
    nobody = socket.create_server(("127.0.0.1", 0))
    port = nobody.getsockname()[1]
    nobody.close()
    _, tls = authority(tmp_path)
    stranger = Upstream(tls)
    tables = [
        f'[upstreams.none]\nurl = "http://127.0.0.1:{port}"\nmodels = ["none-1"]\n{QUICK}',
        table(stranger, key, "stranger", QUICK, '["stranger-1"]'),
        f'[upstreams.nowhere]\nurl = "https://nowhere.invalid/v1"\nmodels = ["nowhere-1"]\n{QUICK}',
    ]
    home = write(tmp_path / "home", *tables, hosts=(f"127.0.0.1:{port}", stranger.host, "nowhere.invalid:443"))
    server = Running(home, "--engine", "fake")
    try:
        failed(server, 502, "cannot be reached", FAR | {"model": "none-1"}, left=0)
        failed(server, 502, "certificate that does not verify", FAR | {"model": "stranger-1"}, left=0)
        status, _, content = ask(server, CHAT, FAR | {"model": "nowhere-1"})
        assert status == 502 and "'nowhere' (nowhere.invalid:443)" in said(content)
        assert stranger.got == [] and server.calls(1)[0]["left_the_house"] == 0
    finally:
        server.stop()
        stranger.close()


# what is refused at the start


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('upstream_hosts = []\n[upstreams.a]\nurl = "https://a.example"\nmodels = ["m"]', "not in upstream_hosts"),
        ('upstream_hosts = ["a.example"]\n', "'a.example'"),
        ('upstream_hosts = ["a.example:444"]\n[upstreams.a]\nurl = "https://a.example"\nmodels = ["m"]', ":443"),
        ('upstream_hosts = ["a.example:80"]\n[upstreams.a]\nurl = "http://a.example"\nmodels = ["m"]', "in the clear"),
        ('upstream_hosts = ["a:443"]\n[upstreams.a]\nurl = "https://me:pw@a"\nmodels = ["m"]', "a user"),
        ('upstream_hosts = ["a:443"]\n[upstreams.a]\nurl = "https://a/v1?key=x"\nmodels = ["m"]', "a query"),
        ('upstream_hosts = ["a:443"]\n[upstreams.a]\nurl = "ftp://a"\nmodels = ["m"]', "upstreams.a.url"),
        ('upstream_hosts = ["a:443"]\n[upstreams.a]\nurl = "https://a/\\r\\nX: y"\nmodels = ["m"]', "upstreams.a.url"),
        ('upstream_hosts = ["a:443"]\n[upstreams.a]\nurl = "https://a"', "names no models"),
        ('[upstreams.a]\nmodels = ["m"]', "url"),
        ('[upstreams.a]\nurl = "https://a"\nkey = "sk-1"', "key"),
        ('upstream_hosts = ["a:443"]\n[upstreams.a]\nurl = "https://a"\nmodels = ["m"]\nkey_file = "x"\nkey_env = "Y"',
         "both"),
        ('upstream_hosts = ["a:443"]\n[upstreams.a]\nurl = "https://a"\nmodels = ["m"]\n[upstreams.b]\nurl = "https://a"\n'
         'names = {m = "n"}', "both have a model 'm'"),
    ],
)  # fmt: skip
def test_a_wrong_upstream_is_refused_at_the_start(tmp_path, text, named):
    """With a sentence that names it, and never repeats its URL."""
    (tmp_path / "freehold.toml").write_text(text)
    with pytest.raises(BadConfig) as caught:
        all_of(config.load(tmp_path, {}))
    assert named in caught.value.sentence() and "pw" not in caught.value.sentence()


def test_what_is_right_is_taken():
    """Plain HTTP to this machine, or where the settings say so; a list of hosts in a variable; IPv6."""
    near = config.UpstreamSettings(url="http://[::1]:8080/v1/", models=("m",))
    far = config.UpstreamSettings(url="HTTP://Far.Example/x", names={"n": "org/n:1"}, plain=True)
    hosts = config.load(Path("/nonexistent"), {"FREEHOLD_UPSTREAM_HOSTS": "[::1]:8080, far.example:80"}).upstream_hosts
    one, two = all_of(config.Settings(upstreams={"a": near, "b": far}, upstream_hosts=hosts))
    assert (one.place.authority, one.place.path, two.place.authority) == ("[::1]:8080", "/v1", "far.example:80")
    with pytest.raises(BadConfig, match="'m' is in the vault"):
        check_names([one], ["x", "m"])


@pytest.mark.parametrize(
    ("own", "named"),
    [
        ('key_file = "KEYS/none"', "No such file"),
        ('key_file = "KEYS/empty"', "not one word"),
        ('key_file = "KEYS/odd"', "not one word"),
        ('key_env = "FREEHOLD_TEST_NO_SUCH"', "FREEHOLD_TEST_NO_SUCH"),
        ('ca = "KEYS/odd"', "CA"),
    ],
)
def test_a_key_or_ca_that_cannot_be_used_is_refused_at_the_start(tmp_path, own, named):
    """By the relay, in one sentence."""
    (tmp_path / "empty").write_text("")
    (tmp_path / "odd").write_text("sk-a\r\nX: y")
    own = own.replace("KEYS", str(tmp_path))
    home = write(tmp_path / "home", f'[upstreams.a]\nurl = "https://127.0.0.1:9"\nmodels = ["m"]\n{own}\n',
                 hosts=("127.0.0.1:9",))  # fmt: skip
    done = cli("up", "--engine", "fake", "--port", "0", home=home)
    assert (done.returncode, named in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr
    assert "sk-a" not in done.stderr + done.stdout


def test_a_name_in_the_vault_and_at_an_upstream_is_refused_at_the_start(tmp_path, tiny_model, key):
    """It names the model and the upstream."""
    far = Upstream()
    home = write(tmp_path / "home", table(far, key, models='["tiny"]'), hosts=(far.host,))
    done = cli("up", "--engine", "fake", "--model", str(tiny_model), "--port", "0", home=home)
    assert done.returncode == 2 and "'tiny' is in the vault and at the upstream 'far'" in done.stderr
    far.close()


# the key, the seal and the processes


def test_the_key_is_nowhere_to_be_seen(site):
    """Neither in the log, nor in status, nor in any process's arguments or environment, nor in the home."""
    assert ask(site, CHAT, FAR)[0] == 200
    shown = site.output() + site.cli("status").stdout + site.cli("status", "--json").stdout + site.cli("ledger").stdout
    pids = [process["pid"] for process in site.status()["seal"]["processes"]]
    assert len(pids) == 4
    for pid in pids:
        with contextlib.suppress(PermissionError):  # the relay's, to an ordinary user
            shown += Path(f"/proc/{pid}/cmdline").read_text() + Path(f"/proc/{pid}/environ").read_text()
    assert KEY not in shown and "sk-" not in shown
    for file in site.home.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file


def test_a_key_out_of_the_environment_is_not_inherited(tmp_path):
    """The upstream gets it; the relay's own environment and the engines' have it not."""
    far = Upstream()
    url = f"http://localhost:{far.port}/v1"  # whose address the relay looks up, sealed as it is
    own = f'[upstreams.far]\nurl = "{url}"\nkey_env = "FAR_KEY"\nmodels = ["far-1"]\n'
    home = write(tmp_path / "home", own, hosts=(f"localhost:{far.port}",))
    server = Running(home, "--engine", "fake", env={"FAR_KEY": KEY})
    try:
        assert ask(server, CHAT, FAR)[0] == 200
        assert far.got[-1]["headers"]["authorization"] == f"Bearer {KEY}"
        with contextlib.suppress(PermissionError):
            assert KEY not in Path(f"/proc/{relay(server)['pid']}/environ").read_text()
    finally:
        server.stop()
        far.close()


def test_status_says_plainly_what_leaves(site):
    """The upstreams with their models and hosts, the relay's seal as the kernel has it, and how many calls left."""
    found = site.status()
    far = next(upstream for upstream in found["upstreams"] if upstream["name"] == "far")
    assert (far["models"], far["host"], far["breaker"]) == (["far-1", "here"], site.far.host, "closed")
    assert found["ledger"]["left_the_house"] == sum(call["left_the_house"] for call in site.calls(10000)) > 0
    shown = site.cli("status").stdout
    assert f"calls to far-1, here LEAVE THE HOUSE, for {site.far.host}" in shown and " left the house" in shown
    assert "LEAVE THE HOUSE" in site.output()
    ledger = json.loads(site.cli("ledger", "--json", "--limit", "1000").stdout)
    assert {call["left_the_house"] for call in ledger} == {True, False}


@pytest.mark.skipif(sys.platform != "linux", reason="the seal is the Linux kernel's")
def test_the_relay_wears_its_seal(site):
    """Supervisor and worker, by the kernel's own account; the gateway has no network for all that."""
    processes = {process["who"]: process for process in site.status()["seal"]["processes"]}
    for who in ("relay, supervisor", "relay, worker"):
        lines = Path(f"/proc/{processes[who]['pid']}/status").read_text()
        for line in ("NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"):
            assert line in lines, who
        assert all(layer["active"] for layer in processes[who]["layers"] if landlock.version() >= 4)
    assert "Seccomp:\t2" in Path(f"/proc/{processes['gateway']['pid']}/status").read_text()
    done = site.cli("prove", "privacy", "--json")
    record = json.loads(done.stdout)
    assert (done.returncode, record["verdict"]) == (0, "holds"), record["reasons"]
    assert record["claim"].endswith(f"but for its relay, which is there to reach {min(site.far.host, site.weak.host)}, "
                                    f"{max(site.far.host, site.weak.host)}.")  # fmt: skip
    assert {"gateway", "relay, supervisor", "relay, worker"} <= {one["who"] for one in record["processes"]}


SEALED = """
import ctypes, json, os, socket, sys
from pathlib import Path
from freehold import seal
from freehold.seal import kernel
folder, listed, other = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
layers = seal.apply(seal.relay_plan(ports=(listed,), files=("/etc/hosts",), data_bytes=1 << 30))
def attempt(what):
    try:
        return what() or "done"
    except OSError as error:
        return error.strerror or str(error)
def made(*kind):
    socket.socket(*kind).close()
allowed = {
    "listed": attempt(lambda: socket.create_connection(("127.0.0.1", listed)).close()),
    "tcp6": attempt(lambda: made(socket.AF_INET6, socket.SOCK_STREAM)),
    "udp": attempt(lambda: made(socket.AF_INET, socket.SOCK_DGRAM)),
    "hosts": attempt(lambda: Path("/etc/hosts").read_text() and None),
    "pair": attempt(lambda: [end.close() for end in socket.socketpair()] and None),
    "import": attempt(lambda: __import__("wave") and None),
}
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
refused = {
    "other port": attempt(lambda: socket.create_connection(("127.0.0.1", other)).close()),
    "home": attempt(lambda: (folder / "secret").read_text()),
    "passwords": attempt(lambda: Path("/etc/passwd").read_text() and None),
    "write": attempt(lambda: (folder / "new").write_text("x")),
    "exec": attempt(lambda: os.execv("/bin/true", ["true"])),
    "unix": attempt(lambda: made(socket.AF_UNIX, socket.SOCK_STREAM)),
    "raw": attempt(lambda: made(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)),
    "ping": attempt(lambda: made(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)),
    "mptcp": attempt(lambda: made(socket.AF_INET, socket.SOCK_STREAM, 262)),
    "sctp": attempt(lambda: made(socket.AF_INET, socket.SOCK_STREAM, 132)),
    "netlink": attempt(lambda: made(socket.AF_NETLINK, socket.SOCK_RAW)),
    "packet": attempt(lambda: made(socket.AF_PACKET, socket.SOCK_RAW)),
    "sendto": attempt(lambda: datagram.sendto(b"x", ("127.0.0.1", 9))),
    "bind": attempt(lambda: stream.bind(("127.0.0.1", 0))),
    "listen": attempt(lambda: stream.listen()),
    "io_uring": attempt(lambda: os.close(kernel.syscall("io_uring_setup", 1, ctypes.byref((ctypes.c_uint32 * 30)())))),
    "ptrace": attempt(lambda: kernel.syscall("ptrace", 0, 0, 0, 0)),
}
print(json.dumps([[layer.name for layer in layers if not layer.active], allowed, refused]))
"""


@pytest.mark.skipif(landlock.version() < 4, reason="the kernel's Landlock knows no TCP")
def test_the_relays_seal_lets_it_do_what_it_is_for_and_no_more(tmp_path):
    """The listed port and the resolver's files; no other port, no file of the home, no other kind of socket."""
    (tmp_path / "secret").write_text("x")
    with socket.create_server(("127.0.0.1", 0)) as listed, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [str(one.getsockname()[1]) for one in (listed, other)]
        command = [sys.executable, "-P", "-W", "ignore", "-c", SEALED, str(tmp_path), *ports]
        done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    off, allowed, refused = json.loads(done.stdout)
    assert off == [] and set(allowed.values()) == {"done"}, allowed
    assert set(refused.values()) <= {"Operation not permitted", "Permission denied"}, refused


def test_the_relay_itself_refuses_a_host_that_is_not_listed(tmp_path):
    """Whatever the gateway tells it: at its start, and before each connection."""
    way = remote._way(all_of(config.Settings(
        upstreams={"a": config.UpstreamSettings(url="http://127.0.0.1:9", models=("m",))},
        upstream_hosts=("127.0.0.1:9",)))[0])  # fmt: skip
    order = remote.relay.Order((way,), ("127.0.0.1:10",), str(tmp_path / "x"), "t", "off")
    with pytest.raises(BadConfig, match="not in upstream_hosts"):
        remote.Relay(order)
    program = """
import asyncio, msgspec, sys
from freehold.engine.outward import Outward, Trouble, Way
way = msgspec.json.decode(sys.stdin.read(), type=Way)
try:
    asyncio.run(Outward(way, "", frozenset())._connect())
except Trouble as trouble:
    print(trouble.said)
"""
    said = subprocess.run([sys.executable, "-c", program], input=remote.msgspec.json.encode(way), capture_output=True)
    assert b"not on the list" in said.stdout


def test_a_relay_worker_that_is_killed_is_replaced(site):
    """Calls that come meanwhile wait; one in flight fails, with a sentence."""
    site.far.order({"each": 0.2})
    found = []
    thread = threading.Thread(target=lambda: found.append(ask(site, CHAT, FAR | {"stream": True})))
    thread.start()
    time.sleep(0.3)
    before = relay(site)
    os.kill(before["worker"], signal.SIGKILL)
    thread.join()
    assert b"the relay broke off" in found[0][2]
    until(lambda: (now := relay(site))["worker"] != before["worker"] and now["restarts"] == before["restarts"] + 1)
    assert ask(site, CHAT, FAR)[0] == 200 and relay(site)["pid"] == before["pid"]
    assert "worker ended (code -9)" in site.output()


def alone(tmp_path, key) -> tuple[Upstream, Running]:
    far = Upstream()
    return far, Running(write(tmp_path / "home", table(far, key), hosts=(far.host,)), "--engine", "fake")


def lives(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_relay_outlives_its_gateway(tmp_path, key, number):
    """However the gateway ends. What a crash interrupts is known to have left."""
    far, server = alone(tmp_path, key)
    found = relay(server)
    far.order({"hang": 30})
    with Wire(server.port) as wire:
        wire.send(post(CHAT, FAR, server.key))
        until(lambda: far.got)
        if number == signal.SIGTERM:
            wire.close()
        assert server.stop(number) == (0 if number == signal.SIGTERM else -9)
    until(lambda: not lives(found["pid"]) and not lives(found["worker"]))
    assert [call["left_the_house"] for call in server.calls()] == [1]
    until(lambda: not far.open)
    far.close()


def test_without_its_relay_a_gateway_says_so(tmp_path, key):
    """It cannot start another, being sealed: not ready, and a sentence."""
    far, server = alone(tmp_path, key)
    assert ask(server, CHAT, FAR)[0] == 200
    os.kill(relay(server)["pid"], signal.SIGKILL)
    until(lambda: get(server, "/readyz")[0] == 503)
    status, _, content = ask(server, CHAT, FAR)
    assert status == 503 and "The relay to the upstreams is gone" in said(content)
    until(lambda: not far.open)
    server.stop()
    far.close()


def test_a_settings_file_without_upstreams_has_no_relay(fake):
    """Nothing is started, and the proof makes its whole claim."""
    found = fake.status()
    assert found["upstreams"] == [] and not any("relay" in one["who"] for one in found["seal"]["processes"])
    claim = json.loads(fake.cli("prove", "privacy", "--json").stdout)["claim"]
    assert claim == "Nothing that Freehold runs can reach the network."


# the parts


def test_a_breaker_opens_half_opens_and_closes():
    """By the clock; failures count in a row, and a call that tells nothing changes nothing."""
    now = [0.0]
    breaker = Breaker(2, 10, lambda: now[0])
    breaker.failed()
    breaker.succeeded()
    breaker.failed()
    assert breaker.state == CLOSED and breaker.wait() == 0
    breaker.failed()
    assert breaker.state == OPEN and breaker.wait() == 10
    now[0] = 10.0
    assert breaker.state == HALF_OPEN and breaker.wait() == 0
    breaker.enter()
    assert breaker.wait() > 0
    breaker.leave()
    assert breaker.wait() == 0
    breaker.enter()
    breaker.answered()
    assert breaker.state == CLOSED
    breaker.failed()
    assert breaker.state == OPEN


def test_counts_that_only_we_asked_for_are_taken_out_however_a_stream_is_cut():
    """Cut at every byte; what is not JSON, comments and other line ends stay as they are."""
    events = [
        b': a comment\r\ndata: {"a": 1.50, "usage": null, "choices": [{}]}\r\n\r\n',
        b'data: {"choices": [{"text": "\\"usage\\""}]}\n\n',
        b'data:{"choices": [ ], "usage": {"prompt_tokens": 4, "completion_tokens": 5}}\n\n',
        b'data: "usage" is no object\n\ndata: [DONE]\n\n',
    ]
    wanted = b': a comment\r\ndata: {"a":1.50,"choices":[{}]}\r\n\r\n' + events[1] + events[3]
    whole = b"".join(events)
    for cut in range(len(whole)):
        meter = UpstreamMeter()
        stream = passage.Stream(meter, taking=True)
        assert stream.read(whole[:cut]) + stream.read(whole[cut:]) + stream.rest() == wanted
        assert (meter.usage.prompt, meter.usage.completion, meter.complete) == (4, 5, True)
    untouched = passage.Stream(UpstreamMeter(), taking=False)
    assert untouched.read(whole[:50]) + untouched.read(whole[50:]) + untouched.rest() == whole


def test_a_line_without_an_end_is_bounded_and_costs_no_more_than_its_length():
    """Sixteen MiB in small pieces, and no further."""
    stream = passage.Stream(UpstreamMeter(), taking=True)
    with pytest.raises(EngineFailed, match="a line of more than"):
        for _ in range(20 << 10):
            stream.read(b"x" * 1024)


@pytest.mark.parametrize(
    ("options", "sent", "asked"),
    [
        ("", '{"include_usage":true}', True),
        (', "stream_options": null', '{"include_usage":true}', True),
        (', "stream_options": {"include_usage": false, "x": 1.0}', '{"include_usage":true,"x":1.0}', True),
        (', "stream_options": {"include_usage": true}', '{"include_usage": true}', False),
        (', "stream_options": [1]', "[1]", False),
    ],
)
def test_counts_are_asked_for_where_the_client_did_not(options, sent, asked):
    """And only there; its other options stay."""
    body = ('{"model": "a", "stream": true' + options + "}").encode()
    request = Request(Kind.CHAT, "a", json.loads(body), True, body)
    out, ours = passage.outgoing(request, "b", count=True)
    assert ours == asked and f'"stream_options":{sent}'.encode() in out and b'"model":"b"' in out
    assert passage.outgoing(request, "b", count=False)[1] is False


def test_retry_after_is_seconds_or_a_date():
    """And 0 where it is neither."""
    assert remote._seconds("17") == 17 and remote._seconds("-3") == 0 and remote._seconds("soon") == 0
    assert remote._seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert remote._seconds("Wed, 21 Oct 2195 07:28:00 GMT") > 1e9
