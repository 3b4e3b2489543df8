"""OpenAI's wire format: chat completions, completions, embeddings, responses.

Source: the OpenAI API reference. The fields below ``# engine's own`` are llama.cpp's, for those who have
used it before.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from freehold.api import base
from freehold.api.base import Count, Share, Strict, Text
from freehold.errors import BadRequest, FreeholdError
from freehold.types import Kind, Request

Name = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]
Temperature = Annotated[float, Meta(ge=0, le=2)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
Token = Annotated[int, Meta(ge=0, le=1 << 31)]
Stop = Text | Annotated[list[Text], Meta(max_length=16)]


class FunctionCall(Strict):
    """A call that a model made."""

    name: str
    arguments: str


class ToolCall(Strict):
    """A call that a model made, with its id."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"
    index: int | None = None


class TextPart(Strict):
    """A part of a message."""

    text: str
    type: Literal["text"]


class Message(Strict):
    """One message of a conversation. The last fields are those of an answer sent back as it came."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | UnsetType | None = UNSET
    tool_calls: list[ToolCall] | UnsetType | None = UNSET
    tool_call_id: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType | None = UNSET
    refusal: UnsetType | None = UNSET
    annotations: list[Any] | UnsetType | None = UNSET
    audio: UnsetType | None = UNSET
    function_call: UnsetType | None = UNSET


class Function(Strict):
    """A function that may be called."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Strict):
    """A tool; functions are the only kind here."""

    type: Literal["function"]
    function: Function


class NamedFunction(Strict):
    """A function, by name."""

    name: Name


class ToolChoice(Strict):
    """The one function that must be called."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchema(Strict):
    """A schema that the answer must fit."""

    schema: dict[str, Any]
    name: str = "answer"
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Strict):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Strict):
    """Options of a stream."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class _Sampling(Strict, kw_only=True):
    """How tokens are drawn; common to chat and completions."""

    model: Text
    temperature: Temperature | UnsetType = UNSET
    top_p: Share | UnsetType = UNSET
    max_tokens: Count | UnsetType = UNSET
    stop: Stop | UnsetType = UNSET
    seed: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)] | UnsetType = UNSET
    presence_penalty: Penalty | UnsetType = UNSET
    frequency_penalty: Penalty | UnsetType = UNSET
    logit_bias: dict[Annotated[str, Meta(pattern=r"^[0-9]{1,9}$")], Bias] | UnsetType = UNSET
    stream: bool = False
    stream_options: StreamOptions | UnsetType = UNSET
    # engine's own
    top_k: Annotated[int, Meta(ge=0, le=1 << 20)] | UnsetType = UNSET
    min_p: Share | UnsetType = UNSET
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] | UnsetType = UNSET


class ChatCompletion(_Sampling, kw_only=True):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: Count | UnsetType = UNSET
    n: Annotated[int, Meta(ge=1, le=64)] | UnsetType = UNSET
    logprobs: bool | UnsetType = UNSET
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | UnsetType = UNSET
    tools: Annotated[list[Tool], Meta(min_length=1, max_length=128)] | UnsetType = UNSET
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    response_format: ResponseFormat | UnsetType = UNSET
    # engine's own
    chat_template_kwargs: dict[str, Any] | UnsetType = UNSET


class Completion(_Sampling, kw_only=True):
    """The body of POST /v1/completions."""

    prompt: Text | Annotated[list[Text | Token], Meta(min_length=1)]
    logprobs: Annotated[int, Meta(ge=0, le=20)] | UnsetType = UNSET


class Embedding(Strict, kw_only=True):
    """The body of POST /v1/embeddings."""

    model: Text
    input: (
        Text
        | Annotated[
            list[Text | Token | Annotated[list[Token], Meta(min_length=1)]], Meta(min_length=1, max_length=2048)
        ]
    )
    encoding_format: Literal["float", "base64"] = "float"


class ResponseTool(Strict):
    """A function that may be called, in the form of /v1/responses."""

    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseToolChoice(Strict):
    """The one function that must be called, in the form of /v1/responses."""

    type: Literal["function"]
    name: Name


class TextFormat(Strict):
    """The form of the answer, in the form of /v1/responses."""

    type: Literal["text", "json_object", "json_schema"]
    name: str = "answer"
    schema: dict[str, Any] | UnsetType = UNSET
    description: str | None = None
    strict: bool | None = None


class TextOptions(Strict):
    """Options of the answer's text."""

    format: TextFormat | UnsetType = UNSET
    verbosity: Literal["medium"] | None = None


class ItemText(Strict):
    """Text in an item; the last two are those of an answer sent back as it came."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class _Item(Strict, kw_only=True):
    """What every item may carry, sent back as it came."""

    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class MessageItem(_Item, kw_only=True):
    """A message, in the form of /v1/responses."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[ItemText]
    type: Literal["message"] | None = None
    phase: str | None = None


class CallItem(_Item, kw_only=True):
    """A call that the model made."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class OutputItem(_Item, kw_only=True):
    """What came of a call."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[ItemText]


class ReasoningItem(_Item, kw_only=True):
    """What the model thought before it answered."""

    type: Literal["reasoning"]
    summary: list[Any]
    content: list[Any] | None = None
    encrypted_content: None = None


class Response(Strict, kw_only=True):
    """The body of POST /v1/responses."""

    model: Text
    input: Text | Annotated[list[dict[str, Any]], Meta(min_length=1)]
    instructions: str | UnsetType = UNSET
    max_output_tokens: Count | UnsetType = UNSET
    temperature: Temperature | UnsetType = UNSET
    top_p: Share | UnsetType = UNSET
    tools: Annotated[list[ResponseTool], Meta(max_length=128)] | UnsetType = UNSET
    tool_choice: Literal["none", "auto", "required"] | ResponseToolChoice | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    text: TextOptions | UnsetType = UNSET
    stream: bool = False


_HARMLESS = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"})
_NEUTRAL = {"store": (False,), "service_tier": ("auto", "default")}

CHAT = base.Form(
    kind=Kind.CHAT,
    path="/v1/chat/completions",
    schema=ChatCompletion,
    summary="Answer a conversation",
    streams=True,
    harmless=_HARMLESS,
    neutral=_NEUTRAL | {"modalities": (["text"],), "verbosity": ("medium",)},
    refused={
        "audio": "models here write text.",
        "functions": "send tools, which replaced it.",
        "function_call": "send tool_choice, which replaced it.",
        "prediction": "the engine has no predicted outputs.",
        "web_search_options": "a sealed engine cannot search the web.",
        "reasoning_effort": "this model has no such setting; one whose template has it takes chat_template_kwargs.",
    },
)
COMPLETION = base.Form(
    kind=Kind.COMPLETION,
    path="/v1/completions",
    schema=Completion,
    summary="Continue a text",
    streams=True,
    harmless=_HARMLESS,
    neutral={"echo": (False,), "best_of": (1,), "n": (1,), "suffix": ("",)},
)
EMBEDDING = base.Form(
    kind=Kind.EMBEDDING,
    path="/v1/embeddings",
    schema=Embedding,
    summary="Turn text into vectors",
    harmless=_HARMLESS,
    refused={"dimensions": "the engine gives vectors in the model's own length."},
)
RESPONSE = base.Form(
    kind=Kind.RESPONSE,
    path="/v1/responses",
    schema=Response,
    summary="Answer, in the form of the Responses API",
    streams=True,
    harmless=_HARMLESS,
    neutral=_NEUTRAL | {"truncation": ("disabled",), "background": (False,), "include": ([],), "top_logprobs": (0,)},
    refused={
        "previous_response_id": "nothing of a call is kept; send the conversation in input.",
        "conversation": "nothing of a call is kept; send the conversation in input.",
        "prompt": "no prompts are kept here.",
        "reasoning": "this model has no such setting.",
        "max_tool_calls": "tools are called by your application.",
        "context_management": "nothing of a call is kept.",
        "stream_options": "a stream here always ends with its usage.",
    },
)

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_ITEM_SCHEMAS = {"function_call": CallItem, "function_call_output": OutputItem, "reasoning": ReasoningItem}
_PARTS = frozenset({"text"})
_ITEM_PARTS = frozenset({"input_text", "output_text", "refusal", "text"})
_ITEMS = frozenset({"message", "function_call", "function_call_output", "reasoning"})


class OpenAI:
    """The surface."""

    forms = (CHAT, COMPLETION, EMBEDDING, RESPONSE)

    def read(
        self, form: base.Form, headers: Mapping[str, str], body: bytes, upstreams: Container[str] = (),
        aim: base.Aiming = base.as_named,
    ) -> Request:  # fmt: skip
        """See `base.Surface.read`."""
        document = base.read_json(headers, body)
        to = aim(document)
        if request := base.passed_on(form, document, body, upstreams, to):
            return request
        if form is CHAT:
            _check_parts(document.get("messages"))
        if form is RESPONSE:
            _check_items(document.get("input"))
        kept = base.check(form, document)
        _check_together(form, kept)
        return base.request(form, to, kept, stream=bool(kept.get("stream")))

    def error(self, error: FreeholdError, request_id: str) -> dict[str, Any]:
        """See `base.Surface.error`."""
        kind = "server_error" if error.status >= 500 else _TYPES.get(error.status, "invalid_request_error")
        return {
            "error": {"message": error.sentence(), "type": kind, "param": error.param, "code": error.code},
            "request_id": request_id,
        }

    def stream_error(self, form: base.Form, error: FreeholdError, request_id: str) -> bytes:
        """See `base.Surface.stream_error`."""
        if form is RESPONSE:
            said = {"type": "error", "code": error.code, "message": error.sentence(), "param": error.param}
            return base.event(said | {"request_id": request_id}, "error")
        return base.event(self.error(error, request_id))


def _check_parts(messages: Any) -> None:
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            base.text_only(message.get("content"), _PARTS, "messages")


def _check_items(items: Any) -> None:
    base.text_only(items, _ITEMS, "input")
    for position, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict):
            base.text_only(item.get("content"), _ITEM_PARTS, "input")
            base.convert(item, _ITEM_SCHEMAS.get(item.get("type"), MessageItem), f"input[{position}]")


def _check_together(form: base.Form, kept: dict[str, Any]) -> None:
    """What no single field can say."""
    if "stream_options" in kept and not kept.get("stream"):
        raise BadRequest(
            "stream_options is for streams.", hint="Set stream to true, or leave it out.", param="stream_options"
        )
    if form is CHAT:
        _check_chat(kept)
        if "top_logprobs" in kept and not kept.get("logprobs"):
            raise BadRequest("top_logprobs needs logprobs.", hint="Set logprobs to true.", param="top_logprobs")
        if (kept.get("response_format") or {}).get("type") == "json_schema" and "json_schema" not in kept[
            "response_format"
        ]:
            raise BadRequest("response_format has no json_schema.", hint="Add it.", param="response_format")
    if form is RESPONSE:
        form_ = (kept.get("text") or {}).get("format") or {}
        if form_.get("type") == "json_schema" and "schema" not in form_:
            raise BadRequest("text.format has no schema.", hint="Add it.", param="text.format")
    if form in (CHAT, RESPONSE) and kept.get("tool_choice") not in (None, "none", "auto") and not kept.get("tools"):
        raise BadRequest("tool_choice needs tools.", hint="Send tools, or leave it out.", param="tool_choice")
    if form is COMPLETION and isinstance(kept["prompt"], list):
        _check_prompts(kept)


def _check_chat(kept: dict[str, Any]) -> None:
    """Fields that only some messages can carry, and two that say the same."""
    if {"max_tokens", "max_completion_tokens"} <= kept.keys():
        raise BadRequest("max_tokens and max_completion_tokens say the same.", hint="Send one.", param="max_tokens")
    for position, message in enumerate(kept["messages"]):
        role, where = message["role"], f"messages[{position}]"
        for field, owner in (("tool_calls", "assistant"), ("reasoning_content", "assistant"), ("tool_call_id", "tool")):
            if message.get(field) is not None and role != owner:
                raise BadRequest(f"{where}: {field} is for the role {owner}, not {role}.", hint="", param=where)
        if role == "tool" and not message.get("tool_call_id"):
            raise BadRequest(f"{where}: tool_call_id is missing.", hint="Name the call that it answers.", param=where)
    names = [tool["function"]["name"] for tool in kept.get("tools", ())]
    if len(set(names)) < len(names):
        raise BadRequest("Two tools have the same name.", hint="Give each its own.", param="tools")


def _check_prompts(kept: dict[str, Any]) -> None:
    """One prompt a call: the engine answers several but counts the first alone."""
    prompts = kept["prompt"]
    if all(isinstance(prompt, int) for prompt in prompts):
        return
    if len(prompts) > 1:
        raise BadRequest(f"There are {len(prompts)} prompts.", hint="Send one call for each.", param="prompt")
    kept["prompt"] = prompts[0]
