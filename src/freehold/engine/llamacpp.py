"""llama.cpp's server, through xllamacpp, in a sealed child.

The lower half runs in the child (`serve`); the upper half in the gateway, which never imports the library.
The gateway's half puts a request into this engine's dialect. What the engine would drop without a word is
either translated into something that it keeps, or refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from freehold.config import EngineSettings
from freehold.engine import assemble, conversation, memory, opening, schema, tooling, wire
from freehold.engine.child import Order
from freehold.engine.meter import Meter
from freehold.engine.process import EngineProcess
from freehold.engine.template import Template, for_model
from freehold.errors import BadRequest, ContextExceeded, EngineFailed, EngineUnready, Unsupported
from freehold.types import EngineState, Kind, Manifest, Request, Usage

DEFAULT_CONTEXT = 4096
DEFAULT_SLOTS = 4
DEFAULT_BATCH = 32  # a tenth slower than 512 on two cores, and a call that was left ends ten times sooner
MAX_INPUT = 2048  # tokens of one text to embed, which has to fit in one batch

PATHS = {
    Kind.CHAT: "/v1/chat/completions",
    Kind.COMPLETION: "/v1/completions",
    Kind.EMBEDDING: "/v1/embeddings",
    Kind.RESPONSE: "/v1/responses",
    Kind.MESSAGE: "/v1/messages",
    Kind.COUNT: "/v1/messages/count_tokens",
}
_FLASH = {"auto": "AUTO", "on": "ENABLED", "off": "DISABLED"}
_SLOTS_SECONDS = 2.0  # how long the count of an abandoned call may take
_SEEDS = (1 << 32) - 1  # the engine's seeds have 32 bits, and take the highest to mean a random one
# The engine answers 500 to whatever throws while it reads a request; these are the request's fault all the same.
_AT_FAULT = re.compile(r"parse|must be|must contain|not supported|not found|is required|does not match|invalid", re.I)
_TOO_LARGE = re.compile(r"input \((\d+) tokens\) is too large.*batch size: (\d+)")


class LlamaCpp:
    """The engine of one model."""

    kind = "llamacpp"

    def __init__(
        self,
        model: Manifest,
        file: Path,
        metadata: Mapping[str, Any],
        folder: Path,
        settings: EngineSettings,
        seal: str,
        *,
        vectors: bool = False,
    ):
        self.model, self.vectors = model, vectors
        self.template = for_model(str(metadata.get("tokenizer.chat_template", "")))
        context = settings.context or min(model.context or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
        order = Order(
            engine=self.kind, model=str(file), name=model.name, socket="", key="", context=context,
            slots=settings.slots or DEFAULT_SLOTS, threads=settings.threads or _cores(),
            seal=seal, template=self.template.text, memory=settings.memory_bytes, vectors=vectors,
            batch=min(context, MAX_INPUT) if vectors else max(settings.batch or DEFAULT_BATCH, settings.slots),
            gpu_layers=settings.gpu_layers, flash_attention=settings.flash_attention, kv_type=settings.kv_type,
        )  # fmt: skip
        self.context, self.slots = context, order.slots
        tokens = order.context * order.slots
        self.need = memory.need(metadata, model.size, tokens=tokens, batch=order.batch, kv_type=order.kv_type)
        self._process = EngineProcess(model, self.kind, order, folder, settings)

    def body(self, request: Request) -> dict[str, Any]:
        """The request in this engine's dialect; see `dialect`."""
        return dialect(request, slots=self.slots, template=self.template)

    @property
    def ready(self) -> bool:
        """Does it take calls now?"""
        return self._process.ready

    async def start(self, on_ready: Callable[[], None]) -> None:
        """Load the model in a sealed child. Raises BadModel if it will not load."""
        await self._process.start(on_ready)

    async def stop(self) -> None:
        """Stop the child."""
        await self._process.stop()

    def state(self) -> EngineState:
        """Where the child is in its life."""
        purpose = "vectors" if self.vectors else "text"
        return msgspec.structs.replace(
            self._process.state(), template=self.template.says, purpose=purpose, need=self.need
        )

    @asynccontextmanager
    async def ask(self, request: Request, on_done: Callable[[], None]) -> AsyncIterator[Answer]:
        """See `base.Engine.ask`."""
        if not self._process.ready:
            raise EngineUnready(f"The engine of {self.model.name} is {self.state().state}.")
        content = msgspec.json.encode(self.body(request))
        exchange = await self._send("POST", PATHS[request.kind], content, on_done)
        answer = None
        try:
            if exchange.status != 200:
                raise refusal(exchange.status, await exchange.body())
            answer = Answer(exchange, request, partial(self._count_prompt, content))
            yield answer
        finally:
            if answer is not None and not answer.complete:
                await self._count_abandoned(request, answer)
            exchange.close()

    async def _send(
        self, method: str, path: str, content: bytes, on_done: Callable[[], None] | None = None
    ) -> wire.Exchange:
        return await wire.exchange(self._process.socket, method, path, content, self._process.headers, on_done)

    async def _count_prompt(self, content: bytes) -> int:
        """The tokens of a prompt of /v1/messages, asked for beside the call."""
        return int((await self._look("POST", PATHS[Kind.COUNT], content)).get("input_tokens", 0))

    async def _count_abandoned(self, request: Request, answer: Answer) -> None:
        """The count of an answer that nobody waits for any more. In /v1/messages the engine says it at the end
        alone, and an event may stand for several tokens; until the exchange is closed its slot knows."""
        answer.drain()
        if request.kind is Kind.MESSAGE and self._process.ready:
            with contextlib.suppress(EngineFailed, TimeoutError, msgspec.MsgspecError):
                slots = await asyncio.wait_for(self._look("GET", "/slots"), _SLOTS_SECONDS)
                answer.recount(slots, request.body["max_tokens"])

    async def _look(self, method: str, path: str, content: bytes = b"") -> Any:
        """A question to the engine beside its calls."""
        asked = await self._send(method, path, content)
        try:
            return msgspec.json.decode(await asked.body())
        finally:
            asked.close()


class Answer:
    """A `base.Reply` over one exchange."""

    def __init__(self, exchange: wire.Exchange, request: Request, count_prompt: Callable[[], Awaitable[int]]):
        self._exchange = exchange
        self._request = request
        self._count_prompt = count_prompt
        self._meter = Meter()
        self._assembler = None
        self.media_type = exchange.media_type
        if is_streamed(request) and not request.stream:
            self._assembler = assemble.Assembler(request.kind)
            self.media_type = "application/json"

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
        if not is_streamed(self._request):
            answer = await self._exchange.body()
            self._meter.read_answer(answer)
            yield answer
            return
        async for piece in self._stream():
            self._meter.read(piece)
            if self._assembler is None:
                yield piece
            else:
                self._assembler.read(piece)
        if self._assembler is not None:
            yield self._whole()

    def drain(self) -> None:
        """Count what has arrived and will not be read."""
        if is_streamed(self._request):
            self._meter.read(self._exchange.arrived())

    def recount(self, slots: list[dict[str, Any]], limit: int) -> None:
        """Take the count from the engine's own list of its slots: ours has this prompt and this limit, and where
        several have, the one that is nearest to what was seen."""
        seen = self._meter.usage
        alike = [
            slot["next_token"][0]["n_decoded"]
            for slot in slots
            if slot.get("is_processing")
            and slot["params"]["n_predict"] == limit
            and slot["n_prompt_tokens_processed"] + slot["n_prompt_tokens_cache"] in (seen.prompt, 0)
        ]
        if counts := [count for count in alike if count >= seen.completion]:
            self._meter.set_completion(min(counts))

    async def _stream(self) -> AsyncIterator[bytes]:
        first = True
        async for piece in self._exchange:
            if first and opening.is_missing(self._request, piece):
                yield opening.event(self._request, piece, await self._count_prompt())
            first = False
            yield piece

    def _whole(self) -> bytes:
        if self._meter.failure or not self._meter.complete:
            raise EngineFailed(f"The engine broke off: {self._meter.failure or 'its answer is not complete'}.")
        return self._assembler.answer(self._meter.usage)


def is_streamed(request: Request) -> bool:
    """Is this asked of the engine as a stream, whether or not the client wants one? See `assemble`."""
    return request.kind in assemble.KINDS


def dialect(request: Request, *, slots: int, template: Template) -> dict[str, Any]:
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


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
    # One buffer for all slots: with a buffer each, the engine splits batches so that the mean of a text's
    # vectors covers only its last part whenever two texts of different length are embedded at once.
    params.kv_unified = True
    params.kv_unified_per_slot = order.context  # and still no call may use another's share
    params.n_batch = params.n_ubatch = order.batch
    params.cpuparams.n_threads = order.threads
    params.hostnames = [order.socket]
    params.api_keys = [order.key]
    if order.vectors:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.n_gpu_layers = order.gpu_layers
    params.flash_attn_type = getattr(
        xllamacpp.llama_flash_attn_type, "LLAMA_FLASH_ATTN_TYPE_" + _FLASH[order.flash_attention]
    )
    params.cache_type_k = params.cache_type_v = getattr(xllamacpp.ggml_type, "GGML_TYPE_" + order.kv_type.upper())
    params.use_jinja = True
    if order.template:
        params.chat_template = order.template
    params.fit_params = False  # what was asked for, or a clear failure; never quietly less
    params.ui = False
    params.endpoint_metrics = True  # answered by the engine's own loop, which is how a stuck one is noticed
    params.endpoint_slots = True  # the count of an abandoned call; see `LlamaCpp._count_abandoned`
    params.endpoint_props = False
    params.cors_origins = ""
    params.offline = True
    return xllamacpp.Server(params)
