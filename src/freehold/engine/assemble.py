"""A whole chat completion out of the events of a stream.

Several choices in one answer are asked of the engine as a stream, because in its whole answers it counts
the tokens of the first choice alone, and in its streams those of each.
"""

from __future__ import annotations

from typing import Any

import msgspec

from freehold.types import Usage


class ChatCompletion:
    """Takes in the events of one chat stream, and gives the completion that they make."""

    def __init__(self) -> None:
        self._base: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._tail = b""

    def read(self, piece: bytes) -> None:
        """Take in the next bytes; an event may be cut anywhere."""
        lines = (self._tail + piece).split(b"\n")
        self._tail = lines.pop()
        for line in lines:
            if line.startswith(b"data: {"):
                self._take(msgspec.json.decode(line[6:]))

    def whole(self, usage: Usage) -> bytes:
        """The completion, with the usage as it was counted."""
        counts = {
            "completion_tokens": usage.completion,
            "prompt_tokens": usage.prompt,
            "total_tokens": usage.prompt + usage.completion,
            "prompt_tokens_details": {"cached_tokens": usage.cached},
        }
        choices = [self._choices[index] for index in sorted(self._choices)]
        return msgspec.json.encode(self._base | {"object": "chat.completion", "choices": choices, "usage": counts})

    def _take(self, event: dict[str, Any]) -> None:
        for name in ("id", "created", "model", "system_fingerprint"):
            if name in event:
                self._base.setdefault(name, event[name])
        for part in event.get("choices", ()):
            new = {"index": part["index"], "finish_reason": None, "message": {"role": "assistant", "content": None}}
            choice = self._choices.setdefault(part["index"], new)
            choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]
            if part.get("logprobs"):
                kept = choice.setdefault("logprobs", {"content": []})
                kept["content"] += part["logprobs"].get("content") or []
            _add(choice["message"], part.get("delta") or {})


def _add(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name in ("content", "reasoning_content"):
        if delta.get(name):
            message[name] = (message.get(name) or "") + delta[name]
    for piece in delta.get("tool_calls") or ():
        calls = message.setdefault("tool_calls", [])
        while len(calls) <= piece["index"]:
            calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        call = calls[piece["index"]]
        call["id"] = piece.get("id") or call["id"]
        for name in ("name", "arguments"):
            call["function"][name] += (piece.get("function") or {}).get(name) or ""
