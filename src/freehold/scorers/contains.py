"""Words that must, or must not, be in the text."""

from __future__ import annotations

from freehold.names import shown
from freehold.scorers import base
from freehold.scorers.text import folded, nfc
from freehold.types import Score

Words = tuple[str, ...]


class Settings(base.Settings):
    """``all``: each must be in the text; ``any``: one at least; ``none``: not one. Without any of them: the reference's
    text. Unless ``case`` is true, neither case nor the sort of white space matters."""

    all: Words = ()
    any: Words = ()
    none: Words = ()
    case: bool = False


class Contains(base.TextScorer):
    """1 where the answer's text has in it what it must and nothing that it must not, 0 elsewhere."""

    kind = "contains"

    def __init__(self, settings: Settings, files: dict[str, bytes]):
        super().__init__(settings, files)
        self._case = settings.case
        self._all, self._any, self._none = (
            {self._seen(word): word for word in words} for words in (settings.all, settings.any, settings.none)
        )
        self.compares = not (self._all or self._any or self._none)
        self.measures = (
            "The share of answers in which the reference's text stands."
            if self.compares
            else "The share of answers with the words that the task demands, and none that it forbids, in them."
        )

    def _score_text(self, text: str, reference: str) -> Score:
        text = self._seen(text)
        if self.compares:
            return self._has(text, reference)
        missing = [shown(word) for seen, word in self._all.items() if seen not in text]
        forbidden = [shown(word) for seen, word in self._none.items() if seen in text]
        none_of = bool(self._any) and not any(seen in text for seen in self._any)
        good = not (missing or forbidden or none_of)
        listed = [words[: base.MAX_LISTED] or None for words in (missing, forbidden)]
        return base.yes_or_no(good, missing=listed[0], forbidden=listed[1], none_of_any=none_of or None)

    def _has(self, text: str, reference: str) -> Score:
        wanted = self._seen(reference)
        if not wanted.strip():
            return base.failed("The reference is empty, and would be in any text.")
        return base.yes_or_no(wanted in text, **({} if wanted in text else {"reference": shown(reference)}))

    def _seen(self, text: str) -> str:
        return nfc(text).strip() if self._case else folded(text)
