"""What a candidate is: the model's bytes, the settings laid over each request, and the engine that answers."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

import freehold
from freehold.config import EngineSettings
from freehold.engine.llamacpp import DEFAULT_BATCH, DEFAULT_CONTEXT, DEFAULT_SLOTS
from freehold.types import Kind, Manifest, Sample

NOT_SETTINGS = frozenset({"model", "stream", "stream_options", "messages", "prompt", "input", "system", "instructions"})
_SEEDED = frozenset({Kind.CHAT, Kind.COMPLETION})  # the other endpoints take no seed
_LIMITS = {Kind.RESPONSE: "max_output_tokens"}


def body(sample: Sample, model: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The request of a sample, to this model, with the settings laid over it.

    ``max_tokens`` goes under the name that the endpoint has for it, and ``seed`` to those endpoints that take one.
    """
    found = {name: value for name, value in sample.request.items() if name not in ("model", "stream", "stream_options")}
    for name, value in settings.items():
        if name == "max_tokens":
            found.pop("max_completion_tokens", None)
            found[_LIMITS.get(sample.kind, name)] = value
        elif name != "seed" or sample.kind in _SEEDED:
            found[name] = value
    return found | {"model": model}


def is_drawn(sample: Sample, settings: Mapping[str, Any]) -> bool:
    """Would the same call come out otherwise another time, because tokens are drawn and the endpoint takes no seed?"""
    temperature = settings.get("temperature", sample.request.get("temperature", 1))
    return sample.kind not in _SEEDED and temperature != 0


def engine(model: Manifest, settings: EngineSettings, kind: str = "llamacpp", base: str = "") -> str:
    """The engine that serves a model with these settings, in words that belong to the candidate's key. Of an adapter
    ``model`` is the one that it is laid over, and ``base`` the digest of that."""
    context = settings.context or min(model.context or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    return described(kind, settings, context, settings.slots or DEFAULT_SLOTS, base)


def described(kind: str, settings: EngineSettings, context: int, slots: int, base: str = "") -> str:
    """An engine in words: its kind and version, and those of its settings that bear on what it says; and for an adapter
    what it is laid over. How many threads it has is not among them: each value is worked out by one."""
    version = metadata.version("xllamacpp") if kind == "llamacpp" else freehold.__version__
    facts = {
        "context": context,
        "slots": slots,
        "batch": max(settings.batch or DEFAULT_BATCH, slots),
        "kv_type": settings.kv_type,
        "flash_attention": settings.flash_attention,
        "gpu_layers": settings.gpu_layers,
    }
    facts |= {"base": base} if base else {}
    return f"{kind} {version}, " + ", ".join(f"{name} {value}" for name, value in facts.items())
