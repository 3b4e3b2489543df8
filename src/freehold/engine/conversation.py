"""Conversations in the engine's dialect: the small things that vendors allow and the engine stumbles over."""

from __future__ import annotations

from typing import Any

import msgspec

from freehold.errors import BadRequest


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
