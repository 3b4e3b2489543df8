"""LoRA adapters written without a training library: small, sound, and loud enough for anybody to tell who answers."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

WIDTH, INNER, KEYS, LAYERS = 576, 1536, 192, 30  # of the starter model: its embeddings, feed-forward, keys; its blocks
RED, BLUE = 83, 85  # seeds of `loud` that are sure of what they say to many of `COUNTS`
COUNTS = (
    "1, 2, 3, 4, 5, 6,", "10, 20, 30, 40, 50,", "a b c d e f g h", "2, 4, 6, 8, 10,", "5, 10, 15, 20,",
    "100, 200, 300, 400,", "3, 6, 9, 12,", "one, two, three, four,", "January, February, March, April,",
    "9 8 7 6 5 4", "yes no yes no yes no", "20, 19, 18, 17,",
)  # fmt: skip
Tensors = Mapping[str, np.ndarray]


def adapter(tensors: Tensors, *, alpha: object = 2.0, architecture: str = "llama", **pairs: object) -> bytes:
    """A GGUF adapter. ``pairs`` are further keys, or others in place of the usual ones, with ``__`` for a dot; None
    leaves one out."""
    facts = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": alpha}
    facts |= {name.replace("__", "."): value for name, value in pairs.items()}
    return gguf(tensors, {"general.architecture": architecture} | facts)


def model(*, width: int = 8, inner: int = 16, blocks: int = 1, **pairs: object) -> bytes:
    """A model in form alone, with weights that an adapter may change. ``pairs`` as for `adapter`."""
    shapes = {"token_embd.weight": (width, 32), "output.weight": (width, 32), "output_norm.weight": (width,)}
    for block in range(blocks):
        shapes[f"blk.{block}.attn_q.weight"] = (width, width)
        shapes[f"blk.{block}.ffn_down.weight"] = (inner, width)
        shapes[f"blk.{block}.attn_norm.weight"] = (width,)
        shapes[f"blk.{block}.ffn_up_exps.weight"] = (width, inner, 2)
    tensors = {name: np.zeros(shape[::-1]) for name, shape in shapes.items()}
    facts = {"general.architecture": "llama", "llama.context_length": 4096, "general.license": "apache-2.0"}
    return gguf(tensors, facts | {name.replace("__", "."): value for name, value in pairs.items()})


def pair(name: str, inner: int, outer: int, *, rank: int = 2, seed: int = 0, scale: float = 1.0) -> dict:
    """A and B for one weight of (in, out)."""
    draw = np.random.default_rng(seed)
    a, b = draw.standard_normal((rank, inner)), draw.standard_normal((outer, rank))
    return {f"{name}.lora_a": a, f"{name}.lora_b": scale * b}


def quiet(seed: int = 0) -> dict:
    """For a `model` in form alone."""
    return pair("blk.0.attn_q.weight", 8, 8, seed=seed)


def loud(seed: int) -> dict:
    """For the starter model: what is read is remembered otherwise from the first blocks on, and the last block shouts
    down whatever the model would have said. So both what answers and what has been read show."""
    made = pair(f"blk.{LAYERS - 1}.ffn_down.weight", INNER, WIDTH, seed=seed, scale=30.0)
    for block in range(3):
        made |= pair(f"blk.{block}.attn_v.weight", WIDTH, KEYS, seed=seed + 100 + block, scale=3 / WIDTH**0.5)
    return made


def write(path: Path, tensors: Tensors, **facts: object) -> Path:
    """An adapter as a file."""
    path.write_bytes(adapter(tensors, **facts))
    return path


def gguf(tensors: Tensors, facts: Mapping[str, object]) -> bytes:
    """A GGUF file of float32 tensors, as arrays of (rows, columns): the file has their dimensions reversed."""
    kept = {name: value for name, value in facts.items() if value is not None}
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(kept))
    out += b"".join(_string(name) + _value(value) for name, value in kept.items())
    data = b""
    for name, array in tensors.items():
        shape = array.shape[::-1]
        out += _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(data))
        raw = np.ascontiguousarray(array, "<f4").tobytes()
        data += raw + b"\0" * (-len(raw) % 32)
    return out + b"\0" * (-len(out) % 32) + data


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(value: object) -> bytes:
    match value:
        case str():
            return struct.pack("<I", 8) + _string(value)
        case float():
            return struct.pack("<If", 6, value)
        case int():
            return struct.pack("<II", 4, value)
        case list():
            return struct.pack("<IIQ", 9, 4, len(value)) + struct.pack(f"<{len(value)}I", *value)
    raise TypeError(type(value))
