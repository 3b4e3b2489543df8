"""An adapter out of peft into GGUF: exactly what was trained, in the engine's order, or a refusal by name."""

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import tinymodels
import tuning
from harness import cli

from freehold.errors import BadModel, CannotDo
from freehold.tune import adapter, extra, tensors, weights

torch = pytest.importorskip("torch", reason=tuning.LESS)
peft = pytest.importorskip("peft", reason=tuning.LESS)

ABOUT = adapter.About("base+tickets@3", "base", "sha256:" + "1" * 64, "apache-2.0", "tickets", "sha256:" + "2" * 64)


@pytest.fixture(params=tinymodels.KINDS)
def trained(request):
    return tuning.adapted(tinymodels.make(request.param))


@pytest.fixture
def llama():
    return tuning.adapted(tinymodels.make("llama"))


def test_what_was_trained_is_in_the_file(tmp_path, trained):
    """Every A as it is; every B too, but for the rows of a Llama's q and k; the scale; nothing else."""
    adapter.write(trained, tmp_path / "a.gguf", ABOUT)
    kept = adapter.read(tmp_path / "a.gguf")
    kind = trained.config.model_type
    assert (kept.architecture, kept.rank, kept.alpha) == (kind, tuning.RANK, tuning.ALPHA)
    own = tuning.pairs(trained)
    due = tuning.stored(own, tinymodels.HEADS, tinymodels.KV_HEADS) if kind == "llama" else own
    assert kept.pairs.keys() == due.keys() and len(due) == 7 * tinymodels.LAYERS
    for name, (a, b) in due.items():
        assert np.array_equal(kept.pairs[name][0], a) and np.array_equal(kept.pairs[name][1], b), name
    if kind == "llama":
        moved = [name for name in own if not np.array_equal(own[name][1], kept.pairs[name][1])]
        assert {name.split(".")[2] for name in moved} == {"attn_q", "attn_k"} and len(moved) == 2 * tinymodels.LAYERS


def test_the_file_says_where_it_is_from(tmp_path, llama):
    """Name, base with its digest, licence, task and data; and what the engine asks for."""
    adapter.write(llama, tmp_path / "a.gguf", ABOUT)
    kept = adapter.read(tmp_path / "a.gguf")
    assert kept.about == ABOUT
    assert kept.metadata["general.type"] == "adapter" and kept.metadata["adapter.type"] == "lora"
    assert kept.metadata["general.base_model.count"] == 1


def test_the_same_weights_make_the_same_bytes(tmp_path, llama):
    """And other ones do not."""
    digests = []
    for number in range(3):
        if number == 2:
            with torch.no_grad():
                next(weight for name, weight in llama.named_parameters() if "lora_B" in name)[0, 0] += 1
        adapter.write(llama, tmp_path / f"{number}.gguf", ABOUT)
        digests.append(hashlib.sha256((tmp_path / f"{number}.gguf").read_bytes()).hexdigest())
    assert digests[0] == digests[1] != digests[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.gguf", "1.gguf", "2.gguf"]


def test_half_the_size_holds_as_much_as_it_can(tmp_path, llama):
    """Float16 keeps eleven bits of each value."""
    sizes = {}
    for half in (False, True):
        adapter.write(llama, tmp_path / "a.gguf", ABOUT, half=half)
        file = tensors.File(tmp_path / "a.gguf")
        assert {tensor.kind for tensor in file.tensors.values()} == {1 if half else 0}
        sizes[half] = sum(np.prod(tensor.shape) * (2 if half else 4) for tensor in file.tensors.values())
        adapter.verify(llama, tmp_path / "a.gguf")
    assert sizes[False] == 2 * sizes[True]


def test_the_gate_for_models_reads_it_whole(tmp_path, llama):
    """No byte is unjudged, and nothing is found."""
    adapter.write(llama, tmp_path / "a.gguf", ABOUT)
    done = cli("scan", str(tmp_path / "a.gguf"), "--format", "json")
    (said,) = json.loads(done.stdout)
    assert done.returncode == 0 and said["verdict"] == "admit", done.stdout
    (file,) = said["files"]
    assert file["unjudged"] in ([], 0) and file["facts"]["type"] == "adapter"


def test_training_goes_on_from_the_file(tmp_path, trained):
    """A fresh model with what was read computes what the trained one computes."""
    adapter.write(trained, tmp_path / "a.gguf", ABOUT)
    kept = adapter.read(tmp_path / "a.gguf")
    fresh = tuning.adapted(tinymodels.make(trained.config.model_type), strength=0.0, seed=9)
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    assert not torch.allclose(fresh(input_ids=ids).logits, trained(input_ids=ids).logits)
    told = peft.set_peft_model_state_dict(fresh, adapter.state(kept, fresh.base_model.model.config))
    assert not told.unexpected_keys
    assert torch.equal(fresh(input_ids=ids).logits, trained(input_ids=ids).logits)


def test_an_adapter_of_some_layers_is_one(tmp_path):
    """Where only some were trained, the others are not in the file."""
    model = tuning.adapted(tinymodels.make("qwen3"), layers_to_transform=[1], target_modules=["q_proj", "down_proj"])
    adapter.write(model, tmp_path / "a.gguf", ABOUT)
    assert adapter.read(tmp_path / "a.gguf").pairs.keys() == {"blk.1.attn_q.weight", "blk.1.ffn_down.weight"}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"use_rslora": True}, "use_rslora.*rsLoRA scales by alpha / sqrt"),
        ({"use_dora": True}, "use_dora.*DoRA"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 8}}, "alpha_pattern.*one alpha for all"),
        ({"bias": "lora_only"}, "bias = 'lora_only'"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["norm"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'.*the base's own weights"),
        ({"init_lora_weights": "olora"}, "init_lora_weights = 'olora'"),
        ({"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}}, "init_lora_weights = 'loftq'"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
        ({"layer_replication": [(0, 2), (1, 3)]}, "layer_replication"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens.*no plain LoRA"),
        ({"use_qalora": True}, "use_qalora"),
        ({"target_parameters": ["experts"]}, "target_parameters"),
        ({"target_modules": ["q_proj", "lm_head"]}, "target_modules = 'lm_head'.*share one matrix"),
        ({"target_modules": ["embed_tokens"]}, "target_modules = 'embed_tokens'"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"ensure_weight_tying": True}, "ensure_weight_tying"),
    ],
)
def test_what_the_engine_does_not_read_is_refused_by_name(settings, says):
    """Before anything is trained with it."""
    config = peft.LoraConfig(**({"target_modules": tuning.TARGETS, "task_type": "CAUSAL_LM"} | settings))
    with pytest.raises(CannotDo, match=says):
        adapter.check(config, tied=True)


def test_what_the_engine_reads_is_let_in():
    """Rank, alpha, dropout, layers, and ways to begin that leave the base alone."""
    for settings in ({}, {"r": 64, "lora_alpha": 16, "lora_dropout": 0.1}, {"init_lora_weights": "gaussian"},
                     {"target_modules": "all-linear"}, {"layers_to_transform": [0, 1]}):  # fmt: skip
        adapter.check(
            peft.LoraConfig(**({"target_modules": tuning.TARGETS, "task_type": "CAUSAL_LM"} | settings)), tied=True
        )


def test_an_untied_head_is_refused_too():
    """The engine would read it; the exporter writes the layers of blocks alone."""
    config = peft.LoraConfig(target_modules=["q_proj", "lm_head"])
    with pytest.raises(CannotDo, match="only the layers of blocks"):
        adapter.check(config, tied=False)


def test_other_adapters_than_lora_are_refused(tmp_path):
    """By the name of their configuration; and two at once."""
    config = peft.IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj"], feedforward_modules=[])
    other = peft.get_peft_model(tinymodels.make("llama"), config)
    with pytest.raises(CannotDo, match="IA3Config"):
        adapter.write(other, tmp_path / "a.gguf", ABOUT)
    two = tuning.adapted(tinymodels.make("llama"))
    two.add_adapter("second", peft.LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(CannotDo, match="carries 2 adapters"):
        adapter.write(two, tmp_path / "a.gguf", ABOUT)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_no_numbers_are_not_written(tmp_path, llama):
    """A run that diverged leaves no file, and a file of before stays."""
    adapter.write(llama, tmp_path / "a.gguf", ABOUT)
    before = (tmp_path / "a.gguf").read_bytes()
    with torch.no_grad():
        next(weight for name, weight in llama.named_parameters() if "lora_B" in name)[0, 0] = float("nan")
    with pytest.raises(BadModel, match="no number"):
        adapter.write(llama, tmp_path / "a.gguf", ABOUT)
    assert (tmp_path / "a.gguf").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def wrong_files(folder: Path, model) -> dict[str, Path]:
    right = tuning.stored(tuning.pairs(model), tinymodels.HEADS, tinymodels.KV_HEADS)
    less = {name: pair for name, pair in right.items() if not name.startswith("blk.1.")}
    made = {
        "alpha 16": (right, 16), "only one has blk.1.attn_k.weight": (less, tuning.ALPHA),
        "another B for blk.0.attn_k.weight": (tuning.pairs(model), tuning.ALPHA),
        "another A for blk.0.ffn_up.weight": (tuning.swapped(right, 0, 2, ["ffn_up"]), tuning.ALPHA),
    }  # fmt: skip
    return {
        says: tuning.export(folder / f"{number}.gguf", "llama", pairs, alpha)
        for number, (says, (pairs, alpha)) in enumerate(made.items())
    }


def test_a_file_that_holds_something_else_is_told_from_the_right_one(tmp_path, llama):
    """Another scale, a layer less, rows in another order, two layers in each other's place."""
    for says, path in wrong_files(tmp_path, llama).items():
        with pytest.raises(BadModel, match=says):
            adapter.verify(llama, path)


def test_what_is_no_adapter_is_not_read_as_one(tmp_path, llama):
    """A whole model, half a pair, layers of different ranks."""
    with pytest.raises(BadModel, match="no LoRA adapter"):
        adapter.read(tinymodels.write(tinymodels.make("llama"), tmp_path / "m.gguf"))
    pairs = tuning.pairs(llama)
    mixed = pairs | {"blk.0.attn_q.weight": tuple(value[:2] if n == 0 else value[:, :2] for n, value in
                                                  enumerate(pairs["blk.0.attn_q.weight"]))}  # fmt: skip
    with pytest.raises(BadModel, match=r"the ranks \[2, 4\]"):
        adapter.read(tuning.export(tmp_path / "ranks.gguf", "llama", mixed))
    torn = tuning.export(tmp_path / "torn.gguf", "llama", pairs).read_bytes()
    (tmp_path / "torn.gguf").write_bytes(torn.replace(b"blk.0.attn_q.weight.lora_b", b"blk.0.attn_q.weight.lora_x"))
    with pytest.raises(BadModel, match="not pairs of A and B"):
        adapter.read(tmp_path / "torn.gguf")


def test_without_the_extra_one_sentence_says_how_to_get_it(tmp_path, monkeypatch, llama):
    """In place of a traceback from somebody else's import."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("peft", "torch") else found(name))
    assert extra.missing() == ["torch", "peft"]
    for attempt in (extra.need, lambda: adapter.write(llama, tmp_path / "a", ABOUT), lambda: weights.load({})):
        with pytest.raises(CannotDo) as raised:
            attempt()
        assert raised.value.sentence() == (
            "Tuning needs torch, peft, which are not installed. Install it with: pip install 'freehold[tune]'"
        )


def test_the_libraries_versions_are_known():
    """For the record of a run."""
    assert extra.versions().keys() == {"torch", "transformers", "peft", "gguf", "xllamacpp"}
    assert all(extra.versions().values())
