"""Does the engine compute what was trained? Torch and the engine are held against each other, with the adapter and
without, on the same passages; the base's own difference is the measure.

The two never agree to the last bit: the engine rounds activations, torch does not. How far that goes depends on the
base's quantisation, so no fixed number can be the gate. What an export can get wrong (rows of q and k, the scale, a
layer forgotten or in another's place) comes on top of it, and shows only with the adapter.

**What is compared.** At each position of each answer, both say how likely every token is:

- the share of positions at which both hold the same token for the likeliest (``argmax``);
- the difference between their log-probabilities of the token that stands there (``median``, ``p95``);
- the same for the twenty tokens that the engine holds for the likeliest (``spread``). The one before goes blind as
  training goes well: where both are sure of a token, both say nearly 0 of it, right or wrong. The tokens that were not
  taken tell of the adapter however sure the model is.

**What arrives.** One layer among thirty that is missing drowns in the rounding of each single value, but not in all of
them together. In torch the adapter is switched off layer by layer, and for each kind of layer, which gives the change
that each part makes at every position and token. The engine's deviation from torch is then explained by these changes,
by least squares: a part that arrives has the share 1, one that is missing or in another's place 0 (`shares`).

`judge` says when it passes. Perplexity would not do: a model whose q and k are in the wrong order still reads fluent
text with a perplexity a few per cent off.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from freehold.engine.probe import LEAST, Passage, Position, Probe
from freehold.errors import CannotDo
from freehold.tune import family as families
from freehold.types import Parity

if TYPE_CHECKING:
    import numpy as np
    import torch
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer
    from transformers import PreTrainedModel

Heard = Sequence[Sequence[Position]]
POSITIONS = 300  # 1 point of them is three flips
EACH = 64  # of one answer, so that a few long ones are not all there is
SHARED = 64  # positions for the shares, and twice as many where they do not tell: each passage takes some forty passes
PASSAGES = 8  # for the shares, at most, where answers are short; and twice as many likewise

_NOISE = 0.001  # nats: below it a difference is nobody's, whatever the base's own
_OFF = 0.5  # a share is off where it is nearer to 0 or 2 than to 1,
_SIGMAS = 5.0  # and chance does not explain it: so many standard errors, of some forty shares
_SHOWN = 6  # faults that are named
WHOLE = "the whole"
_BASE_ARGMAX, _BASE_MEDIAN = 0.9, 0.25  # a base that agrees less was not read as the engine reads it


class Agreement(Struct, frozen=True):
    """How torch and the engine agree on so many ``positions``, ``flips`` of which have another likeliest token.
    Differences are in nats: of the token that stands there, and of the engine's likeliest (``spread``, the median).
    """

    prompts: int
    positions: int
    flips: int
    median: float
    p95: float
    largest: float
    spread: float

    @property
    def argmax(self) -> float:
        """The share of positions with the same likeliest token."""
        return 1 - self.flips / self.positions


class Share(Struct, frozen=True):
    """How much of what a part of the adapter does in torch arrives in the engine (1: all), and its standard error."""

    value: float
    error: float

    @property
    def off(self) -> bool:
        """Is it another than 1, by much and beyond chance?"""
        return self.far and abs(self.value - 1) > _SIGMAS * self.error

    @property
    def far(self) -> bool:
        """Is it nearer to 0 or 2 than to 1?"""
        return abs(self.value - 1) > _OFF


def pick(passages: Sequence[Passage], positions: int = POSITIONS, each: int = EACH) -> list[Passage]:
    """As many of the passages as have so many positions, in their order, ``each`` of one answer at most."""
    picked: list[Passage] = []
    for passage in passages:
        if sum(len(one.answer) for one in picked) >= positions:
            break
        if passage.prompt and passage.answer:
            picked.append(Passage(passage.prompt, passage.answer[:each]))
    return picked


def check(
    model: PeftModel, probe: Probe, passages: Sequence[Passage], *, adapter: int = 0,
    tell: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Parity:  # fmt: skip
    """The gate. ``model`` carries the adapter as it was trained, ``probe`` has loaded the exported one; ``passages``
    are held-out prompts with their answers, of which `pick` takes enough.

    Raises:
        CannotDo: there is nothing to compare, or the base itself does not agree.
        EngineFailed, ContextExceeded: as `Probe.score`.
    """
    chosen = pick(passages)
    count = sum(len(passage.answer) for passage in chosen)
    heard = {
        place: probe.score(chosen, adapter=place, tell=lambda done: tell("asking the engine", done, count))
        for place in (None, adapter)
    }
    model.eval()
    with model.disable_adapter():
        base = agreement(model, chosen, heard[None])
    check_base(base)
    adapted = agreement(model, chosen, heard[adapter])
    return judge(base, adapted, shares(model, chosen, heard[adapter], tell))


def check_base(base: Agreement) -> None:
    """Raises CannotDo where the base in torch is not the base in the engine: no adapter could then be right."""
    share, count = 1 - _BASE_ARGMAX, base.positions
    allowed = share * count + 2 * math.sqrt(share * (1 - share) * count)  # so few may be off by chance
    if base.flips > allowed or base.median > _BASE_MEDIAN:
        raise CannotDo(
            f"The base model does not compute the same in torch as in the engine: they agree on {base.argmax:.1%} of "
            f"{base.positions} tokens, and differ by {base.median:.3f} nats in the median.",
            hint="An adapter trained on it would not fit the engine's. Take another base, and please report this one.",
        )


def judge(base: Agreement, adapted: Agreement, arrived: Mapping[str, Share]) -> Parity:
    """Passed is what agrees as well as the base does:

    - likeliest tokens: at most a point more of the positions differ than for the base, or what chance does to so few
      (two standard deviations of the difference of both counts);
    - median difference, of the tokens that stand there and of the likeliest ones: at most twice the base's own;
    - every share that is known well enough is nearer to 1 than to 0 or 2, and so is the share of the whole.
    """
    more = adapted.flips - base.flips * adapted.positions / base.positions
    allowed = max(0.01 * adapted.positions, 2 * math.sqrt(adapted.flips + base.flips))
    faults = [
        f"{adapted.flips} of {adapted.positions} tokens differ, {base.flips} of the base's" if more > allowed else "",
        *(
            f"{what} differ by {theirs:.4f} nats in the median, the base's by {ours:.4f}"
            for what, theirs, ours in (
                ("chosen tokens", adapted.median, base.median), ("likeliest tokens", adapted.spread, base.spread),
            )
            if theirs > max(2 * ours, _NOISE)
        ),
        "" if arrived else "the adapter changes nothing that could be compared",
        *(f"of {part}, {share.value:.0%} arrives" for part, share in arrived.items() if share.off),
    ]  # fmt: skip
    said = [fault for fault in faults if fault]
    return Parity(
        adapted.prompts, adapted.positions, base.argmax, base.median, base.p95,
        adapted.argmax, adapted.median, adapted.p95, not said, _sentence(said),
        base.spread, adapted.spread, {part: share.value for part, share in arrived.items()},
    )  # fmt: skip


def agreement(model: PreTrainedModel, passages: Sequence[Passage], heard: Heard) -> Agreement:
    """Torch's model, as it is now, held against what the engine said of the same passages (`Probe.score`). Raises
    CannotDo where there is nothing to compare."""
    flips, own, others = 0, [], []
    for passage, positions in zip(passages, heard, strict=True):
        scores = _scores(model, passage)
        best = scores.argmax(-1).tolist()
        for row, (position, likeliest) in enumerate(zip(positions, best, strict=True)):
            flips += likeliest != position.likeliest[0][0]
            own.append(_apart(scores[row, position.token].item(), position.logprob))
            others += [_apart(scores[row, token].item(), said) for token, said in position.likeliest]
    if not own:
        raise CannotDo("There is no position to compare.", hint="Parity needs held-out calls with answers.")
    return Agreement(
        len(passages), len(own), flips, _quantile(own, 0.5), _quantile(own, 0.95), max(own), _quantile(others, 0.5)
    )


def shares(
    model: PeftModel, passages: Sequence[Passage], heard: Heard,
    tell: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, Share]:  # fmt: skip
    """How much of each part of the adapter arrives: of the whole, of each layer, of each kind of layer. Parts that
    change nothing are left out, and all of them where there are too few positions to tell them apart. `SHARED`
    positions are looked at, of `PASSAGES` passages at most, and as many again where a share is far from 1 and may be so
    by chance."""
    parts = _parts(model, sum(len(positions) for positions in heard[:PASSAGES]))
    rows: dict[str, list[np.ndarray]] = {part: [] for part in ("deviation", WHOLE, *parts)}
    found: dict[str, Share] = {}
    seen, wanted, most = 0, SHARED, PASSAGES
    for number, (passage, positions) in enumerate(zip(passages, heard, strict=True), start=1):
        for part, changes in _changes(model, passage, positions, parts).items():
            rows[part].append(changes)
        seen += len(positions)
        tell("switching layers off", min(seen, wanted), wanted)
        if seen >= wanted or number >= most:
            found = _explained(rows, parts)
            if wanted > SHARED or not any(share.far and not share.off for share in found.values()):
                return found
            wanted, most = 2 * SHARED, 2 * PASSAGES
    return _explained(rows, parts) if seen else {}


def _explained(rows: Mapping[str, list[np.ndarray]], parts: Mapping[str, int]) -> dict[str, Share]:
    """The shares of the whole, then those of the layers beside each other, then those of the kinds."""
    import numpy as np

    columns = {part: np.concatenate(found) for part, found in rows.items()}
    kinds = [part for part in parts if part in families.TARGETS]
    groups = ([WHOLE], [part for part in parts if part not in kinds], kinds)
    return {part: share for group in groups for part, share in _fitted(columns, group).items()}


def _fitted(columns: Mapping[str, np.ndarray], group: list[str]) -> dict[str, Share]:
    """Least squares of the deviation on the changes of a group's parts, (positions, tokens) each. Where nothing
    deviates every share is 1. What is left over at one position belongs together, so the errors are those of Liang and
    Zeger (1986), with positions for clusters."""
    import numpy as np

    kept = [part for part in group if math.sqrt(np.mean(columns[part] ** 2)) > _NOISE]
    deviation = columns["deviation"]
    if not kept or len(deviation) <= len(kept):
        return {}
    matrix = np.stack([columns[part] for part in kept], axis=-1)
    inverse = np.linalg.pinv(np.einsum("pti,ptj->ij", matrix, matrix))
    found = inverse @ np.einsum("pti,pt->i", matrix, deviation)
    pulls = np.einsum("pti,pt->pi", matrix, deviation - matrix @ found) @ inverse
    errors = np.sqrt((pulls**2).sum(0) * len(deviation) / (len(deviation) - len(kept)))
    return {part: Share(1 + float(u), float(e)) for part, u, e in zip(kept, found, errors, strict=True)}


def _parts(model: PeftModel, positions: int) -> dict[str, int]:
    """The parts of an adapter that are switched off one by one, and the first layer that each changes. So few
    ``positions`` as there are layers cannot tell them apart: then the kinds of layers alone."""
    parts: dict[str, int] = {}
    for name, _ in _adapted(model):
        number, kind = int(name.split(".layers.")[1].split(".")[0]), name.rpartition(".")[2]
        for part in (f"layer {number}", kind):
            parts[part] = min(number, parts.get(part, number))
    kinds = {part: first for part, first in parts.items() if part in families.TARGETS}
    return parts if positions > len(parts) - len(kinds) else kinds


def _changes(
    model: PeftModel, passage: Passage, positions: Sequence[Position], parts: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """What the whole adapter and each part of it change in torch, and how far the engine is from torch, at every
    position and each of the engine's likeliest tokens there. A part that begins late is not computed from the start.
    """
    import numpy as np
    import torch

    tokens = torch.tensor([[token for token, _ in one.likeliest] for one in positions])

    def row(scores: torch.Tensor) -> np.ndarray:
        return scores.gather(1, tokens).clamp_min(LEAST).double().numpy()

    said = np.array([[value for _, value in one.likeliest] for one in positions])
    inputs = _inputs(model, passage)
    full = row(_scores(model, passage))
    with model.disable_adapter():
        found = {"deviation": said - full, WHOLE: full - row(_scores(model, passage))}
    for part, start in parts.items():
        with _switched_off(model, part), _beginning(model, start):
            found[part] = full - row(_scores(model, passage, inputs[start]))
    return found


def _scores(model: PreTrainedModel, passage: Passage, inputs: torch.Tensor | None = None) -> torch.Tensor:
    """Log-probabilities of every token at each position of the answer: (positions, vocabulary), float32. ``inputs`` is
    what goes into the model's first layer, where it is not the passage's tokens."""
    import torch

    places = torch.arange(len(passage.prompt) - 1, len(passage.prompt) + len(passage.answer) - 1, device=model.device)
    given = {"input_ids": _ids(model, passage)} if inputs is None else {"inputs_embeds": inputs}
    with torch.inference_mode():
        logits = model(**given, use_cache=False, logits_to_keep=places).logits[0]
        return torch.log_softmax(logits.float(), -1).cpu()


def _inputs(model: PreTrainedModel, passage: Passage) -> Sequence[torch.Tensor]:
    """What goes into each layer: (1, tokens, width)."""
    import torch

    with torch.inference_mode():
        ids = _ids(model, passage)
        return model(input_ids=ids, use_cache=False, output_hidden_states=True, logits_to_keep=1).hidden_states


def _ids(model: PreTrainedModel, passage: Passage) -> torch.Tensor:
    import torch

    return torch.tensor([[*passage.prompt, *passage.answer]], device=model.device)


def _adapted(model: PeftModel) -> list[tuple[str, LoraLayer]]:
    """The layers that carry the adapter, by their names."""
    from peft.tuners.lora import LoraLayer

    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, LoraLayer)]


@contextlib.contextmanager
def _switched_off(model: PeftModel, part: str) -> Iterator[None]:
    """A part of the adapter has no effect for as long as the block lasts."""
    wanted = part.replace("layer ", ".layers.") + "." if part.startswith("layer ") else f".{part}."
    layers = [layer for name, layer in _adapted(model) if wanted in name + "."]
    for layer in layers:
        layer.set_scale(layer.active_adapters[0], 0)
    try:
        yield
    finally:
        for layer in layers:
            layer.set_scale(layer.active_adapters[0], 1)


@contextlib.contextmanager
def _beginning(model: PeftModel, start: int) -> Iterator[None]:
    """The model has only the layers from ``start`` on for as long as the block lasts."""
    inner = model.base_model.model.model
    layers, inner.layers = inner.layers, inner.layers[start:]
    try:
        yield
    finally:
        inner.layers = layers


def _apart(ours: float, theirs: float) -> float:
    return abs(max(ours, LEAST) - theirs)


def _quantile(values: list[float], share: float) -> float:
    """The smallest of the values that at least this share of them does not exceed."""
    return sorted(values)[max(math.ceil(share * len(values)), 1) - 1]


def _sentence(faults: list[str]) -> str:
    """All of the faults but where a dozen layers are off."""
    if not faults:
        return ""
    more = f", and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    said = "; ".join(faults[:_SHOWN]) + more
    return f"{said[0].upper()}{said[1:]}."
