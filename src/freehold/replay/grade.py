"""Scores of validation calls: of what a candidate said, and of what the incumbent said, by the task's scorer.

Certification calls are not scored here: whoever has seen their scores has looked, and `certify` counts the looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import fmean
from typing import Protocol

from msgspec import Struct

from freehold.results import INCUMBENT, RERUN, Results
from freehold.types import Answer, Replayed, Sample, Score

_KEEP = 64  # scores at once


class Scorer(Protocol):
    """What is asked of a scorer; see `scorers`."""

    digest: str
    measures: str
    compares: bool  # the reference is looked at
    asks: bool  # a model is asked: not by `grade`

    def score(self, sample: Sample, answer: Answer | None, against: Answer) -> Score:
        """How good an answer is, from 0 to 1."""


class Means(Struct, frozen=True):
    """Mean scores on validation calls. Where there is an expected answer, ``calls`` counts those and both means are
    against it, on the same calls; elsewhere ``agreement`` is the candidate's against the incumbent's answer, on
    ``compared`` calls. ``bare`` counts calls with neither."""

    calls: int = 0
    candidate: float | None = None
    incumbent: float | None = None
    compared: int = 0
    agreement: float | None = None
    bare: int = 0


def grade(
    task: str,
    candidate: str,
    scorer: Scorer,
    samples: Iterable[Sample],
    results: Results,
    tell: Callable[[int], None] = lambda done: None,
) -> Means:
    """Score what a candidate (by its key) said to these validation calls, and keep the scores. An error scores 0.

    What has a score by this scorer keeps it, unless the answer came later than an error that was scored.
    """  # fmt: skip
    return _Grading(task, candidate, scorer, results).run(samples, tell)


class _Grading:
    def __init__(self, task: str, candidate: str, scorer: Scorer, results: Results):
        self._task, self._key, self._scorer, self._results = task, candidate, scorer, results
        self._answers = results.answers(task, candidate)
        self._known = {of: results.scores(task, of, scorer.digest) for of in (candidate, INCUMBENT, RERUN)}
        self._new: dict[str, dict[str, Score]] = {of: {} for of in self._known}
        self._expected: list[tuple[float, float]] = []
        self._agreed: list[float] = []
        self._bare = 0

    def run(self, samples: Iterable[Sample], tell: Callable[[int], None]) -> Means:
        for done, sample in enumerate(samples, start=1):
            if sample.id in self._answers:
                self._grade(sample, self._answers[sample.id])
            if sum(map(len, self._new.values())) >= _KEEP:
                self._keep()
            tell(done)
        self._keep()
        return self._means()

    def _grade(self, sample: Sample, replayed: Replayed) -> None:
        reference = sample.expected or sample.answer
        if reference is None:
            self._bare += 1
            return
        mine = self._score(self._key, sample, replayed.answer, reference, replayed.error)
        if sample.expected is None and self._scorer.compares:
            self._agreed.append(mine)
            return
        theirs = self._score(INCUMBENT, sample, sample.answer, reference, "no_answer: none was recorded")
        self._expected.append((mine, theirs))
        if sample.rerun is not None:
            self._score(RERUN, sample, sample.rerun, reference, "")

    def _score(self, of: str, sample: Sample, answer: Answer | None, against: Answer, error: str) -> float:
        known = self._known[of].get(sample.id)
        if known is None or (known.error and answer is not None):
            known = Score(0.0, error=error) if answer is None else self._scorer.score(sample, answer, against)
            self._new[of][sample.id] = known
        return known.value

    def _keep(self) -> None:
        for of, found in self._new.items():
            if found:
                self._results.put_scores(self._task, of, self._scorer.digest, found)
        self._new = {of: {} for of in self._known}

    def _means(self) -> Means:
        mine, theirs = ([pair[side] for pair in self._expected] for side in (0, 1))
        return Means(len(mine), _mean(mine), _mean(theirs), len(self._agreed), _mean(self._agreed), self._bare)


def _mean(values: list[float]) -> float | None:
    return fmean(values) if values else None
