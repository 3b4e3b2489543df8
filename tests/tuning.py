"""What the tests of tuning stand on: an engine asked directly, an adapter with weights that matter, and its export by a
hand other than the package's."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tinymodels

from freehold.config import EngineSettings
from freehold.disk import hash_file
from freehold.engine.probe import Passage, Probe
from freehold.tune import tensors
from freehold.types import Manifest

LESS = "the extra freehold[tune] is not installed"
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RANK, ALPHA = 4, 8


def probe(file: Path, adapters: Sequence[Path] = (), *, seal: str = "best", **settings: object) -> Probe:
    """An engine of that file. One thread: two would wait for each other where others are at work too."""
    metadata = tensors.File(file).metadata
    kind = metadata["general.architecture"]
    manifest = Manifest("base", hash_file(file), file.stat().st_size, "gguf", "file", False, kind, 512)
    wanted = EngineSettings(**({"threads": 1, "start_seconds": 60.0} | settings))
    return Probe(manifest, file, metadata, Path(tempfile.mkdtemp(prefix="p")), wanted, seal, adapters=adapters)


def passages(count: int, prompt: int = 10, answer: int = 10, seed: int = 0) -> list[Passage]:
    """Random tokens of the little vocabulary, none of them special."""
    draw, most = random.Random(seed), len(tinymodels.vocabulary()[0])
    tokens = lambda length: tuple(draw.randrange(len(tinymodels.SPECIAL), most) for _ in range(length))  # noqa: E731
    return [Passage(tokens(prompt), tokens(answer)) for _ in range(count)]


def adapted(model, strength: float = 0.3, seed: int = 1, **settings: object):
    """The model with an adapter that changes every linear layer: B is random, where a new one's is 0."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.set_num_threads(1)  # as for the engine
    wanted = {"r": RANK, "lora_alpha": ALPHA, "target_modules": TARGETS, "task_type": "CAUSAL_LM"} | settings
    made = get_peft_model(model, LoraConfig(**wanted)).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn_like(weight) * strength)
            elif "lora_A" in name:
                weight.copy_(torch.randn_like(weight) / weight.shape[1] ** 0.5)
    return made


def pairs(model) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A and B of each layer as torch has them, by the name of the weight in GGUF."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, value in model.named_parameters():
        if ".lora_" in name:
            layer, _, half = name.removeprefix("base_model.model.").partition(".lora_")
            found.setdefault(tinymodels.stored_name(f"{layer}.weight"), {})[half[0]] = value.detach().numpy()
    return {name: (halves["A"], halves["B"]) for name, halves in found.items()}


def export(path: Path, kind: str, pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], alpha: float = ALPHA) -> Path:
    """An adapter with these tensors as they are, right or wrong."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, kind)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for name, halves in pairs.items():
        for letter, value in zip("ab", halves, strict=True):
            writer.add_tensor(f"{name}.lora_{letter}", np.ascontiguousarray(value, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def stored(pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], heads: int, kv_heads: int) -> dict:
    """B's rows of q and k in the order in which the engine stores a Llama's."""
    counts = {"attn_q": heads, "attn_k": kv_heads}
    return {
        name: (a, tinymodels._as_stored(b, counts[part]) if (part := name.split(".")[2]) in counts else b)
        for name, (a, b) in pairs.items()
    }


def swapped(pairs: Mapping, one: int, other: int, parts: Iterable[str]) -> dict:
    """The same pairs, those of two layers in each other's place."""
    mixed = dict(pairs)
    for part in parts:
        names = f"blk.{one}.{part}.weight", f"blk.{other}.{part}.weight"
        mixed[names[0]], mixed[names[1]] = pairs[names[1]], pairs[names[0]]
    return mixed
