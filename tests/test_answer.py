"""One call, whatever happens on the way: the right answer to the client and exactly one entry in the ledger."""

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest
from harness import Wire, ask, chat, cli, get, post, serving, until

from freehold.answer import House, answer
from freehold.errors import RateLimited
from freehold.types import Caller, Kind, Role

PATHS = {
    "/v1/chat/completions": lambda script: chat(script),
    "/v1/completions": lambda script: {"model": "tiny", "prompt": script},
    "/v1/responses": lambda script: {"model": "tiny", "input": script},
    "/v1/messages": lambda script: chat(script, max_tokens=100),
}


@pytest.fixture
def mortal(tmp_path, tiny_model):
    """A server of its own for a test in which the engine dies."""
    with serving(tmp_path / "home", tiny_model) as server:
        yield server


def back_again(server) -> None:
    """Wait until the engine was restarted and answers."""

    def restarted():
        (engine,) = json.loads(get(server, "/admin/status", server.key)[2])["engines"]
        return engine["restarts"] >= 1 and engine["state"] == "ready"

    until(restarted)
    assert get(server, "/readyz")[0] == 200


@pytest.fixture
def latest(fake):
    """The newest entry, and how many there are more than before."""
    before = len(fake.calls(1000))

    def look():
        calls = fake.calls(1000)
        return calls[0], len(calls) - before

    return look


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answered_call_has_one_entry_with_the_engines_counts(fake, latest, path, stream):
    """On every surface, streamed and not."""
    script = json.dumps({"tokens": 6})
    status, _, body = ask(fake, path, PATHS[path](script) | {"stream": stream})
    call, more = latest()
    assert status == 200 and more == 1
    assert (call["outcome"], call["status"], call["model"], call["caller"]) == ("answered", 200, "tiny", "admin")
    assert (call["prompt_tokens"], call["completion_tokens"]) == (2, 6)
    assert call["digest"].startswith("sha256:") and call["total_ms"] > 0
    assert (call["first_token_ms"] is not None) == stream
    assert b"word" in body


def test_no_text_of_prompt_or_answer_is_kept(fake):
    """Neither is anywhere in the home."""
    ask(fake, "/v1/chat/completions", chat("a very secret prompt"))
    for file in fake.home.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert b"very secret" not in content and b"word word" not in content, file


def test_embeddings_and_counts_are_entries_too(fake, latest):
    """With the prompt's tokens."""
    assert ask(fake, "/v1/embeddings", {"model": "tiny", "input": "one two three"})[0] == 200
    call, _ = latest()
    assert (call["kind"], call["prompt_tokens"], call["completion_tokens"]) == ("embeddings", 3, 0)
    assert ask(fake, "/v1/messages/count_tokens", chat("one two"))[0] == 200
    call, more = latest()
    assert (call["kind"], call["prompt_tokens"], more) == ("messages.count_tokens", 2, 2)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (chat("hi") | {"model": "gpt-9"}, "model_not_found"),
        (chat("hi", frobnicate=1), "invalid_request"),
        (b"{bad", "invalid_request"),
        (chat("hi", audio={}), "unsupported"),
        (chat("word " * 5000), "context_length_exceeded"),
    ],
)
def test_a_refused_call_is_an_entry_with_its_reason(fake, latest, body, code):
    """Policy, bad fields, unknown models and prompts that do not fit."""
    status, _, content = ask(fake, "/v1/chat/completions", body)
    call, more = latest()
    assert status in (400, 404) and json.loads(content)["error"]["code"] == code
    assert (call["outcome"], call["error"], call["status"], more) == ("refused", code, status, 1)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/responses", {"input": [{"role": "user", "content": "x", "bogus": 1}]}, "input[0].bogus"),
        ("/v1/responses", {"input": [{"role": "user", "content": "x", "status": "nope"}]}, "input[0].status"),
        ("/v1/responses", {"input": [{"type": "function_call", "name": "x"}]}, "input[0].call_id"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x", "tool_calls": []}]}, "messages[0]"),
        ("/v1/chat/completions", {"messages": [{"role": "tool", "content": "x"}]}, "tool_call_id is missing"),
        ("/v1/chat/completions", {**chat("x"), "max_tokens": 1, "max_completion_tokens": 2}, "say the same"),
        ("/v1/messages", {**chat("x"), "max_tokens": 1, "tool_choice": {"type": "auto", "name": "f"}}, "tool_choice"),
    ],
)
def test_nothing_is_dropped_in_silence(fake, path, body, said):
    """A field that would change nothing is an error that names it."""
    status, _, content = ask(fake, path, {"model": "tiny"} | body)
    assert status == 400 and said in json.loads(content)["error"]["message"], content


def test_a_prompt_that_does_not_fit_names_both_counts(fake):
    """Its own and the context's, in both formats."""
    for path in ("/v1/chat/completions", "/v1/messages"):
        status, _, content = ask(fake, path, chat("word " * 5000, max_tokens=5))
        message = json.loads(content)["error"]["message"]
        assert status == 400 and "5000 tokens" in message and "holds 4096" in message


def test_a_call_without_a_key_is_no_call(fake, latest):
    """It has no caller: 401, and the ledger cannot be filled by strangers."""
    for key in ("", "fh_wrong"):
        status, headers, content = ask(fake, "/v1/chat/completions", chat("hi"), key=key)
        assert status == 401 and headers["www-authenticate"].startswith("Bearer")
        assert json.loads(content)["error"]["type"] == "authentication_error"
    status, _, content = ask(fake, "/v1/messages", chat("hi", max_tokens=2), key="fh_wrong")
    assert (status, json.loads(content)["error"]["type"]) == (401, "authentication_error")
    assert latest()[1] == 0


@pytest.mark.parametrize("header", ["Authorization: Bearer {}", "authorization: bearer {}", "x-api-key: {}"])
def test_both_headers_carry_a_key(fake, header):
    """OpenAI's and Anthropic's."""
    with Wire(fake.port) as wire:
        request = f"GET /v1/models HTTP/1.1\r\n{header.format(fake.key)}\r\n\r\n"
        assert wire.send(request).read()[0] == 200


def test_a_key_made_and_revoked_beside_the_running_server(fake):
    """It works at the next request, and stops at the next after it is revoked."""
    token = json.loads(fake.cli("keys", "create", "eve", "--json").stdout)["key"]
    assert ask(fake, "/v1/chat/completions", chat("hi"), key=token)[0] == 200
    assert fake.cli("keys", "revoke", "eve").returncode == 0
    status, _, content = ask(fake, "/v1/chat/completions", chat("hi"), key=token)
    assert status == 401 and "revoked" in json.loads(content)["error"]["message"]


def test_an_auditor_may_look_but_not_call_and_a_member_the_other_way_round(fake):
    """Policy, by role."""
    auditor = json.loads(fake.cli("keys", "create", "ann", "--role", "auditor", "--json").stdout)["key"]
    member = json.loads(fake.cli("keys", "create", "mel", "--json").stdout)["key"]
    assert ask(fake, "/v1/chat/completions", chat("hi"), key=auditor)[0] == 403
    assert fake.calls(1)[0]["outcome"] == "refused"
    assert get(fake, "/admin/status", auditor)[0] == 200
    assert ask(fake, "/v1/chat/completions", chat("hi"), key=member)[0] == 200
    assert get(fake, "/admin/status", member)[0] == 403


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_is_settled_as_abandoned(fake, latest, path, stream):
    """Before the answer, and in the middle of a stream; with the tokens that were made by then."""
    with Wire(fake.port) as wire:
        wire.send(post(path, PATHS[path](json.dumps({"tokens": 90, "each_ms": 50})) | {"stream": stream}, fake.key))
        time.sleep(0.4)
    call, more = until(lambda: (found := latest())[0]["outcome"] == "abandoned" and found)
    assert (call["status"], more) == (499, 1)
    assert 4 <= call["completion_tokens"] <= 12  # whole answers are made token by token too


def test_an_engine_that_answers_with_an_error_is_502(fake, latest):
    """And the entry says failed."""
    status, _, content = ask(fake, "/v1/chat/completions", chat({"status": 500}))
    call, more = latest()
    assert (status, json.loads(content)["error"]["code"]) == (502, "engine_failed")
    assert (call["outcome"], call["status"], more) == ("failed", 502, 1)


@pytest.mark.parametrize("path", PATHS)
def test_an_engine_that_dies_before_it_answers_is_502_within_two_seconds(mortal, path):
    """In the client's own format; the engine comes back by itself."""
    begun = time.monotonic()
    status, _, content = ask(mortal, path, PATHS[path](json.dumps({"tokens": 5, "die_after": 0})))
    assert status == 502 and time.monotonic() - begun < 2
    error = json.loads(content)["error"]
    assert error["type"] == ("api_error" if path == "/v1/messages" else "server_error")
    assert "broke off" in error["message"]
    assert mortal.calls(1)[0]["outcome"] == "failed"
    back_again(mortal)
    assert ask(mortal, path, PATHS[path]("hi"))[0] == 200


@pytest.mark.parametrize("path", PATHS)
def test_a_stream_whose_engine_dies_ends_with_an_error_event(mortal, path):
    """In the format of its endpoint, and complete as HTTP."""
    body = PATHS[path](json.dumps({"tokens": 9, "die_after": 3, "each_ms": 5})) | {"stream": True}
    status, _, content = ask(mortal, path, body)
    last = content.decode().strip().split("\n\n")[-1]
    event = json.loads(last.split("data: ")[1])
    assert status == 200 and content.count(b"word") == 3
    if path == "/v1/messages":
        assert last.startswith("event: error\n") and event["error"]["type"] == "api_error"
    elif path == "/v1/responses":
        assert last.startswith("event: error\n") and event["code"] == "engine_failed"
    else:
        assert event["error"]["code"] == "engine_failed"
    call = mortal.calls(1)[0]
    assert (call["outcome"], call["completion_tokens"], call["status"]) == ("failed", 3, 200)
    back_again(mortal)


def test_kill_9_of_the_engine_ends_calls_in_flight_and_it_comes_back(mortal):
    """Meanwhile /readyz says no, and new calls are told when to come again."""
    answers = []
    body = chat({"tokens": 100, "each_ms": 100})
    threads = [
        threading.Thread(target=lambda: answers.append(ask(mortal, "/v1/chat/completions", body))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    begun = time.monotonic()
    os.kill(mortal.engine_pid(), signal.SIGKILL)
    seen = until(lambda: get(mortal, "/readyz")[0] == 503 or "back already")
    for thread in threads:
        thread.join()
    assert time.monotonic() - begun < 2 and [answer[0] for answer in answers] == [502] * 3
    if seen is True:
        status, headers, _ = ask(mortal, "/v1/chat/completions", chat("hi"))
        assert status == 200 or (status == 503 and headers["retry-after"])
    back_again(mortal)
    assert ask(mortal, "/v1/chat/completions", chat("hi"))[0] == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_lets_running_calls_finish_and_leaves_nothing_behind(tmp_path, tiny_model, number):
    """No new calls, running ones complete, children gone, socket removed, exit code 0."""
    with serving(tmp_path / "home", tiny_model) as server:
        engine, socket_path = server.engine_pid(), server.announced["socket"]
        answer = []
        body = chat({"tokens": 20, "each_ms": 50}, stream=True)
        thread = threading.Thread(target=lambda: answer.append(ask(server, "/v1/chat/completions", body)))
        thread.start()
        time.sleep(0.3)
        assert server.stop(number) == 0
        thread.join()
    assert answer[0][2].endswith(b"data: [DONE]\n\n") and answer[0][2].count(b'"content":"word') == 20
    assert not os.path.exists(f"/proc/{engine}") and not os.path.exists(socket_path)
    assert not (tmp_path / "home" / "running.json").exists() and not list((tmp_path / "home").glob("run-*"))
    assert server.calls(1)[0]["outcome"] == "answered"


def test_a_call_that_outlasts_the_grace_is_ended(tmp_path, tiny_model):
    """And settled as abandoned."""
    with serving(tmp_path / "home", tiny_model, env={"FREEHOLD_SERVER_GRACE": "0.5"}) as server:
        wire = Wire(server.port).send(post("/v1/chat/completions", chat({"tokens": 1000, "each_ms": 50}), server.key))
        time.sleep(0.2)
        begun = time.monotonic()
        assert server.stop() == 0 and time.monotonic() - begun < 8
        wire.close()
    assert server.calls(1)[0]["outcome"] == "abandoned"


def test_kill_9_of_the_gateway_takes_the_engine_along_and_the_next_start_settles_its_calls(tmp_path, tiny_model):
    """The kernel sees to the first, the ledger to the second."""
    with serving(tmp_path / "home", tiny_model) as server:
        engine = server.engine_pid()
        with Wire(server.port) as wire:
            wire.send(post("/v1/chat/completions", chat({"tokens": 100, "each_ms": 100}, stream=True), server.key))
            wire.socket.recv(10)
            server.process.kill()
            server.process.wait()
        until(lambda: not os.path.exists(f"/proc/{engine}"))
    with serving(tmp_path / "home", tiny_model) as server:
        assert server.calls(1)[0]["outcome"] == "interrupted"


def test_an_unwritable_ledger_serves_nothing(tmp_path, tiny_model):
    """What cannot be accounted for is not served: 503, and again 200 when it can be."""
    import sqlite3

    with serving(tmp_path / "home", tiny_model) as server:
        assert ask(server, "/v1/chat/completions", chat("hi"))[0] == 200
        database = sqlite3.connect(server.home / "freehold.db")
        database.execute("ALTER TABLE calls RENAME TO away")
        database.commit()
        status, headers, content = ask(server, "/v1/chat/completions", chat("hi"))
        assert (status, json.loads(content)["error"]["code"]) == (503, "ledger_unavailable") and headers["retry-after"]
        status, _, content = ask(server, "/v1/messages", chat("hi", max_tokens=4, stream=True))
        assert (status, json.loads(content)["error"]["type"]) == (503, "overloaded_error")
        assert b"word" not in content
        database.execute("ALTER TABLE away RENAME TO calls")
        database.commit()
        database.close()
        assert ask(server, "/v1/chat/completions", chat("hi"))[0] == 200


def test_keys_that_cannot_be_looked_up_open_nothing(tmp_path, tiny_model):
    """503 on every path that needs one, with a body and without; and again 200 when they can be."""
    import sqlite3

    with serving(tmp_path / "home", tiny_model) as server:
        database = sqlite3.connect(server.home / "freehold.db")
        database.execute("ALTER TABLE keys RENAME TO away")
        database.commit()
        for answer in (ask(server, "/v1/chat/completions", chat("hi")), get(server, "/v1/models", server.key)):
            assert answer[0] == 503 and json.loads(answer[2])["error"]["code"] == "ledger_unavailable"
        database.execute("ALTER TABLE away RENAME TO keys")
        database.commit()
        database.close()
        assert ask(server, "/v1/chat/completions", chat("hi"))[0] == 200


def test_the_events_of_a_stream_go_through_untouched(fake):
    """Byte for byte what the engine says on its own socket."""
    program = (
        "import asyncio, json, sys; from pathlib import Path;"
        "from freehold.engine.fake import serve; from freehold.engine.child import Order;"
        "from freehold.engine import wire\n"
        "async def main():\n"
        "    order = Order('fake', '', 'tiny', sys.argv[1], 'k', 4096, 4, 1, 'off'); serve(order)\n"
        "    body = sys.stdin.buffer.read()\n"
        "    sent = wire.Exchange(); await sent.send(order.socket, 'POST', '/v1/chat/completions', body, {})\n"
        "    sys.stdout.buffer.write(await sent.body())\n"
        "asyncio.run(main())"
    )
    body = chat({"tokens": 5}, stream=True)
    socket_path = str(fake.home / "direct.sock")
    direct = subprocess.run(
        [sys.executable, "-c", program, socket_path], input=json.dumps(body).encode(), capture_output=True
    )
    assert direct.returncode == 0, direct.stderr
    assert ask(fake, "/v1/chat/completions", body)[2] == direct.stdout != b""


def test_ask_streams_an_answer_to_the_terminal(fake):
    """Without a key of its own: the owner's commands find the running server."""
    done = fake.cli("ask", json.dumps({"tokens": 3}))
    assert (done.returncode, done.stdout) == (0, "word word word \n")
    done = fake.cli("ask", "-", "--json", input="hello")
    assert json.loads(done.stdout)["choices"][0]["message"]["content"].startswith("word")
    assert fake.cli("ask", "x", "--model", "none").returncode == 2


def test_ask_without_a_server_says_what_to_do(tmp_path):
    """Exit code 2 and one sentence."""
    done = cli("ask", "hi", home=tmp_path)
    assert done.returncode == 2 and "freehold up" in done.stderr and "Traceback" not in done.stderr


class Refusing:
    """A ledger that takes entries, and leases that are never had."""

    settlement = None

    def open(self, call_id, caller, kind):
        return self

    def settle(self, settlement):
        pass

    async def begin(self, *call):
        pass

    on_disk = begin


def test_a_refused_call_is_let_go_at_once():
    """Its error, the error's traceback and the frame do not hold each other, and with them a body of megabytes until
    Python looks for cycles."""

    class Body:
        pass

    class Leases:
        def begin(self, *call):
            raise RateLimited("Enough.")

    async def call(body):
        caller = Caller("key_1", "bob", Role.MEMBER)
        with pytest.raises(RateLimited):
            await anext(answer(House(Refusing(), Leases(), dict), "req_1", caller, Kind.CHAT, lambda aim: body))

    body = Body()
    gone = weakref.ref(body)
    gc.disable()
    try:
        asyncio.run(call(body))
        del body
        assert gone() is None
    finally:
        gc.enable()
