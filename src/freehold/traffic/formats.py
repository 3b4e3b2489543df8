"""The formats, and which of them a file is in."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from freehold.errors import BadTraffic
from freehold.names import shown
from freehold.traffic import batch, finetuning, langfuse, own
from freehold.traffic.line import Format

LINES: dict[str, Format] = {format.FORMAT: format for format in (own, finetuning, batch, langfuse)}
WHOLE = {"inspect": "freehold.traffic.inspectlog", "promptfoo": "freehold.traffic.promptfoo"}  # read as whole files
NAMES = (*LINES, *WHOLE)
_BEGINS = {
    "inspect": re.compile(rb'PK\x03\x04|\s*\{\s*"version"\s*:\s*[0-9]+\s*,\s*"(?:status|eval)"'),
    "promptfoo": re.compile(rb'\s*\{\s*"(?:evalId|results)"\s*:\s*["{n]'),
}


def recognise(documents: Iterable[Any], file: str) -> tuple[str, str]:
    """Which format the first documents of a file are in, and the reason, as a sentence.

    Raises:
        BadTraffic: none, or two as well as each other; it says what was seen.
    """
    documents = list(documents)
    votes = Counter(name for found in documents for name, format in LINES.items() if format.recognises(found))
    best = votes.most_common(2)
    if not best:
        raise BadTraffic(f"{shown(file)} is in no format that is known here: {_seen(documents)}.", hint=_HINT)
    if len(best) == 2 and best[0][1] == best[1][1]:
        names = " and ".join(sorted(name for name, _ in best))
        raise BadTraffic(f"{shown(file)} could be in the formats {names} alike.", hint="Choose one with --format.")
    winner, count = best[0]
    return winner, f"{count} of its first {len(documents)} lines that are JSON look like {winner}"


def whole(start: bytes) -> str:
    """Which of the formats that are read as whole files begins so; '' for none of them."""
    return next((name for name, begins in _BEGINS.items() if begins.match(start)), "")


def otherwise(document: Any) -> str:
    """What a document of another format looks like; '' where nobody knows."""
    return next((name for name, format in LINES.items() if format.recognises(document)), "")


_HINT = f"The formats are {', '.join(NAMES)}; docs/guides/traffic.md shows each. Choose one with --format."


def _seen(documents: list[Any]) -> str:
    if not documents:
        return "none of its first lines is JSON by itself"
    first = documents[0]
    if not isinstance(first, dict):
        return f"it begins with {'a list' if isinstance(first, list) else 'a value'}, and not with an object"
    if batch.is_answer(first):
        return "it is what a batch answered, and what was asked is in another file (give that one, and --answers this)"
    names = ", ".join(shown(key)[:30] for key in list(first)[:8])
    return f"its first object has the fields {names or '(none)'}"
