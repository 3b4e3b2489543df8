"""What every way of scoring an answer has in common."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from freehold.names import shown
from freehold.types import Answer, Sample, Score

MAX_ANSWER = 1_000_000  # characters of one answer; many times what a model's context holds
MAX_LISTED = 20  # differences named in one detail


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """What a kind of scorer takes from the task's ``[scorer]`` table, beside ``kind``."""


class Scorer(ABC):
    """Says how good an answer is, from 0 to 1, against a reference: the expected answer where somebody knows it, and
    the incumbent's where nobody does.

    ``measures`` is one sentence for a report; ``binary`` says that every value is 0 or 1; ``compares`` that the
    reference is looked at; ``asks`` that a model is asked (see `judge.Judge`). ``digest`` is the SHA-256 of everything
    that a value depends on but the answers: two scorers with the same digest give the same values.

    Scorers may be called from several threads. None raises, whatever text it is given.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1  # another one where the same settings would give other values
    longest: ClassVar[int] = MAX_ANSWER
    asks: ClassVar[bool] = False
    measures: str
    binary: bool = True
    compares: bool = True

    def __init__(self, settings: Settings, files: dict[str, bytes]):
        self.digest = digest(self.kind, self.version, settings, files)

    def score(self, sample: Sample, answer: Answer | None, against: Answer) -> Score:
        """How good an answer is. What cannot be scored has an ``error``, and counts as 0."""
        if answer is None:
            return failed("There is no answer.")
        for whose, one in (("The answer", answer), ("The reference", against)):
            if (length := size(one)) > self.longest:
                return failed(f"{whose} has {length} characters; at most {self.longest} are scored.")
        found = self._score(sample, answer, against)
        if not (math.isfinite(found.value) and 0 <= found.value <= 1):
            return failed(f"The value {found.value} is not from 0 to 1.")
        return found

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """End whatever process it holds."""

    @abstractmethod
    def _score(self, sample: Sample, answer: Answer, against: Answer) -> Score:
        """The same, for answers of bearable length."""


class TextScorer(Scorer):
    """Looks at the text of the answers alone."""

    def _score(self, sample: Sample, answer: Answer, against: Answer) -> Score:
        if self.compares and against.tools and not against.text.strip():
            return failed("The reference calls tools and says nothing; the scorer 'tool' compares those.")
        found = self._score_text(answer.text, against.text)
        if answer.tools:  # so that nobody wonders why an empty text was scored
            return msgspec.structs.replace(found, detail=found.detail | {"tools": len(answer.tools)})
        return found

    @abstractmethod
    def _score_text(self, text: str, reference: str) -> Score: ...


def yes_or_no(good: bool, **detail: Any) -> Score:
    """1 or 0. A detail that is None is left out."""
    return Score(float(good), {name: value for name, value in detail.items() if value is not None})


def failed(why: str, **detail: Any) -> Score:
    """What could not be scored; ``why`` is a sentence."""
    return Score(0.0, detail, shown(why))


def size(answer: Answer) -> int:
    """The characters of an answer, its calls of tools included."""
    return len(answer.text) + sum(len(call.name) + len(call.arguments) for call in answer.tools)


def digest(kind: str, version: int, settings: Settings, files: dict[str, bytes]) -> str:
    """The SHA-256 of what a scorer is. Files count by what is in them, not by what they are called."""
    values = {name: value for name, value in msgspec.to_builtins(settings).items() if name not in files}
    inside = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    whole = {"kind": kind, "version": version, "settings": values, "files": inside}
    return "sha256:" + hashlib.sha256(msgspec.json.encode(whole, order="deterministic")).hexdigest()
