"""Which conversation a call belongs to, as far as its request tells, and where that conversation stands in a draw."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from freehold.types import Kind

ROOM = 1 << 63  # places in a draw; SQL's integers hold each of them
_NAMED = (("user",), ("metadata", "conversation_id"), ("safety_identifier",), ("prompt_cache_key",))
_MESSAGE = (("metadata", "user_id"),)  # what Anthropic's format has for it


def of(caller: str, kind: Kind, body: Mapping[str, Any]) -> bytes:
    """What a call's conversation is known by: the first name that the application gives for it (OpenAI's ``user``,
    ``metadata.conversation_id``, ``safety_identifier`` or ``prompt_cache_key``, Anthropic's ``metadata.user_id``); or
    else the caller's id and how the conversation began, which its later turns repeat."""
    for path in _MESSAGE if kind is Kind.MESSAGE else _NAMED:
        named: Any = body
        for step in path:
            named = named.get(step) if isinstance(named, Mapping) else None
        if isinstance(named, str | int) and named != "":
            return msgspec.json.encode(["named", str(named)])
    return msgspec.json.encode(["begun", caller, opening(body)])


def place(salt: str, identity: bytes) -> int:
    """Where a conversation stands in the draw with this salt: one of `ROOM` places, each as likely as the other, and
    always the same. Whoever is among the first tenth of the places is among the first quarter too."""
    digest = hashlib.blake2b(identity, key=salt.encode(), digest_size=8).digest()
    return int.from_bytes(digest) % ROOM


def opening(body: Mapping[str, Any]) -> Any:
    """How a conversation began: its instructions, and its turns up to the first of the user; or all that was asked.

    Of a turn its text alone: later on the same turn may be written in another way, and lack its marks for a cache.
    """
    turns = body.get("messages") or body.get("input") or body.get("prompt")
    if isinstance(turns, str):
        turns = [{"role": "user", "content": turns}]
    turns = [turn for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    users = (place for place, turn in enumerate(turns) if turn.get("role") == "user")
    begun = turns[: next(users, 0) + 1]
    said_first = [[turn.get("role"), _plain(turn.get("content"))] for turn in begun]
    return [_plain(body.get("system") or body.get("instructions")), *said_first] if begun else body


def _plain(content: Any) -> str:
    """The text of a turn, whichever way it is written."""
    if isinstance(content, list):
        return "".join(text for part in content if isinstance(text := _text(part), str))
    return content if isinstance(content, str) else ""


def _text(part: Any) -> Any:
    return part.get("text") if isinstance(part, dict) else part
