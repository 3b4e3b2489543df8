"""Is it random? Shannon's entropy of a word's characters, and the words that people write in place of a secret."""

from __future__ import annotations

import math
import re
from collections import Counter

_PLACEHOLDER = re.compile(
    r"example|placeholder|changeme|change[_-]me|redacted|your[_-]?|dummy|x{4,}|\*{3,}|\.{3,}|<[^>]*>|"
    r"\$\{|\{\{|%\(|abcdefgh|0123456789|1234567890"
)
_LETTER, _DIGIT = re.compile(r"[A-Za-z]"), re.compile(r"[0-9]")
_HEX = re.compile(r"[0-9a-fA-F-]+")
_PART = re.compile(r"[-_./~+=]+")
_WORD = re.compile(r"[A-Za-z]{1,24}[0-9]{0,3}|[0-9]{1,4}")


def entropy(word: str) -> float:
    """Bits for each character (Shannon 1948), by the word's own frequencies; at most log2 of its length."""
    size = len(word)
    return -sum(count / size * math.log2(count / size) for count in Counter(word).values()) if word else 0.0


def placeholder(word: str) -> bool:
    """Whether the word stands for a secret, as in a manual, and is none."""
    return bool(_PLACEHOLDER.search(word.lower()))


def varied(word: str) -> bool:
    """Whether the characters of a token's form vary as random ones do."""
    return entropy(word[-32:]) >= 2.5


def random(word: str) -> bool:
    """Whether a word of 16 characters or more looks drawn at random: not a name, a path or words joined by dashes."""
    if not (_LETTER.search(word) and _DIGIT.search(word)) or placeholder(word):
        return False
    if all(_WORD.fullmatch(part) for part in _PART.split(word[:512]) if part):
        return False
    return entropy(word[:512]) >= (2.9 if _HEX.fullmatch(word) else 3.4)
