"""NumPy's element types, as .npy headers and pickles spell them: how many bytes, and whether they point to objects.

Format: the array interface's typestr (``<f8``, ``|V16``, ``<M8[ns]``), numpy 2.4, reference/arrays.interface.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_ITEM = 1 << 31  # bytes of one element, as numpy's own int has it
_TYPESTR = re.compile(
    r"[<>|=]?([biufcmMOSUVaT?])([0-9]{0,10})(\[[0-9]{0,10}(generic|[YMWDhmsunpfa]{1,2})(/[0-9]{1,10})?\])?\Z"
)
_SIZES = {
    "b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8, 12, 16), "c": (8, 16, 24, 32), "m": (8,),
    "M": (8,), "O": (4, 8), "?": (1,), "T": (16,),
}  # fmt: skip


class DType(NamedTuple):
    """An element type: its letter, the bytes of one element, and whether those are pointers to Python objects."""

    letter: str
    size: int
    objects: bool = False


def typestr(text: str) -> DType | None:
    """The type that the text names; None where it names none."""
    found = _TYPESTR.match(text)
    if found is None or (found[3] and found[1] not in "mM"):
        return None
    letter, size = found[1], int(found[2] or 0)
    if letter in "SUVa":
        size *= 4 if letter == "U" else 1
        return DType(letter, size) if size < MAX_ITEM else None
    known = _SIZES[letter]
    if not found[2]:
        size = 8 if letter == "O" else known[0] if len(known) == 1 else -1
    return DType(letter, size, letter in "OT") if size in known else None
