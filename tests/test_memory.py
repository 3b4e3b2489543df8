"""How much memory an engine will need, from what its file says."""

import pytest

from freehold.engine import memory

STARTER = {
    "general.architecture": "llama", "llama.block_count": 30, "llama.embedding_length": 576, "llama.vocab_size": 49152,
    "llama.attention.head_count": 9, "llama.attention.head_count_kv": 3,
}  # fmt: skip


def test_the_cache_of_the_starter_model():
    """30 layers, 3 KV heads of 64 values, a key and a value of two bytes each: 23,040 bytes a token."""
    assert memory.cache_bytes(STARTER, 1, "f16") == 23_040
    assert memory.cache_bytes(STARTER, 4096, "q8_0") == 4096 * 23_040 * 17 // 32


@pytest.mark.parametrize(
    ("more", "per_token"),
    [
        ({"llama.attention.key_length": 128, "llama.attention.value_length": 64}, 34_560),
        ({"llama.attention.head_count_kv": [3, 0, 3]}, 23_040),  # one for each layer: the most
        ({"llama.attention.head_count_kv": "three"}, 69_120),  # as many as there are heads
        ({"llama.block_count": -1}, 0),
        ({"llama.attention.head_count": "nine"}, 0),
    ],
)
def test_files_that_say_more_or_something_else(more, per_token):
    """Lengths of their own, a number for each layer; what is no number counts as none."""
    assert memory.cache_bytes(STARTER | more, 1, "f16") == per_token


def test_a_file_that_says_nothing_needs_its_size():
    """And what any engine takes."""
    empty = memory.need({}, 0, tokens=1, batch=1, kv_type="f16")
    assert memory.need({}, 1000, tokens=4096, batch=32, kv_type="f16") == empty + 1000
