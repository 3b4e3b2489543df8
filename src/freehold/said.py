"""What a model said, read out of whichever endpoint's document it stands in: text, and calls of tools.

What a model thought before it answered is no part of what it said; of several choices the first is taken, and
`several` says that there were more. Sources of the shapes: OpenAI's API reference (chat completions, completions,
responses) and Anthropic's (messages).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from freehold.names import shown
from freehold.types import Answer, Kind, ToolCall


class Unfit(ValueError):
    """A document is not what it would have to be. ``str(error)`` goes on from "this line ..." and holds no text of the
    call."""


_MESSAGE = ("tool_calls", "function_call", "refusal")


def answer(kind: Kind, document: Any) -> Answer:
    """The answer in a text, a message of the assistant, or the whole document of an endpoint. Which endpoint is seen
    from the document; ``kind`` decides where it could be two. Raises Unfit."""
    if isinstance(document, str):
        return Answer(document)
    if isinstance(document, list):
        return _items(document) if kind is Kind.RESPONSE else _blocks(document)
    if not isinstance(document, dict):
        raise Unfit("has an answer that is neither a text nor a message")
    if document.get("error"):
        raise Unfit(f"records a call that failed: {problem(document['error'])}")
    for mark, reader in _READERS:
        if isinstance(document.get(mark), list):
            return reader(document)
    if "content" in document or any(document.get(mark) for mark in _MESSAGE):
        return _message(document)
    raise Unfit("has an answer in a form that is not known here")


def expected(kind: Kind, value: Any) -> Answer | None:
    """The right answer: a text, a message or document as `answer` reads it, or any other JSON, whose text it is then.
    None for null. Raises Unfit."""
    if value is None:
        return None
    if isinstance(value, str):
        return Answer(value)
    if isinstance(value, dict) and is_said(value):
        return answer(kind, value)
    return Answer(compact(value))


def several(document: Any) -> bool:
    """Were there more choices than the one that is taken?"""
    choices = document.get("choices") if isinstance(document, dict) else None
    return isinstance(choices, list) and len(choices) > 1


def is_said(value: dict[str, Any]) -> bool:
    """Is an object a message of the assistant or an endpoint's document, and no JSON of an application's own?"""
    whole = value.get("object") in ("chat.completion", "text_completion", "response") or value.get("type") == "message"
    spoken = value.get("role") == "assistant" or isinstance(value.get("tool_calls"), list)
    return whole or spoken or isinstance(value.get("choices"), list)


def compact(value: Any) -> str:
    """A JSON value as text."""
    return msgspec.json.encode(value).decode()


def problem(error: Any) -> str:
    """What an endpoint said went wrong, in short."""
    said = error.get("message") or error.get("code") or error.get("type") if isinstance(error, dict) else error
    return shown(str(said))[:120] if said else "it does not say why"


def message(said: Answer) -> dict[str, Any]:
    """An answer as a message of the assistant in a chat."""
    calls = [
        {"id": f"call_{place}", "type": "function", "function": msgspec.structs.asdict(call)}
        for place, call in enumerate(said.tools)
    ]
    return {"role": "assistant", "content": said.text} | ({"tool_calls": calls} if calls else {})


def _choices(document: dict[str, Any]) -> Answer:
    """Of /v1/chat/completions and /v1/completions."""
    first = document["choices"][0] if document["choices"] else None
    if not isinstance(first, dict):
        raise Unfit("has an answer without a choice")
    if isinstance(first.get("message"), dict):
        return _message(first["message"])
    return Answer(_text(first.get("text")))


def _message(message: dict[str, Any]) -> Answer:
    """A message of a chat, or of /v1/messages."""
    if message.get("role", "assistant") not in ("assistant", "model", "ai"):
        raise Unfit(f"has an answer of the role {shown(str(message['role']))[:40]!r}")
    content = message.get("content")
    said = _blocks(content) if isinstance(content, list) else Answer(_text(content))
    called = message.get("tool_calls") or []
    if isinstance(message.get("function_call"), dict):  # as it was before there were several
        called = [*called, {"function": message["function_call"]}]
    if not isinstance(called, list):
        raise Unfit("has tool calls that are no list")
    tools = tuple(_call(one.get("function") if isinstance(one, dict) else None) for one in called)
    return Answer(said.text or _text(message.get("refusal")), (*said.tools, *tools))


def _blocks(blocks: list[Any]) -> Answer:
    """The content of a message in parts."""
    text, tools = [], []
    for block in blocks:
        kind = block.get("type") if isinstance(block, dict) else None
        if isinstance(block, str):
            text.append(block)
        elif kind in ("text", "output_text"):
            text.append(_text(block.get("text")))
        elif kind == "refusal":
            text.append(_text(block.get("refusal")))
        elif kind == "tool_use":
            tools.append(_call({"name": block.get("name"), "arguments": block.get("input")}))
        elif kind not in ("thinking", "redacted_thinking", "reasoning"):
            raise Unfit(f"has an answer with a part of the type {shown(str(kind))[:40]!r}")
    return Answer("".join(text), tuple(tools))


def _response(document: dict[str, Any]) -> Answer:
    """Of /v1/responses."""
    if document.get("status") in ("failed", "cancelled"):
        raise Unfit("records a call that failed or was cancelled")
    return _items(document["output"])


def _items(items: list[Any]) -> Answer:
    text, tools = [], []
    for item in items:
        kind = item.get("type", "message") if isinstance(item, dict) else None
        if kind == "message":
            said = _message(item)
            text.append(said.text)
            tools += said.tools
        elif kind == "function_call":
            tools.append(_call(item))
        elif kind != "reasoning":
            raise Unfit(f"has an answer with an item of the type {shown(str(kind))[:40]!r}")
    return Answer("".join(text), tuple(tools))


def _call(function: Any) -> ToolCall:
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Unfit("has a tool call without a function's name")
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = compact({} if arguments is None else arguments)
    return ToolCall(function["name"], arguments)


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    raise Unfit("has an answer whose content is neither text nor parts")


_READERS: tuple[tuple[str, Callable[[dict[str, Any]], Answer]], ...] = (("choices", _choices), ("output", _response))
