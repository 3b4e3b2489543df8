"""Packed bytes unpacked within bounds, and what every kind of archive has to be asked about its members.

No length that a file claims is believed. What comes out of a decoder is counted against the file's budget piece by
piece; it is kept in memory while it is small, and in ``report.scratch`` when it is not. Nested archives share that one
file: each level appends at its end, judges what it appended, and cuts it off again.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import os
import re
import stat
import zlib
from collections.abc import Callable
from typing import NamedTuple, Protocol

from freehold.scan.base import BLOCK, FETCH_AGAIN, HOLD, Malformed, MemoryTape, Report, Rule, Tape
from freehold.scan.tape import Oversized, Sink, Truncated, Window
from freehold.types import Severity, Span

MAX_MEMORY = 16 << 20  # unpacked bytes of one member in memory; half as many a level further in
MAX_SCRATCH = 64 << 30  # bytes in the scratch file, all levels together
MAX_LOOKBACK = 80 << 20  # memory of an xz or lzma decoder: xz -9 asks for 65 MiB
PIECE = 1 << 18  # bytes that come out at once
_READ = 1 << 16  # packed bytes that go in at once

BROKEN = Rule(
    "unpack.broken", BLOCK, "The compressed data is damaged.", FETCH_AGAIN, "the checks of zlib, bzip2 and xz"
)
NO_ROOM = Rule(
    "unpack.room", HOLD, "It unpacks to more than there is room for, so nobody has looked inside.",
    "Scan it where there is more room, or unpack it and scan what is inside.", "Freehold: memory is bounded",
)  # fmt: skip
LOOKBACK = Rule(
    "unpack.memory", HOLD, "Unpacking it needs more memory than is allowed.",
    "Unpack it elsewhere and scan what is inside.", "Freehold: memory is bounded",
)  # fmt: skip
OUTSIDE = Rule(
    "archive.outside", BLOCK, "A member's name leads out of the folder that the archive is unpacked to.",
    "Do not unpack it. Ask the publisher.", "CWE-22 (zip slip)",
)  # fmt: skip
NAME = Rule(
    "archive.name", HOLD, "A member's name is one that not every system reads alike.",
    "Ask the publisher for an archive with plain names.", "CWE-436 (interpretation conflict)",
)  # fmt: skip
TWICE = Rule(
    "archive.twice", HOLD, "Two members have the same name, and readers disagree which of them counts.",
    "Ask the publisher for an archive that names each member once.", "CWE-694, CWE-436",
)  # fmt: skip
CASE = Rule(
    "archive.case", HOLD, "Two members' names differ only by case, so that one replaces the other on some systems.",
    "Ask the publisher which of them is meant.", "CWE-178",
)  # fmt: skip
LINK = Rule(
    "archive.link", HOLD, "A member is a link to another file.",
    "Ask the publisher for an archive with the files themselves.", "CWE-59",
)  # fmt: skip
DEVICE = Rule(
    "archive.device", BLOCK, "A member is a device, a pipe or a socket, which no model needs.",
    "Do not unpack it. Ask the publisher.", "CWE-67",
)  # fmt: skip

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x80-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
MAX_NAME = 4096  # characters of a member's name
_ENOUGH = 16  # bytes that tell whether another stream begins
_DRIVE = re.compile(r"[A-Za-z]:")


class Decoder(Protocol):
    """What `bz2` and `lzma` call a decompressor."""

    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Up to ``max_length`` unpacked bytes."""


class Inflate:
    """zlib's decompressor with the manners of the other two. ``window``: -15 raw, 15 zlib, 31 gzip."""

    def __init__(self, window: int = -15):
        self._state = zlib.decompressobj(window)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        """Has the stream ended?"""
        return self._state.eof

    @property
    def unused_data(self) -> bytes:
        """What was given and lies behind the end."""
        return self._state.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Up to ``max_length`` unpacked bytes."""
        found = self._state.decompress(self._state.unconsumed_tail + data, max_length)
        self.needs_input = not self._state.unconsumed_tail and len(found) < max_length
        return found


class Copy:
    """Bytes that are stored as they are, as a decoder."""

    eof, needs_input, unused_data = False, True, b""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """The bytes, which are never longer than what is asked for."""
        return data


class Stream:
    """The next ``length`` bytes of a tape, unpacked. ``behind`` is what was read and lies behind the end of it.

    Where streams may follow each other, ``again(upcoming)`` gives the bytes without the padding before them, or None
    if they do not begin another stream. It sees 16 bytes at least, where there are as many.
    """

    def __init__(
        self, tape: Tape, length: int, decoder: Callable[[], Decoder], report: Report,
        again: Callable[[bytes], bytes | None] | None = None,
    ):  # fmt: skip
        if length > tape.left or length < 0:
            raise Truncated(tape.at, length)
        self.behind = b""
        self.ended = False
        self._tape, self._stop = tape, tape.at + length
        self._new, self._again, self._report = decoder, again, report
        self._decoder = decoder()

    @property
    def left(self) -> int:
        """Packed bytes that have not been read."""
        return self._stop - self._tape.at

    def read(self, most: int = PIECE) -> bytes:
        """Up to ``most`` unpacked bytes, none at the end. Raises Malformed where they are damaged, or a bomb."""
        while not self.ended:
            if self._decoder.eof:
                self._follow()
                continue
            try:
                found = self._decoder.decompress(self._packed(most), min(most, PIECE))
            except (zlib.error, OSError, lzma.LZMAError, EOFError) as fault:
                rule = LOOKBACK if "Memory usage" in str(fault) else BROKEN
                raise Malformed(rule, self._tape.at, f"The compressed data cannot be unpacked: {fault}.") from None
            if found:
                self._report.budget.spend(len(found), self._tape.at)
                return found
        return b""

    def _packed(self, most: int) -> bytes:
        if not self._decoder.needs_input:
            return b""
        if self.behind:
            found, self.behind = self.behind, b""
            return found
        if not self.left:
            raise EOFError("it is cut off")
        return self._tape.read(min(self.left, _READ, most if isinstance(self._decoder, Copy) else _READ))

    def _follow(self) -> None:
        """After the end of a stream: begin the next one, if there is one."""
        rest = self._decoder.unused_data
        while self._again is not None:
            if len(rest) < _ENOUGH and self.left:
                rest += self._tape.read(min(self.left, 4096))
            if (stripped := self._again(rest)) is None:
                break
            rest = stripped
            if len(rest) >= _ENOUGH or (rest and not self.left):
                self._report.budget.member(self._tape.at)
                self._decoder, self.behind = self._new(), rest
                return
            if not self.left:
                break
        self.ended, self.behind = True, rest


class Unpacked(NamedTuple):
    """What came out: how many bytes, their CRC-32, and the report on them (None where there is none)."""

    size: int
    crc: int
    report: Report | None


def judge(stream: Stream, report: Report, name: str, size: int | None = None) -> Unpacked:
    """Unpack up to ``size`` bytes (all, for None) and judge them as a member called ``name``, unless there are none.

    What comes before a damaged place is judged too, as an unpickler would run it. Raises Malformed.
    """
    with _Store(report) as store:
        fault = None
        try:
            _pump(stream, size, store.take)
        except Malformed as found:
            if found.rule is not BROKEN:
                raise
            fault = found
        inner = report.nested(store.tape(), name) if store.size else None
        if fault:
            raise fault
        return Unpacked(store.size, store.crc, inner)


def collect(stream: Stream, size: int) -> bytes:
    """Up to ``size`` unpacked bytes, at once: for what is small. Raises Malformed."""
    pieces: list[bytes] = []
    _pump(stream, size, pieces.append)
    return b"".join(pieces)


def drain(stream: Stream, size: int | None = None) -> Unpacked:
    """Unpack up to ``size`` bytes that need no judging: their length and their CRC-32. Raises Malformed."""
    crc = total = 0

    def take(piece: bytes) -> None:
        nonlocal crc, total
        crc, total = zlib.crc32(piece, crc), total + len(piece)

    _pump(stream, size, take)
    return Unpacked(total, crc, None)


def _pump(stream: Stream, size: int | None, take: Callable[[bytes], object]) -> None:
    done = 0
    while (size is None or done < size) and (piece := stream.read(PIECE if size is None else min(PIECE, size - done))):
        done += len(piece)
        take(piece)


class _Store:
    """Unpacked bytes: in memory, then in the scratch file."""

    def __init__(self, report: Report):
        self.size = self.crc = 0
        self._report, self._scratch = report, report.scratch
        self._most = MAX_MEMORY >> report.depth
        self._pieces: list[bytes] = []
        self._begin: int | None = None

    def __enter__(self) -> _Store:
        return self

    def __exit__(self, *fault: object) -> None:
        if self._begin is not None and self._scratch is not None:
            os.ftruncate(self._scratch, self._begin)

    def take(self, piece: bytes) -> None:
        """Keep one more piece. Raises Malformed(NO_ROOM)."""
        self.crc = zlib.crc32(piece, self.crc)
        if self._begin is None and self.size + len(piece) > self._most:
            self._spill()
        if self._begin is None:
            self._pieces.append(piece)
        else:
            self._write(piece)
        self.size += len(piece)

    def tape(self) -> MemoryTape:
        """What was kept, as a tape."""
        if self._begin is None or self._scratch is None:
            content, self._pieces = b"".join(self._pieces), []
            return MemoryTape(content)
        return ScratchTape(self._scratch, self._begin, self.size)

    def _spill(self) -> None:
        if self._scratch is None:
            raise Malformed(NO_ROOM, "", f"It unpacks to more than {self._most >> 20} MiB, and there is no room.")
        self._begin = os.fstat(self._scratch).st_size
        kept, self._pieces, self.size = self._pieces, [], 0
        for piece in kept:
            self._write(piece)
            self.size += len(piece)

    def _write(self, piece: bytes) -> None:
        at = (self._begin or 0) + self.size
        try:
            if at + len(piece) > MAX_SCRATCH:
                raise Malformed(NO_ROOM, "", f"It unpacks to more than {MAX_SCRATCH >> 30} GiB.")
            while piece:
                written = os.pwrite(self._scratch or 0, piece, at)
                piece, at = piece[written:], at + written
        except OSError as fault:
            raise Malformed(NO_ROOM, "", f"There was no room to unpack it: {fault.strerror}.") from None


class Checked(Window):
    """A part of a tape whose CRC-32 is made on the way; None once something passed unseen."""

    crc: int | None = 0

    def read(self, length: int) -> bytes:
        return self._count(super().read(length))

    def line(self, limit: int = 1 << 16) -> bytes:
        return self._count(super().line(limit))

    def data(self, length: int, sink: Sink | None = None) -> None:
        def both(piece: memoryview) -> None:
            self._count(piece)
            if sink is not None:
                sink(piece)

        super().data(length, both)

    def skip(self, length: int, why: str) -> None:
        super().skip(length, why)
        self.crc = None if length else self.crc

    def _count(self, piece):
        if self.crc is not None:
            self.crc = zlib.crc32(piece, self.crc)
        return piece


class ScratchTape(MemoryTape):
    """Unpacked bytes as a tape: not in memory, but ``size`` bytes from ``begin`` on in the scratch file."""

    def __init__(self, descriptor: int, begin: int, size: int):
        super().__init__(b"")
        self.size = size
        self._descriptor, self._begin = descriptor, begin
        self._block, self._start = b"", 0

    def read(self, length: int) -> bytes:
        self._check(length)
        found = self._bytes(self.at, length)
        self.at += length
        return found

    def line(self, limit: int = 1 << 16) -> bytes:
        start = self.at
        found = self._bytes(start, min(limit, self.left))
        end = found.find(b"\n") + 1
        self.at += end or len(found)
        if not end:
            raise Truncated(start, limit)
        return found[:end]

    def data(self, length: int, sink: Sink | None = None) -> None:
        self._check(length)
        if sink is None:
            self.at += length
            return
        while length:
            piece = self.read(min(length, PIECE))
            length -= len(piece)
            sink(memoryview(piece))

    def skip(self, length: int, why: str) -> None:
        self._check(length)
        if length:
            self.unjudged.append(Span(self.at, self.at + length, why))
        self.at += length

    def peek(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise Oversized(offset, length)
        return self._bytes(offset, min(length, max(self.size - offset, 0)))

    def _check(self, length: int) -> None:
        if length > self.left or length < 0:
            raise Truncated(self.at, length)

    def _bytes(self, offset: int, length: int) -> bytes:
        """From the block in hand, or else from a new one."""
        begin = offset - self._start
        if begin < 0 or begin + length > len(self._block):
            if length > 32 << 20:
                raise Oversized(offset, length)
            wanted = min(max(length, PIECE), self.size - offset)
            self._block, self._start, begin = self._load(offset, wanted), offset, 0
        return self._block[begin : begin + length]

    def _load(self, offset: int, length: int) -> bytes:
        found = os.pread(self._descriptor, length, self._begin + offset)
        while len(found) < length:
            piece = os.pread(self._descriptor, length - len(found), self._begin + offset + len(found))
            if not piece:
                raise OSError(f"the scratch file ends at byte {self._begin + offset + len(found)}")
            found += piece
        return found


def lzma_raw(kind: int, **options: int) -> Callable[[], Decoder]:
    """A maker of raw LZMA decoders, for archives that keep the decoder's settings elsewhere. Raises Malformed."""
    if options["dict_size"] > MAX_LOOKBACK:
        raise Malformed(LOOKBACK, "", f"Unpacking it needs {options['dict_size'] >> 20} MiB of memory at once.")
    chain = [{"id": kind, **options}]
    return lambda: lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=chain)


def lzma1_options(settings: bytes) -> dict[str, int]:
    """The five bytes that LZMA keeps its settings in: lc, lp and pb in one, then the dictionary's size.

    Raises ValueError where no encoder writes them.
    """
    packed, lookback = settings[0], int.from_bytes(settings[1:5], "little")
    lc, lp, pb = packed % 9, packed // 9 % 5, packed // 45
    if pb > 4 or lc + lp > 4:
        raise ValueError("its settings are impossible")
    return {"lc": lc, "lp": lp, "pb": pb, "dict_size": max(lookback, 4096)}


def bzip2() -> Decoder:
    """A bzip2 decoder."""
    return bz2.BZ2Decompressor()


class Names:
    """The members' names of one archive, each looked at as it comes. ``twice`` is how bad two of one name are."""

    def __init__(self, report: Report, twice: Severity = HOLD):
        self._report, self._twice = report, twice
        self._seen: dict[bytes, tuple[bytes, str]] = {}  # by the hash of its lower case: the name's own, and its start

    def add(self, name: str) -> None:
        """Look at one more name."""
        shown = name if len(name) < 200 else name[:200] + "..."
        if leaves(name):
            self._report.add(OUTSIDE, repr(shown), f"The member {shown!r} would be written outside the folder.")
        if _CONTROL.search(name) or "\\" in name or not name.strip("/") or len(name) > MAX_NAME:
            meaning = f"The member {shown!r} has a name that not every system reads alike."
            self._report.add(NAME, repr(shown), meaning, BLOCK if "\0" in name else None)
        if not name.endswith("/"):  # folders may be named as often as they like
            self._compare(name, shown)

    def _compare(self, name: str, shown: str) -> None:
        plain = "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
        exact, folded = _hash(plain), _hash(plain.casefold())
        if folded not in self._seen:
            self._seen[folded] = exact, shown
            return
        other, other_shown = self._seen[folded]
        if other != exact:
            self._report.add(CASE, repr(shown), f"The members {other_shown!r} and {shown!r} differ only by case.")
        else:
            self._report.add(TWICE, repr(shown), f"Two members are called {shown!r}.", self._twice)


def _hash(name: str) -> bytes:
    """A name as 16 bytes, so that the longest names of the largest archive fit in memory."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def leaves(name: str) -> bool:
    """Does a name lead out of the folder that it is unpacked to: absolute, with a drive, or up by ``..``?"""
    parts = name.replace("\\", "/").split("/")
    return (not parts[0] and len(parts) > 1) or bool(_DRIVE.match(name)) or ".." in parts


def link(report: Report, name: str, target: str, beside: str = "") -> None:
    """Report a link, which blocks where it leads out of the archive. ``target`` counts from the folder of ``beside``
    (the member itself for a symbolic link, the archive for a hard one)."""
    shown = f"The member {name[:200]!r} is a link to {target[:200]!r}"
    if _climbs(beside, target):
        report.add(LINK, repr(name[:200]), shown + ", out of the archive.", BLOCK)
    else:
        report.add(LINK, repr(name[:200]), shown + ".")


def _climbs(beside: str, target: str) -> bool:
    parts = target.replace("\\", "/").split("/")
    if not parts[0] or _DRIVE.match(target):
        return True
    depth = sum(part not in ("", ".") for part in beside.replace("\\", "/").split("/")[:-1])
    for part in parts:
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0:
            return True
    return False


def special(mode: int) -> bool:
    """Is it neither a file nor a folder nor a link, by its Unix mode?"""
    return stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
