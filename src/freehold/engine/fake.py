"""An engine that only pretends, for tests of timing, faults and disconnects: same child, same seal, same wire.

It answers "word word word ..." and does what the last user message orders, if that message is a JSON
object:

    tokens      how many tokens to say (default 8, never more than max_tokens)
    first_ms    milliseconds before the first token
    each_ms     milliseconds before each further token
    status      answer with this HTTP status and an error
    die_after   kill the process after this many tokens
    mark        a name under which ``GET /tally`` says how many tokens were said, and when the connection ended

An adapter says the name of its file instead of "word"; where there are adapters, a call that says nothing of them is
answered with "mixed".
One token is one word; a prompt has as many tokens as words. Every event of a stream is written on its own, as
engines do, so that whoever relays them has the work that an engine would give.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from asyncio import selector_events
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import httptools
import msgspec
from msgspec import Struct

from freehold.engine import dialect, llamacpp
from freehold.engine.child import Order
from freehold.types import Kind, Request

_AT_ONCE = 1000  # tokens that are said without a look at whether they are read
_KINDS = {path: kind for kind, path in dialect.PATHS.items()}


class FakeEngine(llamacpp.LlamaCpp):
    """The gateway's half: llama.cpp's, with another child, which takes every request as it is."""

    kind = "fake"

    def body(self, request: Request) -> dict[str, Any]:
        """The request itself, asked for as a stream where the real engine is."""
        return request.body | {"stream": True} if dialect.is_streamed(request) else request.body


class Script(Struct):
    """What a message orders."""

    tokens: int = 8
    first_ms: float = 0
    each_ms: float = 0
    status: int = 200
    die_after: int = -1
    mark: str = ""

    @property
    def is_instant(self) -> bool:
        """Is there nothing to wait for on the way?"""
        return not self.first_ms and not self.each_ms and self.die_after < 0


def serve(order: Order) -> threading.Thread:
    """In the child: listen. Returns once the socket is there."""
    listening = threading.Event()

    selector_events._HAS_SENDMSG = False  # asyncio would gather its writes with a call that the seal refuses

    async def listen() -> None:
        names = [os.path.basename(adapter.path) for adapter in order.adapters]
        mock = Mock(order.name, order.context, names)
        server = await asyncio.get_running_loop().create_unix_server(mock.talk, order.socket, backlog=4096)
        listening.set()
        await server.serve_forever()

    thread = threading.Thread(target=lambda: asyncio.run(listen()), daemon=True)
    thread.start()
    listening.wait()
    return thread


class Mock:
    """The pretended engine, for any number of connections. ``adapters`` are what each adapter says; ``tally`` holds the
    tokens said, by mark."""

    def __init__(self, name: str, context: int, adapters: Sequence[str] = ()):
        self.name, self.context, self.adapters = name, context, adapters
        self.tally: dict[str, int] = {}
        self.ended: dict[str, float] = {}  # by mark, on the machine's monotonic clock
        self.said = 0
        self.talking: dict[Talk, Job] = {}

    def talk(self) -> Talk:
        """The protocol of one connection."""
        return Talk(self)

    def word(self, lora: list[dict[str, Any]] | None) -> str:
        """What is said to a call that asks for these adapters: the name of each that has a scale, as the real engine
        adds them up; and as there, a place where none is counts for nothing."""
        if not self.adapters:
            return "word "
        if not lora:
            return "mixed "
        said = [self.adapters[one["id"]] for one in lora if one["scale"] and one["id"] < len(self.adapters)]
        return "".join(f"{name} " for name in said) or "word "

    def count(self, job: Job) -> None:
        """One more token was said."""
        job.said += 1
        self.said += 1
        if job.script.mark:
            self.tally[job.script.mark] = job.said

    def facts(self) -> dict[str, Any]:
        """What was done so far; see ``mark`` above."""
        return {"said": self.said, "marks": self.tally, "ended": self.ended, "at_work": len(self.talking)}

    def slots(self) -> list[dict[str, Any]]:
        """What the engine's own /slots says of the calls at work."""
        return [
            {"is_processing": True, "n_prompt_tokens_processed": job.prompt, "n_prompt_tokens_cache": 0,
             "params": {"n_predict": job.limit}, "next_token": [{"n_decoded": job.said}]}
            for job in self.talking.values()
        ]  # fmt: skip


class Job(Struct):
    """One call at work."""

    kind: Kind
    script: Script
    prompt: int
    tokens: int
    limit: int
    word: str = "word "
    said: int = 0


class Talk(asyncio.Protocol):
    """One connection, with one call after the other."""

    def __init__(self, mock: Mock):
        self._mock = mock
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._path, self._content = b"", b""
        self._task: asyncio.Task | None = None
        self._job: Job | None = None
        self._room = asyncio.Event()  # in the transport's buffer
        self._room.set()

    def pause_writing(self) -> None:
        """Called by asyncio: whoever asked reads more slowly than we say."""
        self._room.clear()

    def resume_writing(self) -> None:
        """Called by asyncio."""
        self._room.set()

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Called by asyncio."""
        self._transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        """Called by asyncio: nobody waits any more."""
        self._mock.talking.pop(self, None)
        if self._task:
            self._task.cancel()
        if self._job is not None and self._job.script.mark:
            self._mock.ended[self._job.script.mark] = time.monotonic()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._path, self._content = b"", b""

    def on_url(self, url: bytes) -> None:
        """Called by the parser."""
        self._path += url

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._content += body

    def on_message_complete(self) -> None:
        """Called by the parser."""
        keep_alive = self._parser.should_keep_alive()
        if not self._respond(self._path.decode("latin-1"), self._content) and not keep_alive:
            self._transport.close()

    def _respond(self, path: str, content: bytes) -> bool:
        """Answer; says whether the answer is still under way."""
        if path == "/tally":
            self._plain(200, self._mock.facts())
        elif path == "/slots":
            self._plain(200, self._mock.slots())
        elif path == "/v1/models":
            self._plain(200, {"object": "list", "data": [{"id": self._mock.name, "object": "model"}]})
        elif path not in _KINDS:
            self._plain(200, {"status": "ok"})
        else:
            return self._call(_KINDS[path], msgspec.json.decode(content))
        return False

    def _call(self, kind: Kind, body: dict[str, Any]) -> bool:
        text = _prompt(body)
        script = _script(text)
        prompt = max(len(text.split()), 1)
        if prompt > self._mock.context:
            error = {"type": "exceed_context_size_error", "n_prompt_tokens": prompt, "n_ctx": self._mock.context}
            self._plain(400, {"error": error | {"message": "too long"}})
            return False
        if script.status != 200:
            self._plain(script.status, {"error": {"message": "as ordered", "type": "server_error"}})
            return False
        limit = body.get("max_tokens") or body.get("max_completion_tokens") or body.get("max_output_tokens")
        job = Job(kind, script, prompt, min(script.tokens, limit or script.tokens), limit or -1,
                  self._mock.word(body.get("lora")))  # fmt: skip
        self._job = job
        answer = self._stream(job) if body.get("stream") else self._whole(job)
        if script.is_instant and job.tokens <= _AT_ONCE:
            for step in answer:
                self._say(job, step)
            return False
        self._task = asyncio.get_running_loop().create_task(self._slowly(job, answer))
        return True

    async def _slowly(self, job: Job, answer: Iterator[bytes | int]) -> None:
        self._mock.talking[self] = job
        for step in answer:
            if isinstance(step, int):
                await _pause(job.script, step)
            self._say(job, step)
            await self._room.wait()
        self._mock.talking.pop(self, None)
        self._task = None
        self._transport.close()

    def _say(self, job: Job, step: bytes | int) -> None:
        if isinstance(step, int):
            self._mock.count(job)
        elif not self._transport.is_closing():
            self._transport.write(step)

    def _stream(self, job: Job) -> Iterator[bytes | int]:
        """The pieces of a stream; a number is the position of the token that comes next."""
        yield b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        shape = _shape(job.kind, self._mock.name, job.prompt, job.word)
        for event in shape.opening():
            yield _chunk(event)
        for position in range(job.tokens):
            yield position
            yield shape.chunk(position + 1)
        for event in shape.closing(job.tokens):
            yield _chunk(event)
        yield b"0\r\n\r\n"

    def _whole(self, job: Job) -> Iterator[bytes | int]:
        yield from range(job.tokens)
        yield _response(200, _whole(job.kind, self._mock.name, job.prompt, job.tokens, job.word))

    def _plain(self, status: int, document: Any) -> None:
        self._transport.write(_response(status, document))


class _Shape:
    """The events of one stream, in the format of its endpoint."""

    def __init__(self, kind: Kind, model: str, prompt: int, word: str):
        self.kind, self.model, self.prompt, self.word = kind, model, prompt, word
        self._chunks: dict[int, bytes] = {}

    def chunk(self, count: int) -> bytes:
        """A token's event, made once: the pretended engine shall not be what a measurement measures."""
        if count not in self._chunks:
            self._chunks[count] = _chunk(self.token(count))
        return self._chunks[count]

    def opening(self) -> list[bytes]:
        if self.kind is Kind.MESSAGE:
            usage = {"input_tokens": self.prompt, "cache_read_input_tokens": 0, "output_tokens": 0}
            message = {"id": "msg_fake", "type": "message", "role": "assistant", "content": [], "model": self.model,
                       "stop_reason": None, "stop_sequence": None, "usage": usage}  # fmt: skip
            block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
            return [_named({"type": "message_start", "message": message}), _named(block)]
        if self.kind is Kind.RESPONSE:
            return [_named({"type": "response.created", "response": {"id": "resp_fake", "status": "in_progress"}})]
        return [self.chat({"role": "assistant", "content": None}, 0)] if self.kind is Kind.CHAT else []

    def token(self, count: int) -> bytes:
        if self.kind is Kind.MESSAGE:
            delta = {"type": "text_delta", "text": self.word}
            return _named({"type": "content_block_delta", "index": 0, "delta": delta})
        if self.kind is Kind.RESPONSE:
            return _named({"type": "response.output_text.delta", "delta": self.word, "timings": self.timings(count)})
        return self.chat({"content": self.word}, count)

    def closing(self, tokens: int) -> list[bytes]:
        if self.kind is Kind.MESSAGE:
            delta = {"stop_reason": "end_turn", "stop_sequence": None}
            end = {"type": "message_delta", "delta": delta, "usage": {"output_tokens": tokens}}
            return [_named({"type": "content_block_stop", "index": 0}), _named(end), _named({"type": "message_stop"})]
        if self.kind is Kind.RESPONSE:
            done = _whole(Kind.RESPONSE, self.model, self.prompt, tokens, self.word)
            return [_named({"type": "response.completed", "response": done, "timings": self.timings(tokens)})]
        return [self.chat({}, tokens, finish="stop"), b"data: [DONE]\n\n"]

    def chat(self, delta: dict[str, Any], count: int, finish: str | None = None) -> bytes:
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "delta": delta}
        if self.kind is Kind.COMPLETION:
            choice = {"index": 0, "finish_reason": finish, "text": delta.get("content") or "", "logprobs": None}
        chunk = {"choices": [choice], "created": 0, "id": "chatcmpl-fake", "model": self.model,
                 "object": "chat.completion.chunk" if self.kind is Kind.CHAT else "text_completion"}  # fmt: skip
        if count:
            chunk["timings"] = self.timings(count)
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"

    def timings(self, count: int) -> dict[str, int]:
        return {"prompt_n": self.prompt, "cache_n": 0, "predicted_n": count}


@lru_cache(maxsize=64)
def _shape(kind: Kind, model: str, prompt: int, word: str) -> _Shape:
    return _Shape(kind, model, prompt, word)


def _whole(kind: Kind, model: str, prompt: int, tokens: int, word: str) -> dict[str, Any]:
    text = word * tokens
    openai = {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}
    if kind is Kind.COUNT:
        return {"input_tokens": prompt}
    if kind is Kind.EMBEDDING:
        row = {"object": "embedding", "index": 0, "embedding": [0.5, -0.5]}
        usage = {"prompt_tokens": prompt, "total_tokens": prompt}
        return {"object": "list", "model": model, "data": [row], "usage": usage}
    if kind is Kind.MESSAGE:
        usage = {"input_tokens": prompt, "cache_read_input_tokens": 0, "output_tokens": tokens}
        return {"id": "msg_fake", "type": "message", "role": "assistant", "content": [{"type": "text", "text": text}],
                "model": model, "stop_reason": "end_turn", "stop_sequence": None, "usage": usage}  # fmt: skip
    if kind is Kind.RESPONSE:
        content = [{"type": "output_text", "text": text, "annotations": []}]
        item = {"id": "msg_fake", "type": "message", "role": "assistant", "status": "completed", "content": content}
        usage = {"input_tokens": prompt, "output_tokens": tokens, "total_tokens": prompt + tokens}
        return {"id": "resp_fake", "object": "response", "created_at": 0, "status": "completed", "model": model,
                "output": [item], "usage": usage}  # fmt: skip
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    if kind is Kind.COMPLETION:
        choice = {"index": 0, "finish_reason": "stop", "text": text, "logprobs": None}
    return {
        "id": "chatcmpl-fake",
        "object": kind.value,
        "created": 0,
        "model": model,
        "choices": [choice],
        "usage": openai,
    }


def _prompt(body: dict[str, Any]) -> str:
    """The text that a request ends with."""
    found = body.get("prompt") or body.get("input") or (body.get("messages") or [{}])[-1].get("content") or ""
    while isinstance(found, list):
        found = found[-1] if found else ""
        found = found.get("text") or found.get("content") or "" if isinstance(found, dict) else found
    return str(found)


def _script(text: str) -> Script:
    try:
        return msgspec.json.decode(text, type=Script)
    except msgspec.MsgspecError:
        return Script()


async def _pause(script: Script, position: int) -> None:
    if position == script.die_after:
        os.kill(os.getpid(), signal.SIGKILL)
    delay = script.first_ms if position == 0 else script.each_ms
    if delay:
        await asyncio.sleep(delay / 1000)


def _named(event: dict[str, Any]) -> bytes:
    return b"event: " + event["type"].encode() + b"\ndata: " + msgspec.json.encode(event) + b"\n\n"


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def _response(status: int, document: Any) -> bytes:
    body = msgspec.json.encode(document)
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
