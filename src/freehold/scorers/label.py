"""One label out of a list."""

from __future__ import annotations

from freehold.errors import BadTask
from freehold.names import shown
from freehold.scorers import base
from freehold.scorers.text import bare, folded, nfc
from freehold.types import Score

MAX_LABELS = 10_000


class Settings(base.Settings):
    """``labels``: all that there are. Unless they are set to true, ``case`` does not matter, nor does ``punctuation``
    around the label."""

    labels: tuple[str, ...]
    case: bool = False
    punctuation: bool = False


class Label(base.TextScorer):
    """1 where the answer names the reference's label and nothing else, 0 elsewhere."""

    kind = "label"

    def __init__(self, settings: Settings, files: dict[str, bytes]):
        super().__init__(settings, files)
        self._case, self._punctuation = settings.case, settings.punctuation
        self._labels = {self._seen(label): label for label in settings.labels}
        _check(settings.labels, self._labels)
        self.measures = f"The share of answers that name the reference's label, one of {len(self._labels)}."

    def _score_text(self, text: str, reference: str) -> Score:
        ours, theirs = (self._labels.get(self._seen(one)) for one in (text, reference))
        if theirs is None:
            return base.failed(f"The reference {shown(reference[:80])!r} is none of the labels.")
        if ours is None:
            return base.yes_or_no(False, reference=shown(theirs), none_of_them=shown(text))
        return base.yes_or_no(ours == theirs, answer=shown(ours), reference=shown(theirs))

    def _seen(self, text: str) -> str:
        text = text.strip() if self._punctuation else bare(text) or text.strip()
        return nfc(text) if self._case else folded(text)


def _check(labels: tuple[str, ...], seen: dict[str, str]) -> None:
    if not 2 <= len(labels) <= MAX_LABELS or "" in seen:
        raise BadTask(
            f"The scorer 'label' needs from 2 to {MAX_LABELS} labels, none of them empty.",
            hint='For example labels = ["billing", "delivery", "other"].',
        )
    for label in labels:
        if label not in seen.values():
            raise BadTask(
                f"The label {shown(label)!r} is the same as another one.",
                hint="Leave one out, or set case = true or punctuation = true to tell them apart.",
            )
