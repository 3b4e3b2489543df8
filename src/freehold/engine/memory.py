"""How much memory an engine will need, estimated from what the model's file says of itself.

The weights take the file's size. The attention cache holds, for each token of each slot and each layer, a key
and a value of every KV head. Working memory grows with the batch: the widest thing in it is a row of
vocabulary scores or of a feed-forward layer for each token. Source: llama.cpp's own start-up report, which these
three were held against for the starter model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

BYTES_PER_VALUE = {"f16": 2.0, "q8_0": 1.0625, "q5_1": 0.75, "q5_0": 0.6875, "q4_1": 0.625, "q4_0": 0.5625}
_RUNTIME = 96 << 20  # the process, its libraries and what it keeps for each connection


def machine() -> int:
    """The memory that this process may count on, in bytes: the machine's, or its control group's if that is less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(limit, encoding="ascii") as stream:
                text = stream.read().strip()
        except OSError:
            continue
        if text.isdigit():
            return min(physical, int(text))
    return physical


def cache_bytes(metadata: Mapping[str, Any], tokens: int, kv_type: str) -> int:
    """The attention cache for so many tokens. 0 for a file that does not say how it is built."""
    heads, width = _number(metadata, "attention.head_count"), _number(metadata, "embedding_length")
    if not heads:
        return 0
    per_head = sum(_number(metadata, f"attention.{name}_length", width // heads) for name in ("key", "value"))
    kv_heads = _number(metadata, "attention.head_count_kv", heads)
    return int(_number(metadata, "block_count") * kv_heads * per_head * tokens * BYTES_PER_VALUE[kv_type])


def need(metadata: Mapping[str, Any], size: int, *, tokens: int, batch: int, kv_type: str) -> int:
    """The memory of one engine, in bytes: ``size`` of the file, a cache of ``tokens``, batches of ``batch``."""
    widest = max(_number(metadata, "vocab_size"), 4 * _number(metadata, "embedding_length"))
    return size + cache_bytes(metadata, tokens, kv_type) + 4 * batch * widest + _RUNTIME


def _number(metadata: Mapping[str, Any], name: str, default: int = 0) -> int:
    """A number that the file gives for its architecture; of one for each layer, the largest. Anything may stand in
    a file: what is no number counts as not given."""
    value = metadata.get(f"{metadata.get('general.architecture', '')}.{name}", default)
    numbers = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, int)]
    return max(max(numbers, default=default), 0)
