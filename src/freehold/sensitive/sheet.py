"""One text with the views of it that detectors share: each is made once, by one pass in C."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator


def _table(changed: dict[str, str]) -> bytes:
    """For `bytes.translate`, which is many times faster than `str.translate` where a text is not ASCII alone."""
    table = bytearray(range(256))
    for letters, view in changed.items():
        for letter in letters:
            table[ord(letter)] = ord(view)
    return bytes(table)


_FOREIGN = "".join(letter for letter in map(chr, range(0xAA, 0x100)) if letter.isalpha())
_SHAPE = _table({string.digits: "9", string.ascii_uppercase: "A", string.ascii_lowercase + _FOREIGN: "a"})
_TOKEN = _table({string.ascii_letters + string.digits + "_-.": "x"})
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
LONG = 16  # characters: no token that anybody issues is shorter, and few words are longer
BEFORE, AFTER = 48, 20  # how far away a word still says what a number is


class Sheet:
    """A text and its views.

    ``shape``: 9 for each digit, A and a for each letter, ? for what is not in Latin-1, the rest as it is
    ('999-99-9999'). ``low``: in lower case, with every character in its place.
    """

    __slots__ = ("_latin", "low", "shape", "text")

    def __init__(self, text: str):
        self.text = text
        self._latin = text.encode("latin-1", "replace")  # one byte for each character, whichever it is
        self.shape = self._latin.translate(_SHAPE).decode("latin-1")
        low = text.lower()
        self.low = low if len(low) == len(text) else text.translate(_LOWER)

    def runs(self) -> Iterator[tuple[int, int]]:
        """Where at least `LONG` characters of letters, digits and ``_-.`` stand together."""
        view, end = self._latin.translate(_TOKEN), 0
        while (start := view.find(b"x" * LONG, end)) >= 0:
            end = _RUN.match(view, start).end()
            yield start, end

    def says(self, words: re.Pattern[str], start: int, end: int) -> bool:
        """Whether one of the words stands near the span, before it or just after."""
        low = self.low
        near = low[max(0, start - BEFORE) : start]
        return bool(words.search(near) or words.search(low[end : end + AFTER]))


_RUN = re.compile(rb"x++")


def whole(words: str) -> re.Pattern[str]:
    """A pattern that finds any of these words, given as alternatives in lower case, as words of their own."""
    return re.compile(rf"(?<![^\W\d_])(?:{words})(?![^\W\d_])")
