"""Protocol buffers read by a schema: in order, in bounded memory and depth, what is large as data that runs past.

A schema is written as a `.proto` file is, in short: ``Name: 1 field kind; 2 field kind*`` with a line for each message
and a star where a field repeats. The kinds are

- ``int`` (a varint, signed), ``f32`` and ``f64`` (four and eight bytes, as they are): numbers that are kept;
- ``ints``, ``f32s`` and ``f64s``: numbers, packed or not, that are only counted;
- ``text`` and ``bytes``: kept, up to a mebibyte;
- ``head``: passes as data, and its first kilobyte is kept;
- ``blob`` (or ``blob*``): passes as data, and only its pieces and their bytes are counted (`Passed`);
- the name of a message.

Format: the protocol buffers' encoding document. What the schema does not have is unjudged and holds the file; where
readers could differ (a varint longer than it need be, a field of another type, groups), the file is malformed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from freehold.scan.base import BLOCK, FETCH_AGAIN, HOLD, Malformed, Report, Rule
from freehold.scan.tape import MemoryTape, Tape

MAX_DEPTH = 100  # as the reference implementation has it
MAX_KEPT = 1 << 20  # bytes of one string
MAX_COST = 64 << 20  # bytes that what is kept at one time may take, by estimate
SMALL = 64 << 10  # a message up to here is read at once
MAX_FIELDS = 10_000_000  # of one file
MAX_OUTLINE = 64
MAX_HEAD = 1 << 10

_SPEC = "Protocol buffers, Encoding"
VARINT = Rule("protobuf.varint", BLOCK, "A number is longer than its type, or than it need be.", FETCH_AGAIN, _SPEC)
WIRE = Rule("protobuf.wire", BLOCK, "A field has a type other than its format gives it.", FETCH_AGAIN, _SPEC)
LENGTH = Rule("protobuf.length", BLOCK, "A field is longer than what it lies in.", FETCH_AGAIN, _SPEC)
NESTED = Rule("protobuf.depth", BLOCK, "Messages lie within messages deeper than readers go.", FETCH_AGAIN, _SPEC)
TWICE = Rule(
    "protobuf.twice", HOLD, "A field that may stand once stands twice, and readers differ on which counts.",
    "Ask the publisher to write the file again with the format's own tools.", _SPEC,
)  # fmt: skip
UNKNOWN = Rule(
    "protobuf.unknown", HOLD, "There is a field that this format, as far as it is known here, does not have.",
    "Ask the publisher what wrote it; decide by name and reason.", "Freehold: what was not judged is never clean",
)  # fmt: skip
LONG = Rule(
    "protobuf.long", HOLD, "There is more text, or there are more parts, than any sound file has.", FETCH_AGAIN,
    "Freehold: memory is bounded",
)  # fmt: skip

Message = dict[str, Any]
Handler = Callable[[Message, int], Any]


class Passed(NamedTuple):
    """Bytes that ran past: in how many pieces, and how many they were together."""

    pieces: int
    length: int


class Field(NamedTuple):
    """One field of a message: its name, its kind and whether it repeats."""

    name: str
    kind: str
    many: bool


Schema = dict[str, dict[int, Field]]

_WIRE = {
    "int": (0,), "f32": (5,), "f64": (1,), "ints": (0, 2), "f32s": (5, 2), "f64s": (1, 2), "text": (2,), "bytes": (2,),
    "head": (2,), "blob": (2,),
}  # fmt: skip
_COUNTED = {"ints", "f32s", "f64s"}
_CONTINUED = bytes(range(128, 256))


def schema(written: str) -> Schema:
    """The schema of this text: messages by name, and their fields by number."""
    made: Schema = {}
    for line in filter(None, map(str.strip, written.splitlines())):
        name, _, fields = line.partition(":")
        made[name] = dict(map(_field, filter(None, map(str.strip, fields.split(";")))))
    return made


def _field(written: str) -> tuple[int, Field]:
    number, name, kind = written.split()
    return int(number), Field(name, kind.rstrip("*"), kind.endswith("*"))


def wires(field: Field) -> tuple[int, ...]:
    """The wire types that a field may come as."""
    allowed = _WIRE.get(field.kind, (2,))
    return (*allowed, 2) if field.many and field.kind in ("int", "f32", "f64") else allowed


def varint(tape: Tape, end: int, at: int) -> int:
    """The next number, of 64 bits and without a sign. Raises Malformed, saying ``at`` as where."""
    value = shift = 0
    while tape.at < end:
        byte = tape.read(1)[0]
        value |= (byte & 127) << shift
        if byte < 128:
            if value >> 64 or (not byte and shift):
                raise Malformed(VARINT, at)
            return value
        shift += 7
        if shift > 63:
            raise Malformed(VARINT, at)
    raise Malformed(LENGTH, at, "A number is cut off by the end of what it lies in.")


def signed(value: int) -> int:
    """A varint's 64 bits as a number with a sign."""
    return value - (1 << 64) if value >> 63 else value


def read(tape: Tape, known: Schema, name: str, report: Report, on: dict[str, Handler]) -> Message:
    """Read the rest of the tape as one message.

    Each message that has a handler is given to it, with its first byte, when it is complete; what the handler returns
    stands in its place, and None drops it. Raises Malformed.
    """
    return _Reader(known, report, on).message(tape, name, tape.size, 0, 0)


def outline(
    tape: Tape, fields: dict[int, Field], offset: int = 0, length: int | None = None
) -> dict[int, tuple[int, int]] | None:
    """Where each field of a message first lies, or None if it is no such message: a look ahead, without reading.

    ``offset`` counts from the tape's position. Gives field number to (offset of its body, its length, or its value if
    it is a varint). At most 64 fields are looked at, and a message that the file's end cuts off is one all the same;
    so is one with fields that the schema does not have. Ask for the fields that make it what it is.
    """
    found: dict[int, tuple[int, int]] = {}
    end = tape.left if length is None else offset + length
    for _ in range(MAX_OUTLINE):
        if offset >= end:
            break
        head = MemoryTape(tape.peek(tape.at + offset, 20))
        try:
            tag = varint(head, head.size, 0)
            field, wire = fields.get(tag >> 3), tag & 7
            if wire not in (wires(field) if field else (0, 1, 2, 5)) or not 0 < tag >> 3 < 1000:
                return None
            value = varint(head, head.size, 0) if wire in (0, 2) else {1: 8, 5: 4}[wire]
        except Malformed:
            return None
        found.setdefault(tag >> 3, (offset + head.at, value))
        offset += head.at + (value if wire else 0)
    return found if length is None or offset <= end else None


class _Reader:
    def __init__(self, known: Schema, report: Report, on: dict[str, Handler]):
        self.known, self.report, self.on, self.cost = known, report, on, 0
        self.fields = 0

    def message(self, tape: Tape, name: str, end: int, base: int, depth: int) -> Any:
        """The message up to ``end``. ``base`` is where the tape itself begins, for places to be told right."""
        if depth > MAX_DEPTH:
            raise Malformed(NESTED, base + tape.at)
        start, fields, before, found = base + tape.at, self.known[name], self.cost, {}
        once: set[int] = set()
        self._spend(256, start)
        while tape.at < end:
            at = base + tape.at
            self._fields(at)
            tag = varint(tape, end, at)
            field, wire = fields.get(tag >> 3), tag & 7
            if field is None:
                self._unknown(tape, tag, end, at, name)
                continue
            if wire not in wires(field):
                raise Malformed(WIRE, at, f"The field {field.name!r} of a {name} has the wire type {wire}.")
            if not (field.many or field.kind in _COUNTED):
                self._once(once, tag >> 3, field, at)
            if wire == 2:
                self._delimited(tape, field, found, self._length(tape, end, at), base, depth)
            else:
                self._number(field, found, self._scalar(tape, wire, end, at), at)
        handler = self.on.get(name)
        if handler is None:
            return found
        self.cost = before
        return handler(found, start)

    def _delimited(self, tape: Tape, field: Field, found: Message, length: int, base: int, depth: int) -> None:
        at = base + tape.at
        if field.kind == "blob":
            tape.data(length)
            pieces, passed = found.get(field.name, (0, 0))
            found[field.name] = Passed(pieces + 1, passed + length)
        elif field.kind == "head":
            self._keep(field, found, self._head(tape, length, at), at)
        elif field.kind in _COUNTED:
            found[field.name] = found.get(field.name, 0) + self._count(tape, field.kind, length, at)
        elif field.kind in ("text", "bytes"):
            self._keep(field, found, self._string(tape, field, length, at), at)
        elif field.kind in ("int", "f32", "f64"):
            self._packed(tape, field, found, length, base)
        else:
            value = self._inner(tape, field.kind, length, base, depth)
            if value is not None:
                self._keep(field, found, value, at)

    def _inner(self, tape: Tape, name: str, length: int, base: int, depth: int) -> Any:
        if isinstance(tape, MemoryTape) or length > SMALL:
            return self.message(tape, name, tape.at + length, base, depth + 1)
        at = base + tape.at
        return self.message(MemoryTape(tape.read(length)), name, length, at, depth + 1)

    def _string(self, tape: Tape, field: Field, length: int, at: int) -> str | bytes:
        if length > MAX_KEPT:
            tape.skip(length, "longer than any text of this format")
            self.report.add(LONG, at, f"The field {field.name!r} has {length} bytes.")
            return "" if field.kind == "text" else b""
        self._spend(length, at)
        content = tape.read(length)
        return content.decode("utf-8", "replace") if field.kind == "text" else content

    def _head(self, tape: Tape, length: int, at: int) -> bytes:
        kept = bytearray()
        self._spend(min(length, MAX_HEAD), at)
        tape.data(length, lambda piece: kept.extend(piece[: MAX_HEAD - len(kept)]))
        return bytes(kept)

    def _packed(self, tape: Tape, field: Field, found: Message, length: int, base: int) -> None:
        end, wire = tape.at + length, _WIRE[field.kind][0]
        while tape.at < end:
            at = base + tape.at
            self._number(field, found, self._scalar(tape, wire, end, at), at)

    def _count(self, tape: Tape, kind: str, length: int, at: int) -> int:
        """How many numbers are packed into the next bytes."""
        if kind != "ints":
            width = 4 if kind == "f32s" else 8
            if length % width:
                raise Malformed(LENGTH, at, f"{length} bytes are no whole count of numbers of {width} bytes.")
            tape.data(length)
            return length // width
        count, last = 0, 0

        def look(piece: memoryview) -> None:
            nonlocal count, last
            content = bytes(piece)
            count += len(content.translate(None, _CONTINUED))
            last = content[-1]

        tape.data(length, look)
        if last > 127:
            raise Malformed(LENGTH, at, "The last of the packed numbers is cut off.")
        return count

    def _number(self, field: Field, found: Message, value: int, at: int) -> None:
        if field.kind in _COUNTED:
            found[field.name] = found.get(field.name, 0) + 1
        else:
            self._keep(field, found, signed(value) if field.kind == "int" else value, at)

    def _keep(self, field: Field, found: Message, value: Any, at: int) -> None:
        self._spend(64, at)
        if field.many:
            found.setdefault(field.name, []).append(value)
        else:
            found[field.name] = value

    def _once(self, seen: set[int], number: int, field: Field, at: int) -> None:
        if number in seen:
            self.report.add(TWICE, at, f"The field {field.name!r} may stand once and stands twice.")
        seen.add(number)

    def _spend(self, cost: int, at: int) -> None:
        self.cost += cost
        if self.cost > MAX_COST:
            raise Malformed(LONG, at)

    def _fields(self, at: int) -> None:
        self.fields += 1
        if self.fields > MAX_FIELDS:
            raise Malformed(LONG, at)

    def _length(self, tape: Tape, end: int, at: int) -> int:
        length = varint(tape, end, at)
        if length > end - tape.at:
            raise Malformed(LENGTH, at, f"A field claims {length} bytes where {end - tape.at} are left.")
        return length

    def _scalar(self, tape: Tape, wire: int, end: int, at: int) -> int:
        if wire == 0:
            return varint(tape, end, at)
        width = 8 if wire == 1 else 4
        if width > end - tape.at:
            raise Malformed(LENGTH, at)
        return int.from_bytes(tape.read(width), "little")

    def _unknown(self, tape: Tape, tag: int, end: int, at: int, name: str) -> None:
        number, wire = tag >> 3, tag & 7
        if not number or number >= 1 << 29 or wire not in (0, 1, 2, 5):
            raise Malformed(WIRE, at, f"There is a field with the number {number} and the wire type {wire}.")
        self.report.add(UNKNOWN, at, f"A {name} has the field {number}, which this format does not have.")
        if wire == 2:
            tape.skip(self._length(tape, end, at), f"field {number} of a {name}")
        else:
            self._scalar(tape, wire, end, at)
