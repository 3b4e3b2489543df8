"""The gate: an export that is right agrees as well as the base does, and every way to get it wrong is seen."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tinymodels
import tuning

from freehold.engine.probe import Passage, Probe
from freehold.errors import CannotDo
from freehold.tune import adapter, parity, weights
from freehold.tune import family as families
from freehold.tune.parity import Agreement, Share

torch = pytest.importorskip("torch", reason=tuning.LESS)
pytest.importorskip("peft", reason=tuning.LESS)

PARTS = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
ABOUT = adapter.About("base+test@1", "base")
BASE = Agreement(10, 400, 6, 0.016, 0.12, 0.27, 0.1)
ALL = {"the whole": Share(1.0, 0.01), "layer 0": Share(0.9, 0.1), "q_proj": Share(1.1, 0.1)}


class Bench(NamedTuple):
    """A model with its adapter in torch, and the engine with every export loaded, by name."""

    model: Any
    probe: Probe
    places: dict[str, int]


def wrongs(kind: str, pairs: dict, folder: Path) -> dict[str, Path]:
    """Ways to get an export wrong."""
    right = tuning.stored(pairs, tinymodels.HEADS, tinymodels.KV_HEADS) if kind == "llama" else pairs
    other = pairs if kind == "llama" else tuning.stored(pairs, tinymodels.HEADS, tinymodels.KV_HEADS)
    made = {
        "rows in the wrong order": (other, tuning.ALPHA),
        "half of alpha": (right, tuning.ALPHA / 2),
        "twice alpha": (right, tuning.ALPHA * 2),
        "two layers in each other's place": (tuning.swapped(right, 0, 2, PARTS), tuning.ALPHA),
        "q of two layers in each other's place": (tuning.swapped(right, 0, 2, ["attn_q"]), tuning.ALPHA),
        "a layer missing": ({k: v for k, v in right.items() if not k.startswith("blk.1.")}, tuning.ALPHA),
        "down missing": ({k: v for k, v in right.items() if "ffn_down" not in k}, tuning.ALPHA),
        "gate and up in each other's place": (
            {k.replace("gate", "x").replace("up", "gate").replace("x", "up"): v for k, v in right.items()},
            tuning.ALPHA,
        ),
    }  # fmt: skip
    return {
        what: tuning.export(folder / f"wrong{number}.gguf", kind, tensors, alpha)
        for number, (what, (tensors, alpha)) in enumerate(made.items())
    }


@pytest.fixture(scope="module", params=[*tinymodels.KINDS, "llama quantised"])
def bench(request, tmp_path_factory) -> Iterator[Bench]:
    folder, kind = tmp_path_factory.mktemp("parity"), request.param.split()[0]
    file = tinymodels.write(tinymodels.make(kind), folder / "base.gguf", quantised="quantised" in request.param)
    model = tuning.adapted(weights.load({"base.gguf": file}))
    files = wrongs(kind, tuning.pairs(model), folder)
    files["right"] = folder / "right.gguf"
    adapter.write(model, files["right"], ABOUT)
    with tuning.probe(file, list(files.values())) as probe:
        yield Bench(model, probe, {what: place for place, what in enumerate(files)})


def test_the_right_export_passes_and_no_wrong_one(bench):
    """Of each family, with exact and with quantised weights; and for each wrong one there is a reason."""
    held = tuning.passages(6)
    with bench.model.disable_adapter():
        base = parity.agreement(bench.model, held, bench.probe.score(held))
    verdicts = {}
    for what, place in bench.places.items():
        heard = bench.probe.score(held, adapter=place)
        arrived = parity.shares(bench.model, held, heard)
        verdicts[what] = parity.judge(base, parity.agreement(bench.model, held, heard), arrived)
    assert {what for what, verdict in verdicts.items() if verdict.passed} == {"right"}
    assert all(verdict.passed or verdict.why for verdict in verdicts.values())
    right = verdicts["right"]
    assert all(0.9 < share < 1.1 for share in right.shares.values()), right.shares
    assert set(right.shares) == {"the whole", "layer 0", "layer 1", "layer 2", *tuning.TARGETS}
    missing = verdicts["a layer missing"].shares
    assert min(missing, key=missing.get) == "layer 1" and abs(missing["layer 1"]) < 0.3, missing


def test_the_gate_as_it_is_called(bench):
    """Base and adapter on the same passages, in one call, and told how far it is."""
    told = []
    place = bench.places["right"]
    verdict = parity.check(bench.model, bench.probe, tuning.passages(4), adapter=place, tell=lambda *s: told.append(s))
    assert verdict.passed and verdict.why == "" and (verdict.prompts, verdict.positions) == (4, 40)
    assert verdict.base_argmax >= 0.9 and verdict.adapter_argmax >= 0.9
    assert {what for what, _, _ in told} == {"asking the engine", "switching layers off"}


def test_an_adapter_that_changes_nothing_does_not_pass(bench):
    """One whose B is 0 agrees with anything, and tells nothing of its export."""
    saved = {name: weight.clone() for name, weight in bench.model.named_parameters() if "lora_B" in name}
    try:
        with torch.no_grad():
            for name, weight in bench.model.named_parameters():
                if "lora_B" in name:
                    weight.zero_()
        held = tuning.passages(3)
        heard = bench.probe.score(held)
        same = parity.agreement(bench.model, held, heard)
        verdict = parity.judge(same, same, parity.shares(bench.model, held, heard))
    finally:
        with torch.no_grad():
            for name, weight in bench.model.named_parameters():
                weight.copy_(saved.get(name, weight))
    assert not verdict.passed and "changes nothing" in verdict.why


def test_of_short_answers_few_passages_are_looked_at(bench, monkeypatch):
    """And twice as many where it may be chance, not more; a kind of layer that is missing is seen all the same."""
    monkeypatch.setattr(parity, "PASSAGES", 5)
    held = tuning.passages(20, answer=3)
    for what, passes in (("right", True), ("down missing", False)):
        told = []
        heard = bench.probe.score(held, adapter=bench.places[what])
        arrived = parity.shares(bench.model, held, heard, lambda *said, told=told: told.append(said))
        assert told[-1][1] in (15, 30) and any(share.off for share in arrived.values()) is not passes


def test_layers_that_cannot_be_told_apart_are_not_switched_off(bench, monkeypatch):
    """Their kinds are instead, and show a kind that is missing."""
    every, few = parity._parts(bench.model, tinymodels.LAYERS + 1), parity._parts(bench.model, tinymodels.LAYERS)
    assert {part for part in every if part.startswith("layer")} and set(few) == set(families.TARGETS)
    monkeypatch.setattr(parity, "_parts", lambda model, positions: few)
    held = tuning.passages(6)
    for what, off in (("right", set()), ("down missing", {"down_proj"})):
        arrived = parity.shares(bench.model, held, bench.probe.score(held, adapter=bench.places[what]))
        assert {part for part, share in arrived.items() if share.off} - {parity.WHOLE} == off, what


def test_switching_parts_off_leaves_the_model_as_it_was(bench):
    """After the shares were measured, the adapter is whole."""
    ids = torch.tensor([[5, 6, 7, 8]])
    before = bench.model(input_ids=ids).logits
    held = tuning.passages(2)
    parity.shares(bench.model, held, bench.probe.score(held, adapter=bench.places["right"]))
    assert torch.equal(bench.model(input_ids=ids).logits, before)
    assert len(bench.model.base_model.model.model.layers) == tinymodels.LAYERS


def test_a_base_that_was_read_wrongly_is_not_trained_on(bench):
    """Its agreement is far from the engine's, and the sentence says so."""
    held = tuning.passages(4)
    heard = bench.probe.score(held)
    with bench.model.disable_adapter():
        parity.check_base(parity.agreement(bench.model, held, heard))
        layer = bench.model.base_model.model.model.layers[0].self_attn.q_proj.base_layer
        kept = layer.weight.clone()
        with torch.no_grad():
            layer.weight.copy_(kept.flip(0))
        try:
            with pytest.raises(CannotDo, match="does not compute the same"):
                parity.check_base(parity.agreement(bench.model, held, heard))
        finally:
            with torch.no_grad():
                layer.weight.copy_(kept)


@pytest.mark.parametrize(
    ("adapted", "shares", "says"),
    [
        (BASE, ALL, ""),
        (Agreement(10, 400, 0, 0.00002, 0.001, 0.01, 0.11), ALL, ""),
        (Agreement(10, 400, 14, 0.016, 0.12, 0.27, 0.1), ALL, ""),  # chance: 8 more of 20 is under two deviations
        (Agreement(10, 400, 16, 0.016, 0.12, 0.27, 0.1), ALL, "16 of 400 tokens differ"),
        (Agreement(10, 400, 6, 0.031, 0.12, 0.27, 0.1), ALL, ""),
        (Agreement(10, 400, 6, 0.033, 0.12, 0.27, 0.1), ALL, "Chosen tokens differ by 0.0330 nats"),
        (Agreement(10, 400, 6, 0.00002, 0.001, 0.01, 0.21), ALL, "Likeliest tokens differ by 0.2100 nats"),
        (BASE, {}, "changes nothing"),
        (BASE, ALL | {"layer 3": Share(0.05, 0.1)}, "Of layer 3, 5% arrives"),
        (BASE, ALL | {"layer 3": Share(0.05, 0.5)}, ""),  # not known well enough
        (BASE, ALL | {"layer 3": Share(0.6, 0.01)}, ""),  # known well, and nearer to all than to nothing
        (BASE, ALL | {"the whole": Share(0.45, 0.01)}, "Of the whole, 45% arrives"),
    ],
)  # fmt: skip
def test_what_passes(adapted, shares, says):
    """Each limit from both sides; the reason names the figure."""
    verdict = parity.judge(BASE, adapted, shares)
    assert verdict.passed == (not says) and (says in verdict.why if says else verdict.why == "")


def test_the_reason_stays_readable_where_everything_is_off():
    """Of thirty layers that are off, some are named."""
    verdict = parity.judge(BASE, BASE, {f"layer {n}": Share(0.0, 0.01) for n in range(30)})
    assert "and 24 more" in verdict.why and len(verdict.why) < 400


def test_which_passages_are_compared():
    """Enough of them in their order, long answers cut, none without an answer."""
    held = [Passage((1, 2), tuple(range(100))), Passage((1,), ()), Passage((1,), (5,)), *tuning.passages(50)]
    picked = parity.pick(held, positions=100, each=64)
    assert [len(one.answer) for one in picked[:2]] == [64, 1]
    assert 100 <= sum(len(one.answer) for one in picked) < 110
    every = [Passage(one.prompt, one.answer[:64]) for one in held if one.answer]
    assert parity.pick(held, positions=10**6) == every


def test_nothing_to_compare_is_said(bench):
    """Rather than a division by zero."""
    with pytest.raises(CannotDo, match="no position"):
        parity.check(bench.model, bench.probe, [])


def test_positions_with_the_same_token_are_counted():
    """The share of the positions, of which flips are the rest."""
    assert math.isclose(BASE.argmax, 0.985)
