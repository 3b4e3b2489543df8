"""An adapter held against the model that it belongs to: would the engine lay exactly this over exactly that?

Source: llama.cpp's ``llama_adapter_lora_init``, which reads ``general.architecture``, ``adapter.type``,
``adapter.lora.alpha`` and pairs of tensors ``NAME.lora_a`` (A) and ``NAME.lora_b`` (B). With dimensions in the order of
the file, a weight W of (in, out) takes A of (in, rank) and B of (rank, out); token embeddings, (width, vocabulary), are
looked up and not multiplied, and take A of (rank, vocabulary) and B of (rank, width). What the engine would refuse is
refused here, before an engine that answers calls is started with it; what it would pass over in silence is held.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from freehold.scan.base import BLOCK, HOLD, Rule
from freehold.scan.gguf import MAX_SHAPES

SPEC = "llama.cpp, llama_adapter_lora_init"
BASE = Rule(
    "adapter.base", BLOCK, "It is an adapter, and nothing says of which model.",
    "Name the admitted model that it was trained on, with --base.", "Freehold: an adapter belongs to exact bytes",
)  # fmt: skip
NO_ADAPTER = Rule(
    "adapter.none", BLOCK, "A base was named, and this is a whole model.", "Add it without --base.",
    "Freehold: an adapter belongs to exact bytes",
)  # fmt: skip
KIND = Rule(
    "adapter.kind", BLOCK, "It is no adapter of the kind that the engine lays over a model.",
    "Only plain LoRA is served: train or convert it as that.", SPEC,
)  # fmt: skip
ARCHITECTURE = Rule(
    "adapter.architecture", BLOCK, "It was made for another architecture than its base has.",
    "Name the base that it was trained on.", SPEC,
)  # fmt: skip
PAIR = Rule("adapter.pair", BLOCK, "Its tensors are not pairs of A and B.", "Export it again.", SPEC)
TENSOR = Rule(
    "adapter.tensor", BLOCK, "It changes a tensor that its base does not have.",
    "Name the base that it was trained on.", SPEC,
)  # fmt: skip
SHAPE = Rule(
    "adapter.shape", BLOCK, "A tensor of it does not fit the one that it changes.",
    "Name the base that it was trained on, or export it again.", SPEC,
)  # fmt: skip
TIED = Rule(
    "adapter.tied", BLOCK, "It changes token embeddings that are the output weights too, which the engine cannot do.",
    "Train it without the embeddings.", SPEC,
)  # fmt: skip
UNREAD = Rule(
    "adapter.unread", HOLD, "It holds tensors that the engine passes over: what answers would not be what was trained.",
    "Export it without them, or train it without; decide by name and reason.", SPEC,
)  # fmt: skip
MANY = Rule(
    "adapter.many", HOLD, "It has more tensors than are held against its base.", "Decide by name and reason.",
    "Freehold: what is kept of a file is bounded",
)  # fmt: skip
UNSERVED = Rule(
    "adapter.base-not-served", HOLD, "No engine here opens its base, so that nobody can say whether it fits.",
    "Add the base as GGUF, and this adapter with that as its --base.", "Freehold: what was not judged is never clean",
)  # fmt: skip

_EMBEDDINGS, _OUTPUT = "token_embd.weight", "output.weight"
_MULTIPLIED = re.compile(r"blk\.\d+\.\w+\.weight|output\.weight|token_embd\.weight")
_ALPHA, _FLOAT32 = "adapter.lora.alpha", 6  # its type in the format, by number
_SHOWN = 5  # tensors named in one finding


class Base(Struct, frozen=True):
    """The model that an adapter is held against: its name here, and the dimensions of its tensors (None where no
    engine opens it)."""

    name: str
    architecture: str
    shapes: Mapping[str, tuple[int, ...]] | None


def judge(facts: Mapping[str, Any], base: Base) -> list[tuple[Rule, str]]:
    """What there is to say of an adapter, by the facts of its file (see `gguf`) and its base: rules and sentences."""
    if base.shapes is None:
        return [(UNSERVED, f"No engine here opens {base.name}, so that nobody can say whether it fits.")]
    return [*_header(facts, base), *_tensors(facts, base)]


def _header(facts: Mapping[str, Any], base: Base) -> Iterator[tuple[Rule, str]]:
    metadata, types = facts.get("metadata", {}), facts.get("types", {})
    kind = metadata.get("adapter.type")
    if kind != "lora":
        yield KIND, f"Its adapter.type is {kind!r}, and only 'lora' is served."
    if any(key.startswith("adapter.alora") for key in metadata):
        yield KIND, "It is an activated LoRA, which changes only what follows certain tokens; that is not served."
    alpha = metadata.get(_ALPHA)
    if types.get(_ALPHA) != _FLOAT32 or not isinstance(alpha, float) or not (math.isfinite(alpha) and alpha > 0):
        yield KIND, f"Its {_ALPHA} is {alpha!r}, where a 32-bit number above 0 is due: by it the engine scales B·A."
    if facts.get("architecture") != base.architecture:
        made = facts.get("architecture") or "none that it names"
        yield ARCHITECTURE, f"It was made for the architecture {made}, and {base.name} is {base.architecture}."


def _tensors(facts: Mapping[str, Any], base: Base) -> Iterator[tuple[Rule, str]]:
    shapes = {name: tuple(shape) for name, shape in facts.get("shapes", {}).items()}
    if facts.get("tensors", 0) > MAX_SHAPES:
        yield MANY, f"It has {facts['tensors']} tensors; {MAX_SHAPES} are held against its base."
        return
    pairs, others = _pairs(shapes)
    whole = {name: pair for name, pair in pairs.items() if len(pair) == 2}
    norms = [name for name in others if name.endswith("_norm.weight")]
    unread = [name for name in whole if name in base.shapes and not _is_multiplied(name, base.shapes[name])]
    if norms or unread:
        names = _listed([*norms, *unread])
        yield UNREAD, f"The engine passes over {names}: what answers would not be what was trained."
    if strange := [name for name in others if name not in norms]:
        yield PAIR, f"{_listed(strange)} are neither an A nor a B."
    if single := [name for name, pair in pairs.items() if len(pair) < 2]:
        yield PAIR, f"A or B is missing for {_listed(single)}."
    if not pairs:
        yield PAIR, "It changes nothing: there is no pair of A and B in it."
    if _EMBEDDINGS in whole and _OUTPUT not in base.shapes:
        yield TIED, TIED.meaning
    if lacking := [name for name in whole if name not in base.shapes]:
        yield TENSOR, f"{base.name} has no {_listed(lacking)}."
    for name, pair in whole.items():
        if name in base.shapes and not _fits(name, base.shapes[name], pair["a"], pair["b"]):
            a, b, weight = (_size(shape) for shape in (pair["a"], pair["b"], base.shapes[name]))
            yield SHAPE, f"{name!r} is {weight} in {base.name}, and A of {a} with B of {b} do not fit it."


def _pairs(shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, dict[str, tuple[int, ...]]], list[str]]:
    """A and B of each tensor that is changed; and the names that are neither."""
    pairs: dict[str, dict[str, tuple[int, ...]]] = {}
    others = []
    for name, shape in shapes.items():
        weight, _, half = name.rpartition(".lora_")
        if weight and half in ("a", "b"):
            pairs.setdefault(weight, {})[half] = shape
        else:
            others.append(name)
    return pairs, others


def _is_multiplied(name: str, weight: tuple[int, ...]) -> bool:
    """Is this a weight that inputs are multiplied with, or looked up in, by way of the adapter?"""
    return bool(_MULTIPLIED.fullmatch(name)) and len(weight) > 1


def _fits(name: str, weight: tuple[int, ...], a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Dimensions that a file leaves out are 1."""
    weight, a, b = (shape + (1,) * (4 - len(shape)) for shape in (weight, a, b))
    if not min(*a, *b) or a[2:] != weight[2:] or b[2:] != weight[2:]:
        return False
    if name == _EMBEDDINGS:
        return (weight[0], weight[1], a[0]) == (b[1], a[1], b[0])
    return (weight[0], weight[1], a[1]) == (a[0], b[1], b[0])


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
