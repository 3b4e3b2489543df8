"""What the event of a settled call says of it: every column of its row that has a value, so that the row can be held
against it, column by column or as one text.

The caller's name is there as a salted hash (HMAC-SHA256 with the home's own salt), and so is a model's name in a call
that was refused before anything was found under it, since that is whatever somebody typed: the chain is never erased
from.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from json.encoder import encode_basestring as quoted
from operator import itemgetter
from typing import Any

from msgspec.json import encode
from sqlalchemy import Boolean, Column, Float, String

from freehold.errors import ChainBroken
from freehold.store import calls
from freehold.types import Outcome

SALTED = "hmac-sha256:"
COLUMNS = tuple(column.name for column in calls.columns if column.name != "event")  # in the order of `Entry.values`
_REFUSED = Outcome.REFUSED.value
_TRUTH = {0: False, 1: True}
_SMALL, _LARGE = 1e-4, 1e16  # between them Python shows a number as msgspec does
_SHAPES = 256  # that are remembered


_Values = Callable[[list[Any]], tuple]


class Details:
    """The details of the events of one home's calls. Raises ChainBroken where the salt is none."""

    def __init__(self, salt: str):
        try:
            self._salt = bytes.fromhex(salt)
        except (ValueError, TypeError):
            raise ChainBroken("The house's row was changed: it has no salt any more.") from None
        self.pseudonym = lru_cache(maxsize=4096)(self._pseudonym)
        places = {name: place for place, name in enumerate(COLUMNS)}
        self._caller, self._model = places["caller"], places["model"]
        self._outcome, self._left = places["outcome"], places["left_the_house"]
        self._digest = places["digest"]
        names = sorted(places.keys() - {"id"})
        self._order = [(name, places[name], _writer(calls.columns[name])) for name in names]
        self._shapes: dict[tuple[type, ...], tuple[tuple[str, ...], _Values, _Values]] = {}

    def text(self, row: Sequence[Any]) -> str:
        """The detail as canonical JSON, from a row in the order of `COLUMNS`.

        Raises:
            TypeError, ValueError, KeyError: the row has values that its columns cannot have.
        """
        row = list(row)
        row[self._caller] = self.pseudonym(row[self._caller])
        if self._typed(row):
            row[self._model] = self.pseudonym(row[self._model])
        row[self._left] = _TRUTH[row[self._left]]
        if (shape := self._shapes.get(tuple(map(type, row)))) is None:
            return self._spelt(row)
        names, values, floats = shape
        for number in floats(row):
            if not (_SMALL <= number < _LARGE or number == 0):
                return self._spelt(row)
        return encode(dict(zip(names, values(row), strict=True))).decode()

    def _spelt(self, row: list[Any]) -> str:
        """The same, value by value. Remembers the types of the row: of numbers that are neither very small nor very
        large msgspec makes the same text, and makes it in a moment."""
        there = [(name, place, write) for name, place, write in self._order if row[place] is not None]
        text = "{" + ",".join(f'"{name}":{write(row[place])}' for name, place, write in there) + "}"
        places, kinds = [place for _, place, _ in there], tuple(map(type, row))
        floats = [place for _, place, write in there if write is _float]
        if all(kinds[place] is float for place in floats) and len(self._shapes) < _SHAPES:
            self._shapes[kinds] = (tuple(name for name, _, _ in there), _several(places), _several(floats))
        return text

    def _typed(self, row: Sequence[Any]) -> bool:
        """Is the model's name what somebody typed, and no model's?"""
        refused = row[self._outcome] == _REFUSED and row[self._model] is not None
        return refused and not row[self._digest] and not row[self._left]

    def _pseudonym(self, name: str) -> str:
        """A name's salted hash. What is one already stays it, so that a name in the ledger can be erased."""
        if name.startswith(SALTED):
            return name
        return SALTED + hmac.digest(self._salt, name.encode("utf-8", "surrogatepass"), "sha256").hex()


def _writer(column: Column) -> Callable[[Any], str]:
    if isinstance(column.type, Boolean):
        return {False: "false", True: "true"}.__getitem__
    if isinstance(column.type, Float):
        return _float
    return _text if isinstance(column.type, String) else _integer


def _several(places: list[int]) -> _Values:
    """The values at some places, as a tuple, however few they are."""
    return itemgetter(*places) if len(places) > 1 else lambda row: tuple(row[place] for place in places)


def _float(value: Any) -> str:
    if type(value) is not float:
        if not isinstance(value, int):
            raise TypeError(f"{value!r} is no number")
        value = float(value)
    if not math.isfinite(value):
        raise ValueError(f"{value} is no number that JSON has")
    return repr(value)


def _integer(value: Any) -> str:
    """A whole number; one that an engine wrote with a point is stored as one without."""
    if not isinstance(value, int | float) or value != int(value):
        raise TypeError(f"{value!r} is no whole number")
    return repr(int(value))


def _text(value: Any) -> str:
    """A text; a number, such as somebody's code of an error, is stored as one."""
    return quoted(str(value) if type(value) is int else value)
