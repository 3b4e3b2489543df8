"""llama.cpp's server, through xllamacpp, in a sealed child.

The lower half runs in the child (`serve`); the upper half in the gateway, which never imports the library.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from freehold.config import EngineSettings
from freehold.engine import memory, wire
from freehold.engine.child import Order
from freehold.engine.dialect import PATHS, translate
from freehold.engine.process import EngineProcess
from freehold.engine.reply import AtWork, LlamaReply, read_slots
from freehold.engine.template import for_model
from freehold.errors import EngineFailed, EngineUnready, Overloaded
from freehold.types import EngineState, Kind, Manifest, Request

DEFAULT_CONTEXT = 4096
DEFAULT_SLOTS = 4
DEFAULT_BATCH = 32  # a tenth slower than 512 on two cores, and a call that was left ends ten times sooner
MAX_INPUT = 2048  # tokens of one text to embed, which has to fit in one batch

_SLOTS_SECONDS = 0.15  # how long the count of an abandoned call may take, before the engine hears that it is one
_FLASH = {"auto": "AUTO", "on": "ENABLED", "off": "DISABLED"}


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
        """The request in this engine's dialect; see `dialect.translate`."""
        return translate(request, slots=self.slots, template=self.template)

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

    def ask(self, request: Request, on_done: Callable[[], None]) -> LlamaReply:
        """See `base.Engine.ask`."""
        if not self._process.ready:
            raise EngineUnready(f"The engine of {self.model.name} is {self.state().state}.")
        return LlamaReply(self, request, msgspec.json.encode(self.body(request)), on_done)

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
