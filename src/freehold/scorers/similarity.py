"""How alike two texts are, by the short pieces that they share: chrF.

Source: Popović, "chrF: character n-gram F-score for automatic MT evaluation" (WMT 2015), and with words besides,
"chrF++: words helping character n-grams" (WMT 2017). Precision and recall are means over the lengths of pieces of which
both texts have any; recall weighs ``beta`` times as much as precision.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from freehold.scorers import base
from freehold.scorers.text import nfc
from freehold.types import Score


class Settings(base.Settings):
    """``characters``: pieces of 1 to so many characters; ``words``: and of 1 to so many words (2 makes it chrF++).
    ``beta``: how much recall weighs against precision. ``case``: whether it matters."""

    characters: Annotated[int, Meta(ge=1, le=10)] = 6
    words: Annotated[int, Meta(ge=0, le=4)] = 0
    beta: Annotated[float, Meta(gt=0, le=10)] = 2.0
    case: bool = True


class Similarity(base.TextScorer):
    """chrF from 0 to 1."""

    kind = "similarity"
    binary = False
    longest = 100_000

    def __init__(self, settings: Settings, files: dict[str, bytes]):
        super().__init__(settings, files)
        self._settings = settings
        name = f"chrF{'++' if settings.words == 2 else ''}"
        self.measures = f"The mean likeness to the reference's text by shared pieces of text ({name}, 0 to 1)."

    def _score_text(self, text: str, reference: str) -> Score:
        ours, theirs = self._seen(text), self._seen(reference)
        if ours.split() == theirs.split():
            return Score(1.0)
        return Score(chrf(ours, theirs, self._settings))

    def _seen(self, text: str) -> str:
        return nfc(text) if self._settings.case else nfc(nfc(text).casefold())


def chrf(text: str, reference: str, settings: Settings) -> float:
    """The F-score, from 0 to 1; 0 where the two have no length of piece in common."""
    rates = []
    for pieces, longest in ((_characters, settings.characters), (_words, settings.words)):
        ours, theirs = pieces(text), pieces(reference)
        rates += [
            _rates(ours, theirs, length) for length in range(1, longest + 1) if length <= min(len(ours), len(theirs))
        ]
    if not rates:
        return 0.0
    precision, recall = (sum(values) / len(rates) for values in zip(*rates, strict=True))
    weight = settings.beta**2
    whole = weight * precision + recall
    return min(1.0, (1 + weight) * precision * recall / whole) if whole else 0.0


def _rates(ours: Sequence[str], theirs: Sequence[str], length: int) -> tuple[float, float]:
    """Precision and recall of pieces of one length."""
    mine, other = (Counter(_pieces(one, length)) for one in (ours, theirs))
    shared = sum(min(count, other[piece]) for piece, count in mine.items())
    return shared / mine.total(), shared / other.total()


def _pieces(units: Sequence[str], length: int) -> list:
    if isinstance(units, str):
        return [units[start : start + length] for start in range(len(units) - length + 1)]
    return list(zip(*(units[start:] for start in range(length)), strict=False))


def _characters(text: str) -> str:
    """White space does not count."""
    return "".join(text.split())


def _words(text: str) -> list[str]:
    """Words, with a mark at the end of one, or else at its start, as a word of its own."""
    found: list[str] = []
    for word in text.split():
        if len(word) > 1 and word[-1] in string.punctuation:
            found += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in string.punctuation:
            found += [word[0], word[1:]]
        else:
            found.append(word)
    return found
