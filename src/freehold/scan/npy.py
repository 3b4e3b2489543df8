"""NumPy's .npy: a header of plain literals, then the array's bytes, or a pickle where the array holds objects.

Format: numpy 2.4, lib/format.py, versions 1.0, 2.0 and 3.0. The header is read by a parser of our own that knows
strings, numbers, True, False, None, tuples, lists and dicts, and nothing that runs.
"""

from __future__ import annotations

import math
import re
from typing import Any

from freehold.scan import pickles
from freehold.scan.base import BLOCK, FETCH_AGAIN, Malformed, Report, Rule, Tape
from freehold.scan.dtype import DType, typestr
from freehold.scan.values import Node

FORMAT = "npy"
MAGIC = b"\x93NUMPY"
MAX_HEADER = 1 << 20
MAX_NESTING = 32

HEADER = Rule(
    "npy.header", BLOCK, "The header is not the plain description of an array.", FETCH_AGAIN, "numpy, lib/format.py"
)
LENGTH = Rule(
    "npy.length", BLOCK, "The array has another number of bytes than its header says.", FETCH_AGAIN,
    "numpy, lib/format.py",
)  # fmt: skip
OBJECTS = Rule(
    "npy.objects", BLOCK, "The array of objects is another than its header says.", FETCH_AGAIN,
    "numpy, lib/format.py; CVE-2019-6446",
)  # fmt: skip

_TOKEN = re.compile(
    r"""[ \t\r\n]*(?:(?P<string>[bu]?(?:'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"))|(?P<number>-?[0-9]{1,20})L?"""
    r"""|(?P<word>True|False|None)\b|(?P<sign>[(){}\[\],:]))"""
)
_END = re.compile(r"[ \t\r\n\0]*\Z")
_WORDS = {"True": True, "False": False, "None": None}
_CLOSING = {"(": ")", "[": "]", "{": "}"}


def recognises(head: bytes, tape: Tape, name: str) -> bool:
    """By the magic number."""
    return head[:6] == MAGIC


def scan(tape: Tape, report: Report) -> None:
    """Judge the header and what follows it. Facts: ``dtype`` (the type of elements, as written), ``shape``."""
    major, minor = tape.read(8)[6:]
    if major not in (1, 2, 3) or minor:
        raise Malformed(HEADER, 6, f"Version {major}.{minor} of the format is not known.")
    count = int.from_bytes(tape.read(2 if major == 1 else 4), "little")
    if count > MAX_HEADER:
        raise Malformed(HEADER, 8, f"The header has {count} bytes.")
    kind, shape = _header(tape.read(count), major)
    report.facts.update(shape=list(shape))
    if kind.objects:
        _objects(tape, report, shape)
    else:
        _bytes(tape, kind.size * math.prod(shape))


def _bytes(tape: Tape, due: int) -> None:
    if due != tape.left:
        raise Malformed(LENGTH, tape.at, f"The array has {tape.left} bytes, where its header says {due}.")
    tape.data(due)


def _objects(tape: Tape, report: Report, shape: tuple[int, ...]) -> None:
    """The pickle of the whole array."""
    start, made = tape.at, pickles.run(tape, report).value
    if not isinstance(made, Node) or made.kind not in ("array", "unknown"):
        raise Malformed(OBJECTS, start)
    pickles.behind(tape, report)


def _header(content: bytes, major: int) -> tuple[DType, tuple[int, ...]]:
    """The type of elements and the shape. Raises Malformed."""
    try:
        found = literal(content.decode("utf-8" if major == 3 else "latin-1"))
    except (ValueError, UnicodeDecodeError) as fault:
        raise Malformed(HEADER, 10, f"The header is not plain: {fault}.") from None
    if not isinstance(found, dict) or set(found) != {"descr", "fortran_order", "shape"}:
        raise Malformed(HEADER, 10, "The header does not have exactly descr, fortran_order and shape.")
    kind, shape = describe(found["descr"]), found["shape"]
    if kind is None or type(found["fortran_order"]) is not bool or not _is_shape(shape):
        raise Malformed(HEADER, 10, "The header describes no array.")
    return kind, shape


def _is_shape(shape: Any) -> bool:
    return type(shape) is tuple and len(shape) <= 64 and all(type(part) is int and part >= 0 for part in shape)


def describe(descr: Any, nesting: int = 0) -> DType | None:
    """The type that a header's ``descr`` stands for: '<f8', a list of fields, or (type, shape). None: it is none."""
    if isinstance(descr, str):
        return typestr(descr)
    if nesting > MAX_NESTING:
        return None
    if isinstance(descr, list):
        fields = [_field(field, nesting) for field in descr]
        if None in fields:
            return None
        return DType("V", sum(field.size for field in fields), any(field.objects for field in fields))
    if isinstance(descr, tuple) and len(descr) == 2:
        return _repeated(describe(descr[0], nesting + 1), descr[1])
    return None


def _field(field: Any, nesting: int) -> DType | None:
    """(name, type) or (name, type, shape); a name is text or (title, name)."""
    if not isinstance(field, tuple) or not 2 <= len(field) <= 3:
        return None
    names = field[0] if isinstance(field[0], tuple) and len(field[0]) == 2 else (field[0],)
    if not all(isinstance(name, str) for name in names):
        return None
    kind = describe(field[1], nesting + 1)
    return _repeated(kind, field[2]) if len(field) == 3 else kind


def _repeated(kind: DType | None, shape: Any) -> DType | None:
    shape = (shape,) if type(shape) is int else shape
    return DType("V", kind.size * math.prod(shape), kind.objects) if kind and _is_shape(shape) else None


def literal(text: str) -> Any:
    """The value that a Python literal stands for: str, int, bool, None, tuple, list and dict. Raises ValueError."""
    value, at = _value(text, 0, 0)
    if not _END.match(text, at):
        raise ValueError("something follows the description")
    return value


def _next(text: str, at: int) -> tuple[str, str, int]:
    found = _TOKEN.match(text, at)
    if found is None:
        raise ValueError(f"nothing that can stand there at character {at}")
    return found.lastgroup or "", found[found.lastgroup or 0], found.end()


def _value(text: str, at: int, nesting: int) -> tuple[Any, int]:
    kind, token, after = _next(text, at)
    if kind == "string":
        return _string(token), after
    if kind == "number":
        return int(token), after
    if kind == "word":
        return _WORDS[token], after
    if token not in _CLOSING or nesting > MAX_NESTING:
        raise ValueError(f"{token!r} at character {at}")
    items, commas, after = _items(text, after, token, nesting)
    if token == "{":
        return _dict(items), after
    if token == "(" and len(items) == 1 and not commas:
        return items[0], after
    return (tuple(items) if token == "(" else items), after


def _items(text: str, at: int, opening: str, nesting: int) -> tuple[list[Any], int, int]:
    """What stands between brackets, how many commas, and where it ends. Of a dict: pairs."""
    items: list[Any] = []
    commas = 0
    while True:
        kind, token, after = _next(text, at)
        if kind == "sign" and token == _CLOSING[opening]:
            return items, commas, after
        if len(items) > commas:
            raise ValueError(f"no comma at character {at}")
        item, at = _value(text, at, nesting + 1)
        if opening == "{":
            item, at = _pair(text, item, at, nesting)
        items.append(item)
        if _next(text, at)[1:2] == (",",):
            at, commas = _next(text, at)[2], commas + 1


def _pair(text: str, key: Any, at: int, nesting: int) -> tuple[tuple[Any, Any], int]:
    _, token, at = _next(text, at)
    if token != ":" or not isinstance(key, str):
        raise ValueError(f"no key at character {at}")
    value, at = _value(text, at, nesting + 1)
    return (key, value), at


def _dict(pairs: list[Any]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key appears twice")
    return dict(pairs)


def _string(token: str) -> str:
    """A string's text. Escapes stay as they are written: no name that matters has one."""
    return token.lstrip("bu")[1:-1]
