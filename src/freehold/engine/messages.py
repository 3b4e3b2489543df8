"""A call of /v1/messages asked as a chat, and the chat's stream told as a stream of messages.

The engine has this very translation, but drops on the way what says which adapter answers. So where an engine has
loaded adapters, the gateway translates: what a call asks (`as_chat`) as the engine would, so that the model reads the
same prompt, and what comes back (`Turn`) as the engine would tell it. `tests/test_adapters.py` holds both against the
engine's own. A chat's end does not say which stop sequence ended it; so those are looked for here.

Source: the Anthropic API reference; llama.cpp's ``server_chat_convert_anthropic_to_oai`` and
``to_json_anthropic_stream``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from freehold.engine import sse

_KEPT = ("model", "max_tokens", "temperature", "top_p", "top_k", "stream")
_CHOICES = {"auto": "auto", "any": "required", "tool": "required"}
_REASONS = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens"}
_BILLING = re.compile(r"\A(x-anthropic-billing-header:.*?cch=).{5}(?=;)", re.DOTALL)  # another one at each call


def as_chat(body: dict[str, Any]) -> dict[str, Any]:
    """The body of /v1/messages as one of /v1/chat/completions, without its stop sequences: see `Turn`."""
    chat = {name: body[name] for name in _KEPT if name in body} | {"timings_per_token": True}
    system = [{"role": "system", "content": _system(body["system"])}] if "system" in body else []
    chat["messages"] = system + [made for message in body["messages"] for made in _messages(message)]
    if "tools" in body:
        chat["tools"] = [_tool(tool) for tool in body["tools"]]
    if choice := _CHOICES.get(body.get("tool_choice", {}).get("type", "")):
        chat["tool_choice"] = choice
    return chat


def _system(system: str | list[dict[str, Any]]) -> str:
    texts = [system] if isinstance(system, str) else [block["text"] for block in system]
    return "".join(_BILLING.sub(r"\1fffff", text) for text in texts)


def _messages(message: dict[str, Any]) -> list[dict[str, Any]]:
    """One message; what came of calls of tools are messages of their own after it."""
    if isinstance(message["content"], str):
        return [message]
    blocks = message["content"]
    texts = [{"type": "text", "text": block["text"]} for block in blocks if block["type"] == "text"]
    calls = [_call(block) for block in blocks if block["type"] == "tool_use"]
    thought = "".join(block["thinking"] for block in blocks if block["type"] == "thinking")
    made: list[dict[str, Any]] = []
    if texts or calls or thought:
        made.append({"role": message["role"], "content": texts or ""})
        made[0] |= {"tool_calls": calls} if calls else {}
        made[0] |= {"reasoning_content": thought} if thought else {}
    return made + [_result(block) for block in blocks if block["type"] == "tool_result"]


def _call(block: dict[str, Any]) -> dict[str, Any]:
    arguments = msgspec.json.encode(block["input"]).decode()
    return {"id": block["id"], "type": "function", "function": {"name": block["name"], "arguments": arguments}}


def _result(block: dict[str, Any]) -> dict[str, Any]:
    content = block.get("content", "")
    text = content if isinstance(content, str) else "".join(part["text"] for part in content)
    return {"role": "tool", "tool_call_id": block["tool_use_id"], "content": text}


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    said = {"name": tool["name"], "description": tool.get("description", ""), "parameters": tool["input_schema"]}
    return {"type": "function", "function": said}


class _Function(Struct, frozen=True):
    name: str = ""
    arguments: str = ""


class _ToolCall(Struct, frozen=True):
    index: int = 0
    id: str = ""
    function: _Function = _Function()


class _Delta(Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCall] = []


class _Choice(Struct, frozen=True):
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _Timings(Struct, frozen=True):
    prompt_n: int = 0
    cache_n: int = 0
    predicted_n: int = 0


class _Fault(Struct, frozen=True):
    message: str = ""


class _Chunk(Struct, frozen=True):
    id: str = ""
    choices: list[_Choice] = []
    timings: _Timings | None = None
    error: _Fault | None = None


_decode = msgspec.json.Decoder(_Chunk).decode


class Turn:
    """Turns the events of a chat's stream into those of a message's. ``complete``: the last of them was given, at the
    chat's own end or at a stop sequence."""

    def __init__(self, model: str, stops: Sequence[str] = ()):
        self.complete = False
        self._model, self._stops = model, tuple(stops)
        self._id = ""
        self._begun = False
        self._thought, self._spoke = False, False  # is there a block of it?
        self._calls: dict[int, str] = {}  # of tools, by their number in the chat: what is said of each
        self._reason = ""
        self._held = ""  # text that may be the beginning of a stop sequence
        self._timings = _Timings()

    def take(self, events: Iterable[bytes]) -> list[dict[str, Any]]:
        """The events that these make; none may come of some. Raises msgspec.MsgspecError for what is no chat's."""
        made: list[dict[str, Any]] = []
        for data in events:
            if self.complete:
                break
            if data == sse.DONE:
                made += self._end() if self._reason else []
            else:
                made += self._take(_decode(data))
        return made

    def _take(self, chunk: _Chunk) -> list[dict[str, Any]]:
        if chunk.error is not None:
            return [{"type": "error", "error": {"type": "api_error", "message": chunk.error.message}}]
        self._id = self._id or chunk.id
        self._timings = chunk.timings or self._timings
        made: list[dict[str, Any]] = []
        if chunk.timings is not None and not self._begun:
            self._begun = True
            made.append(self._start())
        for choice in chunk.choices:
            made += self._say(choice.delta)
            self._reason = choice.finish_reason or self._reason
        return made

    def _say(self, delta: _Delta) -> list[dict[str, Any]]:
        """What one step of the model adds."""
        made: list[dict[str, Any]] = []
        if delta.reasoning_content:
            if not self._thought:
                self._thought = True
                made.append(_opened(0, {"type": "thinking", "thinking": ""}))
            made.append(_added(0, {"type": "thinking_delta", "thinking": delta.reasoning_content}))
        if delta.content:
            text, stop = self._until_stop(delta.content)
            made += self._text(text)
            if stop:
                return made + self._end(stop)
        for call in delta.tool_calls:
            made += self._call(call)
        return made

    def _text(self, text: str) -> list[dict[str, Any]]:
        if not text:
            return []
        place, begun = int(self._thought), self._spoke
        self._spoke = True
        opened = [] if begun else [_opened(place, {"type": "text", "text": ""})]
        return [*opened, _added(place, {"type": "text_delta", "text": text})]

    def _call(self, call: _ToolCall) -> list[dict[str, Any]]:
        place, made = self._thought + self._spoke + call.index, []
        if call.index not in self._calls:
            self._calls[call.index] = call.id
            made.append(_opened(place, {"type": "tool_use", "id": call.id, "name": call.function.name}))
        if call.function.arguments:
            made.append(_added(place, {"type": "input_json_delta", "partial_json": call.function.arguments}))
        return made

    def _until_stop(self, said: str) -> tuple[str, str]:
        """The text that can be said, and the stop sequence that ended it, if one did. An end that may go on to be one
        is held back."""
        if not self._stops:
            return said, ""
        text = self._held + said
        found = [(at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            at, stop = min(found)
            self._held = ""
            return text[:at], stop
        longest = max(len(stop) for stop in self._stops) - 1
        kept = next((n for n in range(min(longest, len(text)), 0, -1) if self._may_begin(text[-n:])), 0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept], ""

    def _may_begin(self, end: str) -> bool:
        return any(stop.startswith(end) for stop in self._stops)

    def _start(self) -> dict[str, Any]:
        usage = {"cache_read_input_tokens": self._timings.cache_n, "input_tokens": self._timings.prompt_n}
        message = {"id": self._id, "type": "message", "role": "assistant", "content": [], "model": self._model,
                   "stop_reason": None, "stop_sequence": None, "usage": usage | {"output_tokens": 0}}  # fmt: skip
        return {"type": "message_start", "message": message}

    def _end(self, stop: str | None = None) -> list[dict[str, Any]]:
        """Every block is closed, in order, and then the message."""
        made = self._text(self._held)
        self._held, self.complete = "", True
        if self._thought:
            made.append(_added(0, {"type": "signature_delta", "signature": ""}))
        blocks = self._thought + self._spoke + len(self._calls)
        made += [{"type": "content_block_stop", "index": place} for place in range(blocks)]
        reason = _REASONS.get("stop" if stop else self._reason, "end_turn")
        delta = {"stop_reason": reason, "stop_sequence": stop}
        usage = {"output_tokens": self._timings.predicted_n}
        return [*made, {"type": "message_delta", "delta": delta, "usage": usage}, {"type": "message_stop"}]


def encode(events: Iterable[dict[str, Any]]) -> bytes:
    """Events as they go over the wire."""
    return b"".join(b"event: %b\ndata: %b\n\n" % (one["type"].encode(), msgspec.json.encode(one)) for one in events)


def _opened(place: int, block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": place, "content_block": block}


def _added(place: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": place, "delta": delta}
