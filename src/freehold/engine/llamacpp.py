"""llama.cpp's server, through xllamacpp, in a sealed child.

The lower half runs in the child (`serve`); the upper half in the gateway, which never imports the library.

**Adapters.** The engine loads adapters when it starts and at no other time. A call says which of them answers it, by
its place in the list and a scale. Four things of it would answer with the wrong weights, and are kept from doing so:

- What says nothing, or an empty list, is answered with every adapter at the scale that it was loaded with. So they are
  loaded with 0, and each call names one place: its adapter's with 1, or for the model itself the first with 0. A place
  that is not there is passed over in silence; so a call is only let in where its adapter's place is known.
- A prompt that is kept in memory (``cache_ram``) is found again by its tokens alone, whichever adapter it was read with
  (ggml-org/llama.cpp#26207, #30129). So nothing is kept there; what a slot itself still holds is cleared where the
  adapter differs. A call that names none would not even have that, so nothing is reused but by those who ask for it.
- /v1/messages drops what says which adapter. So such a call is asked as a chat: see `messages`.
- /v1/embeddings drops it too, and there is nothing to ask it as. So an adapter's vectors come from an engine of their
  own, which has loaded that adapter alone, with 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from freehold import log
from freehold.config import EngineSettings
from freehold.engine import memory, messages, wire
from freehold.engine.child import Adapter, Order
from freehold.engine.dialect import PATHS, translate
from freehold.engine.process import EngineProcess
from freehold.engine.reply import AtWork, LlamaReply, read_slots
from freehold.engine.template import for_model
from freehold.errors import BadModel, EngineFailed, EngineUnready, Overloaded
from freehold.types import EngineState, Kind, Manifest, Request

DEFAULT_CONTEXT = 4096
DEFAULT_SLOTS = 4
DEFAULT_BATCH = 32  # a tenth slower than 512 on two cores, and a call that was left ends ten times sooner
MAX_INPUT = 2048  # tokens of one text to embed, which has to fit in one batch

_SLOTS_SECONDS = 0.15  # how long the count of an abandoned call may take, before the engine hears that it is one
_FLASH = {"auto": "AUTO", "on": "ENABLED", "off": "DISABLED"}


def context_of(model: Manifest, settings: EngineSettings) -> int:
    """The tokens that one call to a model may use, prompt and answer."""
    return settings.context or min(model.context or DEFAULT_CONTEXT, DEFAULT_CONTEXT)


class LlamaCpp:
    """The engine of one model, and of ``adapters`` over it, each with its file. The engine of an adapter's vectors is
    that of the adapter as ``model``, with the base's ``file``."""

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
        adapters: Sequence[tuple[Manifest, Path]] = (),
    ):
        self.model, self.vectors = model, vectors
        self._adapters = {str(file): adapter for adapter, file in adapters}
        self._choices: dict[str, dict[str, Any]] = {}  # what a call says to be answered as a model, by its digest
        self.template = for_model(str(metadata.get("tokenizer.chat_template", "")))
        context = context_of(model, settings)
        slots = settings.slots or DEFAULT_SLOTS
        order = Order(
            engine=self.kind, model=str(file), name=model.name, socket="", key="", context=context,
            slots=slots, threads=settings.threads or _cores(),
            seal=seal, template=self.template.text, vectors=vectors,
            memory=settings.memory_bytes or memory.machine() // 4 * 3,
            batch=min(context, MAX_INPUT) if vectors else max(settings.batch or DEFAULT_BATCH, slots),
            gpu_layers=settings.gpu_layers, flash_attention=settings.flash_attention, kv_type=settings.kv_type,
            adapters=tuple(Adapter(path, 1.0 if vectors else 0.0) for path in self._adapters),
        )  # fmt: skip
        self.context, self.slots = context, order.slots
        tokens = order.context * order.slots
        size = file.stat().st_size if model.is_adapter else model.size
        size += sum(adapter.size for adapter in self._adapters.values())
        self.need = memory.need(metadata, size, tokens=tokens, batch=order.batch, kv_type=order.kv_type)
        self._process = EngineProcess(model, self.kind, order, folder, settings, self._renew)

    def body(self, request: Request) -> dict[str, Any]:
        """The request in this engine's dialect; see `dialect.translate`."""
        return translate(request, slots=self.slots, template=self.template)

    def serves(self, model: Manifest) -> bool:
        """See `base.Engine.serves`."""
        return model.digest == self.model.digest or model.digest in self._choices

    @property
    def ready(self) -> bool:
        """Does it take calls now?"""
        return self._process.ready

    async def start(self, on_ready: Callable[[], None]) -> None:
        """Load the model in a sealed child. An adapter that will not load is left out. Raises BadModel if the model
        will not load."""
        while True:
            try:
                return await self._process.start(on_ready)
            except BadModel:
                if not self._leave_out():
                    raise

    async def stop(self) -> None:
        """Stop the child."""
        await self._process.stop()

    def state(self) -> EngineState:
        """Where the child is in its life."""
        purpose = "vectors" if self.vectors else "text"
        loaded = tuple(adapter.name for adapter in self._adapters.values() if adapter.digest in self._choices)
        return msgspec.structs.replace(
            self._process.state(), template=self.template.says, purpose=purpose, need=self.need, adapters=loaded
        )

    def check(self, request: Request) -> None:
        """See `base.Engine.check`."""
        self.body(request)

    def ask(self, request: Request, model: Manifest, on_done: Callable[[], None]) -> LlamaReply:
        """See `base.Engine.ask`."""
        if not self._process.ready:
            raise EngineUnready(f"The engine of {self.model.name} is {self.state().state}.")
        if not self._choices:
            if not self.serves(model):
                raise _not_loaded(self.model, model)
            return LlamaReply(self, request, msgspec.json.encode(self.body(request)), on_done)
        choice = self._choices.get(model.digest)
        if choice is None:
            raise _not_loaded(self.model, model)
        body, turned = self.body(request), request.kind is Kind.MESSAGE
        content = msgspec.json.encode((messages.as_chat(body) if turned else body) | choice)
        return LlamaReply(self, request, content, on_done, spoken=self.model.name, turned=turned)

    async def send(self, exchange: wire.Exchange, method: str, path: str, content: bytes = b"") -> None:
        """Put a request to the engine's process; the head of its response is there when this returns."""
        await exchange.send(self._process.socket, method, path, content, self._process.headers)

    async def count_prompt(self, content: bytes) -> int:
        """The tokens of a prompt of /v1/messages, asked for beside the call."""
        counted = msgspec.json.decode(await self._look("POST", PATHS[Kind.COUNT], content))
        return int(counted.get("input_tokens", 0))

    async def at_work(self) -> list[AtWork]:
        """The engine's own list of its slots; empty if it does not say, or not at once."""
        with contextlib.suppress(EngineFailed, Overloaded, TimeoutError, msgspec.MsgspecError):
            return read_slots(await asyncio.wait_for(self._look("GET", "/slots"), _SLOTS_SECONDS))
        return []

    def _renew(self, order: Order) -> Order:
        """Before each start: an adapter that was removed meanwhile is forgotten, and the others get the places that
        they have from then on."""
        loaded = tuple(adapter for adapter in order.adapters if os.path.exists(adapter.path))
        self._choices = {}
        if loaded and not self.vectors:
            self._choices[self.model.digest] = _choice(0, 0.0)
            self._choices |= {self._adapters[one.path].digest: _choice(n, 1.0) for n, one in enumerate(loaded)}
        elif self.model.is_adapter and not loaded:
            raise BadModel(f"The adapter {self.model.name!r} is not there any more.")
        return msgspec.structs.replace(order, adapters=loaded)

    def _leave_out(self) -> bool:
        """Leave out the adapter that the engine says it could not load; says whether there was one."""
        for path, adapter in self._adapters.items():
            if self._process.said(f"failed to load lora adapter '{path}'") and not self.vectors:
                said = f"could not load the adapter {adapter.name}; it goes on without"
                log.note(f"The engine of {self.model.name} {said}.")
                del self._adapters[path]
                self._process.leave_out(path)
                return True
        return False

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


def _choice(place: int, scale: float) -> dict[str, Any]:
    """What a call says of adapters: all but the one at this place have no part in it."""
    return {"lora": [{"id": place, "scale": scale}], "cache_prompt": True}


def _not_loaded(own: Manifest, wanted: Manifest) -> EngineUnready:
    return EngineUnready(f"The engine of {own.name} has not loaded {wanted.name}.", hint="Send the request again.")


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
    if order.adapters:
        params.lora_adapters = [_adapter(xllamacpp, adapter) for adapter in order.adapters]
        params.cache_ram_mib, params.cache_idle_slots = 0, False
        params.cache_prompt = False  # but for calls that say which adapter answers them
    params.use_jinja = True
    if order.template:
        params.chat_template = order.template
    params.fit_params = False  # what was asked for, or a clear failure; never quietly less
    params.ui = False
    params.endpoint_metrics = True  # answered by the engine's own loop, which is how a stuck one is noticed
    params.endpoint_slots = True  # the count of an abandoned call; see `LlamaReply._recount`
    params.endpoint_props = False
    params.cors_origins = ""
    params.offline = True
    return xllamacpp.Server(params)


def _adapter(xllamacpp: Any, adapter: Adapter) -> Any:
    found = xllamacpp.CommonAdapterLoraInfo()
    found.path, found.scale = adapter.path, adapter.scale
    return found
