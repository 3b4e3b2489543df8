"""What an architecture is: its names in GGUF and in transformers, its tensors, and the order of its rows.

Sources: llama.cpp's conversion scripts for how tensors are named and laid out, and its graphs (``src/models``) for what
it computes; transformers' model classes for the other side. An architecture is supported when both sides are known to
compute the same: everything that a file says and that is not known here is refused, because training against weights
that are read wrongly looks fine until it is served.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from freehold.errors import BadModel

if TYPE_CHECKING:
    import numpy as np


class Family(Struct, frozen=True):
    """One architecture. ``name`` is GGUF's; ``types`` are those of a ``config.json`` that GGUF knows by that name;
    ``permuted`` says whether the engine stores the rows of q and k in another order than transformers; ``biases`` and
    ``norms`` name the further tensors of a layer, in GGUF's words."""

    name: str
    types: tuple[str, ...]
    permuted: bool = False
    biases: tuple[str, ...] = ()
    norms: tuple[str, ...] = ()


LLAMA = Family("llama", ("llama", "mistral"), permuted=True)
QWEN2 = Family("qwen2", ("qwen2",), biases=("attn_q", "attn_k", "attn_v"))
QWEN3 = Family("qwen3", ("qwen3",), norms=("attn_q_norm", "attn_k_norm"))
FAMILIES = {family.name: family for family in (LLAMA, QWEN2, QWEN3)}
SUPPORTED = "Llama (with SmolLM2 and Mistral), Qwen2 and Qwen3"

# The linear layers of a block, all of which can take LoRA, by their names in GGUF and in transformers.
LINEAR = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TARGETS = tuple(name.rpartition(".")[2] for name in LINEAR.values())
_NORMS = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
}
_OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
FREQUENCIES = "rope_freqs.weight"  # not a weight: what Llama 3.1 divides its rotary frequencies by
_IN_GGUF = {theirs: ours for ours, theirs in (LINEAR | _NORMS).items()}
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_LAYER = re.compile(r"model\.layers\.(\d+)\.([\w.]+)\.(weight|bias)")
_PERMUTED = ("attn_q", "attn_k")


def of(architecture: str) -> Family:
    """The family by GGUF's name of the architecture. Raises BadModel with the names of those that there are."""
    if architecture in FAMILIES:
        return FAMILIES[architecture]
    raise _unsupported(architecture)


def of_type(model_type: str) -> Family:
    """The family by the ``model_type`` of a ``config.json``. Raises BadModel."""
    for family in FAMILIES.values():
        if model_type in family.types:
            return family
    raise _unsupported(model_type)


def torch_name(family: Family, name: str) -> str:
    """A tensor of the file as transformers calls it. Raises BadModel for one that the family does not have."""
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    if (found := _BLOCK.fullmatch(name)) and _has(family, found[2], found[3]):
        return f"model.layers.{found[1]}.{(LINEAR | _NORMS)[found[2]]}.{found[3]}"
    raise BadModel(
        f"The model has a tensor {name!r}, which is no part of {family.name} as it is known here.",
        hint="Tuning would leave it out, and train against another model than the engine's. Take another base.",
    )


def gguf_name(name: str) -> str:
    """A linear layer's weight, ``model.layers.N...weight``, as GGUF calls it. Raises BadModel for any other name."""
    found = _LAYER.fullmatch(name)
    if found is None or _IN_GGUF.get(found[2]) not in LINEAR:
        raise BadModel(f"{name!r} is no linear layer of a block, and the engine reads no LoRA for it.")
    return f"blk.{found[1]}.{_IN_GGUF[found[2]]}.{found[3]}"


def heads(family: Family, name: str, query: int, key: int) -> int:
    """By how many heads the rows of a tensor (GGUF's name) are permuted in the file: 0 where they are not."""
    found = _BLOCK.match(name)
    if not family.permuted or found is None or found[2] not in _PERMUTED:
        return 0
    return query if found[2] == "attn_q" else key


def permute(rows: np.ndarray, count: int) -> np.ndarray:
    """Rows in transformers' order brought into the engine's: within each of ``count`` heads, the two halves that are
    rotated together become neighbours. Source: ``LlamaModel.permute`` of llama.cpp's conversion."""
    return rows.reshape(count, 2, rows.shape[0] // count // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def unpermute(rows: np.ndarray, count: int) -> np.ndarray:
    """What `permute` did, undone."""
    return rows.reshape(count, rows.shape[0] // count // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)


# What a file may say of its architecture without being refused, in GGUF's words behind the architecture's name.
_KNOWN = frozenset(
    {
        "vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length", "tensor_data_layout",
        "attention.head_count", "attention.head_count_kv", "attention.layer_norm_rms_epsilon", "attention.key_length",
        "attention.value_length", "attention.causal", "attention.sliding_window", "expert_count", "expert_used_count",
        "rope.dimension_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor", "rope.scale_linear",
        "rope.scaling.original_context_length", "rope.scaling.finetuned",
    }
)  # fmt: skip
_NEUTRAL = {"attention.causal": True, "expert_count": 0, "expert_used_count": 0, "attention.sliding_window": 0}


def settings(family: Family, metadata: Mapping[str, Any], tensors: Iterable[str]) -> dict[str, Any]:
    """What transformers' configuration of the model has to say, read from a file's metadata and its tensors' names.

    Raises:
        BadModel: a key is missing, is not known here, or says what transformers does not compute in the same way.
    """
    said = {key[len(family.name) + 1 :]: value for key, value in metadata.items() if key.startswith(family.name + ".")}
    _check_known(family, said)
    width, count = _whole(said, "embedding_length"), _whole(said, "attention.head_count")
    size = _whole(said, "attention.key_length", width // count)
    for name in ("attention.value_length", "rope.dimension_count"):
        if _whole(said, name, size) != size:
            raise _strange(family, name, said[name])
    tensors = set(tensors)
    biased = any(name.startswith("blk.0.attn_") and name.endswith(".bias") for name in tensors)
    wanted = {
        "hidden_size": width,
        "intermediate_size": _whole(said, "feed_forward_length"),
        "num_hidden_layers": _whole(said, "block_count"),
        "num_attention_heads": count,
        "num_key_value_heads": _whole(said, "attention.head_count_kv", count),
        "head_dim": size,
        "max_position_embeddings": _whole(said, "context_length"),
        "rms_norm_eps": float(said["attention.layer_norm_rms_epsilon"]),
        "rope_parameters": _rotation(family, said),
        "tie_word_embeddings": "output.weight" not in tensors,
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": None,
    }
    if family is LLAMA:
        wanted |= {"attention_bias": biased, "mlp_bias": "blk.0.ffn_up.bias" in tensors}
    return wanted


def _has(family: Family, part: str, suffix: str) -> bool:
    if suffix == "bias":
        return part in family.biases or (family is LLAMA and part in LINEAR)
    return part in LINEAR or part in ("attn_norm", "ffn_norm") or part in family.norms


def _check_known(family: Family, said: Mapping[str, Any]) -> None:
    for name, value in said.items():
        if name not in _KNOWN or (name in _NEUTRAL and value != _NEUTRAL[name]):
            raise _strange(family, name, value)
    if "attention.layer_norm_rms_epsilon" not in said:
        raise _strange(family, "attention.layer_norm_rms_epsilon", "nothing")


def _rotation(family: Family, said: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary embedding. Of the ways to stretch it, transformers and the engine agree about two."""
    found: dict[str, Any] = {"rope_type": "default", "rope_theta": float(said.get("rope.freq_base", 10000.0))}
    kind = said.get("rope.scaling.type", "linear" if "rope.scale_linear" in said else "none")
    factor = float(said.get("rope.scaling.factor", said.get("rope.scale_linear", 1.0)))
    if kind == "linear" and factor != 1:
        return found | {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        original = _whole(said, "rope.scaling.original_context_length")
        return found | {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    if kind not in ("none", "linear"):
        raise _strange(family, "rope.scaling.type", kind)
    return found


def _whole(said: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A number that is one for the whole model; a file may give it for each layer, if each has the same."""
    value = said.get(name, default)
    values = set(value) if isinstance(value, list) else {value}
    if len(values) == 1 and isinstance(only := values.pop(), int) and only > 0:
        return only
    raise BadModel(
        f"The model's file gives {value!r} for {name}, and one number above 0 is needed.",
        hint="Its layers differ, or the file is not complete. Take another base.",
    )


def _strange(family: Family, name: str, value: Any) -> BadModel:
    return BadModel(
        f"The model's file says {family.name}.{name} = {value!r}, which training does not know how to reproduce.",
        hint="Take a base without it; what is trained must be what the engine computes.",
    )


def _unsupported(name: str) -> BadModel:
    return BadModel(
        f"Models of the architecture {name or '(none is named)'!r} cannot be tuned here.",
        hint=f"Supported are {SUPPORTED}; mixtures of experts and models that read images are not.",
    )
