"""A text as its reader sees it: digits and letters of other scripts and widths as ASCII, what has no width left out.

Nobody sees that a card number is written in full-width digits or has zero-width joiners in it; the model reads it all
the same. Offsets of what is found lead back to the text as it was written.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from functools import cache

_UNSEEN = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
)
_NONE = re.compile(f"[{_UNSEEN}\U000e0000-\U000e0fff]+")
_DASHES = dict.fromkeys([*range(0x2010, 0x2016), 0x2212, 0xFE58, 0xFE63, 0xFF0D], "-")
_SPACES = dict.fromkeys([0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], " ")
_WIDE = {0xFF00 + code - 0x20: chr(code) for code in range(0x21, 0x7F)}  # full-width forms of ASCII


class Folded:
    """``text`` to search in; `back` says where an offset in it stood before."""

    __slots__ = ("_at", "_lost", "text")

    def __init__(self, text: str):
        self._at, self._lost = [], []  # from the offset on, so many characters more stood before it
        self.text = text
        if text.isascii() or not _foldable().search(text):
            return
        text = text.translate(_table())
        lost, pieces, end = 0, [], 0
        for gap in _NONE.finditer(text):
            pieces.append(text[end : gap.start()])
            self._at.append(gap.start() - lost)
            lost += gap.end() - gap.start()
            self._lost.append(lost)
            end = gap.end()
        self.text = "".join([*pieces, text[end:]]) if pieces else text

    def back(self, start: int, end: int) -> tuple[int, int]:
        """The span in the text as it was written, with what is unseen inside it, and nothing unseen around it."""
        return self._before(start), self._before(end - 1) + 1

    def _before(self, offset: int) -> int:
        index = bisect_right(self._at, offset)
        return offset + (self._lost[index - 1] if index else 0)


@cache
def _foldable() -> re.Pattern[str]:
    """A character that is folded or left out: most texts that are not ASCII have none."""
    return re.compile("[" + "".join(map(re.escape, map(chr, _table()))) + _NONE.pattern[1:-1])


@cache
def _table() -> dict[int, str]:
    """One character for one: decimal digits of every script, full-width forms, dashes and spaces."""
    digits = {
        code: str(unicodedata.decimal(chr(code)))
        for code in range(0x80, 0x20000)
        if unicodedata.decimal(chr(code), None) is not None
    }
    return digits | _DASHES | _SPACES | _WIDE
