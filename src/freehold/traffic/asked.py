"""What was asked: the body of a request, as it is kept and put to candidates later."""

from __future__ import annotations

from typing import Any

from freehold.names import shown
from freehold.said import Unfit
from freehold.types import Kind

# What does not bear on the answer, or says who asked: without it the same question is the same request.
SET_ASIDE = frozenset(
    {
        "model", "stream", "stream_options", "user", "metadata", "store", "service_tier", "safety_identifier",
        "prompt_cache_key", "prompt_cache_retention",
    }
)  # fmt: skip
_ENDPOINTS = {
    "/v1/chat/completions": Kind.CHAT,
    "/v1/completions": Kind.COMPLETION,
    "/v1/responses": Kind.RESPONSE,
    "/v1/messages": Kind.MESSAGE,
}
_ELSEWHERE = {  # fields by which a request leans on what only its first server has
    "previous_response_id": "an earlier response",
    "conversation": "a conversation",
    "prompt": "a stored prompt",
}
_TEXT = frozenset({"text", "input_text", "output_text", "refusal", "summary_text", "reasoning_text"})
_TURNS = frozenset(
    {
        "message", "tool_use", "tool_result", "thinking", "redacted_thinking", "reasoning", "function_call",
        "function_call_output",
    }
)  # fmt: skip
_UNREAD = {
    "image_url": "an image", "input_image": "an image", "image": "an image", "input_audio": "audio", "audio": "audio",
    "video": "a video", "video_url": "a video", "file": "a file", "input_file": "a file", "document": "a file",
}  # fmt: skip


def kind(said: Any) -> Kind | None:
    """The kind of a call by the name or path of its endpoint; None where nothing is said. Raises Unfit."""
    if said is None or said == "":
        return None
    found = _ENDPOINTS.get(said, said) if isinstance(said, str) else None
    if found not in _CHECKS:
        raise Unfit(f"asks {shown(str(said))[:60]!r}, whose answers cannot be compared")
    return Kind(found)


def kind_of(body: dict[str, Any]) -> Kind:
    """The kind of a call by its request alone: /v1/messages cannot be told from chat, which it is then."""
    if "messages" not in body and "input" in body:
        return Kind.RESPONSE
    return Kind.COMPLETION if "messages" not in body and "prompt" in body else Kind.CHAT


def request(kind: Kind, body: Any) -> dict[str, Any]:
    """The request as it is kept: see `SET_ASIDE`. Raises Unfit where no candidate could be asked it."""
    if not isinstance(body, dict):
        raise Unfit("has a request that is no object")
    _CHECKS[kind](body)
    return {name: value for name, value in body.items() if name not in SET_ASIDE}


def _chat(body: dict[str, Any]) -> None:
    turns = body.get("messages")
    if not isinstance(turns, list) or not turns:
        raise Unfit("has a request without messages")
    for turn in turns:
        if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
            raise Unfit("has a message without a role")
        if turn.get("audio"):
            raise Unfit("holds audio, which no candidate here reads")
        _content(turn.get("content"))


def _completion(body: dict[str, Any]) -> None:
    prompt = body.get("prompt")
    alone = isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str)
    if not alone and not isinstance(prompt, str):
        raise Unfit("has a request whose prompt is not one text")


def _response(body: dict[str, Any]) -> None:
    for field, what in _ELSEWHERE.items():
        if body.get(field):
            raise Unfit(f"refers to {what}, which is not in the file")
    asked = body.get("input")
    if not asked or not isinstance(asked, str | list):
        raise Unfit("has a request without input")
    if isinstance(asked, list):
        _content([item if not isinstance(item, dict) else {"type": "message"} | item for item in asked])


def _content(content: Any) -> None:
    """Is there nothing in it but text and calls of tools? Raises Unfit."""
    left = [content]
    while left:
        part = left.pop()
        if part is None or isinstance(part, str):
            continue
        if isinstance(part, list):
            left += part
        elif isinstance(part, dict):
            left += _inside(part)
        else:
            raise Unfit("has a message whose content is neither text nor parts")


def _inside(part: dict[str, Any]) -> list[Any]:
    kind = part.get("type")
    if not isinstance(kind, str):
        raise Unfit("has a message with a part of no type")
    if kind in _UNREAD:
        raise Unfit(f"holds {_UNREAD[kind]}, which no candidate here reads")
    if kind not in _TEXT and kind not in _TURNS:
        raise Unfit(f"holds a part of the type {shown(kind)[:40]!r}, which no candidate here reads")
    return [part.get("content"), part.get("output")] if kind in _TURNS else []


_CHECKS = {Kind.CHAT: _chat, Kind.MESSAGE: _chat, Kind.COMPLETION: _completion, Kind.RESPONSE: _response}
