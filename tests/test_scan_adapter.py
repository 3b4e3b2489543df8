"""An adapter is held against its base: what the engine would refuse, or lay over it otherwise than it was trained."""

import numpy as np
import pytest
from harness import gguf
from lora import adapter, model, pair, quiet

from freehold.scan import adapter as judging
from freehold.scan import formats
from freehold.scan import gguf as reader

Q, DOWN, EXPERTS = "blk.0.attn_q.weight", "blk.0.ffn_down.weight", "blk.0.ffn_up_exps.weight"
NORM = "blk.0.attn_norm.weight"


def facts(tmp_path, content: bytes) -> dict:
    """What the scanner says of a file."""
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    with path.open("rb") as stream:
        judged = formats.judge(stream.fileno(), len(content), "a.gguf")
    assert judged.findings == (), judged.findings
    return judged.facts


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.gguf"
    path.write_bytes(model())
    return judging.Base("base", "llama", reader.shapes(path))


def rules(tmp_path, base, content: bytes) -> dict[str, str]:
    return {rule.id: said for rule, said in judging.judge(facts(tmp_path, content), base)}


def test_the_tensors_of_a_model_are_read_from_its_header_alone(tmp_path):
    """Their dimensions, in the order of the file; what follows the header may be missing."""
    whole = model(blocks=2)
    path = tmp_path / "base.gguf"
    path.write_bytes(whole[: whole.index(b"blk.1.ffn_up_exps.weight") + 100])
    found = reader.shapes(path)
    assert found[DOWN] == (16, 8) and found["output_norm.weight"] == (8,) and found[EXPERTS] == (8, 16, 2)
    assert len(found) == 11


def test_an_adapters_tensors_and_the_types_of_its_keys_are_facts_a_models_are_not(tmp_path):
    """They are what it is held against its base by."""
    found = facts(tmp_path, adapter(quiet()))
    assert found["shapes"] == {f"{Q}.lora_a": (8, 2), f"{Q}.lora_b": (2, 8)}
    assert found["types"] == {"adapter.type": 8, "adapter.lora.alpha": 6}
    assert "shapes" not in facts(tmp_path, gguf())


def ab(name: str, a: tuple[int, ...], b: tuple[int, ...]) -> dict:
    """A and B of such shapes, as (rows, columns)."""
    return {f"{name}.lora_a": np.ones(a), f"{name}.lora_b": np.ones(b)}


GOOD = {
    "one weight": quiet(),
    "another rank for each": quiet() | pair(DOWN, 16, 8, rank=5),
    "an expert's weights": ab(EXPERTS, (2, 3, 8), (2, 16, 3)),
    "the output": pair("output.weight", 8, 32),
    "embeddings, which are looked up": ab("token_embd.weight", (32, 3), (8, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_what_fits_is_let_in(tmp_path, base, name):
    """Of whatever rank, and for experts, outputs and embeddings too."""
    assert rules(tmp_path, base, adapter(GOOD[name])) == {}


def half(which: str) -> dict:
    return {name: array for name, array in quiet().items() if name.endswith(which)}


BAD = {
    "no B": (half("_a"), {}, "adapter.pair", "A or B is missing for 'blk.0.attn_q.weight'"),
    "no A": (half("_b"), {}, "adapter.pair", "is missing"),
    "nothing at all": ({}, {}, "adapter.pair", "changes nothing"),
    "a tensor that is no half": (quiet() | {"x": np.ones(8)}, {}, "adapter.pair", "'x' are neither"),
    "a whole weight": (quiet() | {Q: np.ones((8, 8))}, {}, "adapter.pair", "neither an A nor a B"),
    "ranks that differ": (half("_a") | {f"{Q}.lora_b": np.ones((8, 3))}, {}, "adapter.shape", "B of 3 x 8"),
    "A too wide": (half("_b") | {f"{Q}.lora_a": np.ones((2, 9))}, {}, "adapter.shape", "A of 9 x 2"),
    "B too long": (half("_a") | {f"{Q}.lora_b": np.ones((9, 2))}, {}, "adapter.shape", "do not fit"),
    "A and B changed round": (pair(DOWN, 8, 16), {}, "adapter.shape", "is 16 x 8 in base"),
    "A as it was trained, not turned": (ab(Q, (8, 2), (8, 2)), {}, "adapter.shape", "A of 2 x 8"),
    "embeddings as if they were multiplied": (pair("token_embd.weight", 8, 32), {}, "adapter.shape", "token_embd"),
    "fewer experts": (ab(EXPERTS, (1, 3, 8), (1, 16, 3)), {}, "adapter.shape", "x 2 in base"),
    "another block": (pair("blk.1.attn_q.weight", 8, 8), {}, "adapter.tensor", "base has no 'blk.1.attn_q.weight'"),
    "a tensor that the base lacks": (pair("blk.0.attn_qkv.weight", 8, 8), {}, "adapter.tensor", "attn_qkv"),
    "another architecture": (quiet(), {"architecture": "qwen2"}, "adapter.architecture", "qwen2, and base is llama"),
    "no LoRA": (quiet(), {"adapter__type": "dora"}, "adapter.kind", "'dora'"),
    "no type": (quiet(), {"adapter__type": None}, "adapter.kind", "None"),
    "an activated LoRA": (quiet(), {"adapter__alora__invocation_tokens": [1, 2]}, "adapter.kind", "activated"),
    "no alpha": (quiet(), {"alpha": None}, "adapter.kind", "alpha is None"),
    "alpha of none": (quiet(), {"alpha": 0.0}, "adapter.kind", "alpha is 0.0"),
    "alpha without end": (quiet(), {"alpha": float("inf")}, "adapter.kind", "alpha is inf"),
    "alpha as a whole number, on which the engine ends": (quiet(), {"alpha": 16}, "adapter.kind", "alpha is 16"),
    "a norm, which the engine passes over": (quiet() | {NORM: np.ones(8)}, {}, "adapter.unread", "attn_norm"),
    "a pair for a norm": (quiet() | pair(NORM, 8, 1), {}, "adapter.unread", "attn_norm"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_told(tmp_path, base, name):
    """By the rule, with the tensor and both shapes."""
    tensors, pairs, rule, words = BAD[name]
    found = rules(tmp_path, base, adapter(tensors, **pairs))
    assert rule in found and words in found[rule]


def test_embeddings_that_are_the_output_too_are_refused(tmp_path, base):
    """An engine that is asked for this ends, whoever else it was answering."""
    tied = judging.Base("base", "llama", {name: one for name, one in base.shapes.items() if name != "output.weight"})
    content = adapter(GOOD["embeddings, which are looked up"])
    assert set(rules(tmp_path, tied, content)) == {"adapter.tied"}


def test_a_base_that_no_engine_opens_says_nothing_of_what_fits(tmp_path):
    """So a person decides."""
    unserved = judging.Base("base", "llama", None)
    assert list(rules(tmp_path, unserved, adapter(quiet()))) == ["adapter.base-not-served"]


def test_more_tensors_than_are_kept_hold_it(tmp_path, base):
    """What was not held against the base is not clean."""
    said = facts(tmp_path, adapter(quiet())) | {"tensors": reader.MAX_SHAPES + 1}
    assert [rule.id for rule, _ in judging.judge(said, base)] == ["adapter.many"]
