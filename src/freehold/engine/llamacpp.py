"""llama.cpp's server, through xllamacpp, in a sealed child.

The lower half runs in the child (`serve`); the upper half in the gateway, which never imports the library.
The gateway's half puts a request into this engine's dialect. What the engine would drop without a word is
either translated into something that it keeps, or refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from freehold.config import Engine as EngineSettings
from freehold.engine import schema, wire
from freehold.engine.child import Order
from freehold.engine.meter import Meter
from freehold.engine.process import EngineProcess
from freehold.engine.template import Template
from freehold.errors import BadRequest, ContextExceeded, EngineFailed, EngineUnready, Unsupported
from freehold.types import EngineState, Kind, Manifest, Request, Usage

DEFAULT_CONTEXT = 4096
DEFAULT_SLOTS = 4
MAX_BATCH = 2048  # tokens the engine takes in at once; an embedding's input must fit in one

PATHS = {
    Kind.CHAT: "/v1/chat/completions",
    Kind.COMPLETION: "/v1/completions",
    Kind.EMBEDDING: "/v1/embeddings",
    Kind.RESPONSE: "/v1/responses",
    Kind.MESSAGE: "/v1/messages",
    Kind.COUNT: "/v1/messages/count_tokens",
}
_SEEDS = (1 << 32) - 1  # the engine's seeds have 32 bits, and take the highest to mean a random one
_TOO_LARGE = re.compile(r"input \((\d+) tokens\) is too large.*batch size: (\d+)")


class LlamaCpp:
    """The engine of one model."""

    kind = "llamacpp"

    def __init__(
        self, model: Manifest, file: Path, template: Template, folder: Path, settings: EngineSettings, seal: str
    ):
        self.model, self.template = model, template
        context = settings.context or min(model.context or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
        order = Order(
            engine=self.kind, model=str(file), name=model.name, socket="", key="", context=context,
            slots=settings.slots or DEFAULT_SLOTS, threads=settings.threads or len(os.sched_getaffinity(0)),
            seal=seal, template=template.text,
        )  # fmt: skip
        self.context, self.slots = context, order.slots
        self._process = EngineProcess(model, self.kind, order, folder, settings.start_seconds)

    async def start(self) -> None:
        """Load the model in a sealed child. Raises BadModel if it will not load."""
        await self._process.start()

    async def stop(self) -> None:
        """Stop the child."""
        await self._process.stop()

    def state(self) -> EngineState:
        """Where the child is in its life."""
        return msgspec.structs.replace(self._process.state(), template=self.template.says)

    @asynccontextmanager
    async def ask(self, request: Request) -> AsyncIterator[Answer]:
        """See `base.Engine.ask`."""
        if not self._process.ready:
            raise EngineUnready(f"The engine of {self.model.name} is {self.state().state}.")
        body = dialect(request, slots=self.slots, tools=self.template.tools)
        content = msgspec.json.encode(body)
        exchange = await wire.exchange(
            self._process.socket, "POST", PATHS[request.kind], content, self._process.headers
        )
        try:
            if exchange.status != 200:
                raise refusal(exchange.status, await exchange.body())
            yield Answer(exchange, request)
        finally:
            exchange.close()


class Answer:
    """A `base.Reply` over one exchange."""

    def __init__(self, exchange: wire.Exchange, request: Request):
        self.media_type = exchange.media_type
        self._exchange = exchange
        self._request = request
        self._meter = Meter()

    @property
    def usage(self) -> Usage:
        """The engine's counts so far."""
        return self._meter.usage

    @property
    def complete(self) -> bool:
        """Do the bytes that have passed make a whole answer?"""
        return self._meter.complete

    @property
    def failure(self) -> str:
        """What the engine said went wrong in mid-stream."""
        return self._meter.failure

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.media_type == "text/event-stream":
            async for piece in self._exchange:
                self._meter.read(piece)
                yield piece
            return
        answer = await self._exchange.body()
        if _counts_choices(self._request):
            answer = with_every_choice_counted(answer, keep=bool(self._request.body.get("logprobs")))
        self._meter.read_answer(answer)
        yield answer


def dialect(request: Request, *, slots: int, tools: bool) -> dict[str, Any]:
    """The body as this engine wants it. ``tools`` says whether the model's template has a place for them.

    Raises:
        Unsupported: it asks for what this engine cannot do and would pass over in silence.
        BadRequest: it asks for what nothing could do.
    """
    body = dict(request.body)
    if body.get("tools") and not tools:
        raise Unsupported("This model's template has no place for tools.", hint="Take another model.", param="tools")
    for name in ("tools", "response_format", "text"):
        schema.check(body.get(name), name)
    if "seed" in body:
        body["seed"] %= _SEEDS
    if request.kind in (Kind.CHAT, Kind.COMPLETION, Kind.RESPONSE):
        if request.stream:
            body["timings_per_token"] = True  # exact counts even of a stream that is never finished
        if body.get("n", 1) > slots:
            raise Unsupported(f"n is {body['n']}, and this engine answers {slots} at once.", param="n")
    if _counts_choices(request) and not body.get("logprobs"):
        body["logprobs"] = True  # to count by, see with_every_choice_counted
        body["top_logprobs"] = 1
    if request.kind in (Kind.CHAT, Kind.RESPONSE):
        _choose_tool(body, named=_named_function(body.get("tool_choice")), nested=request.kind is Kind.CHAT)
    if request.kind is Kind.RESPONSE:
        _response_format(body)
    if request.kind in (Kind.MESSAGE, Kind.COUNT):
        _choose_anthropic_tool(body)
    return body


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
        return ContextExceeded(int(found[1]), int(found[2]))
    if 400 <= status < 500:
        return BadRequest(f"The engine refused the request: {message}", hint="")
    return EngineFailed(f"The engine failed: {message}", hint="")


def with_every_choice_counted(answer: bytes, *, keep: bool) -> bytes:
    """Mend the usage of an answer with several choices, of which the engine counts only the first.

    Every choice's ``logprobs`` hold one item for each token generated, so their lengths are the engine's own
    counts; they are taken out again unless the client asked for them too (``keep``).
    """
    document = msgspec.json.decode(answer)
    tokens = sum(len((choice.get("logprobs") or {}).get("content") or ()) for choice in document["choices"])
    if not keep:
        for choice in document["choices"]:
            choice.pop("logprobs", None)
    usage = document["usage"]
    usage["completion_tokens"] = tokens
    usage["total_tokens"] = usage["prompt_tokens"] + tokens
    return msgspec.json.encode(document)


def _counts_choices(request: Request) -> bool:
    return request.kind is Kind.CHAT and not request.stream and (request.body.get("n") or 1) > 1


def _named_function(choice: Any) -> str | None:
    """The function that a ``tool_choice`` object names, in the chat or in the responses form."""
    if not isinstance(choice, dict):
        return None
    return choice.get("name") or (choice.get("function") or {}).get("name")


def _choose_tool(body: dict[str, Any], *, named: str | None, nested: bool) -> None:
    """The engine knows none, auto and required; a named function is 'required' with no other on offer."""
    if named is None:
        return
    tools = [tool for tool in body.get("tools", ()) if (tool["function"] if nested else tool).get("name") == named]
    if not tools:
        raise BadRequest(f"tool_choice names {named!r}, which is not among the tools.", param="tool_choice")
    body["tools"], body["tool_choice"] = tools, "required"


def _choose_anthropic_tool(body: dict[str, Any]) -> None:
    """The engine reads auto and any; ``tool`` offers that tool alone, ``none`` offers none."""
    choice = body.get("tool_choice")
    if not choice:
        return
    if choice["type"] == "none":
        body.pop("tools", None)
        body.pop("tool_choice")
    if choice["type"] == "tool":
        body["tools"] = [tool for tool in body.get("tools", ()) if tool["name"] == choice.get("name")]
        if not body["tools"]:
            raise BadRequest(
                f"tool_choice names {choice.get('name')!r}, which is not among the tools.", param="tool_choice"
            )
        body["tool_choice"] = {"type": "any"}


def _response_format(body: dict[str, Any]) -> None:
    """The engine reads ``response_format`` on /v1/responses too, but not ``text.format``."""
    form = (body.pop("text", None) or {}).get("format") or {"type": "text"}
    if form["type"] == "json_schema":
        schema = {key: value for key, value in form.items() if key != "type"}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif form["type"] == "json_object":
        body["response_format"] = {"type": "json_object"}


def serve(order: Order) -> Any:
    """In the child: load the model and listen. Returns what must be kept alive."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = order.model
    params.model_alias = {order.name}
    params.n_ctx = order.context * order.slots  # the engine divides it among its slots
    params.n_parallel = order.slots
    params.n_batch = params.n_ubatch = min(order.context, MAX_BATCH)
    params.cpuparams.n_threads = order.threads
    params.hostnames = [order.socket]
    params.api_keys = [order.key]
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.use_jinja = True
    if order.template:
        params.chat_template = order.template
    params.fit_params = False  # what was asked for, or a clear failure; never quietly less
    params.ui = False
    params.endpoint_slots = False
    params.endpoint_props = False
    params.cors_origins = ""
    params.offline = True
    return xllamacpp.Server(params)
