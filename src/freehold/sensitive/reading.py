"""One text as the detectors read it, and as it is when it is masked.

A text that is JSON itself (the arguments of a tool, what a tool gave back) is read with its strings unescaped, or
``\\nanna@...`` would begin with an n; what is masked in it is masked inside of its strings, so that it stays JSON.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from freehold.sensitive.find import find
from freehold.sensitive.hit import Hit, Kind
from freehold.sensitive.mask import Names, marks, mask

_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?[0-9][0-9.eE+-]{6,}+')
_UNREAD: Any = object()
_DEEPEST = 8  # JSON within JSON; what is deeper is read as it is written
_QUOTE = str.maketrans('"', "\u201d")  # one within a string would end it for whoever looks for its end


class Reading:
    """What stands in a text. ``beside`` is read before it and is no part of it (the name of its field); ``kinds`` are
    those that are looked for, and what looks like a placeholder is passed over where ``again`` says that the text was
    masked before."""

    __slots__ = ("_found", "hits", "text")

    def __init__(
        self, text: str, beside: str = "", kinds: Collection[Kind] | None = None, *, again: bool = False, depth: int = 0
    ):
        self.text = text
        self._found = _parts(text, kinds, again, depth) if depth < _DEEPEST else None
        if self._found is None:
            self.hits = _beside(text, beside, kinds, again)
        else:
            self.hits = [hit for part in self._found for hit in part.found()]

    @classmethod
    def known(cls, text: str, hits: tuple[Hit, ...]) -> Reading:
        """The reading of a text in which just this stands: `remarks` of an earlier one."""
        made = cls.__new__(cls)
        made.text, made.hits, made._found = text, list(hits), None if hits else _UNREAD
        return made

    @property
    def remarks(self) -> tuple[Hit, ...] | None:
        """What has to be known of the text to read it no more; None where that is not enough."""
        return tuple(self.hits) if not self.hits or self._found is None else None

    @property
    def _parts(self) -> list[_Part] | None:
        if self._found is _UNREAD:  # nothing is in it, and it is masked all the same, since others of its call are
            self._found = _parts(self.text, frozenset(), False, 0)
        return self._found

    def masked(self, names: Names, wanted: Collection[Kind], *, literals: bool = True) -> str:
        """The text with a placeholder for each hit of the wanted kinds; see `mask.mask`."""
        if self._parts is None:
            return mask(self.text, [hit for hit in self.hits if hit.kind in wanted], names, literals=literals)
        pieces, end = [], 0
        for part in self._parts:
            pieces += [self.text[end : part.start], part.masked(names, wanted, literals)]
            end = part.end
        return "".join([*pieces, self.text[end:]])


class _Part(Struct):
    """A string or a number of a JSON text, ``start`` to ``end``: what it says, where that stands in the text that is
    searched, and the hits in it; or the text that it is, where that is JSON once more and is searched by itself."""

    start: int
    end: int
    written: str
    says: str
    at: int
    is_text: bool
    hits: list[Hit]
    inner: Reading | None = None

    def __repr__(self) -> str:
        return f"<_Part {self.start} to {self.end}>"

    @property
    def stop(self) -> int:
        """Where it ends in the text that is searched."""
        return self.at + (1 if self.inner else len(self.says))

    def found(self) -> list[Hit]:
        return self.inner.hits if self.inner else self.hits

    def masked(self, names: Names, wanted: Collection[Kind], literals: bool) -> str:
        if self.inner:
            said = self.inner.masked(names, wanted, literals=literals)
        elif self.is_text:
            said = mask(self.says, [hit for hit in self.hits if hit.kind in wanted], names, literals=literals)
        else:  # a number is masked whole, and becomes a string
            kind = next((hit.kind for hit in self.hits if hit.kind in wanted), None)
            said = names.mark(kind, self.says) if kind else self.says
        return self.written if said == self.says else msgspec.json.encode(said).decode()


def _parts(text: str, kinds: Collection[Kind] | None, again: bool, depth: int) -> list[_Part] | None:
    """The strings and long numbers of a JSON text, read in each other's light; None for what is none."""
    bare = text.strip()
    if bare[:1] not in ("{", "[") or bare[-1:] not in ("}", "]") or not _is_json(text):
        return None
    parts, pieces, size, end = [], [], 0, 0
    for token in _TOKEN.finditer(text):
        between = text[end : token.start()]
        part = _part(token, size + len(between), kinds, again, depth)
        says = " " if part.inner else part.says.translate(_QUOTE)
        pieces += [between, '"' + says + '"' if part.is_text else says]
        size += len(between) + len(says) + 2 * part.is_text
        end = token.end()
        parts.append(part)
    _share(_apart("".join([*pieces, text[end:]]), kinds, again), parts)
    return parts


def _part(token: re.Match[str], at: int, kinds: Collection[Kind] | None, again: bool, depth: int) -> _Part:
    written = token[0]
    if written[0] != '"':
        return _Part(token.start(), token.end(), written, written, at, False, [])
    says = msgspec.json.decode(written) if "\\" in written else written[1:-1]
    inner = Reading(says, kinds=kinds, again=again, depth=depth + 1) if says[:1] in ("{", "[") else None
    if inner is not None and inner._parts is None:
        inner = None
    return _Part(token.start(), token.end(), written, says, at + 1, True, [], inner)


def _share(hits: list[Hit], parts: list[_Part]) -> None:
    """Give each part the hits that lie in it, at offsets of its own. Both are in order."""
    first = 0
    for hit in hits:
        while first < len(parts) and parts[first].stop <= hit.start:
            first += 1
        for index in range(first, len(parts)):
            part = parts[index]
            if hit.end <= part.at:
                break
            start, end = max(hit.start - part.at, 0), min(hit.end, part.stop) - part.at
            if start < end and part.inner is None:
                part.hits.append(Hit(hit.kind, start, end, hit.what))


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return False
    return True


def _beside(text: str, beside: str, kinds: Collection[Kind] | None, again: bool) -> list[Hit]:
    found = []
    for hit in _apart(beside + text, kinds, again):
        if hit.end > len(beside):
            found.append(Hit(hit.kind, max(0, hit.start - len(beside)), hit.end - len(beside), hit.what))
    return found


def _apart(text: str, kinds: Collection[Kind] | None, again: bool) -> list[Hit]:
    """The hits, without the placeholders in them where the text was masked before."""
    hits = find(text, kinds)
    taken = marks(text) if again and hits else []
    return [part for hit in hits for part in _without(hit, taken)] if taken else hits


def _without(hit: Hit, taken: list[tuple[int, int]]) -> Iterator[Hit]:
    start = hit.start
    for begin, end in taken:
        if end <= start or hit.end <= begin:
            continue
        if start < begin:
            yield Hit(hit.kind, start, begin, hit.what)
        start = end
    if start < hit.end:
        yield Hit(hit.kind, start, hit.end, hit.what)
