"""The event that a stream begins with, for when the engine leaves it out.

Where the first token of an answer is only part of a character (an emoji, a script beyond Latin), the engine
sends neither Anthropic's ``message_start`` nor the first chunk of a chat with its role. Clients wait for the
one and take the speaker from the other, so the missing event is put in front; the engine's own bytes follow
untouched.
"""

from __future__ import annotations

from typing import Any

import msgspec

from freehold.types import Kind, Request


def is_missing(request: Request, first: bytes) -> bool:
    """Does a stream that begins with these bytes lack its opening event?"""
    if request.kind is Kind.MESSAGE:
        return first.startswith((b"event: content_block", b"event: message_delta"))
    if request.kind is Kind.CHAT and request.body.get("n", 1) == 1:
        choices = _event(first).get("choices")
        return bool(choices) and "role" not in choices[0].get("delta", {"role": ""})
    return False


def event(request: Request, first: bytes, prompt: int) -> bytes:
    """The opening event. ``prompt`` is the number of tokens in the prompt."""
    if request.kind is Kind.MESSAGE:
        usage = {"input_tokens": prompt, "cache_read_input_tokens": 0, "output_tokens": 0}
        message = {"id": "chatcmpl-opening", "type": "message", "role": "assistant", "content": [],
                   "model": request.model, "stop_reason": None, "stop_sequence": None, "usage": usage}  # fmt: skip
        return b"event: message_start\ndata: " + _json({"type": "message_start", "message": message}) + b"\n\n"
    kept = {name: value for name, value in _event(first).items() if name not in ("choices", "timings", "usage")}
    choice = {"finish_reason": None, "index": 0, "delta": {"role": "assistant", "content": None}}
    return b"data: " + _json({"choices": [choice]} | kept) + b"\n\n"


def _event(first: bytes) -> dict[str, Any]:
    line = first.partition(b"\n")[0]
    try:
        found = msgspec.json.decode(line.removeprefix(b"data: "))
    except msgspec.MsgspecError:
        return {}
    return found if isinstance(found, dict) else {}


def _json(document: dict[str, Any]) -> bytes:
    return msgspec.json.encode(document)
