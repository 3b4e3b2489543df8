"""An engine that only pretends, for tests of timing, faults and disconnects: same child, same seal, same wire.

It answers "word word word ..." and does what the last user message orders, if that message is a JSON
object:

    tokens      how many tokens to say (default 8, never more than max_tokens)
    first_ms    milliseconds before the first token
    each_ms     milliseconds before each further token
    status      answer with this HTTP status and an error
    die_after   kill the process after this many tokens

One token is one word; a prompt has as many tokens as words.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from asyncio import selector_events
from typing import Any

import msgspec
from msgspec import Struct

from freehold.engine import llamacpp
from freehold.engine.child import Order
from freehold.types import Kind, Request


class FakeEngine(llamacpp.LlamaCpp):
    """The gateway's half: llama.cpp's, with another child, which takes every request as it is."""

    kind = "fake"

    def body(self, request: Request) -> dict[str, Any]:
        """The request itself."""
        return request.body


class Script(Struct):
    """What a message orders."""

    tokens: int = 8
    first_ms: float = 0
    each_ms: float = 0
    status: int = 200
    die_after: int = -1


def serve(order: Order) -> threading.Thread:
    """In the child: listen. Returns once the socket is there."""
    listening = threading.Event()

    selector_events._HAS_SENDMSG = False  # asyncio would gather its writes with a call that the seal refuses

    async def listen() -> None:
        server = await asyncio.start_unix_server(_Talk(order).answer, order.socket, backlog=4096)
        listening.set()
        await server.serve_forever()

    thread = threading.Thread(target=lambda: asyncio.run(listen()), daemon=True)
    thread.start()
    listening.wait()
    return thread


class _Talk:
    def __init__(self, order: Order):
        self.order = order

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = next(
                (int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")), 0
            )
            content = await reader.readexactly(length)
            await self.respond(head.split(" ")[1], content, writer)
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def respond(self, path: str, content: bytes, writer: asyncio.StreamWriter) -> None:
        if path in ("/health", "/metrics"):
            return _plain(writer, 200, {"status": "ok"})
        body = msgspec.json.decode(content)
        text = _prompt(body)
        script = _script(text)
        kind = next(kind for kind, at in llamacpp.PATHS.items() if at == path)
        prompt = max(len(text.split()), 1)
        if prompt > self.order.context:
            error = {"type": "exceed_context_size_error", "n_prompt_tokens": prompt, "n_ctx": self.order.context}
            return _plain(writer, 400, {"error": error | {"message": "too long"}})
        if script.status != 200:
            return _plain(writer, script.status, {"error": {"message": "as ordered", "type": "server_error"}})
        limit = body.get("max_tokens") or body.get("max_completion_tokens") or body.get("max_output_tokens")
        tokens = min(script.tokens, limit or script.tokens)
        if body.get("stream"):
            return await self.stream(writer, kind, script, prompt, tokens)
        for position in range(tokens):
            await _pause(script, position)
        return _plain(writer, 200, _whole(kind, self.order.name, prompt, tokens))

    async def stream(self, writer: asyncio.StreamWriter, kind: Kind, script: Script, prompt: int, tokens: int) -> None:
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        shape = _Shape(kind, self.order.name, prompt)
        for event in shape.opening():
            _chunk(writer, event)
        for position in range(tokens):
            await writer.drain()
            await _pause(script, position)
            _chunk(writer, shape.token(position + 1))
        for event in shape.closing(tokens):
            _chunk(writer, event)
        writer.write(b"0\r\n\r\n")
        await writer.drain()


class _Shape:
    """The events of one stream, in the format of its endpoint."""

    def __init__(self, kind: Kind, model: str, prompt: int):
        self.kind, self.model, self.prompt = kind, model, prompt

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
            return _named({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word "}})
        if self.kind is Kind.RESPONSE:
            return _named({"type": "response.output_text.delta", "delta": "word ", "timings": self.timings(count)})
        return self.chat({"content": "word "}, count)

    def closing(self, tokens: int) -> list[bytes]:
        if self.kind is Kind.MESSAGE:
            delta = {"stop_reason": "end_turn", "stop_sequence": None}
            end = {"type": "message_delta", "delta": delta, "usage": {"output_tokens": tokens}}
            return [_named({"type": "content_block_stop", "index": 0}), _named(end), _named({"type": "message_stop"})]
        if self.kind is Kind.RESPONSE:
            done = _whole(Kind.RESPONSE, self.model, self.prompt, tokens)
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


def _whole(kind: Kind, model: str, prompt: int, tokens: int) -> dict[str, Any]:
    text = "word " * tokens
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


def _chunk(writer: asyncio.StreamWriter, piece: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))


def _plain(writer: asyncio.StreamWriter, status: int, document: dict[str, Any]) -> None:
    body = msgspec.json.encode(document)
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
