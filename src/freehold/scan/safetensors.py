"""safetensors: a JSON header that describes tensors, and their bytes; nothing else, and no byte unaccounted for.

Format: the safetensors description (eight bytes of header length, a JSON object, the tensor data) as its own reader
enforces it. The header is read entry by entry, so that a hundred megabytes of it take no more memory than one.

Facts: ``tensors``, ``parameters``, ``dtypes`` ({dtype: number of tensors}), ``metadata`` (string to string, cut).
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from freehold.scan.base import BLOCK, FETCH_AGAIN, HOLD, Malformed, Report, Rule
from freehold.scan.tape import BLOCK as CHUNK
from freehold.scan.tape import Tape, Truncated

FORMAT = "safetensors"
MAX_HEADER = 100_000_000
MAX_ENTRY = 16 << 20  # bytes of one entry: the metadata of a tuning run may be long
MAX_DIMENSIONS = 64
MAX_KEPT = 64 << 10  # bytes of metadata that are kept

SPEC = "safetensors format description"
HEADER = Rule("safetensors.header", BLOCK, "The header is not the JSON object that it has to be.", FETCH_AGAIN, SPEC)
LENGTH = Rule("safetensors.length", BLOCK, "The header claims a length that no header has.", FETCH_AGAIN, SPEC)
KEY = Rule(
    "safetensors.key",
    BLOCK,
    "A name appears twice, so that two readers may see two different files.",
    FETCH_AGAIN,
    SPEC,
)
ENTRY = Rule("safetensors.entry", BLOCK, "A tensor's description is not one.", FETCH_AGAIN, SPEC)
METADATA = Rule("safetensors.metadata", BLOCK, "The metadata is not a map from text to text.", FETCH_AGAIN, SPEC)
DTYPE = Rule("safetensors.dtype", BLOCK, "A tensor has an unknown type.", FETCH_AGAIN, SPEC)
SHAPE = Rule("safetensors.shape", BLOCK, "A tensor has an impossible shape.", FETCH_AGAIN, SPEC)
SPAN = Rule("safetensors.span", BLOCK, "A tensor's shape and its bytes disagree.", FETCH_AGAIN, SPEC)
OFFSETS = Rule(
    "safetensors.offsets", BLOCK, "Tensors overlap or leave a hole, where anything could be hidden.", FETCH_AGAIN, SPEC
)
CLIMBS = Rule(
    "safetensors.name", HOLD, "A tensor is named like a path out of its folder.",
    "Do not write tensors to files by these names.", "CWE-22",
)  # fmt: skip
SHORT = Rule("safetensors.truncated", BLOCK, "The tensors reach past the end of the file.", FETCH_AGAIN, SPEC)
TRAILING = Rule(
    "safetensors.trailing", BLOCK, "Bytes follow the last tensor and belong to nothing.",
    "Ask the publisher what they are, and for a file without them.", SPEC,
)  # fmt: skip

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip

_STRING = rb'"[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+"'
_OBJECT = rb'\{[^{}"]*+(?:' + _STRING + rb'[^{}"]*+)*+\}'  # without objects in it
_SPACE = rb"[ \t\r\n]*+"
_MEMBER = re.compile(rb"%s(%s)%s:%s(%s)%s([,}])" % (_SPACE, _STRING, _SPACE, _SPACE, _OBJECT, _SPACE))
_EMPTY = re.compile(_SPACE + rb"\}")


def recognises(head: bytes, tape: Tape, name: str) -> bool:
    """A length that can be true and an object after it; under the format's own name, any length."""
    if len(head) < 9 or head[8:9] != b"{":
        return False
    return int.from_bytes(head[:8], "little") <= MAX_HEADER or name.lower().endswith(".safetensors")


def scan(tape: Tape, report: Report) -> None:
    """Read the header entry by entry, then let the tensors pass. Raises Malformed."""
    length = int.from_bytes(tape.read(8), "little")
    if length > MAX_HEADER:
        raise Malformed(LENGTH, 0, f"The header claims {length} bytes; 100,000,000 are the most.")
    if length > tape.left:
        raise Truncated(8, length)
    header = _Header(report)
    _members(tape, length, header.member)
    total = header.total()
    if total > tape.left:
        meaning = f"The tensors need {total} bytes and {tape.left} follow the header: the file is cut off."
        raise Malformed(SHORT, tape.at, meaning)
    tape.data(total)
    if tape.left:
        raise Malformed(TRAILING, tape.at, f"{tape.left} bytes follow the last tensor and belong to nothing.")


def _members(tape: Tape, length: int, member: Any) -> None:
    """Show each member of the header's object to ``member(name, value, at)``, holding little of it at a time."""
    end = tape.at + length
    buffer, at, wanted, closed = b"", 0, CHUNK, False
    if tape.read(min(length, 1)) != b"{":
        raise Malformed(HEADER, 8)
    first = True
    while not closed:
        match = _MEMBER.match(buffer, at) or (_EMPTY.match(buffer, at) if first else None)
        if match is None:
            if tape.at == end or len(buffer) - at > MAX_ENTRY:
                raise Malformed(HEADER, tape.at - len(buffer) + at, "The header is not a JSON object of objects.")
            wanted = max(CHUNK, len(buffer) - at)  # twice as much each time: a long entry is tried few times
            buffer, at = buffer[at:] + tape.read(min(wanted, end - tape.at)), 0
            continue
        if match.re is _MEMBER:
            member(match[1], match[2], tape.at - len(buffer) + match.start(1))
        first, at, closed = False, match.end(), match.re is _EMPTY or match[3] == b"}"
    if buffer[at:].strip(b" \t\r\n") or _padding(tape, end):
        raise Malformed(HEADER, tape.at, "Something other than padding follows the header's object.")


def _padding(tape: Tape, end: int) -> bool:
    """Is there anything but space up to the end of the header?"""
    while tape.at < end:
        if tape.read(min(CHUNK, end - tape.at)).strip(b" \t\r\n"):
            return True
    return False


class _Header:
    """What the members say, checked one by one and then together."""

    def __init__(self, report: Report):
        self.report = report
        self.names: set[int] = set()  # the hashes of the names, of which there may be many
        self.spans: list[int] = []  # start and end of each tensor in one number, which sorts by both
        self.dtypes: dict[str, int] = {}
        self.facts = report.facts
        self.facts |= {"tensors": 0, "parameters": 0, "dtypes": self.dtypes, "metadata": {}}

    def member(self, key: bytes, value: bytes, at: int) -> None:
        """One member: a tensor, or the metadata."""
        name = _parsed(key, at)
        if hash(name) in self.names:
            raise Malformed(KEY, at, f"The name {name[:200]!r} appears twice.")
        self.names.add(hash(name))
        content = _parsed(value, at)
        if name == "__metadata__":
            self.metadata(content, at)
        else:
            self.tensor(name[:200], content, at)

    def metadata(self, content: dict[str, Any], at: int) -> None:
        if not all(isinstance(value, str) for value in content.values()):
            raise Malformed(METADATA, at)
        room = MAX_KEPT
        for key, value in content.items():
            self.facts["metadata"][key[:1000]] = value[:room]
            room -= len(key) + len(value)
            if room <= 0:
                break

    def tensor(self, name: str, content: dict[str, Any], at: int) -> None:
        if "\0" in name or name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
            self.report.add(CLIMBS, at, f"The tensor {name!r} is named like a path that leaves its folder.")
        if content.keys() != {"dtype", "shape", "data_offsets"}:
            raise Malformed(ENTRY, at, f"The tensor {name!r} is described by {', '.join(content)[:200] or 'nothing'}.")
        dtype, shape, offsets = content["dtype"], content["shape"], content["data_offsets"]
        if not isinstance(dtype, str) or dtype not in BITS:
            raise Malformed(DTYPE, at, f"The tensor {name!r} has the unknown type {str(dtype)[:40]!r}.")
        if not _sizes(shape) or len(shape) > MAX_DIMENSIONS:
            raise Malformed(SHAPE, at, f"The shape of the tensor {name!r} is no list of sizes.")
        if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            raise Malformed(ENTRY, at, f"The tensor {name!r} has no start that lies before its end.")
        values = math.prod(shape)
        if max(values, *shape, 0) >= 1 << 60:
            raise Malformed(SHAPE, at, f"The tensor {name!r} has the impossible shape {str(shape)[:200]}.")
        if values * BITS[dtype] != (offsets[1] - offsets[0]) * 8:
            raise Malformed(
                SPAN, at, f"The tensor {name!r} has {values} values of {dtype} in {offsets[1] - offsets[0]} bytes."
            )
        self.spans.append(offsets[0] << 64 | offsets[1])
        self.dtypes[dtype] = self.dtypes.get(dtype, 0) + 1
        self.facts["tensors"] += 1
        self.facts["parameters"] += values

    def total(self) -> int:
        """Bytes of all tensors, which lie one after the other from 0 on. Raises Malformed where they do not."""
        due = 0
        for span in sorted(self.spans):
            start, end = span >> 64, span & ((1 << 64) - 1)
            if start != due:
                how = "leave a hole" if start > due else "overlap"
                raise Malformed(
                    OFFSETS, f"tensor data, byte {start}", f"Tensors {how}: one begins at {start}, where {due} is due."
                )
            due = end
        return due


def _sizes(value: Any) -> bool:
    """A list of numbers from 0 to 2**63 - 1?"""
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 1 << 63 for size in value)


def _pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) != len(items):
        raise _Twice
    return found


def _constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


class _Twice(Exception):
    """A name appears twice in one object."""


_DECODE = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant).decode


def _parsed(content: bytes, at: int) -> Any:
    """JSON, read strictly: UTF-8, no name twice, no NaN, no half surrogate pairs, no nesting to speak of."""
    try:
        if b"\\" not in content and content.startswith(b'"'):
            return content[1:-1].decode()
        value = _DECODE(content.decode())
        if b"\\u" in content:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except _Twice:
        raise Malformed(KEY, at, "A name appears twice in one description.") from None
    except (ValueError, RecursionError) as fault:
        raise Malformed(HEADER, at, f"The header is not sound JSON: {fault}.") from None
