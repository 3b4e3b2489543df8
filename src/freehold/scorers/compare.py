"""Two values of JSON: are they the same, as a field's owner means it?

A value is what `fields.read` makes of JSON: a dict, a list, a str, a Decimal, a bool or None.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from freehold.scorers.text import folded

Amount = Annotated[float, Meta(ge=0, le=1e300)]
Way = Literal["exact", "number", "date", "set", "text-folded", "ignore"]
Same = Callable[[Any, Any], bool]

_PLAIN = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})++|\d++)(?:\.\d++)?(?:[eE][-+]?\d++)?", re.ASCII)
_INSIDE = re.compile(
    r"(?:(?<![\w.,])[-+])?(?<![\w.])(?:\d{1,3}(?:,\d{3}(?!\d))++|\d++)(?:\.\d++)?(?:[eE][-+]?\d++)?", re.ASCII
)
_MINUS = str.maketrans("\N{MINUS SIGN}", "-")
_SWAPPED = str.maketrans(",.", ".,")
_EXACTLY = Context(prec=60, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])


class Comparator(Struct, frozen=True, forbid_unknown_fields=True):
    """How one field is compared. ``tolerance`` and ``relative`` (to the reference) are for numbers."""

    compare: Way
    tolerance: Amount = 0.0
    relative: Amount = 0.0


def same(how: Comparator) -> Same:
    """The function that compares (value, reference)."""
    if how.compare == "number":
        return lambda value, reference: same_number(value, reference, how.tolerance, how.relative)
    return _WAYS[how.compare]


def same_exactly(value: Any, reference: Any) -> bool:
    """The same type and value; 1 is 1.0, "1" is not, and true is no number."""
    return canonical(value) == canonical(reference)


def same_number(value: Any, reference: Any, tolerance: float = 0.0, relative: float = 0.0) -> bool:
    """The same number within the larger of two tolerances; a text that is nothing but a number counts as one."""
    ours, theirs = as_number(value), as_number(reference)
    if ours is None or theirs is None:
        return same_exactly(value, reference)
    if ours == theirs:
        return True
    room = max(Decimal(repr(tolerance)), _EXACTLY.multiply(Decimal(repr(relative)), theirs.copy_abs()))
    return room > 0 and _EXACTLY.compare(_EXACTLY.subtract(ours, theirs).copy_abs(), room) <= 0


def as_number(value: Any) -> Decimal | None:
    """The number that a value is, or that its text is; None where it is none."""
    if isinstance(value, Decimal):
        return value
    return number_in(value, "whole") if isinstance(value, str) else None


def number_in(text: str, where: Literal["whole", "first", "last"], decimal: str = ".") -> Decimal | None:
    """The number that a text is (``whole``), or the first or last in it; None where there is none.

    Thousands may be set apart by a comma; with ``decimal = ","`` comma and point change places. Digits that go on from
    a letter, as in B12, are no number.
    """
    text = text.translate(_MINUS)
    text = text.translate(_SWAPPED) if decimal == "," else text
    if where == "whole":
        text = text.strip()
        return decimal_of(text.replace(",", "")) if _PLAIN.fullmatch(text) else None
    found = None
    for match in _INSIDE.finditer(text):
        found = match[0]
        if where == "first":
            break
    return None if found is None else decimal_of(found.replace(",", ""))


def decimal_of(text: str) -> Decimal | None:
    """The number that digits spell, exactly; None where its exponent is beyond all bounds."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def canonical(value: Any) -> Any:
    """A value that can be hashed, and is equal where the JSON is: order of keys aside, 1 as 1.0.

    Numbers are spelled out, since a text's hash cannot be foreseen by whoever would have them all collide.
    """
    if isinstance(value, Decimal):
        return ("number", _spelled(value))
    if isinstance(value, dict):
        return ("object", frozenset((key, canonical(one)) for key, one in value.items()))
    if isinstance(value, list):
        return ("array", tuple(canonical(one) for one in value))
    return (type(value).__name__, value)


def _spelled(number: Decimal) -> str:
    sign, digits, exponent = number.as_tuple()
    plain = "".join(map(str, digits)).lstrip("0")
    short = plain.rstrip("0")
    return f"{'-' if sign else ''}{short}e{exponent + len(plain) - len(short)}" if short else "0"


def _same_date(value: Any, reference: Any) -> bool:
    """The same moment by ISO 8601. A day is its midnight; a time with a zone is none without."""
    ours, theirs = _moment(value), _moment(reference)
    if ours is None or theirs is None:
        return same_exactly(value, reference)
    try:
        return ours == theirs
    except OverflowError:  # a moment that the zone moves out of the calendar
        return False


def _moment(value: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(value.strip()) if isinstance(value, str) else None
    except ValueError:
        return None


def _same_set(value: Any, reference: Any) -> bool:
    """The same elements, in whatever order and however often."""
    if not (isinstance(value, list) and isinstance(reference, list)):
        return same_exactly(value, reference)
    return {canonical(one) for one in value} == {canonical(one) for one in reference}


def _same_folded(value: Any, reference: Any) -> bool:
    if isinstance(value, str) and isinstance(reference, str):
        return folded(value) == folded(reference)
    return same_exactly(value, reference)


_WAYS: dict[str, Same] = {
    "exact": same_exactly,
    "date": _same_date,
    "set": _same_set,
    "text-folded": _same_folded,
    "ignore": lambda value, reference: True,
}
