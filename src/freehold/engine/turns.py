"""A conversation of whichever endpoint as a chat, as the engine itself makes it one before it fills the template.

The engine shows a filled template for chats alone (``/apply-template``), and lays an adapter over chats alone. So
whoever wants to know what a model will read has to turn the other endpoints' bodies into a chat's.
`Probe.prompt_tokens` holds each result against the engine's own count.

Source: llama.cpp's ``server_chat_convert_anthropic_to_oai`` and ``server_chat_convert_responses_to_chatcmpl``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from freehold.errors import BadRequest
from freehold.types import Kind

_SAME = ("model", "temperature", "top_p", "top_k", "seed", "stream", "timings_per_token", "response_format", "stop")
_RENAMED = {"max_tokens": "max_tokens", "max_output_tokens": "max_tokens", "stop_sequences": "stop"}
_CHOICES = {"auto": "auto", "any": "required", "tool": "required"}


def as_chat(kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
    """A body in the engine's dialect (see `dialect.translate`) as one of /v1/chat/completions. Raises BadRequest for
    a kind that has no conversation."""
    if kind is Kind.CHAT:
        return body
    if kind not in (Kind.MESSAGE, Kind.RESPONSE):
        raise BadRequest(f"A call of {kind.value} is no conversation.")
    chat = {name: body[name] for name in _SAME if name in body}
    chat |= {ours: body[theirs] for theirs, ours in _RENAMED.items() if theirs in body}
    turned = _of_messages(body) if kind is Kind.MESSAGE else _of_response(body)
    return chat | {name: value for name, value in turned.items() if value}


def _of_messages(body: dict[str, Any]) -> dict[str, Any]:
    system = body.get("system")
    first = [] if system is None else [{"role": "system", "content": _joined(system)}]
    return {
        "messages": [*first, *(turn for message in body["messages"] for turn in _message(message))],
        "tools": [_function(tool, tool["input_schema"]) for tool in body.get("tools", ())],
        "tool_choice": _CHOICES.get((body.get("tool_choice") or {}).get("type", "")),
    }


def _message(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One message of /v1/messages; each result of a tool in it becomes a message of its own."""
    content = message.get("content")
    if not isinstance(content, list):
        yield message
        return
    text = [{"type": "text", "text": block["text"]} for block in content if block["type"] == "text"]
    calls = [
        _call(block["id"], block["name"], msgspec.json.encode(block["input"]).decode())
        for block in content
        if block["type"] == "tool_use"
    ]
    thought = "".join(block["thinking"] for block in content if block["type"] == "thinking")
    if text or calls or thought:
        turn = {"role": message["role"], "content": text or "", "tool_calls": calls, "reasoning_content": thought}
        yield {name: value for name, value in turn.items() if value or name in ("role", "content")}
    for block in content:
        if block["type"] == "tool_result":
            said = _joined(block.get("content") or "")
            yield {"role": "tool", "tool_call_id": block["tool_use_id"], "content": said}


def _of_response(body: dict[str, Any]) -> dict[str, Any]:
    turns: list[dict[str, Any]] = []
    if "instructions" in body:
        turns.append({"role": "system", "content": body["instructions"]})
    for item in body["input"]:
        _item(item, turns)
    tools = [
        {"strict": True} | {name: value for name, value in tool.items() if name != "type"} for tool in _tools(body)
    ]
    return {
        "messages": turns,
        "tools": [{"type": "function", "function": tool} for tool in tools],
        "tool_choice": body.get("tool_choice"),
    }


def _tools(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [tool for tool in body.get("tools", ()) if tool.get("type") == "function"]


def _item(item: dict[str, Any], turns: list[dict[str, Any]]) -> None:
    """One item of /v1/responses. A call of a tool, and a thought, belong to the assistant's message before them."""
    kind = item.get("type", "message")
    if kind == "function_call":
        call = _call(item["call_id"], item["name"], item["arguments"])
        _last(turns).setdefault("tool_calls", []).append(call)
    elif kind == "function_call_output":
        turns.append({"role": "tool", "tool_call_id": item["call_id"], "content": _parts(item["output"])})
    elif kind == "reasoning":
        _last(turns, content=[])["reasoning_content"] = item["content"][0]["text"]
    else:
        content = item["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else _parts(content)
        turns.append({"role": item["role"], "content": parts})


def _last(turns: list[dict[str, Any]], **new: Any) -> dict[str, Any]:
    if not turns or turns[-1]["role"] != "assistant":
        turns.append({"role": "assistant"} | new)
    return turns[-1]


def _parts(content: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    return [{"type": "text", "text": part["text"]} for part in content]


def _call(name: str, function: str, arguments: str) -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": function, "arguments": arguments}}


def _function(tool: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
    said = {"name": tool["name"], "description": tool.get("description") or "", "parameters": parameters}
    return {"type": "function", "function": said}


def _joined(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "".join(block["text"] for block in content)
