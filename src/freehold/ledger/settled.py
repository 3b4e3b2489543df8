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
from typing import Any

from sqlalchemy import Boolean, Column, Float, String

from freehold.store import calls
from freehold.types import Outcome

SALTED = "hmac-sha256:"
COLUMNS = tuple(column.name for column in calls.columns if column.name != "event")  # in the order of `Entry.values`
_TRUTH = {0: "false", 1: "true"}


class Details:
    """The details of the events of one home's calls."""

    def __init__(self, salt: str):
        self._salt = bytes.fromhex(salt)
        self.pseudonym = lru_cache(maxsize=4096)(self._pseudonym)
        places = {name: place for place, name in enumerate(COLUMNS)}
        self._caller, self._model = places["caller"], places["model"]
        self._found = [places[name] for name in ("digest", "left_the_house")]
        self._outcome = places["outcome"]
        names = sorted(places.keys() - {"id"})
        self._order = [(f'"{name}":', places[name], _writer(calls.columns[name])) for name in names]

    def text(self, row: Sequence[Any]) -> str:
        """The detail as canonical JSON, from a row in the order of `COLUMNS`.

        Raises:
            TypeError, ValueError, KeyError: the row has values that its columns cannot have.
        """
        row = list(row)
        row[self._caller] = self.pseudonym(row[self._caller])
        if self._typed(row):
            row[self._model] = self.pseudonym(row[self._model])
        parts = [key + write(row[place]) for key, place, write in self._order if row[place] is not None]
        return "{" + ",".join(parts) + "}"

    def _typed(self, row: Sequence[Any]) -> bool:
        """Is the model's name what somebody typed, and no model's?"""
        refused = row[self._outcome] == Outcome.REFUSED.value and row[self._model] is not None
        return refused and not any(row[place] for place in self._found)

    def _pseudonym(self, name: str) -> str:
        """A name's salted hash. What is one already stays it, so that a name in the ledger can be erased."""
        if name.startswith(SALTED):
            return name
        return SALTED + hmac.digest(self._salt, name.encode("utf-8", "surrogatepass"), "sha256").hex()


def _writer(column: Column) -> Callable[[Any], str]:
    if isinstance(column.type, Boolean):
        return _TRUTH.__getitem__
    if isinstance(column.type, Float):
        return _float
    return quoted if isinstance(column.type, String) else _integer


def _float(value: Any) -> str:
    if type(value) is not float:
        if not isinstance(value, int):
            raise TypeError(f"{value!r} is no number")
        value = float(value)
    if not math.isfinite(value):
        raise ValueError(f"{value} is no number that JSON has")
    return repr(value)


def _integer(value: Any) -> str:
    if not isinstance(value, int):
        raise TypeError(f"{value!r} is no whole number")
    return repr(value)
