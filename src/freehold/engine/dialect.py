"""A request as llama.cpp's server wants it, and its errors as ours.

What the engine would drop without a word is either translated into something that it keeps, or refused.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from freehold.engine import assemble, conversation, schema, tooling
from freehold.engine.template import Template
from freehold.errors import BadRequest, ContextExceeded, EngineFailed, Unsupported
from freehold.types import Kind, Request

PATHS = {
    Kind.CHAT: "/v1/chat/completions",
    Kind.COMPLETION: "/v1/completions",
    Kind.EMBEDDING: "/v1/embeddings",
    Kind.RESPONSE: "/v1/responses",
    Kind.MESSAGE: "/v1/messages",
    Kind.COUNT: "/v1/messages/count_tokens",
}
_SEEDS = (1 << 32) - 1  # the engine's seeds have 32 bits, and take the highest to mean a random one
# The engine answers 500 to whatever throws while it reads a request; these are the request's fault all the same.
_AT_FAULT = re.compile(r"parse|must be|must contain|not supported|not found|is required|does not match|invalid", re.I)
_TOO_LARGE = re.compile(r"input \((\d+) tokens\) is too large.*batch size: (\d+)")


def is_streamed(request: Request) -> bool:
    """Is this asked of the engine as a stream, whether or not the client wants one? See `assemble`."""
    return request.kind in assemble.WHOLES


def translate(request: Request, *, slots: int, template: Template) -> dict[str, Any]:
    """The body as this engine wants it.

    Raises:
        Unsupported: it asks for what this engine cannot do and would pass over in silence.
        BadRequest: it asks for what nothing could do.
    """
    body = dict(request.body)
    for name in ("tools", "response_format", "text"):
        schema.check(body.get(name), name)
    if "seed" in body:
        body["seed"] %= _SEEDS
    if body.get("n", 1) > slots:
        raise Unsupported(f"n is {body['n']}, and this engine answers {slots} at once.", param="n")
    if is_streamed(request):
        body["stream"] = True
        if request.kind is not Kind.MESSAGE:
            body["timings_per_token"] = True  # exact counts even of a stream that is never finished
    if request.kind is Kind.RESPONSE:
        _response_format(body)
        body["input"] = conversation.items(body["input"])
    if "messages" in body:
        body["messages"] = conversation.messages(body["messages"])
    return tooling.prepare(request.kind, body, template)


def refusal(status: int, body: bytes) -> Exception:
    """The error that an engine's own error answer stands for."""
    try:
        error = msgspec.json.decode(body)["error"]
        message = str(error["message"])
    except (msgspec.MsgspecError, KeyError, TypeError):
        return EngineFailed(f"The engine answered with status {status} and no reason.")
    if error.get("type") == "exceed_context_size_error":
        return ContextExceeded(int(error["n_prompt_tokens"]), int(error["n_ctx"]))
    if found := _TOO_LARGE.search(message):
        hint = f"Split the text: at most {found[2]} tokens are embedded at once."
        return ContextExceeded(int(found[1]), int(found[2]), hint=hint)
    if 400 <= status < 500 or _AT_FAULT.search(message):
        return BadRequest(f"The engine refused the request: {message}", hint="")
    return EngineFailed(f"The engine failed: {message}", hint="")


def _response_format(body: dict[str, Any]) -> None:
    """The engine reads ``response_format`` on /v1/responses too, but not ``text.format``."""
    form = (body.pop("text", None) or {}).get("format") or {"type": "text"}
    if form["type"] == "json_schema":
        schema = {key: value for key, value in form.items() if key != "type"}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif form["type"] == "json_object":
        body["response_format"] = {"type": "json_object"}
