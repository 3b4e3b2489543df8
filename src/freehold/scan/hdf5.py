"""HDF5 (.h5, .hdf5, Keras weights): a map of the file is drawn from its headers, and every byte has its place in it.

Format: the HDF5 File Format Specification, version 3: superblocks 0 to 3, object headers 1 and 2, groups as symbol
tables, link messages and fractal heaps, datasets compact, contiguous and chunked. What reaches out of the file
(external links, external storage, virtual datasets) or loads code (filters of plug-ins) is reported; Keras
configurations in attributes are judged; what is not read here holds the file. Facts: `class_name` and `layers` of a
Keras model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from freehold.scan import beside, keras
from freehold.scan.base import ASK, BLOCK, FETCH_AGAIN, HOLD, NOTE, UNJUDGED, Malformed, Report, Rule
from freehold.scan.tape import Tape, Window

FORMAT = "hdf5"
MAGIC = b"\x89HDF\r\n\x1a\n"
UNDEFINED = (1 << 64) - 1
MAX_PARTS = 400_000  # parts of the map
MAX_USER_BLOCK = 1 << 20
MAX_TEXT = 16 << 20
_PIECE = 1 << 14

_SPEC = "HDF5 File Format Specification 3.0"
BROKEN = Rule("hdf5.structure", BLOCK, "A structure of the file breaks the format's rules.", FETCH_AGAIN, _SPEC)
OVERLAP = Rule("hdf5.overlap", BLOCK, "Two parts of the file lie on the same bytes.", FETCH_AGAIN, _SPEC)
CUT = Rule("hdf5.truncated", BLOCK, "The file is shorter than it says, or points past its end.", FETCH_AGAIN, _SPEC)
MANY = Rule(
    "hdf5.many", HOLD, "The file has more parts than are kept in memory.", FETCH_AGAIN, "Freehold: memory is bounded"
)
EXTERNAL = Rule(
    "hdf5.external.link", BLOCK, "A link in the file leads to another file.",
    "Ask the publisher for one file that holds it all.", f"{_SPEC}, Link Message, external links",
)  # fmt: skip
STORAGE = Rule(
    "hdf5.external.storage", BLOCK, "The values of a dataset would be read from another file.",
    "Ask the publisher for one file that holds it all.", f"{_SPEC}, External Data Files Message",
)  # fmt: skip
VIRTUAL = Rule(
    "hdf5.virtual", HOLD, "A dataset is put together from other files.",
    "Ask the publisher for one file that holds it all.", f"{_SPEC}, Virtual layout",
)  # fmt: skip
LINK = Rule(
    "hdf5.link", HOLD, "A link is of a kind that only the publisher's own code can follow.",
    "Ask the publisher what it is for; decide by name and reason.", f"{_SPEC}, Link Message",
)  # fmt: skip
FILTER = Rule(
    "hdf5.filter", HOLD, "Values are packed by a plug-in, which reading them would load.",
    "Ask the publisher for a file that is packed with gzip or not at all, or decide by name and reason.",
    f"{_SPEC}, Filter Pipeline Message",
)  # fmt: skip
UNREAD = Rule(
    "hdf5.unread", HOLD, "The file uses a part of the format that is not read here.",
    "Write it again with h5repack, or decide by name and reason.", "Freehold: what was not judged is never clean",
)  # fmt: skip
PICKLED = Rule("hdf5.pickle", HOLD, "An attribute holds a Python pickle.", ASK, "PyTables, attributes")

FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
_SILENT = frozenset((0x04, 0x05, 0x0A, 0x0D, 0x0E, 0x12, 0x13, 0x16, 0x01, 0x03))  # nothing to follow in these
_PICKLE = re.compile(rb"\x80[\x02-\x05]|c[A-Za-z_.]+\n[A-Za-z_]+\n|\([dlit](p?[0-9]*\n|[a-z_]+\n)")


def recognises(head: bytes, tape: Tape, name: str) -> bool:
    """The signature at the start, or behind a user block, which is 512 bytes or a power of two times that."""
    return head[:8] == MAGIC or _user_block(tape) > 0


def _user_block(tape: Tape) -> int:
    at = 512
    while at <= min(MAX_USER_BLOCK, tape.left - 8):
        if tape.peek(tape.at + at, 8) == MAGIC:
            return at
        at *= 2
    return 0


def scan(tape: Tape, report: Report) -> None:
    """Draw the map, then read the file along it. Raises Malformed."""
    before = 0 if tape.peek(tape.at, 8) == MAGIC else _user_block(tape)
    if before:
        _judge_user_block(tape, report, before)
    walk = _Walk(tape, report, before)
    try:
        walk.file()
    finally:  # also where something is broken: what was understood stays so
        _along(tape, sorted(walk.parts), walk.origin)
    _between(tape, walk.origin + walk.size)


def _judge_user_block(tape: Tape, report: Report, length: int) -> None:
    """What stands before the HDF5 file is another file to whoever reads it as one; zeros fill it up. No model needs
    it, so it holds where nothing worse is found."""
    used, before = len(tape.peek(tape.at, length).rstrip(b"\0")), len(report.findings)
    if used:
        report.nested(Window(tape, used), "user block")
        if all(found.severity is NOTE for found in report.findings[before:]):
            report.add(UNJUDGED, 0, f"Before the HDF5 file stands a user block of {used} bytes that is no part of it.")
    tape.read(length - used)


def _along(tape: Tape, parts: list[tuple[int, int, bool]], origin: int) -> None:
    """Read the parts in the order of the file; between them, zeros are parsed and anything else is unjudged."""
    last = 0
    for start, end, data in parts:
        begin = max(start, last)
        if begin >= end:
            continue
        _between(tape, origin + begin)
        (tape.data if data else _read)(*((end - begin,) if data else (tape, end - begin)))
        last = end


def _read(tape: Tape, length: int) -> None:
    while length:
        step = min(length, 1 << 20)
        tape.read(step)
        length -= step


def _between(tape: Tape, end: int) -> None:
    while tape.at < end:
        piece = tape.peek(tape.at, min(_PIECE, end - tape.at))
        zeros = len(piece) - len(piece.lstrip(b"\0"))
        if zeros:
            tape.read(zeros)
        elif heap := _heap_size(piece, end - tape.at):
            tape.data(heap)
        else:
            tape.skip(len(piece), "space that no part of the HDF5 file uses, and not empty")


def _heap_size(piece: bytes, left: int) -> int:
    """The size of a collection of the global heap, where one begins here: values of variable length lie in it."""
    size = int.from_bytes(piece[8:16], "little")
    return size if piece[:8] == b"GCOL\1\0\0\0" and 16 <= size <= left else 0


class _Cursor:
    """Reads numbers off a structure; running over its end is Malformed."""

    def __init__(self, content: bytes, place: int):
        self.content, self.at, self.place = content, 0, place

    @property
    def left(self) -> int:
        return len(self.content) - self.at

    def take(self, length: int) -> bytes:
        if not 0 <= length <= self.left:
            raise Malformed(BROKEN, self.place, "A structure ends before what it should hold.")
        self.at += length
        return self.content[self.at - length : self.at]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def sign(self, expected: bytes) -> None:
        if self.take(len(expected)) != expected:
            name = expected.decode("ascii", "replace")
            raise Malformed(BROKEN, self.place, f"There should be a structure that begins with {name!r}.")


class _Type(NamedTuple):
    """What has to be known of a datatype: class, size of one value, and the lowest byte of its bit field."""

    kind: int
    size: int
    bits: int


class _Object:
    """What an object's messages say, as far as one needs the other."""

    def __init__(self) -> None:
        self.dims: tuple[int, ...] | None = None
        self.type: _Type | None = None
        self.layouts: list[_Cursor] = []
        self.filtered = False


class _Walk:
    """The way through one file. Addresses count from the superblock; places in findings from the start of the tape."""

    def __init__(self, tape: Tape, report: Report, base: int):
        self.tape, self.report, self.base = tape, report, base
        self.size, self.origin = tape.left, tape.at
        self.parts: list[tuple[int, int, bool]] = []
        self.taken: set[int] = set()
        self.total = 0  # bytes of all parts: more than the file has means that they overlap
        self.queue: list[int] = []
        self.known: set[int] = set()
        self.heaps: dict[int, dict[int, bytes]] = {}
        self.texts: set[tuple[int, int]] = set()  # values of the global heap that have been judged
        self.leaf, self.internal, self.chunk = 4, 16, 32  # half the entries of the nodes of B-trees

    # the file

    def file(self) -> None:
        self.superblock()
        while self.queue:
            self.header(self.queue.pop())
        self.check()

    def check(self) -> None:
        last = 0
        for start, end, _ in sorted(self.parts):
            if start < last:
                raise Malformed(OVERLAP, self.base + start)
            last = end

    def peek(self, address: int, length: int) -> _Cursor:
        if address + length > self.size:
            meaning = f"A structure of {length} bytes at {address} would lie past the end of the file."
            raise Malformed(CUT, self.base + min(address, self.size), meaning)
        return _Cursor(self.tape.peek(self.origin + address, length), self.base + address)

    def claim(self, address: int, length: int, *, data: bool = False) -> None:
        """Enter a part into the map: values if ``data``, else structure."""
        if address + length > self.size:
            raise Malformed(CUT, self.base + min(address, self.size), f"{length} bytes at {address} lie past the end.")
        if not length:
            return
        self.total += length
        if address in self.taken or self.total > self.size:
            raise Malformed(OVERLAP, self.base + address)
        if len(self.parts) >= MAX_PARTS:
            raise Malformed(MANY, self.base + address)
        self.taken.add(address)
        self.parts.append((address, address + length, data))

    def structure(self, address: int, length: int, sign: bytes) -> _Cursor:
        """A structure, claimed, with its signature read."""
        cursor = self.peek(address, length)
        self.claim(address, length)
        cursor.sign(sign)
        return cursor

    def visit(self, address: int) -> None:
        if address != UNDEFINED and address not in self.known:
            self.known.add(address)
            self.queue.append(address)

    def unread(self, what: str, address: int) -> None:
        self.report.add(UNREAD, self.base + address, f"The file uses {what}, which is not read here.")

    def superblock(self) -> None:
        start = self.peek(0, min(128, self.size))
        start.sign(MAGIC)
        version = start.number(1)
        if version in (0, 1):
            self.old_superblock(start, version)
        elif version in (2, 3):
            self.new_superblock(start)
        else:
            raise Malformed(BROKEN, self.base, f"The superblock has the unknown version {version}.")

    def old_superblock(self, start: _Cursor, version: int) -> None:
        start.take(4)
        self.sizes(start)
        start.take(1)
        self.leaf, self.internal = start.number(2), start.number(2)
        start.take(4)
        if version == 1:
            self.chunk = start.number(2)
            start.take(2)
        self.ends(start.number(8), free := start.number(8), start.number(8))
        driver = start.number(8)
        if free != UNDEFINED or driver != UNDEFINED:
            self.unread("a free-space table or a driver's block", 0)
        self.entry(start, None)
        self.claim(0, start.at)

    def new_superblock(self, start: _Cursor) -> None:
        self.sizes(start)
        start.take(1)
        base, extension, end = start.number(8), start.number(8), start.number(8)
        self.ends(base, UNDEFINED, end)
        self.visit(extension)
        self.visit(start.number(8))
        start.take(4)
        self.claim(0, start.at)

    def sizes(self, start: _Cursor) -> None:
        if (offsets := start.number(1), lengths := start.number(1)) != (8, 8):
            raise Malformed(UNREAD, self.base, f"Addresses and lengths have {offsets} and {lengths} bytes, not 8.")

    def ends(self, base: int, free: int, end: int) -> None:
        if base != self.base:
            raise Malformed(BROKEN, self.base, f"The file says that it begins at {base}, and begins at {self.base}.")
        if end - base > self.size:
            raise Malformed(CUT, self.base + self.size, f"The file should have {end} bytes: it is cut off.")
        self.size = end - base

    def entry(self, cursor: _Cursor, heap: bytes | None) -> None:
        """An entry of a symbol table: a name, and the object that it stands for."""
        name, header, cache = cursor.number(8), cursor.number(8), cursor.number(4)
        cursor.take(4)
        scratch = _Cursor(cursor.take(16), cursor.place)
        if heap is not None and name >= len(heap):
            raise Malformed(BROKEN, cursor.place, "A name lies outside its heap.")
        if cache == 1:
            self.group(scratch.number(8), scratch.number(8))
        elif cache > 2:
            raise Malformed(BROKEN, cursor.place, f"An entry of a symbol table has the unknown kind {cache}.")
        if cache != 2:
            self.visit(header)

    # objects

    def header(self, address: int) -> None:
        found = _Object()
        first = self.peek(address, 4)
        if first.content == b"OHDR":
            self.new_header(address, found)
        elif first.content[:2] == b"\1\0":
            self.old_header(address, found)
        else:
            raise Malformed(BROKEN, self.base + address, "There should be an object header.")
        for layout in found.layouts:
            self.layout(layout, found)

    def old_header(self, address: int, found: _Object) -> None:
        prefix, seen = self.peek(address, 16), 0
        prefix.take(2)
        count = prefix.number(2)
        prefix.take(4)
        length = prefix.number(4)
        self.claim(address, 16 + length)
        blocks = [(address + 16, length)]
        while blocks:
            start, length = blocks.pop()
            block = self.peek(start, length)
            while block.left >= 8:
                kind, size, flags = block.number(2), block.number(2), block.number(1)
                block.take(3)
                seen += 1
                self.message(kind, flags, _Cursor(block.take(size), self.base + start), found, blocks, b"")
        if seen < count:
            place = self.base + address
            raise Malformed(BROKEN, place, f"An object header claims {count} messages and has {seen}.")

    def new_header(self, address: int, found: _Object) -> None:
        start = self.peek(address, min(34, self.size - address))
        start.sign(b"OHDR\2")
        flags = start.number(1)
        start.take((16 if flags & 32 else 0) + (4 if flags & 16 else 0))
        length = start.number(1 << (flags & 3))
        self.claim(address, start.at + length + 4)
        blocks = [(address + start.at, length)]
        while blocks:
            at, length = blocks.pop()
            block = self.peek(at, length)
            while block.left >= (6 if flags & 4 else 4):
                kind, size, how = block.number(1), block.number(2), block.number(1)
                block.take(2 if flags & 4 else 0)
                self.message(kind, how, _Cursor(block.take(size), self.base + at), found, blocks, b"OCHK")

    def message(
        self, kind: int, flags: int, body: _Cursor, found: _Object, blocks: list[tuple[int, int]], sign: bytes
    ) -> None:
        if flags & 2:
            self.shared(kind, body, found)
        elif kind == 0x10:
            self.continuation(body, blocks, sign)
        elif kind == 0x01:
            found.dims = self.space(body)
        elif kind == 0x03:
            found.type = self.datatype(body)
        elif kind == 0x08:
            found.layouts.append(body)
        elif kind == 0x0B:
            found.filtered = self.filters(body)
        elif kind in _FOLLOWED:
            _FOLLOWED[kind](self, body)
        elif kind == 0x07:
            self.report.add(STORAGE, body.place)
        elif kind == 0 or kind in _SILENT or (kind == 0x17 and body.content[2:3] == b"\0"):
            return
        else:
            self.unread(f"messages of the type {kind}", body.place - self.base)

    def shared(self, kind: int, body: _Cursor, found: _Object) -> None:
        """A message that stands elsewhere: in the header of a named datatype."""
        version, how = body.number(1), body.number(1)
        if version == 1:
            body.take(6)
        if kind != 0x03 or version not in (1, 2, 3) or (version == 3 and how != 2):
            self.unread("messages that objects share", body.place - self.base)
            return
        address = body.number(8)
        self.visit(address)
        found.type = self.named_type(address)

    def named_type(self, address: int) -> _Type | None:
        """The datatype in an object header of its own, where it is the first message with something in it."""
        start = self.peek(address, min(64, self.size - address))
        if start.content[:2] == b"\1\0":
            start.take(16)
            return self.datatype(_Cursor(start.content[24:], start.place)) if start.number(2) == 3 else None
        return None

    def continuation(self, body: _Cursor, blocks: list[tuple[int, int]], sign: bytes) -> None:
        address, length = body.number(8), body.number(8)
        self.claim(address, length)
        if sign:
            self.peek(address, length).sign(sign)
            address, length = address + 4, length - 8
            if length < 0:
                raise Malformed(BROKEN, body.place)
        blocks.append((address, length))

    def space(self, body: _Cursor) -> tuple[int, ...]:
        version, rank, _ = body.number(1), body.number(1), body.number(1)
        if version not in (1, 2) or rank > 32:
            raise Malformed(BROKEN, body.place, f"A dataspace has the version {version} and {rank} dimensions.")
        kind = body.take(5 if version == 1 else 1)
        dims = tuple(body.number(8) for _ in range(rank))
        return (0,) if version == 2 and kind[0] == 2 else dims

    def datatype(self, body: _Cursor) -> _Type:
        kind, bits = body.number(1), body.number(3)
        size = body.number(4)
        if kind >> 4 not in (1, 2, 3, 4, 5) or kind & 15 > 11:
            raise Malformed(BROKEN, body.place, f"A datatype has the version {kind >> 4} and the class {kind & 15}.")
        return _Type(kind & 15, size, bits & 255)

    def filters(self, body: _Cursor) -> bool:
        version, count = body.number(1), body.number(1)
        if version not in (1, 2):
            raise Malformed(BROKEN, body.place, f"A filter pipeline has the version {version}.")
        body.take(6 if version == 1 else 0)
        for _ in range(count):
            number = body.number(2)
            length = body.number(2) if version == 1 or number >= 256 else 0
            body.take(2)
            values = body.number(2)
            name = body.take((length + 7) // 8 * 8 if version == 1 else length).rstrip(b"\0").decode("ascii", "replace")
            body.take(4 * values + (4 if version == 1 and values % 2 else 0))
            if number not in FILTERS:
                meaning = f"Values are packed by the plug-in {number} ({name[:50]}), which reading them would load."
                self.report.add(FILTER, body.place, meaning)
        return count > 0

    # groups

    def symbol_table(self, body: _Cursor) -> None:
        self.group(body.number(8), body.number(8))

    def group(self, tree: int, heap: int) -> None:
        if heap in self.taken and tree in self.taken:  # the same group again, as its parent's table has it
            return
        start = self.structure(heap, 32, b"HEAP")
        start.take(4)
        size, _, data = start.number(8), start.number(8), start.number(8)
        self.claim(data, size)
        names = self.peek(data, min(size, 32 << 20)).content
        for node in self.tree(tree, 0, 8, self.internal):
            symbols = self.structure(node[1], 8 + 80 * self.leaf, b"SNOD")
            symbols.take(2)
            count = symbols.number(2)
            for _ in range(count):
                self.entry(symbols, names)

    def tree(self, root: int, kind: int, width: int, half: int) -> Iterator[tuple[bytes, int]]:
        """The leaves of a B-tree of version 1, each with the key before it."""
        stack = [root] if root != UNDEFINED else []
        while stack:
            node = self.structure(stack.pop(), 24 + (2 * half + 1) * width + 16 * half, b"TREE")
            found, level, count = node.number(1), node.number(1), node.number(2)
            node.take(16)
            if found != kind or count > 2 * half:
                raise Malformed(BROKEN, node.place, f"A node of a B-tree has the kind {found} and {count} entries.")
            for _ in range(count):
                key, child = node.take(width), node.number(8)
                if level:
                    stack.append(child)
                else:
                    yield key, child

    def link(self, body: _Cursor) -> None:
        version, flags = body.number(1), body.number(1)
        if version != 1:
            raise Malformed(BROKEN, body.place, f"A link has the version {version}.")
        kind = body.number(1) if flags & 8 else 0
        body.take((8 if flags & 4 else 0) + (1 if flags & 16 else 0))
        name = body.take(body.number(1 << (flags & 3)))[:100].decode("utf-8", "replace")
        if kind == 0:
            self.visit(body.number(8))
        elif kind == 64:
            target = body.take(body.number(2))[1:].decode("utf-8", "replace").split("\0")[0]
            why = beside.why_not(target) or "is another file"
            self.report.add(EXTERNAL, body.place, f"The link {name!r} leads to {target[:100]!r}, which {why}.")
        elif kind != 1:
            self.report.add(
                LINK, body.place, f"The link {name!r} is of the kind {kind}, which only own code can follow."
            )

    def link_info(self, body: _Cursor) -> None:
        body.take(1)
        flags = body.number(1)
        body.take(8 if flags & 1 else 0)
        self.dense(body, flags, self.link)

    def attribute_info(self, body: _Cursor) -> None:
        body.take(1)
        flags = body.number(1)
        body.take(2 if flags & 1 else 0)
        self.dense(body, flags, self.attribute)

    def dense(self, body: _Cursor, flags: int, each: Callable[[_Cursor], None]) -> None:
        heap, names = body.number(8), body.number(8)
        order = body.number(8) if flags & 2 else UNDEFINED
        if heap == UNDEFINED:
            return
        found = _FractalHeap(self, heap)
        for record in _records(self, names):
            content = found.object(record[4:] if each == self.link else record[:8])
            if content is not None:
                each(content)
        for content in found.huge():
            each(content)
        for _ in _records(self, order):
            continue

    # attributes

    def attribute(self, body: _Cursor) -> None:
        version, flags = body.number(1), body.number(1)
        if version not in (1, 2, 3):
            raise Malformed(BROKEN, body.place, f"An attribute has the version {version}.")
        lengths = [body.number(2) for _ in range(3)]
        body.take(1 if version == 3 else 0)
        padded = [(length + 7) // 8 * 8 if version == 1 else length for length in lengths]
        name, kind, space = (_Cursor(body.take(length), body.place) for length in padded)
        label = name.content.split(b"\0")[0].decode("utf-8", "replace")
        if flags & 3 and version > 1:
            if label in ("model_config", "training_config"):
                self.unread(f"a shared type for {label}", body.place - self.base)
            return
        self.value(label, self.datatype(kind), math.prod(self.space(space)), body)

    def value(self, label: str, kind: _Type, count: int, body: _Cursor) -> None:
        """Judge the text of an attribute that is one text."""
        if kind.kind == 9 and count == 1 and body.left >= 16:
            length = body.number(4)
            content = self.heap_object(body.number(8), body.number(4))[:length]
        elif kind.kind in (3, 5) and count == 1:
            content = body.take(min(kind.size, body.left)).rstrip(b"\0")
        else:
            content = b""
        if _PICKLE.match(content):
            self.report.add(PICKLED, body.place, f"The attribute {label[:100]!r} holds a Python pickle.")
        if content.lstrip()[:1] == b"{" or label in ("model_config", "training_config"):
            self.config(label, content, body.place)

    def config(self, label: str, content: bytes, place: int) -> None:
        named = label in ("model_config", "training_config")
        try:
            document = keras.parse(content.decode("utf-8"), place)
        except (Malformed, UnicodeDecodeError):
            if named and content:
                raise Malformed(keras.STRICT, place, f"The attribute {label!r} is no strict JSON.") from None
            return
        if named or keras.is_config(document):
            keras.judge_config(document, self.report, f"attribute {label[:60]}")

    def heap_object(self, address: int, index: int) -> bytes:
        """A value of variable length, from the global heap; empty where it has been judged before."""
        if address in (0, UNDEFINED) or (address, index) in self.texts:
            return b""
        self.texts.add((address, index))
        if address not in self.heaps:
            self.heaps[address] = self.collection(address)
        return self.heaps[address].get(index, b"")

    def collection(self, address: int) -> dict[int, bytes]:
        size = _heap_size(self.peek(address, 16).content, self.size - address)
        if not size or size > MAX_TEXT:
            raise Malformed(BROKEN, self.base + address, "There should be a collection of the global heap.")
        self.claim(address, size)
        block, found = self.peek(address, size), {}
        block.take(16)
        while block.left >= 16:
            index = block.number(2)
            block.take(6)
            length = block.number(8)
            if not index:
                break
            found[index] = block.take(length)
            block.take(min(-length % 8, block.left))
        return found

    # values of datasets

    def layout(self, body: _Cursor, found: _Object) -> None:
        version = body.number(1)
        if version in (1, 2):
            self.old_layout(body, found)
        elif version in (3, 4, 5):
            kind = body.number(1)
            if kind == 1:
                self.values(body.number(8), body.number(8))
            elif kind == 2:
                (self.chunks if version == 3 else self.new_chunks)(body, found)
            elif kind == 3:
                self.report.add(VIRTUAL, body.place)
        else:
            self.unread(f"data layouts of version {version}", body.place - self.base)

    def old_layout(self, body: _Cursor, found: _Object) -> None:
        rank, kind = body.number(1), body.number(1)
        body.take(5)
        if kind == 1:
            size = math.prod(found.dims or ()) * (found.type.size if found.type else 0)
            self.values(body.number(8), size)
        elif kind == 2:
            self.chunk_tree(body.number(8), rank)

    def values(self, address: int, length: int) -> None:
        if address != UNDEFINED:
            self.claim(address, length, data=True)

    def chunks(self, body: _Cursor, found: _Object) -> None:
        rank = body.number(1)
        self.chunk_tree(body.number(8), rank)

    def chunk_tree(self, root: int, rank: int) -> None:
        for key, child in self.tree(root, 1, 8 + 8 * rank, self.chunk):
            self.values(child, int.from_bytes(key[:4], "little"))

    def new_chunks(self, body: _Cursor, found: _Object) -> None:
        flags, rank, width = body.number(1), body.number(1), body.number(1)
        dims = [body.number(width) for _ in range(rank)]
        kind, size = body.number(1), math.prod(dims)
        if kind == 1:
            size = body.number(8) if flags & 2 else size
            body.take(4 if flags & 2 else 0)
            self.values(body.number(8), size)
        elif kind == 2:
            each = [-(-whole // part) for whole, part in zip(found.dims or (), dims, strict=False) if part]
            self.values(body.number(8), size * math.prod(each))
        elif kind == 3:
            body.take(1)
            self.fixed_array(body.number(8), size)
        elif kind == 5:
            body.take(6)
            self.chunk_index(body.number(8), size, rank - 1)
        else:
            self.unread(f"chunk indexes of the kind {kind}", body.place - self.base)

    def chunk_index(self, address: int, size: int, rank: int) -> None:
        """Chunks in a B-tree of version 2: the address, for packed ones the size and a mask, and the place."""
        for record in _records(self, address):
            packed = record[8 : -8 * rank - 4]
            self.values(int.from_bytes(record[:8], "little"), int.from_bytes(packed, "little") if packed else size)

    def fixed_array(self, address: int, size: int) -> None:
        if address == UNDEFINED:
            return
        head = self.structure(address, 28, b"FAHD\0")
        client, width, bits, count, block = (head.number(n) for n in (1, 1, 1, 8, 8))
        if block == UNDEFINED:
            return
        if client > 1 or width < 8 or count * width > self.size:
            raise Malformed(BROKEN, head.place, f"An array of chunks has {count} entries of {width} bytes.")
        page = 1 << bits
        pages = -(-count // page) if count > page else 0
        length = 14 + (pages + 7) // 8 + count * width + 4 + 4 * pages
        array = self.structure(block, length, b"FADB\0")
        array.take(9 + (pages + 7) // 8 + (4 if pages else 0))
        for number in range(count):
            if pages and number and number % page == 0:
                array.take(4)
            entry = array.take(width)
            self.values(
                int.from_bytes(entry[:8], "little"),
                int.from_bytes(entry[8:-4], "little") if client else size,
            )


def _records(walk: _Walk, address: int) -> Iterator[bytes]:
    """The records of a B-tree of version 2."""
    if address == UNDEFINED:
        return
    head = walk.structure(address, 38, b"BTHD\0")
    _, node, width, depth, _, _, root, count = (head.number(n) for n in (1, 4, 2, 2, 1, 1, 8, 2))
    if root == UNDEFINED:
        return
    if depth > 16 or not 0 < width < node - 10:
        raise Malformed(BROKEN, head.place, f"An index is {depth} levels deep, with records of {width} bytes.")
    totals = _totals(node, width, depth)
    counted = _width((node - 10) // width)
    stack = [(root, count, depth)]
    while stack:
        at, records, level = stack.pop()
        block = walk.structure(at, node, b"BTIN\0" if level else b"BTLF\0")
        block.take(1)
        yield from (block.take(width) for _ in range(records))
        for _ in range(records + 1 if level else 0):
            stack.append((block.number(8), block.number(counted), level - 1))
            block.take(totals[level - 1])


def _width(most: int) -> int:
    """The bytes that a number up to this one takes."""
    return (most.bit_length() + 7) // 8


def _totals(node: int, width: int, depth: int) -> list[int]:
    """For each level of nodes, the bytes in which its parents count all records below it: none for leaves."""
    most = (node - 10) // width
    total, counted, found = most, _width(most), [0]
    for _ in range(depth):
        pointer = 8 + counted + found[-1]
        here = max((node - 10 - pointer) // (width + pointer), 0)
        total = (here + 1) * total + here
        found.append(_width(total))
    return found


class _FractalHeap:
    """A heap whose blocks double in size: links and attributes of large groups lie in it."""

    def __init__(self, walk: _Walk, address: int):
        self.walk = walk
        head = walk.structure(address, 146, b"FRHP\0")
        self.place = address
        head.take(2)
        filters, flags = head.number(2), head.number(1)
        head.take(12)
        self.giants = head.number(8)
        head.take(8)
        space = head.number(8)
        head.take(64)
        self.width, self.start, self.most, bits = (head.number(n) for n in (2, 8, 8, 2))
        head.take(2)
        root, rows = head.number(8), head.number(2)
        if filters or not self.start or not self.width or bits > 64 or self.most < self.start:
            raise Malformed(UNREAD, head.place, "The file uses a packed heap, which is not read here.")
        self.offset, self.prefix = (bits + 7) // 8, 13 + (bits + 7) // 8 + (4 if flags & 2 else 0)
        self.blocks: list[tuple[int, int, int]] = []  # offset in the heap, size, address
        self.read = 0
        if root != UNDEFINED:
            self.indirect(root, rows, 0, 0) if rows else self.direct(root, self.start, 0)
        self.free(space)

    def direct(self, address: int, size: int, at: int) -> None:
        self.walk.structure(address, size, b"FHDB\0")
        self.blocks.append((at, size, address))

    def indirect(self, address: int, rows: int, at: int, depth: int) -> None:
        length = 5 + 8 + self.offset + rows * self.width * 8 + 4
        if depth > 8 or rows > 64:
            raise Malformed(BROKEN, self.walk.base + address, "A heap is deeper than the format goes.")
        block = self.walk.structure(address, length, b"FHIB\0")
        block.take(8 + self.offset)
        for row in range(rows):
            size = self.start << max(row - 1, 0)
            for _ in range(self.width):
                child = block.number(8)
                if child != UNDEFINED and size <= self.most:
                    self.direct(child, size, at)
                elif child != UNDEFINED:
                    inner = (size // (self.start * self.width)).bit_length()
                    self.indirect(child, inner, at, depth + 1)
                at += size

    def free(self, address: int) -> None:
        """The list of the heap's own free space."""
        if address == UNDEFINED:
            return
        head = self.walk.structure(address, 82, b"FSHD\0")
        head.take(49)
        at, _, length = head.number(8), head.number(8), head.number(8)
        if at != UNDEFINED:
            self.walk.structure(at, length, b"FSSE\0")

    def object(self, identity: bytes) -> _Cursor | None:
        """What lies under this identity; None for a large one, which `huge` has."""
        kind, place = identity[0] >> 4 & 3, self.walk.base + self.place
        if kind == 2:
            return _Cursor(identity[1 : 2 + (identity[0] & 15)], place)
        if kind == 1:
            return None
        offset = int.from_bytes(identity[1 : 1 + self.offset], "little")
        length = int.from_bytes(identity[1 + self.offset :], "little")
        self.read += length
        if self.read > sum(size for _, size, _ in self.blocks):
            raise Malformed(OVERLAP, place)
        for at, size, address in self.blocks:
            if at <= offset and offset + length <= at + size:
                return self.walk.peek(address + offset - at, length)
        raise Malformed(BROKEN, place, "An entry of a heap lies in none of its blocks.")

    def huge(self) -> Iterator[_Cursor]:
        for record in _records(self.walk, self.giants):
            address, length = int.from_bytes(record[:8], "little"), int.from_bytes(record[8:16], "little")
            self.walk.claim(address, length)
            yield self.walk.peek(address, min(length, MAX_TEXT))


_FOLLOWED = {
    0x02: _Walk.link_info,
    0x06: _Walk.link,
    0x0C: _Walk.attribute,
    0x11: _Walk.symbol_table,
    0x15: _Walk.attribute_info,
}
