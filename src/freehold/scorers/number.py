"""One number, within a tolerance."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from freehold.names import shown
from freehold.scorers import base
from freehold.scorers.compare import Amount, number_in, same_number
from freehold.types import Score


class Settings(base.Settings):
    """``tolerance``: how far off a number may be; ``relative``: the same as a share of the reference; the larger
    counts. ``find``: the text is nothing but the number (``whole``), or the ``first`` or ``last`` in it counts.
    ``decimal``: the mark before the decimals."""

    tolerance: Amount = 0.0
    relative: Amount = 0.0
    find: Literal["whole", "first", "last"] = "whole"
    decimal: Literal[".", ","] = "."


class Number(base.TextScorer):
    """1 where the answer's number is the reference's within the tolerance, 0 elsewhere."""

    kind = "number"

    def __init__(self, settings: Settings, files: dict[str, bytes]):
        super().__init__(settings, files)
        self._settings = settings
        self.measures = f"The share of answers that give the reference's number, {_room(settings)}."

    def _score_text(self, text: str, reference: str) -> Score:
        ours, theirs = self._number(text), self._number(reference)
        if theirs is None:
            return base.failed(f"The reference {shown(reference[:80])!r} has no number to compare with.")
        if ours is None:
            return base.yes_or_no(False, no_number_in=shown(text), reference=shown(str(theirs)))
        good = same_number(ours, theirs, self._settings.tolerance, self._settings.relative)
        return base.yes_or_no(good, answer=shown(str(ours)), reference=shown(str(theirs)))

    def _number(self, text: str) -> Decimal | None:
        return number_in(text, self._settings.find, self._settings.decimal)


def _room(settings: Settings) -> str:
    rooms = [f"{settings.tolerance:g}"] if settings.tolerance else []
    rooms += [f"{settings.relative * 100:g}%"] if settings.relative else []
    return f"give or take {' or '.join(rooms)}" if rooms else "exactly"
