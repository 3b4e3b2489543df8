"""The same text."""

from __future__ import annotations

from freehold.names import shown
from freehold.scorers import base
from freehold.scorers.text import folded
from freehold.types import Score


class Settings(base.Settings):
    """``strip``: white space at either end does not count. ``fold``: nor do case, the form of accents, and how much
    white space is between words."""

    strip: bool = True
    fold: bool = False


class Exact(base.TextScorer):
    """1 where the answer's text is the reference's, 0 elsewhere."""

    kind = "exact"

    def __init__(self, settings: Settings, files: dict[str, bytes]):
        super().__init__(settings, files)
        self._strip, self._fold = settings.strip, settings.fold
        aside = "case and white space aside" if self._fold else "white space at the ends aside" if self._strip else ""
        self.measures = f"The share of answers that are the reference's text, {aside or 'to the character'}."

    def _score_text(self, text: str, reference: str) -> Score:
        same = self._seen(text) == self._seen(reference)
        return base.yes_or_no(same, **({} if same else {"answer": shown(text), "reference": shown(reference)}))

    def _seen(self, text: str) -> str:
        return folded(text) if self._fold else text.strip() if self._strip else text
