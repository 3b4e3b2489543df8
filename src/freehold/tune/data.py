"""Recorded calls become examples, in the token ids that the engine itself will read and write.

The prompt is what the engine makes of the call's request: its template, its tokenizer. The answer is the expected one
where it is known, and the incumbent's otherwise, with the token with which the engine's template ends a turn. A call
that cannot be learned from is left out and counted, with the reason; nothing that stands in a call is ever run or
rendered as a template: it is text between a template's own marks.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from freehold.engine.probe import Probe
from freehold.errors import BadModel, BadTraffic, Failed, Refused
from freehold.tune.batches import Example
from freehold.types import Kind, Progress, Request, Sample

LEAST = 32  # calls to learn from
_COMPARED = 64  # texts
_MARK = "Quite so"  # an answer in a conversation that shows how the template ends a turn
_LONG, _TOOLS, _NONE, _EMBEDDED = "longer than the context", "answers with tool calls", "no answer", "no conversation"


class Data(Struct, frozen=True):
    """What a run learns from and chooses on; ``left_out`` counts calls by why, ``digest`` is that of all token ids."""

    tuning: tuple[Example, ...]
    validation: tuple[Example, ...]
    left_out: dict[str, int]
    digest: str


def encode(probe: Probe, name: str, tuning: Sequence[Sample], validation: Sequence[Sample], tell: Progress) -> Data:
    """The calls as examples for the model ``name`` that the probe's engine runs.

    Raises:
        BadTraffic: too few can be learned from, or all have one answer.
        BadModel: the model has no chat template that could be filled.
    """
    end = ending(probe)
    left_out: Counter[str] = Counter()
    whole = len(tuning) + len(validation)
    made: list[list[Example]] = []
    done = 0
    for samples in (tuning, validation):
        examples = []
        for sample in samples:
            found = _example(probe, name, sample, end)
            if isinstance(found, str):
                left_out[found] += 1
            else:
                examples.append(found)
            done += 1
            tell("reading", done, whole)
        made.append(examples)
    data = Data(tuple(made[0]), tuple(made[1]), dict(left_out), _digest(made))
    _check(data, len(tuning))
    return data


def ending(probe: Probe) -> int:
    """The token with which the template ends an answer: the first one that it puts after an answer which the
    conversation goes on from.

    Raises:
        BadModel: it has no template, or one that shows no end.
    """
    turns = [{"role": "user", "content": "Go on"}, {"role": "assistant", "content": _MARK}]
    try:
        text = probe.fill(messages=[*turns, {"role": "user", "content": "And then"}])
    except (Refused, Failed) as error:
        raise BadModel(
            f"The base's chat template cannot be filled: {error.message}",
            hint="Only a model that was made for conversations can be tuned on them; choose another base.",
        ) from None
    _, marked, after = text.partition(_MARK)
    tokens = probe.tokens(after) if marked and after else ()
    if not tokens or after.lstrip().startswith("And then"):
        raise BadModel(
            "The base's chat template puts nothing after an answer, so a tuned model would not know where to stop.",
            hint="Choose a base with a chat template that ends its turns.",
        )
    return tokens[0]


def texts(probe: Probe, name: str, samples: Iterable[Sample]) -> list[str]:
    """Prompts and answers of the first calls, as texts, for who compares tokenizers."""
    found: list[str] = []
    for sample in samples:
        if len(found) >= _COMPARED:
            break
        with contextlib.suppress(Refused, Failed):
            found.append(probe.prompt(request_of(sample, name)))
        found += [answer.text for answer in (sample.expected, sample.answer) if answer is not None and answer.text]
    return found


def request_of(sample: Sample, name: str) -> Request:
    """A recorded call as a request to the model ``name``."""
    return Request(sample.kind, name, dict(sample.request))


def _example(probe: Probe, name: str, sample: Sample, end: int) -> Example | str:
    """The example, or why there is none."""
    answer = sample.expected or sample.answer
    if answer is None or not (answer.text or answer.tools):
        return _NONE
    if answer.tools:
        return _TOOLS
    if sample.kind in (Kind.EMBEDDING, Kind.COUNT):
        return _EMBEDDED
    try:
        prompt = probe.prompt_tokens(request_of(sample, name))
    except (Refused, Failed) as error:
        return error.message
    example = Example(sample.id, prompt, (*probe.tokens(answer.text), end))
    return example if example.length <= probe.context else _LONG


def _check(data: Data, calls: int) -> None:
    if len(data.tuning) < LEAST:
        why = "; ".join(f"{count} left out: {reason}" for reason, count in sorted(data.left_out.items()))
        raise BadTraffic(
            f"{len(data.tuning)} of {calls} tuning calls can be learned from, and it takes at least {LEAST}"
            f"{f' ({why})' if why else ''}.",
            hint="Import more calls; 'freehold traffic show' tells how they are split.",
        )
    if len({example.answer for example in data.tuning}) == 1:
        raise BadTraffic(
            f"All {len(data.tuning)} tuning calls have the same answer, so there is nothing to learn from them.",
            hint="Import calls with the answers that the application needs.",
        )


def _digest(made: Iterable[Sequence[Example]]) -> str:
    return "sha256:" + hashlib.sha256(msgspec.msgpack.encode(list(made))).hexdigest()
