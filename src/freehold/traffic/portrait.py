"""What a task's recorded calls are like: how many, how long, in which groups and splits, and what they can certify."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from freehold.samples import ORDER_ONLY, Samples
from freehold.types import Import, Outline, Replayed, Split, Task, Unusable

PSI = (0.05, 0.15, 0.25)  # shares of calls on which two models differ: few, some, many
POWER = 7.85  # (1.96 + 0.84)^2: one-sided 2.5%, power 0.8
_CHARACTERS = 4  # to a token, roughly, in English
_DIFFERS = re.compile(r"'[^']*'|(?<=byte )\d+|(?<=, line )\d+|(?<=\Aits id ).*(?= belongs)")


class Lengths(Struct, frozen=True):
    """Of tokens: the middle one, the one that 9 of 10 do not exceed, the longest, and all together."""

    median: int
    most: int
    longest: int
    total: int


class Part(Struct, frozen=True):
    """The calls of one split; times in seconds, 0 where none is known."""

    split: Split
    calls: int
    groups: int
    since: float
    until: float


class Portrait(Struct, frozen=True):
    """What is known of a task's calls without reading their texts aloud.

    ``counted`` says whether tokens were counted by a replay or estimated from characters. ``certifiable`` is, by the
    share of calls on which the models differ, the smallest margin that the certification split decides with power 0.8
    where there is no difference. ``round`` is 0 until splits are laid down;
    ``waiting`` counts the calls that came since.
    """

    task: str
    calls: int
    prompts: Lengths
    answers: Lengths
    counted: bool
    groups: int
    largest: str
    largest_calls: int
    since: float
    until: float
    untimed: int
    splits: tuple[Part, ...]
    waiting: int
    round: int
    lengths: tuple[int, ...]
    incumbents: dict[str, int]
    expected: int
    reruns: int
    duplicates: int
    skipped: int
    reasons: dict[str, int]
    sensitive: dict[str, int]
    imports: tuple[Import, ...]
    certifiable: dict[str, float]


def portray(samples: Samples, task: Task, replayed: Mapping[str, Replayed] | None = None) -> Portrait:
    """The picture as it is now. ``replayed`` are a candidate's answers with their counts of tokens.

    Raises:
        StoreFailed: the database cannot be read.
    """
    outlines, imports = samples.outlines(task.name), samples.imports(task.name)
    placed = samples.splits(task) if outlines else {}
    groups = Counter(one.group for one in outlines)
    largest, largest_calls = groups.most_common(1)[0] if groups else ("", 0)
    since, until, untimed = _times(outlines)
    counted = {one.sample: one.usage for one in (replayed or {}).values() if one.usage.prompt}
    prompts = [counted[one.id].prompt if one.id in counted else _tokens(one.prompt) for one in outlines]
    parts = tuple(_part(split, [one for one in outlines if placed.get(one.id) is split]) for split in Split)
    certifying = next(part for part in parts if part.split is Split.CERTIFICATION)
    return Portrait(
        task=task.name, calls=len(outlines), prompts=_lengths(prompts),
        answers=_lengths([_tokens(one.answer) for one in outlines]), counted=bool(counted),
        groups=len(groups), largest=largest, largest_calls=largest_calls, since=since, until=until, untimed=untimed,
        splits=parts, waiting=len(outlines) - len(placed), round=samples.round(task.name), lengths=tuple(prompts),
        incumbents=dict(Counter(one.incumbent for one in outlines)),
        expected=sum(one.has_expected for one in outlines),
        reruns=sum(call.rerun is not None for call in samples.of_split(task)),
        duplicates=sum(one.duplicates for one in imports), skipped=sum(one.skipped for one in imports),
        reasons=reasons(lost for one in imports for lost in samples.skipped(one.id)),
        sensitive=_sum(one.sensitive for one in imports),
        imports=tuple(imports), certifiable=certifiable(certifying.calls, certifying.groups),
    )  # fmt: skip


def reasons(lost: Iterable[Unusable]) -> dict[str, int]:
    """How many lines were lost for each reason, the most frequent first."""
    alike: dict[str, Counter[str]] = {}
    for one in lost:
        alike.setdefault(_plainly(one.reason), Counter())[one.reason] += 1
    counts = {next(iter(found)) if len(found) == 1 else plainly: found.total() for plainly, found in alike.items()}
    return dict(Counter(counts).most_common())


def certifiable(calls: int, groups: int) -> dict[str, float]:
    """The smallest margin that so many calls decide, by the share of calls on which the two models differ; and none
    smaller than the loss that so many groups can have left unseen (see docs/concepts/verdict.md)."""
    least = 1 - 0.025 ** (1 / groups) if groups else 1.0
    return {f"{psi:.2f}": max(math.sqrt(POWER * psi / calls), least) for psi in PSI} if calls else {}


def _part(split: Split, outlines: Sequence[Outline]) -> Part:
    since, until, _ = _times(outlines)
    return Part(split, len(outlines), len({one.group for one in outlines}), since, until)


def _times(outlines: Iterable[Outline]) -> tuple[float, float, int]:
    """The first and the last time that is known, and how many calls have none."""
    times = [one.at for one in outlines]
    known = [at for at in times if at >= ORDER_ONLY]
    return min(known, default=0.0), max(known, default=0.0), len(times) - len(known)


def _lengths(found: Sequence[int]) -> Lengths:
    ordered = sorted(found) or [0]
    return Lengths(ordered[len(ordered) // 2], ordered[math.ceil(len(ordered) * 0.9) - 1], ordered[-1], sum(ordered))


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    return dict(sum(map(Counter, counts), Counter()))


def _tokens(characters: int) -> int:
    return math.ceil(characters / _CHARACTERS)


def _plainly(reason: str) -> str:
    """A reason without what differs from line to line, so that equal ones are counted together."""
    return _DIFFERS.sub("…", reason)
