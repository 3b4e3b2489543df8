"""Everything that can be found in one text: the detectors one after the other, each behind a test that costs little."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from freehold.sensitive import contacts, numbers, passwords, tokens
from freehold.sensitive.fold import Folded
from freehold.sensitive.hit import RANK, Hit, Kind
from freehold.sensitive.sheet import Sheet

_EVERY = frozenset(Kind)
_TOKENS = frozenset({Kind.API_KEY, Kind.JWT, Kind.PRIVATE_KEY})
_BESIDE = frozenset({Kind.PASSWORD, Kind.SECRET})


def find(text: str, kinds: Collection[Kind] | None = None) -> list[Hit]:
    """What a text has of these kinds, of all where none are given; in order, and no two overlap.

    Where two finds overlap they become one hit over both, of the longer one's kind, so that nothing which was found is
    left uncovered. The time is linear in the text's length, whatever is in it.
    """
    wanted = _EVERY if kinds is None else frozenset(kinds)
    folded = Folded(text)
    hits = _joined(hit for hit in _all(Sheet(folded.text), wanted) if hit.kind in wanted)
    if folded.text is text:
        return hits
    return [Hit(hit.kind, *folded.back(hit.start, hit.end), hit.what) for hit in hits]


def _all(sheet: Sheet, wanted: frozenset[Kind]) -> Iterator[Hit]:
    if wanted & _TOKENS:
        yield from tokens.find(sheet)
    if wanted & _BESIDE:
        yield from passwords.find(sheet)
    if Kind.CARD in wanted or Kind.NATIONAL_ID in wanted:
        yield from numbers.find(sheet, Kind.CARD in wanted, Kind.NATIONAL_ID in wanted)
    if Kind.IBAN in wanted:
        yield from numbers.ibans(sheet)
    if Kind.EMAIL in wanted:
        yield from contacts.emails(sheet)
    if Kind.PHONE in wanted:
        yield from contacts.phones(sheet)
    if Kind.IP_ADDRESS in wanted:
        yield from contacts.addresses(sheet)


def _joined(hits: Iterator[Hit]) -> list[Hit]:
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
