"""7z archives, whatever they are called.

Format: the LZMA SDK's 7zFormat.txt. The header stands at the end, packed itself as a rule; it is peeked at, and the
packed streams are walked forward. Streams of one coder (copy, LZMA, LZMA2, deflate, bzip2) are unpacked; chains of
filters, encryption and the rest are held.
"""

from __future__ import annotations

import lzma
import stat
import zlib
from collections.abc import Callable, Iterator
from itertools import islice

from msgspec import Struct

from freehold.scan.base import BLOCK, BOMB, FETCH_AGAIN, HOLD, Malformed, MemoryTape, Report, Rule, Tape
from freehold.scan.tape import Window
from freehold.scan.unpack import (
    BROKEN,
    Checked,
    Copy,
    Decoder,
    Inflate,
    Names,
    Stream,
    Unpacked,
    bzip2,
    collect,
    judge,
    link,
    lzma1_options,
    lzma_raw,
)  # fmt: skip

FORMAT = "7z"
_MAGIC = b"7z\xbc\xaf\x27\x1c"
MAX_HEADER = 16 << 20
MAX_COUNT = 100_000
MAX_TARGET = 4096  # bytes of a link's target
MAX_LISTED = 1000  # members in the facts
_UNIX = 0x8000  # the upper half of the attributes is a Unix mode

HEADER = Rule("sevenzip.header", BLOCK, "The archive's header is damaged.", FETCH_AGAIN, "LZMA SDK, 7zFormat.txt")
METHOD = Rule(
    "sevenzip.method", HOLD, "Members are packed in a way that is not read here (a filter, encryption), so nobody has "
    "looked inside.", "Unpack it and scan what is inside, or decide by name and reason.", "LZMA SDK, Methods.txt",
)  # fmt: skip
CHECKSUM = Rule(
    "sevenzip.checksum", BLOCK, "A member is damaged: its checksum is another.", FETCH_AGAIN, "LZMA SDK, 7zFormat.txt"
)
POLYGLOT = Rule(
    "sevenzip.polyglot", BLOCK, "Bytes lie between or behind the parts of the archive and belong to none.",
    "Do not load it. Ask the publisher what they are.", "CWE-436",
)  # fmt: skip


class Folder(Struct, frozen=True):
    """Some packed streams and how one stream of ``size`` bytes comes out of them; ``crc`` None where none is kept."""

    coder: bytes  # the method's id; b"" for a chain
    settings: bytes
    streams: int
    size: int
    crc: int | None = None


class Streams(Struct, frozen=True):
    """Where the packed streams lie, and the members in them: per folder a list of (size, CRC-32 or None)."""

    start: int = 0
    packed: list[int] = []
    folders: list[Folder] = []
    members: list[list[tuple[int, int | None]]] = []


class Member(Struct, frozen=True):
    """One file's name and Unix mode, 0 where there is none; ``empty`` if no stream belongs to it."""

    name: str
    mode: int
    empty: bool


def recognises(head: bytes, tape: Tape, name: str) -> bool:
    """The magic number."""
    return head.startswith(_MAGIC)


def scan(tape: Tape, report: Report) -> None:
    """Judge every member. Facts: ``members`` (name to format, the first 1,000)."""
    start = tape.read(32)
    offset, length, crc = (int.from_bytes(start[at:to], "little") for at, to in ((12, 20), (20, 28), (28, 32)))
    if len(start) < 32 or int.from_bytes(start[8:12], "little") != zlib.crc32(start[12:]):
        raise Malformed(HEADER, 8, "The archive's first header has the wrong checksum.")
    end = 32 + offset + length
    if end > tape.size or length > MAX_HEADER:
        raise Malformed(HEADER, 12, f"The archive's header would end at byte {end}, of {tape.size}.")
    header = tape.peek(32 + offset, length)
    if zlib.crc32(header) != crc:
        raise Malformed(HEADER, 32 + offset, "The archive's header has the wrong checksum.")
    streams, members, parts = _opened(tape, header, report)
    _walk(tape, report, streams, members)
    for begin, stop in sorted([*parts, (32 + offset, end)]):
        _gap(tape, report, begin)
        tape.read(max(stop - tape.at, 0))
    _gap(tape, report, tape.size)


def _opened(tape: Tape, header: bytes, report: Report) -> tuple[Streams, list[Member], list[tuple[int, int]]]:
    """What the header says, unpacked as often as it is packed; and where the packed headers lie."""
    parts: list[tuple[int, int]] = []
    for _ in range(4):
        reader = _Reader(header)
        kind = reader.byte() if header else 1
        if kind == 1:
            return *_header(reader, report), parts
        if kind != 0x17:
            break
        streams = _streams(reader)
        if len(streams.folders) != 1 or len(streams.packed) != 1 or streams.folders[0].size > MAX_HEADER:
            break
        begin = 32 + streams.start
        content = tape.peek(begin, min(streams.packed[0], MAX_HEADER + 1))
        parts.append((begin, begin + len(content)))
        header = _unpacked(content, streams.folders[0], report)
    raise Malformed(HEADER, 32, "The archive's header cannot be read.")


def _unpacked(content: bytes, folder: Folder, report: Report) -> bytes:
    """A packed header."""
    decoder = _decoder(folder)
    if decoder is None:
        raise Malformed(METHOD, 32, "The archive's table of contents is packed or encrypted in a way not read here.")
    found = collect(Stream(MemoryTape(content), len(content), decoder, report), folder.size)
    if len(found) != folder.size or folder.crc not in (None, zlib.crc32(found)):
        raise Malformed(HEADER, 32, "The archive's table of contents is damaged.")
    return found


def _walk(tape: Tape, report: Report, streams: Streams, members: list[Member]) -> None:
    """The packed streams, folder by folder, and the members in them."""
    seen = Names(report)
    for member in members:
        report.budget.member(0)
        seen.add(member.name)
    full = iter([member for member in members if not member.empty])
    packed = iter(streams.packed)
    _gap(tape, report, 32 + streams.start if streams.packed else tape.at)
    for folder, sizes in zip(streams.folders, streams.members, strict=True):
        inside = list(islice(full, len(sizes)))
        lengths = list(islice(packed, folder.streams))
        if len(inside) != len(sizes) or len(lengths) != folder.streams:
            raise Malformed(HEADER, tape.at, "The archive has more streams than members, or fewer.")
        stop = tape.at + sum(lengths)
        try:
            _folder(tape, report, folder, stop - tape.at, list(zip(inside, sizes, strict=True)))
        except Malformed as fault:
            if fault.rule is BOMB:
                raise
            report.add(fault.rule, fault.at, fault.meaning)
        tape.skip(stop - tape.at, "packed in a way that is not read here, or damaged")
    if next(full, None) is not None or next(packed, None) is not None:
        raise Malformed(HEADER, tape.at, "The archive has more members than streams, or fewer.")


def _folder(
    tape: Tape, report: Report, folder: Folder, length: int, inside: list[tuple[Member, tuple[int, int | None]]]
) -> None:
    """The members of one folder, one after another in one stream."""
    decoder = _decoder(folder)
    if decoder is None or folder.streams != 1:
        shown = ", ".join(repr(member.name[:100]) for member, _ in inside[:3])
        raise Malformed(METHOD, tape.at, f"{METHOD.meaning} They begin with {shown}.")
    if decoder is Copy and folder.size != length:
        raise Malformed(HEADER, tape.at, "Members that are stored have another size than they are said to have.")
    stream = None if decoder is Copy else Stream(tape, length, decoder, report)
    for member, (size, due) in inside:
        if stat.S_ISLNK(member.mode):
            done = _link(report, member, size, stream or Stream(tape, size, Copy, report))
        else:
            done = judge(stream, report, member.name, size) if stream else _stored(tape, report, member, size)
        _check(report, member.name, size, due, *done)
    if stream:
        _drained(stream, report, folder)


def _stored(tape: Tape, report: Report, member: Member, size: int) -> tuple[int, int | None, Report | None]:
    part = Checked(tape, size)
    inner = report.nested(part, member.name) if size else None
    return size, part.crc, inner


def _link(report: Report, member: Member, size: int, stream: Stream) -> Unpacked:
    if size > MAX_TARGET:
        raise Malformed(HEADER, repr(member.name[:200]), f"A link's target has {size} bytes.")
    target = collect(stream, size)
    link(report, member.name, target.decode("utf-8", "replace"), member.name)
    return Unpacked(len(target), zlib.crc32(target), None)


def _check(
    report: Report, name: str, size: int, due: int | None, got: int, made: int | None, inner: Report | None
) -> None:  # fmt: skip
    """Has a member the length and the checksum that the header says?"""
    where, listed = repr(name[:200]), report.facts.setdefault("members", {})
    if inner is not None and len(listed) < MAX_LISTED:
        listed[name[:500]] = inner.format
    if got != size:
        report.add(HEADER, where, f"The member {where} is said to have {size} bytes, and has {got}.")
    elif None not in (made, due) and made != due:
        report.add(CHECKSUM, where, f"The member {where} has the checksum {made:08x}, where {due:08x} is due.")


def _drained(stream: Stream, report: Report, folder: Folder) -> None:
    """Is the stream at its end? LZMA's own has no mark there, and may leave some bytes unread."""
    more = folder.coder != _LZMA and stream.read(1)
    if more or stream.behind or stream.left > 16:
        report.add(POLYGLOT, "", "A packed stream goes on behind its last member.")


def _gap(tape: Tape, report: Report, until: int) -> None:
    if tape.at < until:
        start = tape.at
        report.add(POLYGLOT, start, f"{until - start} bytes belong to no part of the archive.")
        report.nested(Window(tape, until - start), f"bytes {start} to {until}")


_LZMA = b"\3\1\1"


def _decoder(folder: Folder) -> Callable[[], Decoder] | None:
    """What unpacks a folder. None for what is not read here. Raises Malformed."""
    if folder.coder == b"\0":
        return Copy
    if folder.coder == b"\4\1\x08":
        return Inflate
    if folder.coder == b"\4\2\2":
        return bzip2
    if folder.coder == _LZMA and len(folder.settings) == 5:
        try:
            return lzma_raw(lzma.FILTER_LZMA1, **lzma1_options(folder.settings))
        except ValueError as fault:
            raise Malformed(BROKEN, "", f"LZMA cannot be unpacked: {fault}.") from None
    if folder.coder == b"\x21" and len(folder.settings) == 1 and folder.settings[0] <= 40:
        step = folder.settings[0]  # dictionaries of 2 or 3 times a power of two, from 4 KiB on
        return lzma_raw(lzma.FILTER_LZMA2, dict_size=min((2 | step & 1) << (step // 2 + 11), (1 << 32) - 1))
    return None


class _Reader:
    """Reads a header that is in memory, never past its end."""

    def __init__(self, content: bytes):
        self.content, self.at = content, 0

    def take(self, length: int) -> bytes:
        if length > len(self.content) - self.at:
            raise Malformed(HEADER, self.at, "The archive's header is cut off.")
        self.at += length
        return self.content[self.at - length : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        """As many bytes as the first one has leading ones, little-endian, and its other bits above them."""
        first = self.byte()
        more = 8 - (first ^ 0xFF).bit_length()
        low = int.from_bytes(self.take(more), "little")
        return low if more >= 7 else low | (first & (0x7F >> more)) << (8 * more)

    def count(self) -> int:
        value = self.number()
        if value > MAX_COUNT:
            raise Malformed(HEADER, self.at, f"The archive's header counts {value} things.")
        return value

    def expect(self, kind: int) -> None:
        if self.byte() != kind:
            raise Malformed(HEADER, self.at - 1, "The archive's header is not in order.")

    def bits(self, count: int) -> list[bool]:
        content = self.take((count + 7) // 8)
        return [bool(content[at // 8] & 0x80 >> at % 8) for at in range(count)]

    def defined(self, count: int) -> list[bool]:
        return [True] * count if self.byte() else self.bits(count)

    def digests(self, count: int) -> list[int | None]:
        return [int.from_bytes(self.take(4), "little") if given else None for given in self.defined(count)]


def _header(reader: _Reader, report: Report) -> tuple[Streams, list[Member]]:
    """The header proper: properties that nobody uses, the streams, the files."""
    streams, members = Streams(), []
    kind = reader.byte() if reader.content else 0
    if kind == 2:
        while reader.byte():
            reader.take(reader.number())
        kind = reader.byte()
    if kind == 4:
        streams, kind = _streams(reader), reader.byte()
    if kind == 5:
        members, kind = _files(reader, report), reader.byte()
    if kind or reader.at != len(reader.content):
        raise Malformed(HEADER, reader.at, "The archive's header holds something that is not read here.")
    return streams, members


def _streams(reader: _Reader) -> Streams:
    start, packed, folders, kind = 0, [], [], reader.byte()
    members: list[list[tuple[int, int | None]]] | None = None
    if kind == 6:
        start, packed = _pack_info(reader)
        kind = reader.byte()
    if kind == 7:
        folders, kind = _folders(reader), reader.byte()
    if kind == 8:
        members, kind = _substreams(reader, folders), reader.byte()
    if kind:
        raise Malformed(HEADER, reader.at, "The archive's streams are not in order.")
    return Streams(start, packed, folders, members or [[(folder.size, folder.crc)] for folder in folders])


def _pack_info(reader: _Reader) -> tuple[int, list[int]]:
    start, count = reader.number(), reader.count()
    reader.expect(9)
    sizes = [reader.number() for _ in range(count)]
    if (kind := reader.byte()) == 10:
        reader.digests(count)
        kind = reader.byte()
    if kind:
        raise Malformed(HEADER, reader.at, "The archive's streams are not in order.")
    return start, sizes


def _folders(reader: _Reader) -> list[Folder]:
    reader.expect(11)
    count = reader.count()
    if reader.byte():
        raise Malformed(HEADER, reader.at, "The archive keeps its folders elsewhere.")
    shapes = [_coders(reader) for _ in range(count)]
    reader.expect(12)
    sizes = [[reader.number() for _ in range(outputs)] for _, _, _, outputs in shapes]
    crcs: list[int | None] = [None] * count
    if (kind := reader.byte()) == 10:
        crcs, kind = reader.digests(count), reader.byte()
    if kind:
        raise Malformed(HEADER, reader.at, "The archive's folders are not in order.")
    return [
        Folder(coder, settings, streams, size[-1], crc)
        for (coder, settings, streams, _), size, crc in zip(shapes, sizes, crcs, strict=True)
    ]


def _coders(reader: _Reader) -> tuple[bytes, bytes, int, int]:
    """One folder: its coder and the settings of it (b"" for a chain), its packed streams and its outputs."""
    count = reader.number()
    inputs = outputs = 0
    coder = settings = b""
    if not 1 <= count <= 32:
        raise Malformed(HEADER, reader.at, f"A folder has {count} coders.")
    for _ in range(count):
        flags = reader.byte()
        coder, settings = reader.take(flags & 15), b""
        takes, gives = (reader.number(), reader.number()) if flags & 16 else (1, 1)
        if flags & 0xC0 or not 1 <= takes <= 32 or gives != 1:
            raise Malformed(HEADER, reader.at, "A folder's coder is impossible.")
        inputs, outputs = inputs + takes, outputs + gives
        settings = reader.take(reader.number()) if flags & 32 else b""
    for _ in range(2 * (outputs - 1)):
        reader.number()
    streams = inputs - (outputs - 1)
    for _ in range(streams if streams > 1 else 0):
        reader.number()
    return (coder, settings, streams, outputs) if count == inputs == 1 else (b"", b"", streams, outputs)


def _substreams(reader: _Reader, folders: list[Folder]) -> list[list[tuple[int, int | None]]]:
    counts, kind = [1] * len(folders), reader.byte()
    if kind == 13:
        counts, kind = [reader.count() for _ in folders], reader.byte()
    if sum(counts) > MAX_COUNT:
        raise Malformed(HEADER, reader.at, f"The archive's header counts {sum(counts)} members.")
    sizes = []
    for folder, count in zip(folders, counts, strict=True):
        known = [reader.number() for _ in range(count - 1)] if kind == 9 else []
        sizes.append([*known, folder.size - sum(known)] if count else [])
        if count and (len(sizes[-1]) != count or sizes[-1][-1] < 0):
            raise Malformed(HEADER, reader.at, "The sizes of a folder's members do not add up.")
    kind = reader.byte() if kind == 9 else kind
    bare = [len(of) != 1 or folder.crc is None for folder, of in zip(folders, sizes, strict=True)]
    crcs: Iterator[int | None] = iter(())
    if kind == 10:
        crcs = iter(reader.digests(sum(len(of) for of, without in zip(sizes, bare, strict=True) if without)))
        kind = reader.byte()
    if kind:
        raise Malformed(HEADER, reader.at, "The archive's members are not in order.")
    return [
        [(size, next(crcs, None) if without else folder.crc) for size in of]
        for folder, of, without in zip(folders, sizes, bare, strict=True)
    ]


def _files(reader: _Reader, report: Report) -> list[Member]:
    """Names, modes, and which of them have no stream."""
    count = reader.count()
    names: list[str] = []
    empty, modes = [False] * count, [0] * count
    while kind := reader.byte():
        inner = _Reader(reader.take(reader.number()))
        if kind == 0x0E:
            empty = inner.bits(count)
        elif kind == 0x11:
            names = _names(inner, count)
        elif kind == 0x15:
            modes = _modes(inner, count)
        elif kind == 0x19 and inner.content.strip(b"\0"):
            raise Malformed(HEADER, reader.at, "What fills the archive's header is not zeros.")
        elif kind not in (0x0F, 0x10, 0x12, 0x13, 0x14, 0x18, 0x19):
            raise Malformed(HEADER, reader.at, f"The archive's members have the unknown property {kind:#x}.")
    if len(names) != count:
        raise Malformed(HEADER, reader.at, "The archive's members have no names.")
    return [Member(name, mode, bare) for name, mode, bare in zip(names, modes, empty, strict=True)]


def _names(inner: _Reader, count: int) -> list[str]:
    if inner.byte() or len(inner.content) % 2 != 1:
        raise Malformed(HEADER, inner.at, "The archive keeps its members' names elsewhere, or cuts them off.")
    told = inner.content[1:].decode("utf-16-le", "replace")
    names = told.split("\0", count)
    if len(names) != count + 1 or names[-1]:
        raise Malformed(HEADER, inner.at, "The archive has more names than members, or fewer.")
    return names[:-1]


def _modes(inner: _Reader, count: int) -> list[int]:
    given = inner.defined(count)
    if inner.byte():
        raise Malformed(HEADER, inner.at, "The archive keeps its members' attributes elsewhere.")
    values = [int.from_bytes(inner.take(4), "little") if there else 0 for there in given]
    return [value >> 16 if value & _UNIX else 0 for value in values]
