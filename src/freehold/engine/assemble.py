"""A whole answer out of the events of a stream.

Whole answers are asked of the engine as streams and put together here. A stream can be ended at any moment and
its count is known at every moment, while a whole answer that nobody waits for any more is worked on to its end
and says its count only then; and of several choices the engine counts, in a whole answer, the first alone.
What the engine puts into its whole answers it puts into its streams too, so nothing is lost on the way.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from freehold.types import Kind, Usage


class Whole(Protocol):
    """Takes in the events of one stream, and gives the answer that they make."""

    def take(self, event: dict[str, Any]) -> None:
        """Take in one event, decoded."""

    def document(self, usage: Usage) -> dict[str, Any]:
        """The answer, with the usage as it was counted."""


_MOST_CALLS = 1024  # of tools in one answer: an index from elsewhere must not say how much memory is taken
_COMMON = ("id", "created", "model", "system_fingerprint")


class Completion:
    """Text of /v1/completions, and what chat completions have in common with it."""

    object = "text_completion"

    def __init__(self) -> None:
        self._base: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._timings: dict[str, Any] | None = None

    def take(self, event: dict[str, Any]) -> None:
        """See `Whole.take`."""
        if not self._base:
            self._base = {name: event[name] for name in _COMMON if name in event}
        if "timings" in event:
            self._timings = event["timings"]
        for part in event.get("choices", ()):
            choice = self._choices.get(part["index"])
            if choice is None:
                choice = self._choices[part["index"]] = self._new(part["index"])
            if part.get("finish_reason"):
                choice["finish_reason"] = part["finish_reason"]
            if part.get("logprobs"):
                kept = choice.get("logprobs") or choice.setdefault("logprobs", {"content": []})
                kept["content"] += part["logprobs"].get("content") or []
            self._add(choice, part)

    def document(self, usage: Usage) -> dict[str, Any]:
        """See `Whole.document`."""
        counts = {
            "completion_tokens": usage.completion,
            "prompt_tokens": usage.prompt,
            "total_tokens": usage.prompt + usage.completion,
            "prompt_tokens_details": {"cached_tokens": usage.cached},
        }
        choices = [self._choices[index] for index in sorted(self._choices)]
        whole = {"choices": choices} | self._base | {"object": self.object, "usage": counts}
        return whole | ({"timings": self._timings} if self._timings and len(choices) == 1 else {})

    def _new(self, index: int) -> dict[str, Any]:
        return {"index": index, "finish_reason": None, "text": ""}

    def _add(self, choice: dict[str, Any], part: dict[str, Any]) -> None:
        choice["text"] += part.get("text") or ""


class ChatCompletion(Completion):
    """Messages of /v1/chat/completions, with their tool calls."""

    object = "chat.completion"

    def _new(self, index: int) -> dict[str, Any]:
        return {"index": index, "finish_reason": None, "message": {"role": "assistant", "content": None}}

    def _add(self, choice: dict[str, Any], part: dict[str, Any]) -> None:
        message, delta = choice["message"], part.get("delta")
        if not delta:
            return
        for name in ("content", "reasoning_content"):
            if delta.get(name):
                message[name] = (message.get(name) or "") + delta[name]
        for piece in delta.get("tool_calls") or ():
            calls = message.setdefault("tool_calls", [])
            if piece["index"] >= _MOST_CALLS:
                raise IndexError("more calls of tools than any model makes")
            while len(calls) <= piece["index"]:
                calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
            call = calls[piece["index"]]
            call["id"] = piece.get("id") or call["id"]
            for name in ("name", "arguments"):
                call["function"][name] += (piece.get("function") or {}).get(name) or ""

    def document(self, usage: Usage) -> dict[str, Any]:
        """See `Whole.document`. A message that says nothing and calls nothing is empty, not absent."""
        for choice in self._choices.values():
            message = choice["message"]
            if message["content"] is None and not message.get("tool_calls"):
                message["content"] = ""
        return super().document(usage)


class Response:
    """/v1/responses: the last event holds the whole answer."""

    def __init__(self) -> None:
        self._response: dict[str, Any] = {}

    def take(self, event: dict[str, Any]) -> None:
        """See `Whole.take`."""
        if event.get("type") == "response.completed":
            self._response = event["response"]

    def document(self, _usage: Usage) -> dict[str, Any]:
        """See `Whole.document`."""
        return {"completed_at": self._response.get("created_at")} | self._response


class Message:
    """/v1/messages: a message with its blocks of text, thought and tool use."""

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._json: dict[int, str] = {}

    def take(self, event: dict[str, Any]) -> None:
        """See `Whole.take`."""
        match event.get("type"):
            case "message_start":
                self._message = event["message"]
            case "content_block_start":
                self._blocks[event["index"]] = dict(event["content_block"])
            case "content_block_delta":
                self._add(event["index"], event["delta"])
            case "message_delta":
                self._message |= event["delta"]

    def document(self, usage: Usage) -> dict[str, Any]:
        """See `Whole.document`."""
        for index, text in self._json.items():
            self._blocks[index]["input"] = _input(text)
        counts = {
            "cache_read_input_tokens": usage.cached,
            "input_tokens": usage.prompt - usage.cached,
            "output_tokens": usage.completion,
        }
        return self._message | {"content": [self._blocks[index] for index in sorted(self._blocks)], "usage": counts}

    def _add(self, index: int, delta: dict[str, Any]) -> None:
        if delta["type"] == "input_json_delta":
            self._json[index] = self._json.get(index, "") + delta["partial_json"]
            return
        name = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}.get(delta["type"])
        if name is not None:
            block = self._blocks[index]
            block[name] = block.get(name, "") + delta[name]


WHOLES: dict[Kind, type[Whole]] = {
    Kind.CHAT: ChatCompletion,
    Kind.COMPLETION: Completion,
    Kind.RESPONSE: Response,
    Kind.MESSAGE: Message,
}


def _input(text: str) -> Any:
    """A tool's input; an answer cut short by its limit may end inside it."""
    try:
        return msgspec.json.decode(text or "{}")
    except msgspec.MsgspecError:
        return {}
