"""Everything that can be found in one text: the detectors one after the other, each behind a test that costs little."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from freehold.sensitive import contacts, numbers, passwords, tokens
from freehold.sensitive.fold import Folded
from freehold.sensitive.hit import RANK, Hit, Kind
from freehold.sensitive.sheet import Sheet

_EVERY = frozenset(Kind)
_TOKENS = frozenset({Kind.API_KEY, Kind.JWT, Kind.PRIVATE_KEY})
_BESIDE = frozenset({Kind.PASSWORD, Kind.SECRET})
# A long text is read in windows, or one search through all of it would keep every other thread waiting.
WINDOW = 16_384  # characters in which a hit may begin
_BEHIND = 256  # those before them that are read too: no detector looks further back
# And those after them: as many as any detector needs to know that there is something, and more where it goes on.
_AHEAD = (6_144, 16_384, 65_536)
_EDGE = 64  # a hit that ends so near to the window's end might go on
_REST = re.compile(r"\S*+(?:\s{1,2}\S{48,}+)*+(?:\s{1,2}\S++){0,2}")  # of a key on many lines, too


def find(text: str, kinds: Collection[Kind] | None = None) -> list[Hit]:
    """What a text has of these kinds, of all where none are given; in order, and no two overlap.

    Where two finds overlap they become one hit over both, of the longer one's kind, so that nothing which was found is
    left uncovered. The time is linear in the text's length, whatever is in it; no single step takes more than some
    milliseconds.
    """
    wanted = _EVERY if kinds is None else frozenset(kinds)
    if not wanted:
        return []
    return _joined(_whole(text, wanted) if len(text) <= WINDOW + _AHEAD[0] else _windows(text, wanted))


def _whole(text: str, wanted: frozenset[Kind]) -> Iterator[Hit]:
    folded = Folded(text)
    hits = (hit for hit in _all(Sheet(folded.text), wanted) if hit.kind in wanted)
    if folded.text is text:
        yield from hits
    else:
        yield from (Hit(hit.kind, *folded.back(hit.start, hit.end), hit.what) for hit in hits)


def _windows(text: str, wanted: frozenset[Kind]) -> Iterator[Hit]:
    """The hits of a long text, window by window. What is longer than the longest of them is taken to go on as far as
    there are no words."""
    start = 0
    while start < len(text):
        stop = min(start + WINDOW, len(text))
        begin = max(0, start - _BEHIND)
        for ahead in _AHEAD:
            end = min(stop + ahead, len(text))
            found = [hit for hit in _whole(text[begin:end], wanted) if start <= begin + hit.start < stop]
            last = max((begin + hit.end for hit in found), default=0)
            if end == len(text) or last <= end - _EDGE:
                break
        goes_on = end < len(text) and last > end - _EDGE
        if goes_on:
            stop = _REST.match(text, end).end()
        for hit in found:
            over = begin + hit.end
            yield Hit(hit.kind, begin + hit.start, stop if goes_on and over > end - _EDGE else over, hit.what)
        start = stop


def _all(sheet: Sheet, wanted: frozenset[Kind]) -> Iterator[Hit]:
    if wanted & _TOKENS:
        yield from tokens.find(sheet)
    if wanted & _BESIDE:
        yield from passwords.find(sheet)
    if "99" in sheet.shape:  # two digits side by side
        yield from _numbers(sheet, wanted)
    if Kind.EMAIL in wanted and "@" in sheet.text:
        yield from contacts.emails(sheet)
    if Kind.PHONE in wanted and ("99" in sheet.shape or "+" in sheet.text):
        yield from contacts.phones(sheet)
    if Kind.IP_ADDRESS in wanted and ("." in sheet.text or ":" in sheet.text):
        yield from contacts.addresses(sheet)


def _numbers(sheet: Sheet, wanted: frozenset[Kind]) -> Iterator[Hit]:
    if Kind.CARD in wanted or Kind.NATIONAL_ID in wanted:
        yield from numbers.find(sheet, Kind.CARD in wanted, Kind.NATIONAL_ID in wanted)
    if Kind.IBAN in wanted:
        yield from numbers.ibans(sheet)


def _joined(hits: Iterable[Hit]) -> list[Hit]:
    """One hit for each stretch of overlapping ones: the longest's kind, of equals the more certain one's."""
    joined: list[Hit] = []
    size = 0  # of the longest in the last stretch
    for hit in sorted(hits, key=lambda hit: (hit.start, hit.start - hit.end, RANK[hit.kind])):
        if not joined or hit.start >= joined[-1].end:
            joined.append(hit)
            size = hit.end - hit.start
            continue
        last = joined[-1]
        longer = (hit.end - hit.start, -RANK[hit.kind]) > (size, -RANK[last.kind])
        size = max(size, hit.end - hit.start)
        of = hit if longer else last
        joined[-1] = Hit(of.kind, last.start, max(last.end, hit.end), of.what)
    return joined
