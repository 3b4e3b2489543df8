"""Base weights come into torch as the engine has them: held against the model that they were written from, against
transformers' own reader, and against the engine itself."""

import json
import shutil

import pytest
import tinymodels
import tuning

from freehold.errors import BadModel
from freehold.tune import family as families
from freehold.tune import parity, tensors, weights

torch = pytest.importorskip("torch", reason=tuning.LESS)
transformers = pytest.importorskip("transformers", reason=tuning.LESS)

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
IDS = torch.arange(3, 203).reshape(2, 100)


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS, use_cache=False).logits


def same(one, other) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("llama", {}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("mistral", {}),
        ("llama", {"tie_word_embeddings": False}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("qwen3", {"num_key_value_heads": 4, "tie_word_embeddings": False}),
    ],
)
def test_a_model_comes_back_as_it_was_written(tmp_path, kind, settings):
    """Every weight to the bit, and the same mathematics on top of them."""
    made = tinymodels.make(kind, **settings)
    file = tinymodels.write(made, tmp_path / "m.gguf")
    read = weights.load({"m.gguf": file})
    assert same(read, made) and torch.equal(logits(read), logits(made))
    assert not any(weight.requires_grad for weight in read.parameters()) and not read.training
    assert read.dtype == torch.float32 and weights.tied(read) == made.config.tie_word_embeddings
    assert weights.family_of(read).name == ("llama" if kind == "mistral" else kind)


@pytest.mark.parametrize("kind", tinymodels.KINDS)
@pytest.mark.parametrize("quantised", [False, True])
def test_it_is_what_transformers_own_reader_makes_of_the_file(tmp_path, kind, quantised):
    """Two readers that share no line of ours."""
    settings = {"head_dim": 128} if kind == "qwen3" else {}  # transformers takes it for granted there
    file = tinymodels.write(tinymodels.make(kind, **settings), tmp_path / "m.gguf", quantised=quantised)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32)
    assert same(weights.load({"m.gguf": file}), theirs.eval())
    ours = weights.load({"m.gguf": file})
    assert torch.allclose(logits(ours), logits(theirs), atol=1e-4)


@pytest.mark.parametrize(
    ("said", "rotation"),
    [
        (
            {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
            {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
        ),
        (
            {
                "llama.rope.scaling.type": "yarn",
                "llama.rope.scaling.factor": 4.0,
                "llama.rope.scaling.original_context_length": 128,
            },
            {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 128,
            },
        ),
        ("factors", LLAMA3),
    ],
    ids=["linear", "yarn", "llama3"],
)
def test_stretched_rotations_are_the_engines(tmp_path, said, rotation):
    """Each way to stretch a context that is let in: as transformers computes it, and as the engine does."""
    made = tinymodels.make("llama", rope_parameters=rotation)
    extra = {"rope_freqs": 1 / _slowed(made)} if said == "factors" else said
    file = tinymodels.write(made, tmp_path / "m.gguf", extra=extra)
    read = weights.load({"m.gguf": file})
    assert torch.allclose(logits(read), logits(made), atol=1e-4)
    plain = tinymodels.make("llama")
    assert not torch.allclose(logits(plain), logits(made), atol=1e-2)  # so it does matter here
    held = tuning.passages(3, prompt=90, answer=8)
    with tuning.probe(file) as probe:
        agreed = parity.agreement(read, held, probe.score(held))
    assert agreed.flips == 0 and agreed.median < 0.05, agreed


def _slowed(model) -> torch.Tensor:
    """By how much the model's rotary frequencies are slower than they would be unstretched."""
    size = tinymodels.SIZE
    return model.model.rotary_emb.inv_freq * 10000.0 ** (torch.arange(0, size, 2) / size)


def test_a_model_in_parts_is_one(tmp_path):
    """As large models come; with a part missing it is refused."""
    made = tinymodels.make("qwen3")
    whole = tensors.File(tinymodels.write(made, tmp_path / "m.gguf"))
    names = list(whole.tensors)
    parts = {}
    for number, some in enumerate((names[: len(names) // 2], names[len(names) // 2 :])):
        path = tmp_path / f"m-{number + 1:05d}-of-00002.gguf"
        tinymodels.rewrite(whole, path, some, {"split.count": 2, "split.no": number})
        parts[path.name] = path
    assert same(weights.load(parts), made)
    first = min(parts)
    with pytest.raises(BadModel, match="has 2 parts and 1 are here"):
        weights.load({first: parts[first]})


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral"])
def test_safetensors_are_read_where_there_is_no_gguf(tmp_path, kind):
    """With the configuration beside them; the engine's view of attention, which has no window, included."""
    window = {"sliding_window": 16} if kind == "mistral" else {}
    made = tinymodels.make(kind, **window)
    made.save_pretrained(tmp_path)
    files = {path.name: path for path in tmp_path.iterdir()}
    read = weights.load(files)
    assert same(read, made)
    assert torch.allclose(logits(read), logits(tinymodels.make(kind)), atol=1e-4)


def test_half_precision_and_two_files_are_read_too(tmp_path):
    """As they are published: bfloat16, in shards."""
    made = tinymodels.make("llama").to(torch.bfloat16)
    made.save_pretrained(tmp_path, max_shard_size="100kB")
    files = {path.name: path for path in tmp_path.iterdir()}
    assert sum(name.endswith(".safetensors") for name in files) > 1
    assert same(weights.load(files), made.float())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "gemma3"}, "'gemma3' cannot be tuned here"),
        ({"model_type": "qwen3_moe"}, "cannot be tuned here"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantised in a way"),
        ({"hidden_act": "gelu"}, "uses 'gelu'"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "uses 'dynamic'"),
        ({"num_hidden_layers": 4}, "do not fit the architecture"),
        ({"num_hidden_layers": 2}, "do not fit the architecture"),
        ({"intermediate_size": 64}, "64 x 96 and should be 64 x 64"),
    ],
)
def test_safetensors_of_another_kind_are_refused(tmp_path, change, says):
    """By the name of what is strange."""
    tinymodels.make("llama").save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(BadModel, match=says):
        weights.load({path.name: path for path in tmp_path.iterdir()})
    with pytest.raises(BadModel, match=r"no config\.json"):
        weights.load({"model.safetensors": tmp_path / "model.safetensors"})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"general.architecture": "gemma3"}, "'gemma3' cannot be tuned here.*Llama .*Qwen2 and Qwen3"),
        ({"general.architecture": "qwen3moe"}, "'qwen3moe' cannot be tuned here"),
        ({"general.type": "adapter"}, "no model but of the type 'adapter'"),
        ({"llama.expert_count": 8}, "llama.expert_count = 8"),
        ({"llama.attention.sliding_window": 4096}, "llama.attention.sliding_window = 4096"),
        ({"llama.logit_scale": 2.0}, "llama.logit_scale = 2.0"),
        ({"llama.rope.scaling.type": "longrope"}, "llama.rope.scaling.type = 'longrope'"),
        ({"llama.rope.dimension_count": 8}, "llama.rope.dimension_count = 8"),
        ({"llama.attention.layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon = 'nothing'"),
        ({"llama.block_count": 4}, "model.layers.3.input_layernorm.weight is absent"),
        ({"llama.feed_forward_length": 64}, "is 64 x 96 and should be 64 x 64"),
        ({"llama.embedding_length": None}, "embedding_length"),
    ],
)
def test_a_file_that_says_something_strange_is_refused(tmp_path, change, says):
    """Nothing that bears on the mathematics is passed over."""
    whole = tensors.File(tinymodels.write(tinymodels.make("llama"), tmp_path / "m.gguf"))
    tinymodels.rewrite(whole, tmp_path / "odd.gguf", list(whole.tensors), change)
    with pytest.raises(BadModel) as raised:
        weights.load({"odd.gguf": tmp_path / "odd.gguf"})
    import re

    assert re.search(says, raised.value.sentence(), re.DOTALL), raised.value.sentence()


def test_tensors_that_are_not_known_or_not_there_are_named(tmp_path):
    """One too many, one too few, none at all."""
    whole = tensors.File(tinymodels.write(tinymodels.make("qwen3"), tmp_path / "m.gguf"))
    names = list(whole.tensors)
    odd = tmp_path / "odd.gguf"
    tinymodels.rewrite(whole, odd, names, {}, renamed={"blk.1.attn_q_norm.weight": "blk.1.attn_sinks.weight"})
    with pytest.raises(BadModel, match=r"blk\.1\.attn_sinks\.weight"):
        weights.load({"odd.gguf": odd})
    tinymodels.rewrite(whole, odd, [name for name in names if name != "blk.1.ffn_up.weight"], {})
    with pytest.raises(BadModel, match=r"model\.layers\.1\.mlp\.up_proj\.weight is absent"):
        weights.load({"odd.gguf": odd})
    tinymodels.rewrite(whole, odd, ["output_norm.weight"], {})
    with pytest.raises(BadModel, match=r"no token_embd\.weight"):
        weights.load({"odd.gguf": odd})
    with pytest.raises(BadModel, match="no GGUF file"):
        weights.load({"readme.md": odd})


def test_what_is_no_gguf_or_is_cut_off_is_said(tmp_path):
    """Rather than a traceback, or weights that are not there."""
    file = tinymodels.write(tinymodels.make("llama"), tmp_path / "m.gguf")
    for length in (0, 3, 40, 2000, file.stat().st_size // 2, file.stat().st_size - 4000):
        cut = tmp_path / f"cut{length}.gguf"
        cut.write_bytes(file.read_bytes()[:length])
        with pytest.raises(BadModel):
            weights.load({"m.gguf": cut})
    shutil.copy(__file__, tmp_path / "text.gguf")
    with pytest.raises(BadModel, match="does not begin as one"):
        weights.load({"text.gguf": tmp_path / "text.gguf"})


def test_every_linear_layer_has_its_name_on_both_sides():
    """There and back, for each family; what is no linear layer takes no LoRA."""
    for family in families.FAMILIES.values():
        for part in families.LINEAR:
            name = f"blk.7.{part}.weight"
            assert families.gguf_name(families.torch_name(family, name)) == name
    for name in (
        "lm_head.weight",
        "model.embed_tokens.weight",
        "model.layers.0.input_layernorm.weight",
        "model.norm.weight",
    ):
        with pytest.raises(BadModel, match="no linear layer of a block"):
            families.gguf_name(name)


def test_rows_go_there_and_back():
    """What is permuted and brought back is as it was, and the order is the one that llama.cpp's conversion writes."""
    import numpy as np

    rows = np.arange(48 * 5, dtype=np.float32).reshape(48, 5)
    for heads in (1, 2, 3, 6):
        moved = families.permute(rows, heads)
        assert np.array_equal(families.unpermute(moved, heads), rows)
        assert np.array_equal(moved, tinymodels._as_stored(rows, heads))
    assert not np.array_equal(families.permute(rows, 2), rows)
