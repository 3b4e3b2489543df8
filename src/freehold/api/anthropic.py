"""Anthropic's wire format: messages and count_tokens.

Source: the Anthropic API reference.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from freehold.api import base
from freehold.api.base import Count, Share, Strict, Text
from freehold.errors import BadRequest, FreeholdError, Unsupported
from freehold.types import Kind, Request


class TextBlock(Strict, tag="text", tag_field="type"):
    """Text. The engine keeps what it can of every prompt, so a caching hint changes nothing."""

    text: str
    cache_control: dict[str, Any] | None = None
    citations: None = None


class ToolUseBlock(Strict, tag="tool_use", tag_field="type"):
    """A call that the model made."""

    id: str
    name: str
    input: dict[str, Any]
    cache_control: dict[str, Any] | None = None
    caller: dict[str, Any] | None = None


class ToolResultBlock(Strict, tag="tool_result", tag_field="type"):
    """What came of a call."""

    tool_use_id: str
    content: str | list[TextBlock] = ""
    is_error: bool = False
    cache_control: dict[str, Any] | None = None


class ThinkingBlock(Strict, tag="thinking", tag_field="type"):
    """What the model thought before it answered."""

    thinking: str
    signature: str = ""


class Message(Strict):
    """One message of a conversation."""

    role: Literal["user", "assistant"]
    content: str | list[TextBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock]


class Tool(Strict):
    """A tool that the application runs."""

    name: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None
    cache_control: dict[str, Any] | None = None


class ToolChoice(Strict):
    """Whether a tool must be called, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | UnsetType = UNSET
    disable_parallel_tool_use: Literal[False] | UnsetType = UNSET


class CountTokens(Strict, kw_only=True):
    """The body of POST /v1/messages/count_tokens."""

    model: Text
    messages: Annotated[list[Message], Meta(min_length=1)]
    system: str | list[TextBlock] | UnsetType = UNSET
    tools: Annotated[list[Tool], Meta(max_length=128)] | UnsetType = UNSET
    tool_choice: ToolChoice | UnsetType = UNSET


class Messages(CountTokens, kw_only=True):
    """The body of POST /v1/messages."""

    max_tokens: Count
    stop_sequences: Annotated[list[Text], Meta(max_length=16)] | UnsetType = UNSET
    temperature: Share | UnsetType = UNSET
    top_p: Share | UnsetType = UNSET
    top_k: Annotated[int, Meta(ge=0, le=1 << 20)] | UnsetType = UNSET
    stream: bool = False


_REFUSED = {
    "output_config": "the engine cannot hold this endpoint to a schema; force a tool with tool_choice, or use "
    "/v1/chat/completions with response_format.",
    "output_format": "the engine cannot hold this endpoint to a schema; force a tool with tool_choice, or use "
    "/v1/chat/completions with response_format.",
    "container": "no code runs here.",
    "mcp_servers": "a sealed engine cannot reach a server.",
    "context_management": "nothing of a call is kept.",
}
_NEUTRAL = {"thinking": ({"type": "disabled"},), "service_tier": ("auto", "standard_only")}

MESSAGES = base.Form(
    kind=Kind.MESSAGE,
    path="/v1/messages",
    schema=Messages,
    summary="Answer a conversation, in Anthropic's form",
    streams=True,
    harmless=frozenset({"metadata", "cache_control"}),
    neutral=_NEUTRAL,
    refused=_REFUSED,
)
COUNT_TOKENS = base.Form(
    kind=Kind.COUNT,
    path="/v1/messages/count_tokens",
    schema=CountTokens,
    summary="Count the tokens of a conversation",
    harmless=frozenset({"cache_control"}),
    neutral={"thinking": ({"type": "disabled"},)},
    refused=_REFUSED,
)

_TYPES = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error", 408: "timeout_error",
}  # fmt: skip
_BLOCKS = frozenset({"text", "tool_use", "tool_result", "thinking"})


class Anthropic:
    """The surface."""

    forms = (MESSAGES, COUNT_TOKENS)

    def read(
        self, form: base.Form, headers: Mapping[str, str], body: bytes, upstreams: Container[str] = (),
        aim: base.Aiming = base.as_named,
    ) -> Request:  # fmt: skip
        """See `base.Surface.read`."""
        document = base.read_json(headers, body)
        to = aim(document)
        if request := base.passed_on(form, document, body, upstreams, to):
            return request
        _check_blocks(document.get("messages"))
        _check_tools(document.get("tools"))
        kept = base.check(form, document)
        choice = kept.get("tool_choice") or {}
        if "name" in choice and choice["type"] != "tool":
            raise BadRequest("tool_choice has a name but its type is not 'tool'.", hint="", param="tool_choice")
        if choice.get("type") in ("any", "tool") and not kept.get("tools"):
            raise BadRequest("tool_choice needs tools.", hint="Send tools, or leave it out.", param="tool_choice")
        return base.request(form, to, kept, stream=bool(kept.get("stream")))

    def error(self, error: FreeholdError, request_id: str) -> dict[str, Any]:
        """See `base.Surface.error`."""
        kind = _TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": error.sentence()}, "request_id": request_id}

    def stream_error(self, form: base.Form, error: FreeholdError, request_id: str) -> bytes:
        """See `base.Surface.stream_error`."""
        return base.event(self.error(error, request_id), "error")


def _check_blocks(messages: Any) -> None:
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            continue
        base.text_only(message.get("content"), _BLOCKS, "messages")
        for block in message["content"] if isinstance(message.get("content"), list) else ():
            if isinstance(block, dict):
                base.text_only(block.get("content"), frozenset({"text"}), "messages")


def _check_tools(tools: Any) -> None:
    for tool in tools if isinstance(tools, list) else ():
        kind = tool.get("type") if isinstance(tool, dict) else None
        if isinstance(kind, str) and kind != "custom":
            raise Unsupported(
                f"The tool type {kind!r} is not done here.",
                hint="Send tools that your application runs (name, description, input_schema).",
                param="tools",
            )
