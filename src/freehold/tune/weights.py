"""Base weights into torch: what the engine computes with, dequantised to float32, in transformers' own model.

A GGUF is read by `tensors` and laid out as transformers has it: rows of q and k in its order, names by `family`. The
model is built empty and the weights are put in place, so that memory holds them once. Where a model has safetensors and
no GGUF, those are read; the engine serves the GGUF, so where both are there the GGUF is what is trained against.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freehold.errors import BadModel
from freehold.tune import family as families
from freehold.tune import tensors
from freehold.tune.extra import need
from freehold.tune.family import Family

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Progress = Callable[[str, int, int], None]
_CLASSES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}


def load(
    files: Mapping[str, Path], *, device: str = "cpu", progress: Progress = lambda what, done, total: None
) -> PreTrainedModel:
    """The model in these files (their names in the model, and where they lie), in float32, ready to be trained on.

    Raises:
        CannotDo: a library of the extra is missing.
        BadModel: it has no weights that can be read, or its architecture is not one of `family.SUPPORTED`.
    """
    need()
    ggufs = {name: path for name, path in files.items() if name.lower().endswith(".gguf")}
    parts = {name: path for name, path in files.items() if name.lower().endswith(".safetensors")}
    model = _from_gguf(ggufs, progress) if ggufs or not parts else _from_safetensors(parts, files, progress)
    model.requires_grad_(False)
    return model.eval().to(device)


def family_of(model: PreTrainedModel) -> Family:
    """The family of a model in torch, a peft model included. Raises BadModel."""
    return families.of_type(model.config.model_type)


def tied(model: PreTrainedModel) -> bool:
    """Do input and output of the model share one matrix?"""
    return bool(model.config.tie_word_embeddings)


def _from_gguf(paths: Mapping[str, Path], progress: Progress) -> PreTrainedModel:
    metadata, where = tensors.together(paths)
    kind = metadata.get("general.type", "model")
    if kind != "model":
        raise BadModel(f"The file is no model but of the type {kind!r}.", hint="Give the base of an adapter.")
    family = families.of(str(metadata.get("general.architecture", "")))
    settings = families.settings(family, metadata, where)
    settings["vocab_size"] = _vocabulary(where)
    query, key = settings["num_attention_heads"], settings["num_key_value_heads"]
    state, factors = {}, None
    for done, (name, file) in enumerate(where.items(), start=1):
        values = file.read(name)
        if name == families.FREQUENCIES:
            factors = values
            continue
        if count := families.heads(family, name, query, key):
            values = families.unpermute(values, count)
        state[families.torch_name(family, name)] = _tensor(values)
        progress("reading weights", done, len(where))
    model = _build(family.name, settings, state)
    if factors is not None:
        _stretch(model, factors)
    return model


def _from_safetensors(parts: Mapping[str, Path], files: Mapping[str, Path], progress: Progress) -> PreTrainedModel:
    import torch
    from safetensors import safe_open

    said = _config(files)
    kind = str(said.get("model_type", ""))
    families.of_type(kind)
    state: dict[str, torch.Tensor] = {}
    for done, name in enumerate(sorted(parts), start=1):
        with safe_open(parts[name], "pt") as opened:
            state |= {key: opened.get_tensor(key).to(torch.float32) for key in opened.keys()}  # noqa: SIM118
        progress("reading weights", done, len(parts))
    if said.get("tie_word_embeddings"):
        state.pop("lm_head.weight", None)  # some are stored twice
    settings = {name: value for name, value in said.items() if name not in _NOT_OURS}
    return _build(kind, settings | {"sliding_window": None, "use_sliding_window": False}, state)


# What says nothing of the mathematics, and the window, which the engine does not have for these architectures.
_NOT_OURS = frozenset(
    {"architectures", "auto_map", "dtype", "torch_dtype", "transformers_version", "_name_or_path", "layer_types"}
)
_ROTATIONS = frozenset({"default", "linear", "yarn", "llama3"})


def _config(files: Mapping[str, Path]) -> dict[str, Any]:
    path = files.get("config.json")
    try:
        said = json.loads(path.read_bytes()) if path else None
    except (OSError, ValueError):
        said = None
    if not isinstance(said, dict):
        raise BadModel("The model has no config.json that can be read.", hint="Add the whole repository, or a GGUF.")
    if "quantization_config" in said:
        raise BadModel("Its weights are quantised in a way that is not read here.", hint="Add a GGUF of the model.")
    return said


def _build(kind: str, settings: Mapping[str, Any], state: dict[str, torch.Tensor]) -> PreTrainedModel:
    """The model of that configuration with exactly these weights. Raises BadModel where they do not fit."""
    import torch
    import transformers

    config = getattr(transformers, _CLASSES[kind] + "Config").from_dict(dict(settings))
    if (rotation := config.rope_parameters["rope_type"]) not in _ROTATIONS or config.hidden_act != "silu":
        odd = config.hidden_act if rotation in _ROTATIONS else rotation
        raise BadModel(f"The model uses {odd!r}, which the engine does not compute as transformers does.")
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        model = getattr(transformers, _CLASSES[kind] + "ForCausalLM")(config)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if config.tie_word_embeddings:
        wanted.pop("lm_head.weight")
    if kind == "llama":
        state |= {name: torch.zeros(shape) for name, shape in wanted.items() if _lacks_bias(name, state)}
    _check(wanted, {name: tuple(value.shape) for name, value in state.items()})
    model.load_state_dict(state, strict=not config.tie_word_embeddings, assign=True)
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config)  # its buffers are in no file
    left = [name for name, value in [*model.named_parameters(), *model.named_buffers()] if value.is_meta]
    if left:
        raise BadModel(f"The model's file leaves {left[0]} open.")
    return model


def _lacks_bias(name: str, state: Mapping[str, Any]) -> bool:
    """A Llama's biases are all there or none for transformers; a file may have those of q, k and v alone."""
    return name.endswith(".bias") and name not in state


def _check(wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise BadModel(
                f"The weights do not fit the architecture: {name} is {_shape(found.get(name))} "
                f"and should be {_shape(wanted.get(name))}.",
                hint="The model is damaged, or of another kind than it says.",
            )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else " x ".join(map(str, shape))


def _stretch(model: PreTrainedModel, factors: Any) -> None:
    """Llama 3.1 and later give a factor for each rotary frequency. The file holds them, and not what they were made
    from, so they are applied as the engine applies them."""
    rotation = model.model.rotary_emb
    if factors.shape != tuple(rotation.inv_freq.shape):
        raise BadModel(f"The model's file has {factors.size} rotary factors for {rotation.inv_freq.numel()}.")
    rotation.inv_freq = rotation.inv_freq / _tensor(factors)
    rotation.original_inv_freq = rotation.inv_freq.clone()


def _tensor(values: Any) -> torch.Tensor:
    import numpy as np
    import torch

    return torch.from_numpy(np.ascontiguousarray(values))


def _vocabulary(where: Mapping[str, tensors.File]) -> int:
    if "token_embd.weight" not in where:
        raise BadModel("The model's file has no token_embd.weight.", hint="It is not complete. Add the model again.")
    return where["token_embd.weight"].tensors["token_embd.weight"].shape[0]
