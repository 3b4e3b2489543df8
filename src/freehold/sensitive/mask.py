"""Masking: what was found is replaced by placeholders, `[EMAIL_1]`, and put back in the answer, piece by piece."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from freehold.sensitive.hit import Hit

# A model may write a placeholder in other case, or escape its underscore as Markdown does; in JSON that is two signs.
_MARK = re.compile(r"\[([A-Za-z]{1,12}(?:\\{0,2}_[A-Za-z]{1,12}){0,2})\\{0,2}_([0-9]{1,9})\]")
_BEGUN = re.compile(r"\[(?:[A-Za-z]{1,12}(?:\\{0,2}_?[A-Za-z]{0,12}){0,2})?(?:\\{0,2}_?[0-9]{0,9})?\Z")
LONGEST = 56  # characters of the longest placeholder that is understood
LITERAL = "LITERAL"  # what looks like a placeholder in a text that is to be masked, and is masked too


class Names:
    """Which placeholder stands for what, within one call: the same text has the same one wherever it stands.

    It holds the secrets themselves, in memory alone; its ``repr`` shows how many.
    """

    __slots__ = ("_counts", "_marks", "_originals")

    def __init__(self) -> None:
        self._marks: dict[tuple[str, str], str] = {}
        self._originals: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._originals)

    def __repr__(self) -> str:
        return f"<Names of {len(self)}>"

    def reserve(self, text: str) -> None:
        """Give no name that stands in this text already."""
        for found in _MARK.finditer(text) if "[" in text else ():
            name = found[1].replace("\\", "").upper()
            self._counts[name] = max(self._counts.get(name, 0), int(found[2]))

    def mark(self, kind: str, original: str) -> str:
        """The placeholder of this text, a new one if it has none."""
        name = kind.upper()
        if (name, original) not in self._marks:
            self._counts[name] = self._counts.get(name, 0) + 1
            mark = self._marks[name, original] = f"[{name}_{self._counts[name]}]"
            self._originals[mark] = original
        return self._marks[name, original]

    def original(self, kind: str, number: str) -> str | None:
        """What the placeholder stands for, None where it is nobody's."""
        name = kind.replace("\\", "").upper()
        return self._originals.get(f"[{name}_{int(number)}]")


def mask(text: str, hits: Iterable[Hit], names: Names, *, literals: bool = True) -> str:
    """The text with a placeholder for each hit. `unmask` with the same names gives exactly the text back, if
    ``literals`` are masked: what looked like a placeholder before."""
    pieces, end = [], 0
    for hit in sorted(hits, key=lambda hit: hit.start):
        pieces += [_between(text[end : hit.start], names, literals), names.mark(hit.kind, text[hit.start : hit.end])]
        end = hit.end
    return "".join([*pieces, _between(text[end:], names, literals)])


def marks(text: str) -> list[tuple[int, int]]:
    """Where something stands in a text that looks like a placeholder."""
    return [found.span() for found in _MARK.finditer(text)] if "[" in text else []


def unmask(text: str, names: Names, *, in_json: bool = False) -> str:
    """The text with each placeholder of these names replaced by what it stands for; others stay. ``in_json``: the text
    is JSON as it is written, so what is put into its strings is escaped."""
    return _MARK.sub(lambda found: _original(found, names, in_json), text) if "[" in text else text


class Unmasker:
    """`unmask` for a text that arrives in pieces. What might be the beginning of a placeholder is held back, which is
    never more than the longest one."""

    __slots__ = ("_held", "_in_json", "_names")

    def __init__(self, names: Names, *, in_json: bool = False):
        self._names, self._in_json = names, in_json
        self._held = ""

    def feed(self, piece: str) -> str:
        """As much of the text as is certain by now."""
        text = self._held + piece
        begun = text.rfind("[", max(0, len(text) - LONGEST + 1))
        whole = begun < 0 or not _BEGUN.match(text, begun)
        self._held = "" if whole else text[begun:]
        return unmask(text if whole else text[:begun], self._names, in_json=self._in_json)

    def flush(self) -> str:
        """The rest, at the end of the text."""
        rest, self._held = self._held, ""
        return unmask(rest, self._names, in_json=self._in_json)


def _between(text: str, names: Names, literals: bool) -> str:
    return _MARK.sub(lambda found: names.mark(LITERAL, found[0]), text) if literals and "[" in text else text


def _original(found: re.Match[str], names: Names, in_json: bool) -> str:
    original = names.original(found[1], found[2])
    if original is None:
        return found[0]
    return msgspec.json.encode(original).decode()[1:-1] if in_json else original
