"""Tools in the engine's dialect: what it would pass over in silence is said in a way that it keeps.

The engine holds an answer to a tool call from the moment that the call begins, but lets a model talk for as
long as it likes before. Where a call is required, the answer is therefore begun with the call's opening
words (`Template.call_prefix`), which it does not echo when a call follows.
"""

from __future__ import annotations

from typing import Any

from freehold.engine.template import Template
from freehold.errors import BadRequest, Unsupported
from freehold.types import Kind

_CALL_END = "</tool_call>"


def prepare(kind: Kind, body: dict[str, Any], template: Template) -> dict[str, Any]:
    """The body with its tools and tool choice as the engine wants them.

    Raises:
        Unsupported: the model's template has no place for tools, or they cannot be had together with a form.
        BadRequest: the named tool is not among the tools.
    """
    if not body.get("tools"):
        body.pop("parallel_tool_calls", None)
        return body
    if not template.tools:
        raise Unsupported("This model's template has no place for tools.", hint="Take another model.", param="tools")
    if body.get("response_format", {}).get("type", "text") != "text":
        raise Unsupported(
            "Tools and a form for the answer cannot be had together: the engine would keep to the form and never call.",
            hint="Send one of them.",
            param="tools",
        )
    body["tools"] = [_without_nulls(tool) for tool in body["tools"]]
    required = _choose_anthropic(body) if kind in (Kind.MESSAGE, Kind.COUNT) else _choose_openai(body, kind)
    if body.pop("parallel_tool_calls", True) is False:
        _only_one(body, template)
    if required and template.call_prefix and kind is not Kind.COUNT:
        _begin(kind, body, template.call_prefix)
    return body


def _choose_openai(body: dict[str, Any], kind: Kind) -> bool:
    """The engine knows none, auto and required; a named function is 'required' with no other on offer."""
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        nested = kind is Kind.CHAT
        name = (choice["function"] if nested else choice)["name"]
        body["tools"] = _named(body["tools"], name, nested=nested)
        body["tool_choice"] = "required"
    return body.get("tool_choice") == "required"


def _choose_anthropic(body: dict[str, Any]) -> bool:
    """The engine reads auto and any; ``tool`` offers that tool alone, ``none`` offers none."""
    choice = body.get("tool_choice") or {"type": "auto"}
    if choice["type"] == "none":
        body.pop("tools")
        body.pop("tool_choice")
    if choice["type"] == "tool":
        body["tools"] = _named(body["tools"], choice.get("name"), nested=False)
        body["tool_choice"] = {"type": "any"}
    return choice["type"] in ("any", "tool")


def _named(tools: list[dict[str, Any]], name: str | None, *, nested: bool) -> list[dict[str, Any]]:
    found = [tool for tool in tools if (tool["function"] if nested else tool).get("name") == name]
    if not found:
        raise BadRequest(f"tool_choice names {name!r}, which is not among the tools.", param="tool_choice")
    return found


def _only_one(body: dict[str, Any], template: Template) -> None:
    """The engine has no switch for it; it stops where the first call ends."""
    if not template.call_prefix:
        raise Unsupported("parallel_tool_calls = false is not done for this model.", param="parallel_tool_calls")
    stop = body.get("stop", [])
    body["stop"] = [*([stop] if isinstance(stop, str) else stop), _CALL_END]


def _begin(kind: Kind, body: dict[str, Any], prefix: str) -> None:
    if kind is Kind.RESPONSE:
        part = {"type": "output_text", "text": prefix}
        body["input"] = [*body["input"], {"type": "message", "role": "assistant", "content": [part]}]
    else:
        body["messages"] = [*body["messages"], {"role": "assistant", "content": prefix}]


def _without_nulls(tool: dict[str, Any]) -> dict[str, Any]:
    """The engine takes a null description for a fault; leaving it out means the same."""
    kept = {key: value for key, value in tool.items() if value is not None}
    if isinstance(kept.get("function"), dict):
        kept["function"] = _without_nulls(kept["function"])
    return kept
