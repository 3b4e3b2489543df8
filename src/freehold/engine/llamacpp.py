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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from freehold.config import EngineSettings
from freehold.engine import assemble, conversation, memory, opening, schema, sse, tooling, wire
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
_SLOTS_SECONDS = 0.15  # how long the count of an abandoned call may take, before the engine hears that it is one
_SEEDS = (1 << 32) - 1  # the engine's seeds have 32 bits, and take the highest to mean a random one
# The engine answers 500 to whatever throws while it reads a request; these are the request's fault all the same.
_AT_FAULT = re.compile(r"parse|must be|must contain|not supported|not found|is required|does not match|invalid", re.I)
_TOO_LARGE = re.compile(r"input \((\d+) tokens\) is too large.*batch size: (\d+)")


class _Params(Struct, frozen=True):
    n_predict: int = -1


class _NextToken(Struct):
    n_decoded: int = 0


class _AtWork(Struct):
    """A slot, as the engine's /slots tells of it."""

    is_processing: bool = False
    n_prompt_tokens_processed: int = 0
    n_prompt_tokens_cache: int = 0
    params: _Params = _Params()
    next_token: list[_NextToken] = []


_slots = msgspec.json.Decoder(list[_AtWork])


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
        slots = settings.slots or DEFAULT_SLOTS
        order = Order(
            engine=self.kind, model=str(file), name=model.name, socket="", key="", context=context,
            slots=slots, threads=settings.threads or _cores(),
            seal=seal, template=self.template.text, vectors=vectors,
            memory=settings.memory_bytes or memory.machine() // 4 * 3,
            batch=min(context, MAX_INPUT) if vectors else max(settings.batch or DEFAULT_BATCH, slots),
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

    def check(self, request: Request) -> None:
        """See `base.Engine.check`."""
        self.body(request)

    def ask(self, request: Request, on_done: Callable[[], None]) -> Answer:
        """See `base.Engine.ask`."""
        if not self._process.ready:
            raise EngineUnready(f"The engine of {self.model.name} is {self.state().state}.")
        return Answer(self, request, msgspec.json.encode(self.body(request)), on_done)

    async def send(self, exchange: wire.Exchange, method: str, path: str, content: bytes = b"") -> None:
        """Put a request to the engine's process; the head of its response is there when this returns."""
        await exchange.send(self._process.socket, method, path, content, self._process.headers)

    async def count_prompt(self, content: bytes) -> int:
        """The tokens of a prompt of /v1/messages, asked for beside the call."""
        return int(msgspec.json.decode(await self._look("POST", PATHS[Kind.COUNT], content))["input_tokens"])

    async def at_work(self) -> list[_AtWork]:
        """The engine's own list of its slots; empty if it does not say, or not at once."""
        with contextlib.suppress(EngineFailed, TimeoutError, msgspec.MsgspecError):
            return _slots.decode(await asyncio.wait_for(self._look("GET", "/slots"), _SLOTS_SECONDS))
        return []

    async def _look(self, method: str, path: str, content: bytes = b"") -> bytes:
        """A question to the engine beside its calls."""
        asked = wire.Exchange()
        try:
            await self.send(asked, method, path, content)
            if asked.status != 200:
                raise EngineFailed(f"The engine answered {path} with status {asked.status}.")
            return await asked.body()
        finally:
            asked.close()


class Answer:
    """A `base.Reply` over one exchange."""

    __slots__ = (
        "_begun", "_content", "_ended", "_engine", "_events", "_exchange", "_first", "_meter", "_request", "_whole",
        "media_type",
    )  # fmt: skip

    def __init__(self, engine: LlamaCpp, request: Request, content: bytes, on_done: Callable[[], None]):
        self._engine, self._request, self._content = engine, request, content
        self._exchange = wire.Exchange(on_done)
        self._meter, self._events = Meter(), sse.Events()
        self._begun, self._first, self._ended = False, True, False
        self._whole: assemble.Whole | None = None  # of what comes as a stream and is asked for whole
        self.media_type = ""

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

    async def read(self) -> bytes:
        """See `base.Reply.read`."""
        if not self._begun:
            await self._begin()
        if self._whole is not None:
            return await self._put_together()
        if not is_streamed(self._request):
            if answer := await self._exchange.body():
                self._meter.read_answer(answer)
            return answer
        piece = await self._exchange.read()
        if self._first:
            self._first = False
            piece = await self._with_opening(piece)
        self._count(piece)
        return piece

    async def close(self) -> None:
        """See `base.Reply.close`."""
        try:
            if self._begun and not self.complete and is_streamed(self._request):
                self._count(self._exchange.drain())
                if self._request.kind is Kind.MESSAGE and self.media_type and not self.complete:
                    await self._recount()
        finally:
            self._exchange.close()

    async def _begin(self) -> None:
        """Put the request to the engine, and see whether it takes it."""
        self._begun = True
        await self._engine.send(self._exchange, "POST", PATHS[self._request.kind], self._content)
        if self._exchange.status != 200:
            raise refusal(self._exchange.status, await self._exchange.body())
        self.media_type = self._exchange.media_type
        if is_streamed(self._request) and not self._request.stream:
            self._whole = assemble.WHOLES[self._request.kind]()
            self.media_type = "application/json"

    async def _put_together(self) -> bytes:
        """The whole answer, once."""
        if self._ended:
            return b""
        self._ended = True
        events = self._events.read(await self._with_opening(await self._exchange.body()))
        self._meter.read(events[-2:] if self._tells_all_at_its_end() else events)
        if self._meter.failure or not self._meter.complete:
            raise EngineFailed(f"The engine broke off: {self._meter.failure or 'its answer is not complete'}.")
        for event in events:
            if event != sse.DONE:
                self._whole.take(msgspec.json.decode(event))
        return msgspec.json.encode(self._whole.document(self._meter.usage))

    def _count(self, piece: bytes) -> None:
        """Count the events in the next bytes of the stream."""
        self._meter.read(self._events.read(piece))

    def _tells_all_at_its_end(self) -> bool:
        """Does the last event before [DONE] hold the counts of the whole stream?"""
        return self._request.kind in (Kind.CHAT, Kind.COMPLETION) and self._request.body.get("n", 1) == 1

    async def _with_opening(self, piece: bytes) -> bytes:
        """The first bytes of a stream, with the opening event if the engine left it out."""
        if not opening.is_missing(self._request, piece):
            return piece
        return opening.event(self._request, piece, await self._count_prompt()) + piece

    async def _count_prompt(self) -> int:
        return await self._engine.count_prompt(self._content) if self._request.kind is Kind.MESSAGE else 0

    async def _recount(self) -> None:
        """The count of a message that was left. /v1/messages says it at its end alone, and an event may stand for
        several tokens; until the exchange is closed its slot knows. Ours has this prompt and this limit, and where
        several have, it is the one that is nearest to what was seen."""
        seen = self._meter.usage
        counts = [
            sum(token.n_decoded for token in slot.next_token)
            for slot in await self._engine.at_work()
            if slot.is_processing
            and slot.params.n_predict == self._request.body["max_tokens"]
            and slot.n_prompt_tokens_processed + slot.n_prompt_tokens_cache in (seen.prompt, 0)
        ]
        self._count(self._exchange.drain())  # what came while we asked
        counts = [count for count in counts if count >= seen.completion]
        self._meter.set_completion(max(min(counts, default=0), self._meter.usage.completion))


def is_streamed(request: Request) -> bool:
    """Is this asked of the engine as a stream, whether or not the client wants one? See `assemble`."""
    return request.kind in assemble.WHOLES


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
    params.endpoint_slots = True  # the count of an abandoned call; see `Answer._recount`
    params.endpoint_props = False
    params.cors_origins = ""
    params.offline = True
    return xllamacpp.Server(params)
