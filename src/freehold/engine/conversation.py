"""Conversations in the engine's dialect: the small things that vendors allow and the engine stumbles over."""

from __future__ import annotations

from typing import Any

import msgspec

from freehold.errors import BadRequest
from freehold.types import Kind, Request


def messages(sent: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages of a chat or of /v1/messages, as the engine reads them.

    Raises:
        BadRequest: a call's arguments are not JSON, or the last message is the model's own and empty.
    """
    last = sent[-1]
    if last.get("role") == "assistant" and not last.get("content"):
        raise BadRequest("The last message is the assistant's, and empty.", hint="Leave it out.", param="messages")
    return [_message(message) for message in sent]


def items(sent: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The input of /v1/responses as a list of items that each say what they are."""
    if isinstance(sent, str):
        return [{"role": "user", "content": sent}]
    return [_item(item) for item in sent]


def prefill(request: Request) -> str:
    """The beginning of the answer that the client put into the model's mouth, as its last message."""
    if request.kind not in (Kind.CHAT, Kind.MESSAGE):
        return ""
    last = request.body["messages"][-1]
    if last.get("role") != "assistant":
        return ""
    content = last.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if part.get("type") == "text")


def without_echo(answer: bytes, begun: str) -> bytes:
    """A whole answer without the client's own beginning, which the engine repeats (in a stream it does not)."""
    document = msgspec.json.decode(answer)
    for choice in document.get("choices", ()):
        message = choice["message"]
        message["content"] = (message.get("content") or "").removeprefix(begun)
    for block in document.get("content", ()):
        if block.get("type") == "text":
            block["text"] = block["text"].removeprefix(begun)
            break
    return msgspec.json.encode(document)


def _message(message: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in message.items() if value is not None or key == "content"}
    kept.setdefault("content", None if kept.get("tool_calls") else "")
    if calls := kept.get("tool_calls"):
        kept["tool_calls"] = [
            call | {"type": "function", "function": call["function"] | {"arguments": _arguments(call["function"])}}
            for call in calls
        ]
    return kept


def _item(item: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in item.items() if value is not None}
    if kept.get("type") == "function_call":
        kept["arguments"] = _arguments(kept)
    elif kept.get("role") == "assistant":
        kept["type"] = "message"
    return kept


def _arguments(call: dict[str, Any]) -> str:
    """A call's arguments, which the engine reads as JSON; none at all are an empty object."""
    text = call.get("arguments") or "{}"
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, TypeError):
        raise BadRequest(
            f"The arguments of the call to {call.get('name')!r} are not JSON.",
            hint="Send them as JSON.",
        ) from None
    return text
