"""Texts that are the same but for how they are written: case, white space, the form of an accent, marks around."""

from __future__ import annotations

import re
import unicodedata

_MOST_MARKS = 30  # combining marks in a row
_JOINER = "\u034f"
_LONG_ROW = re.compile(rf"\W{{{_MOST_MARKS + 1}}}")  # combining marks are no word characters


def nfc(text: str) -> str:
    """The text in Unicode's composed form, where an accented letter is one character.

    Sorting a long row of combining marks takes time by its square, so a row is broken after 30 of them, as the
    stream-safe text format does. Source: Unicode Standard Annex 15, section 13.
    """
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", _safe(text) if _LONG_ROW.search(text) else text)


def folded(text: str) -> str:
    """The text without regard to case, the form of accents, and how much white space of which sort is where."""
    return " ".join(nfc(nfc(text).casefold()).split())


def bare(text: str) -> str:
    """The text without punctuation, symbols and white space at either end."""
    start, end = 0, len(text)
    while start < end and _is_mark(text[start]):
        start += 1
    while start < end and _is_mark(text[end - 1]):
        end -= 1
    return text[start:end]


def _is_mark(character: str) -> bool:
    return character.isspace() or unicodedata.category(character)[0] in "PSZC"


def _safe(text: str) -> str:
    pieces, row = [], 0
    for character in text:
        row = row + 1 if unicodedata.combining(character) else 0
        if row > _MOST_MARKS:
            pieces.append(_JOINER)
            row = 1
        pieces.append(character)
    return "".join(pieces)
