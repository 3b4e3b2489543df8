"""The server against clients that misbehave: each gets the right status in the right format, and the rest go on."""

import asyncio
import json
import resource
import socket
import time

import pytest
from harness import Wire, ask, chat, get, post, serving, until

from freehold.api.http import Server
from freehold.api.message import HttpResponse
from freehold.config import LimitsSettings

LIMITS = {
    "FREEHOLD_LIMITS_HEADER_SECONDS": "1",
    "FREEHOLD_LIMITS_BODY_SECONDS": "1",
    "FREEHOLD_LIMITS_IDLE_SECONDS": "2",
    "FREEHOLD_LIMITS_STALL_SECONDS": "1",
    "FREEHOLD_LIMITS_BODY_BYTES": "100000",
    "FREEHOLD_LIMITS_HEADER_BYTES": "4096",
}


@pytest.fixture(scope="module")
def strict(tmp_path_factory, tiny_model):
    """A server that is quick to lose patience."""
    with serving(tmp_path_factory.mktemp("strict") / "home", tiny_model, env=LIMITS) as server:
        yield server


def alive(server) -> bool:
    return ask(server, "/v1/chat/completions", chat("hello"))[0] == 200


def openai_error(body: bytes) -> dict:
    document = json.loads(body)
    assert set(document["error"]) == {"message", "type", "param", "code"} and document["request_id"].startswith("req_")
    return document["error"]


def anthropic_error(body: bytes) -> dict:
    document = json.loads(body)
    assert document["type"] == "error" and document["request_id"].startswith("req_")
    return document["error"]


@pytest.mark.parametrize(("path", "read"), [("/v1/chat/completions", openai_error), ("/v1/messages", anthropic_error)])
@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b"{bad", {}, 400, "not JSON"),
        (b"", {}, 400, "not JSON"),
        (b"\xff\xfe\x00", {}, 400, "not JSON"),
        (b"[1]", {}, 400, "not a JSON object"),
        (b"{}", {}, 400, "missing"),
        (b'{"model": 3}', {}, 400, "model"),
        (b'{"model": "tiny", "messages": [], "max_tokens": 1}', {}, 400, "messages"),
        (b'{"model": "tiny", "messages": "x", "max_tokens": 1}', {}, 400, "messages"),
        (b'{"a":' * 9000 + b"1" + b"}" * 9000, {}, 400, "nested too deeply"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, {}, 400, "nested too deeply"),
        (b"{}", {"Content_Type": "text/plain"}, 415, "text/plain"),
        (b"{}", {"Content_Encoding": "gzip"}, 415, "compressed"),
        (b" " * 100001, {}, 413, "larger than 100000"),
    ],
)
def test_bad_bodies_are_refused_in_the_clients_own_format(strict, path, read, body, headers, status, said):
    """With a sentence that says what is wrong."""
    got, sent, content = ask(strict, path, body, **headers)
    assert (got, said in read(content)["message"]) == (status, True), content
    assert sent["x-request-id"] == json.loads(content)["request_id"]
    assert alive(strict)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS greeting
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
    ],
)
def test_what_is_not_http_is_400(strict, request_bytes):
    """And the connection is closed."""
    with Wire(strict.port) as wire:
        status, _, body = wire.send(request_bytes).read()
    assert status == 400 and openai_error(body)["code"] == "invalid_request"
    assert alive(strict)


@pytest.mark.parametrize(
    "headers", [b"X-Long: " + b"a" * 5000 + b"\r\n", b"X-Many: a\r\n" * 500, b"X-Never-Ends: " + b"a" * 300000]
)
def test_headers_over_the_limit_are_431(strict, headers):
    """One long, many short, and one that does not end."""
    with Wire(strict.port) as wire:
        wire.send(b"POST /v1/messages HTTP/1.1\r\n")
        try:
            wire.send(headers).send(b"\r\n")
        except OSError:
            pytest.skip("the server had answered and closed before all was sent")
        status, _, body = wire.read()
    assert status == 431 and "4096" in anthropic_error(body)["message"]
    assert alive(strict)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/nowhere"])
def test_a_strangers_body_is_not_taken_in(strict, path):
    """401 on the headers alone, before a byte of it was sent."""
    with Wire(strict.port) as wire:
        wire.send(f"POST {path} HTTP/1.1\r\nContent-Length: 90000\r\nExpect: 100-continue\r\n\r\n")
        assert wire.read()[0] == 401


def test_too_many_bodies_at_once_are_refused(tmp_path_factory, tiny_model):
    """A bound on all of them together; when they are gone there is room again."""
    env = {"FREEHOLD_LIMITS_BODIES_BYTES": "100000"}
    with serving(tmp_path_factory.mktemp("bodies") / "home", tiny_model, env=env) as server:
        head = f"POST /v1/messages HTTP/1.1\r\nAuthorization: Bearer {server.key}\r\nContent-Length: 90000\r\n\r\n"
        first = Wire(server.port).send(head + " " * 80000)
        time.sleep(0.2)
        with Wire(server.port) as second:
            status, headers, body = second.send(head + " " * 80000).read()
        assert status == 503 and headers["retry-after"] and anthropic_error(body)["type"] == "overloaded_error"
        first.close()
        until(lambda: ask(server, "/v1/chat/completions", chat("x" * 50000))[0] == 200)


@pytest.mark.parametrize("method", ["GET /healthz", "POST /v1/chat/completions"])
def test_an_upgrade_is_not_taken_up_and_the_request_is_answered(strict, method):
    """As some clients offer HTTP/2 with their first request."""
    body = json.dumps(chat("hi")) if method.startswith("POST") else ""
    head = f"{method} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {strict.key}\r\nContent-Type: application/json\r\n"
    offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"
    with Wire(strict.port) as wire:
        status, headers, _ = wire.send(f"{head}{offer}Content-Length: {len(body)}\r\n\r\n{body}").read()
    assert status == 200 and headers["connection"] == "close"


def test_connect_is_not_done_here(strict):
    """No proxy for anybody."""
    with Wire(strict.port) as wire:
        assert wire.send("CONNECT example.invalid:443 HTTP/1.1\r\nHost: x\r\n\r\n").read()[0] == 405
    assert "Traceback" not in strict.output()


def test_a_long_url_is_431(strict):
    """The request line counts as well."""
    with Wire(strict.port) as wire:
        assert wire.send(b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n").read()[0] == 431


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(strict):
    """On its Content-Length alone."""
    with Wire(strict.port) as wire:
        wire.send("POST /v1/messages HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n")
        status, _, body = wire.read()
    assert status == 413 and anthropic_error(body)["type"] == "request_too_large"


def test_a_body_without_a_length_is_refused_when_it_is_too_large(strict):
    """In chunks."""
    with Wire(strict.port) as wire:
        key = f"Authorization: Bearer {strict.key}\r\n"
        wire.send(f"POST /v1/chat/completions HTTP/1.1\r\n{key}Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(11):
            wire.send(b"2710\r\n" + b" " * 10000 + b"\r\n")
        assert wire.read()[0] == 413


def test_a_half_sent_head_is_408(strict):
    """After the time for headers."""
    with Wire(strict.port) as wire:
        status, _, body = wire.send("POST /v1/messages HTTP/1.1\r\nHost:").read()
    assert status == 408 and anthropic_error(body)["type"] == "timeout_error"


def test_a_half_sent_body_is_408(strict):
    """After the longest pause that a body may make."""
    with Wire(strict.port) as wire:
        key = f"Authorization: Bearer {strict.key}\r\n"
        wire.send(f"POST /v1/chat/completions HTTP/1.1\r\n{key}Content-Length: 10\r\n\r\n{{")
        status, _, body = wire.read()
    assert status == 408 and openai_error(body)["code"] == "request_timeout"


def test_a_head_that_drips_does_not_hold_a_connection(strict):
    """A byte now and then does not renew the time for headers."""
    begun = time.monotonic()
    with Wire(strict.port) as wire, pytest.raises((OSError, AssertionError)):
        wire.send("GET / HTTP/1.1\r\n")
        for _ in range(100):
            wire.send("X")
            time.sleep(0.1)
            wire.socket.settimeout(0.01)
            try:
                assert wire.socket.recv(1000)[:12] != b"HTTP/1.1 408"
            except TimeoutError:
                continue
    assert time.monotonic() - begun < 8


def test_a_silent_connection_is_closed(strict):
    """Without a word."""
    with Wire(strict.port) as wire:
        assert wire.read_all() == b""


def test_an_idle_connection_is_kept_and_then_closed(strict):
    """Two requests on one connection; then silence."""
    with Wire(strict.port) as wire:
        for _ in range(2):
            assert wire.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").read()[0] == 200
        assert wire.read_all() == b""


def test_a_client_that_does_not_read_is_cut_off(strict):
    """Its call is settled as abandoned, and the others go on."""
    with Wire(strict.port) as wire:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.send(post("/v1/chat/completions", chat({"tokens": 200000}, stream=True), strict.key))
        call = until(lambda: next((row for row in strict.calls(5) if row["outcome"] == "abandoned"), None))
    assert call["status"] == 499 and 0 < call["completion_tokens"] < 200000
    assert alive(strict)


def test_requests_sent_ahead_are_answered_in_order(strict):
    """Pipelining: three at once, three answers."""
    with Wire(strict.port) as wire:
        one = post("/v1/chat/completions", chat({"tokens": 1}), strict.key)
        stream = post("/v1/chat/completions", chat({"tokens": 2}, stream=True), strict.key)
        wire.send(one + stream + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        reader = wire.socket.makefile("rb")
        text = b""
        while b'{"status":"ok"}' not in text:
            piece = reader.read1(65536)
            assert piece, text
            text += piece
    assert text.count(b"HTTP/1.1 200 OK") == 3 and text.index(b"chat.completion") < text.index(b"[DONE]")


def test_expect_100_continue_is_answered(strict):
    """As curl asks for a large body."""
    body = json.dumps(chat("hi")).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nAuthorization: Bearer {strict.key}\r\nContent-Length: {len(body)}\r\n"
    )
    with Wire(strict.port) as wire:
        wire.send(head + "Content-Type: application/json\r\nExpect: 100-continue\r\n\r\n")
        assert wire.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert wire.send(body).read()[0] == 200


def test_http_1_0_gets_a_stream_that_ends_with_the_connection(strict):
    """No chunks, which it would not know."""
    request = post("/v1/chat/completions", chat({"tokens": 2}, stream=True), strict.key).replace(
        b"HTTP/1.1", b"HTTP/1.0"
    )
    with Wire(strict.port) as wire:
        head, _, body = wire.send(request).read_all().partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head and body.startswith(b"data: ") and body.endswith(b"data: [DONE]\n\n")


def test_head_has_no_body(strict):
    """For load balancers."""
    with Wire(strict.port) as wire:
        text = wire.send("HEAD /healthz HTTP/1.1\r\nConnection: close\r\n\r\n").read_all()
    assert text.startswith(b"HTTP/1.1 200") and text.endswith(b"\r\n\r\n") and b"content-length: 15" in text


@pytest.mark.parametrize("path", ["/", "/v1/chat", "/admin/status/x", "/openapi.json/", "/../etc/passwd"])
def test_an_unknown_path_is_401_without_a_key_and_404_with_one(strict, path):
    """What there is, is nobody's business without a key."""
    assert get(strict, path)[0] == 401
    assert get(strict, path, strict.key)[0] == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_a_wrong_method_is_405(strict, method):
    """In the path's format."""
    with Wire(strict.port) as wire:
        request = f"{method} /v1/messages HTTP/1.1\r\nAuthorization: Bearer {strict.key}\r\n\r\n"
        status, _, body = wire.send(request).read()
    assert status == 405 and anthropic_error(body)["type"] == "invalid_request_error"


def test_ten_thousand_silent_connections_do_not_keep_anybody_out(tmp_path_factory, tiny_model):
    """As many as this machine allows, up to 10,000; then a call is answered."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(10_000, hard - 1000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    silent: list[socket.socket] = []
    try:
        with serving(tmp_path_factory.mktemp("silent") / "home", tiny_model) as server:
            for _ in range(wanted):
                silent.append(socket.create_connection(("127.0.0.1", server.port), 10))
            assert alive(server)
            assert get(server, "/healthz")[0] == 200
            for connection in silent:
                connection.close()
            assert alive(server)
    finally:
        for connection in silent:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_past_the_limit_the_longest_silent_connection_makes_room(tmp_path_factory, tiny_model):
    """Ten allowed: the eleventh is answered, the first is closed."""
    env = {"FREEHOLD_LIMITS_CONNECTIONS": "10"}
    with serving(tmp_path_factory.mktemp("room") / "home", tiny_model, env=env) as server:
        silent = [Wire(server.port) for _ in range(10)]
        assert alive(server)
        assert silent[0].read_all() == b""
        for wire in silent:
            wire.close()


class Bench:
    """A server in this process, so that what it holds can be seen."""

    def __init__(self, handler, **limits):
        self.server = Server(handler, lambda request: None, self.on_error, LimitsSettings(**limits))
        self.listener = socket.create_server(("127.0.0.1", 0))

    @staticmethod
    def on_error(path, request_id, error):
        return HttpResponse(error.status, error.message.encode())

    async def talk(self, sent: bytes, *, read: int = -1) -> bytes:
        reader, writer = await asyncio.open_connection(*self.listener.getsockname())
        writer.write(sent)
        got = await reader.read(read)
        writer.close()
        return got

    async def empty(self) -> bool:
        for _ in range(100):
            await asyncio.sleep(0.05)
            if not self.server.connections and not self.server.waiting and not self.server.buffered:
                return True
        return False

    def run(self, scenario):
        async def whole():
            await self.server.start([(self.listener, None)])
            found = await scenario()
            found = (found, await self.empty())
            await self.server.stop(0)
            return found

        return asyncio.run(whole())


async def hello(_request):
    return HttpResponse(200, b"hello")


@pytest.mark.parametrize(
    "sent",
    [
        b"GARBAGE\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\n\r\n",
    ],
)
def test_nothing_of_a_connection_is_left_when_it_is_gone(sent):
    """Neither in the server's books nor in its count of bytes; whoever closed first, and also after the linger."""
    bench = Bench(hello, body_seconds=0.3, idle_seconds=0.3)

    async def scenario():
        await asyncio.gather(*(bench.talk(sent, read=20) for _ in range(20)))
        await asyncio.sleep(1.3)

    assert bench.run(scenario)[1] is True


def test_a_fault_in_the_middle_of_a_stream_ends_the_connection(capsys):
    """It is cut, and where it was is written to the log, without what it said; the server goes on."""

    async def broken():
        yield b"one"
        raise RuntimeError("a fault of ours")

    async def handler(request):
        return HttpResponse(200, broken()) if request.path == "/broken" else await hello(request)

    bench = Bench(handler)

    async def scenario():
        first = await bench.talk(b"GET /broken HTTP/1.1\r\n\r\n")
        return first, await bench.talk(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")

    (first, second), empty = bench.run(scenario)
    assert b"one" in first and not first.endswith(b"0\r\n\r\n") and second.endswith(b"hello") and empty
    log = capsys.readouterr().err
    assert "Traceback. An unexpected fault: RuntimeError" in log and "broken" in log and "a fault of ours" not in log


def test_what_came_whole_is_answered_though_garbage_follows():
    """And then the connection ends."""
    bench = Bench(hello)
    got, empty = bench.run(lambda: bench.talk(b"GET / HTTP/1.1\r\n\r\nGARBAGE\r\n\r\n"))
    assert got.count(b"HTTP/1.1 200") == 1 and got.endswith(b"hello") and empty


def test_a_client_that_never_takes_its_answer_is_cut_off():
    """Of any size, so that some are left wholly with the kernel, some in part, some with too much to go on."""
    sizes = range(10_000, 250_000, 10_000)

    async def sized(request):
        return HttpResponse(200, b"x" * int(request.path[1:]))

    bench = Bench(sized, stall_seconds=0.5, idle_seconds=0.5)
    bench.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)

    async def scenario():
        clients = [socket.socket() for _ in sizes]
        for client, size in zip(clients, sizes, strict=True):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, bench.listener.getsockname())
            client.send(f"GET /{size} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
        await asyncio.sleep(0.2)
        gone = await bench.empty()
        for client in clients:
            client.close()
        return gone

    assert bench.run(scenario) == (True, True)
