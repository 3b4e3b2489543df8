"""What is not as it was signed, or not as the store has it now: figure by figure, by name."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

import msgspec

from freehold.dossier import chapters
from freehold.dossier.lines import Line
from freehold.types.dossier import Change, Dossier, Figure, Table

ENOUGH = 50  # changes that are named
_LINES = 3_000  # changed lines that are set against each other; of more only the first is named
_CLOSE = 1e-9  # relative: what two machines may differ by in the last digits of a number
_TEXT = 300  # characters of either text


def names(dossier: Dossier) -> dict[str, str]:
    """What people call the things of a document, by their ids."""
    found = {figure.id: figure.label for figure in chapters.figures(dossier)}
    found |= {table.id: table.caption for table in chapters.tables(dossier)}
    found |= {chapter.id: chapter.title for chapter in dossier.chapters}
    found |= {"headline": "the first line", "plain": "what the verdict means", "points": "what this does not say"}
    return found | {"picture.verdicts": "the picture of the verdict", "picture.curve": "the picture of the training"}


def label(id: str, known: dict[str, str]) -> str:
    """What people call an id, a table's row included."""
    whole, _, row = id.partition("/")
    said = known.get(whole, "")
    return f"{said}, row {row}" if row and said else said


# pages


def pages(signed: Sequence[Line], found: str, dossier: Dossier) -> list[Change]:
    """What differs between the lines that were signed and those of a file."""
    known, theirs = names(dossier), found.split("\n")
    ours = [line.text for line in signed]
    start = next((n for n, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None)
    start = min(len(ours), len(theirs)) if start is None else start
    end = _common_end(ours[start:], theirs[start:])
    mine, other = signed[start : len(signed) - end], theirs[start : len(theirs) - end]
    if len(mine) + len(other) > _LINES:
        owner = signed[min(start, len(signed) - 1)].owner
        return [Change(owner, label(owner, known), _cut(ours[start : start + 1]), _cut(theirs[start : start + 1]))]
    return list(_blocks(mine, other, known, signed[max(start - 1, 0)].owner))[:ENOUGH]


def _common_end(ours: Sequence[str], theirs: Sequence[str]) -> int:
    same = 0
    for one, other in zip(reversed(ours), reversed(theirs), strict=False):
        if one != other:
            break
        same += 1
    return same


def _blocks(mine: Sequence[Line], other: Sequence[str], known: dict[str, str], before: str) -> Iterator[Change]:
    matcher = difflib.SequenceMatcher(None, [line.text for line in mine], other, autojunk=False)
    for tag, left, right, first, last in matcher.get_opcodes():
        if tag == "insert":
            owner = mine[left - 1].owner if left else before
            yield Change(owner, label(owner, known), "", _cut(other[first:last]))
        elif tag != "equal":
            pairs = zip_longest(mine[left:right], other[first:last])
            for line, there in pairs:
                owner = line.owner if line else mine[right - 1].owner
                yield Change(owner, label(owner, known), _cut([line.text] if line else []), _cut([there or ""]))


def _cut(lines: Sequence[str]) -> str:
    text = " ".join(lines)
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"


# documents


def documents(signed: Dossier, found: Any) -> list[Change]:
    """What differs between the signed document and the JSON of a file."""
    known = names(signed)
    changes = _walk(msgspec.json.decode(msgspec.json.encode(signed)), found, "dossier", "")
    return [
        Change(owner, f"{label(owner, known)}{f' ({path})' if path else ''}".strip(), _said(ours), _said(theirs))
        for owner, path, ours, theirs in itertools.islice(map(_owned, changes), ENOUGH)
    ]


def _owned(leaf: tuple[str, str, Any, Any]) -> tuple[str, str, Any, Any]:
    """A leaf of the document itself belongs to the member that it is in."""
    owner, path, ours, theirs = leaf
    if owner == "dossier":
        owner, _, path = path.replace(".", " ").partition(" ")
    return owner, path, ours, theirs


def _walk(ours: Any, theirs: Any, owner: str, path: str) -> Iterator[tuple[str, str, Any, Any]]:
    """Leaves that differ, with the id of what they are in and the way from there."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        if isinstance(ours.get("id"), str):
            owner, path = ours["id"], ""
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            yield from _walk(ours.get(key), theirs.get(key), owner, f"{path}.{key}".lstrip("."))
    elif isinstance(ours, list) and isinstance(theirs, list):
        for number, (one, other) in enumerate(zip_longest(ours, theirs), 1):
            yield from _walk(one, other, owner, f"{path} {number}")
    elif ours != theirs or type(ours) is not type(theirs):
        yield owner, path, ours, theirs


def _said(value: Any) -> str:
    return _cut([value if isinstance(value, str) else msgspec.json.encode(value).decode()])


# the store


def figures(signed: Dossier, now: Dossier) -> tuple[list[Change], list[Change]]:
    """What the store has otherwise now: figures that should have lasted, and those that were of the moment."""
    pairs = [
        (old, new) for old, new in _pairs(chapters.figures(signed), chapters.figures(now)) if not _same_figure(old, new)
    ]
    tables = [
        (old, new) for old, new in _pairs(chapters.tables(signed), chapters.tables(now)) if not _same_rows(old, new)
    ]
    lasting: list[Change] = []
    passing: list[Change] = []
    for old, new in pairs:
        known = old or new
        change = Change(known.id, known.label, old.shown if old else "(not there)", new.shown if new else "(not there)")
        (lasting if known.lasting else passing).append(change)
    for old, new in tables:
        (lasting if (old or new).lasting else passing).append(_table(old, new))
    return lasting, passing


def _pairs(signed: Iterator[Any], now: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
    """The same thing then and now, by its id; None where there was or is none."""
    old, new = {one.id: one for one in signed}, {one.id: one for one in now}
    for id in [*old, *(id for id in new if id not in old)]:
        yield old.get(id), new.get(id)


def _same_figure(old: Figure | None, new: Figure | None) -> bool:
    return old is not None and new is not None and same(old.value, new.value)


def _same_rows(old: Table | None, new: Table | None) -> bool:
    return old is not None and new is not None and (old.rows, old.under, old.whole) == (new.rows, new.under, new.whole)


def _table(old: Table | None, new: Table | None) -> Change:
    """The first row that is not the same."""
    one = old or new
    rows = zip_longest(old.rows if old else (), new.rows if new else ())
    for number, (mine, theirs) in enumerate(rows, 1):
        if mine != theirs:
            id = f"{one.id}/{number}"
            return Change(id, f"{one.caption}, row {number}", _cells(mine), _cells(theirs))
    return Change(one.id, one.caption, f"{old.whole if old else 0} rows", f"{new.whole if new else 0} rows")


def _cells(row: Sequence[str] | None) -> str:
    return "(not there)" if row is None else _cut([", ".join(filter(None, row))])


def same(one: Any, other: Any) -> bool:
    """Equal JSON, but for the last digits of numbers."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=_CLOSE, abs_tol=1e-12)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other
