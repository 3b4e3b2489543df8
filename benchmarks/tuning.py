"""How fast training is beside a bare peft loop on the same calls, and what each measure gains.

    python benchmarks/tuning.py --model starter.gguf --traffic traffic.jsonl

Every way trains on the very same micro-batches of the same calls, from the same untrained adapter: the loss of the
first round is printed, and must agree. Ways are interleaved, with medians, because machines are noisy. "tokens/s"
counts the tokens of the calls, prompts included, whatever a way saves itself. Writes docs/reference/tuning.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer

from freehold.tune import batches, extra, family, fused, speed, weights
from freehold.tune.batches import Example
from freehold.tune.train import Choices, Trainer

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "tuning.md"

PAGE_TEXT = """# How fast training is

<!-- written by 'python benchmarks/tuning.py'; run it to have your own -->

LoRA of rank 16 on all linear layers of the starter model, {calls} calls of examples/tickets at once ({rounds} rounds,
ways interleaved, medians; {cores} cores, torch {torch}, peft {peft}).

Command: `python benchmarks/tuning.py --model starter.gguf --traffic traffic.jsonl --rounds {rounds}`

| way | what it does | tokens/s | times bare | loss of the first batch |
| --- | --- | ---: | ---: | ---: |
{rows}

Each line has what the lines above it have, but for the second. The losses agree to the rounding of the type.

**Length buckets.** Padding is {before:.1%} of what goes through the model where calls are taken as they come, and
{after:.1%} where calls of like length go together (the prefix of {prefix} tokens is left out of both).

**bfloat16** multiplies {gain:.1f} times as fast as float32 here; below {worth} times training stays in float32.
"""


class Way:
    """One way of making the loss of some calls. ``eager`` and ``low`` as in `lora.wrap`."""

    def __init__(self, name: str, says: str, model: Path, *, low: bool, eager: bool):
        self.name, self.says, self.low = name, says, low
        base = weights.load({"model.gguf": model})
        if eager:
            base.set_attn_implementation("eager")
        if low:
            for weight in base.parameters():
                weight.data = weight.data.to(torch.bfloat16)
        torch.manual_seed(0)
        config = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=list(family.TARGETS))
        self.model = get_peft_model(base, config)
        self.seconds: list[float] = []
        self.loss = 0.0

    def step(self, rows: list[Example], loss: Callable[[list[Example]], torch.Tensor]) -> None:
        began = time.perf_counter()
        found = loss(rows)
        found.backward()
        self.seconds.append(time.perf_counter() - began)
        self.loss = found.item()
        self.model.zero_grad()


def bare(way: Way) -> Callable[[list[Example]], torch.Tensor]:
    """What a loop around peft does: pad, give labels, take the loss that the model returns."""

    def loss(rows: list[Example]) -> torch.Tensor:
        longest = max(example.length for example in rows)
        ids, labels = torch.zeros((len(rows), longest), dtype=torch.long), torch.full((len(rows), longest), -100)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        for row, example in enumerate(rows):
            ids[row, : example.length] = torch.tensor((*example.prompt, *example.answer))
            labels[row, len(example.prompt) : example.length] = torch.tensor(example.answer)
            mask[row, : example.length] = 1
        return way.model(input_ids=ids, attention_mask=mask, labels=labels).loss

    return loss


def ours(way: Way, examples: list[Example], *, share: bool) -> Callable[[list[Example]], torch.Tensor]:
    """`Trainer`'s own loss, with or without the shared prefix."""
    trainer = Trainer(way.model, examples, (), Choices(), folder=Path("."), identity="", low=way.low)
    trainer._prefix = trainer._prefix if share else 0
    return lambda rows: trainer._loss(rows) / sum(len(example.answer) for example in rows)


def read(path: Path, model: Path, count: int) -> list[Example]:
    tokenizer = AutoTokenizer.from_pretrained(str(model.parent), gguf_file=model.name)
    found = []
    for line in path.read_text(encoding="utf-8").splitlines()[:count]:
        call = json.loads(line)
        text = tokenizer.apply_chat_template(call["request"]["messages"], tokenize=False, add_generation_prompt=True)
        answer = json.dumps(call["expected"], ensure_ascii=False, separators=(",", ":")) + "<|im_end|>"
        found.append(Example(call["id"], tuple(tokenizer(text)["input_ids"]), tuple(tokenizer(answer)["input_ids"])))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="the starter model's GGUF")
    parser.add_argument("--traffic", type=Path, required=True, help="calls, as examples/tickets/make.py makes them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    words = parser.parse_args()
    examples = read(words.traffic, words.model, 240)
    plain, ordered = _rows(examples, words.batch, bucketed=False), _rows(examples, words.batch, bucketed=True)
    ways = [
        Way("bare", "a bare peft loop: float32, padded, the model's own loss", words.model, low=False, eager=False),
        Way("bare, bfloat16", "the same in bfloat16", words.model, low=True, eager=False),
        Way("answers", "the output matrix at answer tokens alone", words.model, low=False, eager=False),
        Way("prefix", "and what all prompts begin with read once", words.model, low=False, eager=False),
        Way("attention", "and short attention written out", words.model, low=False, eager=True),
        Way("bfloat16", "and bfloat16", words.model, low=True, eager=True),
        Way("one step", "and a layer with its adapter in one step: what 'freehold tune' does on this machine",
            words.model, low=True, eager=True),
    ]  # fmt: skip
    fused.lay(ways[-1].model)
    losses = [bare(ways[0]), bare(ways[1]), ours(ways[2], examples, share=False), *(
        ours(way, examples, share=True) for way in ways[3:])]  # fmt: skip
    first: dict[str, float] = {}
    for number in range(words.rounds + 1):
        for way, loss in zip(ways, losses, strict=True):
            way.step(plain[number % len(plain)], loss)
            first.setdefault(way.name, way.loss)
            print(f"round {number}: {way.name:<16} {way.seconds[-1]:6.2f} s", file=sys.stderr, flush=True)
    _write(words, ways, first, plain, ordered)


def _rows(examples: list[Example], size: int, *, bucketed: bool) -> list[list[Example]]:
    """Batches of so many calls: as they come, or of like length."""
    if bucketed:
        updates = batches.epoch(examples, 0, seed=0, update=size, tokens=1 << 20)
        return [[examples[place] for places in micros for place in places] for micros in updates]
    return [examples[at : at + size] for at in range(0, len(examples), size)]


def _padding(rows: list[list[Example]], prefix: int) -> float:
    """The share of what goes through the model that is padding."""
    held = sum(max(one.length - prefix for one in some) * len(some) for some in rows)
    return 1 - sum(one.length - prefix for some in rows for one in some) / held


def _write(words, ways: list[Way], first: dict[str, float], plain, ordered) -> None:
    rate = {
        way.name: statistics.median(
            sum(one.length for one in plain[number % len(plain)]) / seconds
            for number, seconds in enumerate(way.seconds) if number
        )
        for way in ways
    }  # fmt: skip
    prefix = batches.shared_prefix([one for some in plain for one in some])
    rows = [
        f"| {way.name} | {way.says} | {rate[way.name]:.0f} | **{rate[way.name] / rate['bare']:.2f}** "
        f"| {first[way.name]:.4f} |"
        for way in ways
    ]
    gain, versions = speed.gain(torch.device("cpu")), extra.versions()
    text = PAGE_TEXT.format(
        calls=words.batch, rounds=words.rounds, cores=len(os.sched_getaffinity(0)), torch=versions["torch"],
        peft=versions["peft"], rows="\n".join(rows), before=_padding(plain, prefix), after=_padding(ordered, prefix),
        prefix=prefix, gain=gain, worth=speed.WORTH,
    )  # fmt: skip
    PAGE.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
