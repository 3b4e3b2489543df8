"""An adapter out of peft into GGUF, as the engine reads it, and back.

Format: llama.cpp's ``llama_adapter_lora_init``. ``general.type`` is "adapter", ``adapter.type`` "lora", and for each
weight W of (out, in) there are ``NAME.lora_a`` of (rank, in) and ``NAME.lora_b`` of (out, rank); the engine computes
W x + (alpha / rank) B (A x). Where the engine stores the rows of q and k in another order (`family`), B's rows follow;
A's belong to the input and stay.

What peft can do and the engine does not read is refused by name (`check`): served without it, the adapter would be
another one than was trained. The same weights and words make the same bytes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from freehold.disk import sync
from freehold.errors import BadModel, CannotDo
from freehold.tune import family as families
from freehold.tune.extra import need
from freehold.tune.family import Family
from freehold.tune.tensors import File
from freehold.tune.weights import family_of

if TYPE_CHECKING:
    import numpy as np
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import PretrainedConfig

TYPE = "adapter"
_ALPHA = "adapter.lora.alpha"
_OURS = "freehold."  # what follows it is ours, and nobody else reads it

# Settings of peft's that bear on what the engine reads no more than on which layers there are, or on training alone.
_FREE = frozenset(
    {
        "r", "lora_alpha", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "lora_dropout",
        "task_type", "peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision",
        "inference_mode", "megatron_core", "runtime_config", "qalora_group_size",
    }
)  # fmt: skip
_INITS = (True, False, "gaussian", "orthogonal")  # the others change the base's weights, or ask for data
_WHY = {
    "use_rslora": "rsLoRA scales by alpha / sqrt(rank), and the engine by alpha / rank",
    "use_dora": "DoRA has a magnitude for each row, which the engine does not read",
    "rank_pattern": "the engine takes the rank of each layer from its tensors, but one alpha for all",
    "alpha_pattern": "the engine reads one alpha for all layers",
    "bias": "the engine reads no biases of an adapter",
    "lora_bias": "the engine reads no biases of an adapter",
    "modules_to_save": "whole layers are no part of an adapter that the engine reads",
    "init_lora_weights": "it changes the base's own weights, which stay as they are in the engine",
    "trainable_token_indices": "the engine reads no trained token embeddings",
    "layer_replication": "the engine's model has the base's layers, each once",
    "fan_in_fan_out": "the weights of these models are stored the other way round",
}


class About(Struct, frozen=True):
    """Where an adapter comes from: its name, the name, file digest and licence of its base, the task that it is for,
    and the digest of what it was trained on."""

    name: str
    base: str
    base_digest: str = ""
    licence: str = ""
    task: str = ""
    data: str = ""


class Adapter(Struct, frozen=True):
    """An adapter read from a file: A (rank, in) and B (out, rank) of each layer, as peft has them, by GGUF's name of
    the weight, float32."""

    architecture: str
    rank: int
    alpha: float
    pairs: Mapping[str, tuple[Any, Any]]
    metadata: Mapping[str, Any]

    @property
    def about(self) -> About:
        """What it says of itself."""
        said = {name: self.metadata.get(key, "") for name, key in _KEYS.items()}
        return About(**{name: value if isinstance(value, str) else "" for name, value in said.items()})


_KEYS = {
    "name": "general.name",
    "base": "general.base_model.0.name",
    "base_digest": _OURS + "base.digest",
    "licence": "general.license",
    "task": _OURS + "task",
    "data": _OURS + "data",
}


def check(config: LoraConfig, *, tied: bool) -> None:
    """Would the engine read an adapter that is trained with this? ``tied``: the base's input and output share one
    matrix.

    Raises:
        CannotDo: naming the setting that it would pass over, and why.
    """
    plain = type(config)()
    for name in sorted(vars(config)):
        value = getattr(config, name)
        if name in _FREE or value == getattr(plain, name, None) or (name == "init_lora_weights" and value in _INITS):
            continue
        raise _refused(name, value, _WHY.get(name, "it is no plain LoRA, which is what the engine reads"))
    targets = [config.target_modules] if isinstance(config.target_modules, str) else config.target_modules or ()
    for target in sorted(targets):
        if any(part in target for part in ("lm_head", "embed_tokens")):
            why = "input and output share one matrix" if tied else "only the layers of blocks are exported"
            raise _refused("target_modules", target, why)


def write(model: PeftModel, path: Path, about: About, *, half: bool = False) -> None:
    """The adapter that ``model`` carries, as a GGUF file, whole or not there at all. ``half`` stores it in float16, at
    half the size. The file is read back and held against the model before it gets its name.

    Raises:
        CannotDo: it is not one that the engine reads; or torch and its like are not installed.
        BadModel: a layer is not one of the family's, or the weights hold something that is no number.
    """
    need()
    name, config = _only(model)
    base = model.base_model.model
    check(config, tied=bool(base.config.tie_word_embeddings))
    pairs = {}
    for layer, (a, b) in _own(model, name).items():
        if count := families.heads(family_of(base), layer, *_heads(base.config)):
            b = families.permute(b, count)
        pairs[layer] = (a, b)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _write(temporary, family_of(base).name, float(config.lora_alpha), pairs, about, half)
        verify(model, temporary)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def verify(model: PeftModel, path: Path) -> None:
    """Does the file hold what ``model`` carries: the same layers, each with its own A and B, and the same scale? What
    it means to the engine is another question: see `parity`.

    Raises:
        BadModel: it does not; the first difference is named.
    """
    import numpy as np

    name, config = _only(model)
    found, family = read(path), family_of(model.base_model.model)
    theirs, ours = state(found, model.base_model.model.config), _own(model, name)
    if found.alpha != config.lora_alpha or found.rank != config.r:
        raise BadModel(
            f"The adapter's file has alpha {found.alpha:g} and rank {found.rank}, and what was trained has "
            f"{config.lora_alpha} and {config.r}."
        )
    if lacking := sorted(ours.keys() ^ found.pairs.keys()):
        raise BadModel(f"Of the adapter's file and what was trained, only one has {lacking[0]}.")
    for layer, halves in ours.items():
        for letter, value in zip("AB", halves, strict=True):
            kept = theirs[f"{_layer(family, layer)}.lora_{letter}.weight"].numpy()
            if not np.allclose(kept, value, rtol=1e-3, atol=1e-7):  # a float16 has eleven bits
                raise BadModel(f"The adapter's file has another {letter} for {layer} than was trained.")


def read(path: Path) -> Adapter:
    """An adapter from its file. The rows of B are as the file has them: see `state`.

    Raises:
        BadModel: the file is no LoRA adapter, or not a whole one.
    """
    file = File(path)
    said = file.metadata
    if (said.get("general.type"), said.get("adapter.type")) != (TYPE, "lora") or _ALPHA not in said:
        raise BadModel(f"{path.name} is no LoRA adapter.", hint="Give a GGUF adapter.")
    names = sorted(name.removesuffix(".lora_a") for name in file.tensors if name.endswith(".lora_a"))
    if not names or {f"{name}.lora_{half}" for name in names for half in "ab"} != file.tensors.keys():
        raise BadModel(f"The tensors of {path.name} are not pairs of A and B.", hint="Export it again.")
    pairs = {name: (file.read(f"{name}.lora_a"), file.read(f"{name}.lora_b")) for name in names}
    ranks = {a.shape[0] for a, _ in pairs.values()}
    if len(ranks) != 1 or ranks != {b.shape[1] for _, b in pairs.values()}:
        raise BadModel(f"The layers of {path.name} have the ranks {sorted(ranks)}, and one is needed.")
    return Adapter(str(said.get("general.architecture", "")), ranks.pop(), float(said[_ALPHA]), pairs, said)


def state(adapter: Adapter, config: PretrainedConfig) -> dict[str, torch.Tensor]:
    """What ``peft.set_peft_model_state_dict`` takes to go on training from an adapter; ``config`` is the base's."""
    import numpy as np
    import torch

    family = families.of(adapter.architecture)
    found: dict[str, torch.Tensor] = {}
    for name, (a, b) in adapter.pairs.items():
        if count := families.heads(family, name, *_heads(config)):
            b = families.unpermute(b, count)
        for letter, value in (("A", a), ("B", b)):
            key = f"{_layer(family, name)}.lora_{letter}.weight"
            found[key] = torch.from_numpy(np.ascontiguousarray(value))
    return found


def _heads(config: PretrainedConfig) -> tuple[int, int]:
    return config.num_attention_heads, config.num_key_value_heads


def _layer(family: Family, name: str) -> str:
    """A layer as peft calls it, by GGUF's name of its weight."""
    return "base_model.model." + families.torch_name(family, name).removesuffix(".weight")


def _only(model: PeftModel) -> tuple[str, LoraConfig]:
    """The one adapter of a model, and its configuration."""
    from peft import LoraConfig

    configs = list(model.peft_config.items())
    if len(configs) != 1:
        raise CannotDo(f"The model carries {len(configs)} adapters, and one is exported at a time.")
    if type(configs[0][1]) is not LoraConfig:
        raise CannotDo(f"The adapter is {type(configs[0][1]).__name__}, and the engine reads plain LoRA alone.")
    return configs[0]


def _own(model: PeftModel, name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A and B of each layer as torch has them, by GGUF's name of the weight, in order. Raises BadModel."""
    from peft import get_peft_model_state_dict

    halves: dict[str, dict[str, np.ndarray]] = {}
    for key, value in get_peft_model_state_dict(model, adapter_name=name).items():
        layer, _, half = key.removeprefix("base_model.model.").rpartition(".lora_")
        if not layer or half not in ("A.weight", "B.weight"):
            raise BadModel(f"The adapter holds {key!r}, which is neither an A nor a B.")
        found = halves.setdefault(families.gguf_name(f"{layer}.weight"), {})
        found[half[0]] = value.detach().to("cpu").float().numpy()
    if halved := [layer for layer, found in halves.items() if len(found) != 2]:
        raise BadModel(f"The adapter has half of a pair for {halved[0]}.")
    return {layer: (halves[layer]["A"], halves[layer]["B"]) for layer in sorted(halves, key=_order)}


def _order(name: str) -> tuple[int, str]:
    return int(name.split(".")[1]), name


def _write(
    path: Path, architecture: str, alpha: float, pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], about: About,
    half: bool,
) -> None:  # fmt: skip
    import numpy as np
    from gguf import GGUFWriter

    writer = GGUFWriter(path, architecture)
    _describe(writer, alpha, about)
    for name, values in pairs.items():
        for letter, value in zip("ab", values, strict=True):
            kept = np.ascontiguousarray(value, np.float16 if half else np.float32)
            if not np.isfinite(kept).all():
                raise BadModel(
                    f"The trained weights of {name} hold something that is no number.",
                    hint="Training diverged. Train again with a lower --lr.",
                )
            writer.add_tensor(f"{name}.lora_{letter}", kept)
    with contextlib.closing(writer):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()


def _describe(writer: Any, alpha: float, about: About) -> None:
    writer.add_type(TYPE)
    writer.add_string("adapter.type", "lora")
    writer.add_float32(_ALPHA, alpha)
    writer.add_base_model_count(1)
    for name, key in _KEYS.items():
        if value := getattr(about, name):
            writer.add_string(key, value)


def _refused(name: str, value: Any, why: str) -> CannotDo:
    return CannotDo(f"An adapter with {name} = {value!r} cannot be exported: {why}.", hint="Train a plain LoRA.")
