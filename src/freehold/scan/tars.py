"""Tar archives: NeMo's .nemo, PyTorch's first checkpoints, and whatever else is kept in one.

Format: POSIX.1-2017, pax (ustar and the extended headers), with GNU tar's long names. Members are walked in order and
judged by their content. Where two headers say different things of one member, readers disagree about where the next
one begins (CVE-2025-62518, CVE-2026-53655), so the archive is blocked.
"""

from __future__ import annotations

import re

from msgspec import Struct

from freehold.scan import pytorch
from freehold.scan.base import BLOCK, FETCH_AGAIN, HOLD, Malformed, Report, Rule, Tape
from freehold.scan.tape import Window
from freehold.scan.unpack import DEVICE, Names, link

FORMAT = "tar"
RECORD = 512
MAX_LONG = 1 << 20  # bytes of an extended header
MAX_LOOKED_AT = 200  # characters of a name that may be one of PyTorch's
MAX_LISTED = 1000  # members in the facts
_ZERO = bytes(RECORD)
_FILE, _HARD, _SYMBOLIC, _FOLDER, _SPARSE = b"0", b"1", b"2", b"5", b"S"
_DEVICES = (b"3", b"4", b"6")
_GLOBAL, _EXTENDED, _LONG_NAME, _LONG_LINK = b"g", b"xX", b"L", b"K"
_FROM_PAX = 0o77777777777  # from this size on the header has no room for it
_SIZE = re.compile(r"[0-9]{1,19}")

HEADER = Rule("tar.header", BLOCK, "A member's header is damaged.", FETCH_AGAIN, "POSIX.1-2017, pax: ustar")
DIFFERS = Rule(
    "tar.differs", BLOCK, "Two headers say different things of one member, so that readers see different members.",
    "Do not unpack it. Ask the publisher for an archive that ordinary tools write.", "CVE-2025-62518, CVE-2026-53655",
)  # fmt: skip
TRAILING = Rule(
    "tar.trailing", BLOCK, "Bytes follow the end of the archive, where some readers find more members.",
    "Do not unpack it. Ask the publisher what they are.", "POSIX.1-2017, pax: two records of zeros end an archive",
)  # fmt: skip
NO_END = Rule(
    "tar.end", HOLD, "The archive has no end: it may be cut off between two members.", FETCH_AGAIN,
    "POSIX.1-2017, pax: two records of zeros end an archive",
)  # fmt: skip
PADDING = Rule(
    "tar.padding", HOLD, "The bytes that fill a member's last record are not zeros.",
    "Ask the publisher what they are; decide by name and reason.", "POSIX.1-2017, pax: ustar",
)  # fmt: skip
KIND = Rule(
    "tar.kind", HOLD, "A member is of a kind that is not read here, so nobody has looked inside.",
    "Ask the publisher for an archive of plain files.", "POSIX.1-2017, pax: typeflag",
)  # fmt: skip


class Header(Struct, frozen=True):
    """One header, as it stands. ``kind`` is its typeflag."""

    name: str
    kind: bytes
    size: int
    target: str
    prefixed: bool  # is the field for a folder's name of another use, or none, and filled?


def recognises(head: bytes, tape: Tape, name: str) -> bool:
    """The first record has the checksum that it says it has, and a name."""
    try:
        parse(head[:RECORD], 0)
    except Malformed:
        return False
    return True


def scan(tape: Tape, report: Report) -> None:
    """Judge every member; PyTorch's first format, a tar of three, is called pytorch. Facts: ``members`` (name to
    format, the first 1,000)."""
    walk = _Walk(tape, report)
    while tape.left and (record := tape.read(RECORD)) != _ZERO:
        walk.member(parse(record, tape.at - RECORD), record)
    if walk.waiting:
        raise Malformed(HEADER, tape.at, "The archive ends after a header that describes the next member.")
    pytorch.look(walk.names.keys(), report)
    if {"storages", "tensors", "pickle"} <= {name.removeprefix("./") for name in walk.names}:
        report.format = pytorch.FORMAT
    _end(tape, report, ended=tape.at > 0 and record == _ZERO)


def parse(record: bytes, at: int) -> Header:
    """One header record. Raises Malformed where its checksum or a number is wrong."""
    if len(record) < RECORD or not record[0]:
        raise Malformed(HEADER, at, "A member's header is cut off, or has no name.")
    summed = _number(record[148:156], at)
    plain = record[:148] + b" " * 8 + record[156:]
    if summed not in (sum(plain), sum(byte - 256 * (byte > 127) for byte in plain)):
        raise Malformed(HEADER, at, "A member's header has the wrong checksum.")
    name, posix = _text(record[:100]), record[257:263] == b"ustar\0"
    if posix and record[345]:
        name = f"{_text(record[345:500])}/{name}"
    kind = record[156:157].replace(b"\0", b"0").replace(b"7", b"0")
    if kind == _FILE and name.endswith("/"):
        kind = _FOLDER  # as archives older than POSIX have it
    return Header(name, kind, _number(record[124:136], at), _text(record[157:257]), not posix and record[345] > 0)


def _number(field: bytes, at: int) -> int:
    """Octal digits, or GNU's binary numbers."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    if digits.strip(b"01234567"):
        raise Malformed(HEADER, at, f"A member's header has the number {field!r}.")
    return int(digits or b"0", 8)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


class _Walk:
    """The way through one archive: what the extended headers said is kept until the member that they describe."""

    def __init__(self, tape: Tape, report: Report):
        self.tape, self.report = tape, report
        self.names: dict[str, None] = {}
        self.waiting: dict[str, str] = {}  # path, linkpath, size and GNU.sparse keys of the next member
        self._from: set[bytes] = set()  # the kinds of header that said so
        self._seen = Names(report)
        self._members: dict[str, str] = report.facts.setdefault("members", {})

    def member(self, header: Header, record: bytes) -> None:
        """One header with what belongs to it."""
        self.report.budget.member(self.tape.at)
        if header.kind in _EXTENDED or header.kind in (_GLOBAL, _LONG_NAME, _LONG_LINK):
            self.extended(header)
        else:
            self.plain(header, record)
            self.waiting, self._from = {}, set()

    def extended(self, header: Header) -> None:
        """A header that describes the next member."""
        at = self.tape.at
        if header.size > MAX_LONG or header.size > self.tape.left:
            raise Malformed(HEADER, at, f"An extended header of {header.size} bytes is longer than any sound one.")
        content = self.tape.read(header.size)
        self.fill(header.size)
        if self._from and (header.kind in self._from or not {header.kind, *self._from} <= {_LONG_NAME, _LONG_LINK}):
            self.report.add(DIFFERS, at, "Several extended headers describe one member.")
        if header.kind == _GLOBAL:
            if any(key in ("path", "linkpath", "size") or key.startswith("GNU.") for key in _pairs(content, at)):
                self.report.add(DIFFERS, at, "A global header gives every member the same name or size.")
            return
        self._from.add(header.kind)
        if header.kind == _LONG_NAME:
            self.waiting["path"] = _text(content)
        elif header.kind == _LONG_LINK:
            self.waiting["linkpath"] = _text(content)
        else:
            self.waiting |= _pairs(content, at)

    def plain(self, header: Header, record: bytes) -> None:
        """A member of its own."""
        name, target = self.waiting.get("path", header.name), self.waiting.get("linkpath", header.target)
        size = self.size(header)
        if header.prefixed and header.kind != _SPARSE:
            self.report.add(DIFFERS, self.tape.at, f"Some readers put a folder before the name {name[:200]!r}.")
        self._seen.add(name + "/" * (header.kind == _FOLDER and not name.endswith("/")))
        if len(name) <= MAX_LOOKED_AT:
            self.names[name] = None
        if header.kind in (_HARD, _SYMBOLIC):
            link(self.report, name, target, name if header.kind == _SYMBOLIC else "")
        elif header.kind in _DEVICES:
            self.report.add(DEVICE, repr(name[:200]))
        if header.kind in (_HARD, _SYMBOLIC, _FOLDER, *_DEVICES):
            self.nothing(name, size)
        elif header.kind == _SPARSE or any(key.startswith("GNU.sparse") for key in self.waiting):
            self.sparse(name, size, record, header.kind)
        else:
            self.file(name, size, header.kind)

    def size(self, header: Header) -> int:
        """The size that counts: pax's, which must be the header's where that has room for it."""
        text = self.waiting.get("size")
        if text is None:
            return header.size
        if not _SIZE.fullmatch(text):
            raise Malformed(HEADER, self.tape.at, f"A member's size is {text[:50]!r}.")
        size = int(text)
        if header.size != size and (header.size or size <= _FROM_PAX):
            meaning = f"The size of {header.name!r} is {size} in one header and {header.size} in the other."
            raise Malformed(DIFFERS, self.tape.at, meaning)
        return size

    def file(self, name: str, size: int, kind: bytes) -> None:
        """A file: its content and what fills its last record."""
        if kind != _FILE:
            self.report.add(KIND, repr(name[:200]), f"The member {name[:200]!r} is of the unknown kind {kind!r}.")
        if size:
            inner = self.report.nested(Window(self.tape, size), name)
            if len(self._members) < MAX_LISTED:
                self._members[name[:500]] = inner.format
        self.fill(size)

    def nothing(self, name: str, size: int) -> None:
        """A member without content. Some readers pass over a size that it names all the same, others do not."""
        if size:
            raise Malformed(DIFFERS, self.tape.at, f"The member {name[:200]!r} has a size, and must have none.")

    def sparse(self, name: str, size: int, record: bytes, kind: bytes) -> None:
        """A file with holes: passed over."""
        self.report.add(KIND, repr(name[:200]), f"The member {name[:200]!r} is kept with its holes left out.")
        more = kind == _SPARSE and record[482]
        while more:
            more = self.tape.read(RECORD)[504]
        self.tape.skip(size, "a file with its holes left out")
        self.fill(size)

    def fill(self, size: int) -> None:
        """What fills the last record of ``size`` bytes."""
        if self.tape.read(min(-size % RECORD, self.tape.left)).strip(b"\0"):
            self.report.add(PADDING, self.tape.at)


def _pairs(content: bytes, at: int) -> dict[str, str]:
    """The records of a pax header: ``LENGTH KEY=VALUE`` with a newline, the length counting all of it."""
    found, begin = {}, 0
    while begin < len(content):
        digits, _, _ = content[begin : begin + 8].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        line = content[begin : begin + length]
        key, equals, value = line[len(digits) + 1 : -1].partition(b"=")
        if length < 5 or len(line) < length or line[-1:] != b"\n" or not equals or not key:
            raise Malformed(HEADER, at + begin, "A record of an extended header is damaged.")
        name = key.decode("utf-8", "surrogateescape")
        if name in found:
            raise Malformed(DIFFERS, at + begin, f"An extended header says {name[:100]!r} twice.")
        found[name] = value.decode("utf-8", "surrogateescape")
        begin += length
    return found


def _end(tape: Tape, report: Report, *, ended: bool) -> None:
    """Zeros to the end of the file, one record of them at least."""
    if not ended:
        report.add(NO_END, tape.at)
    while tape.left:
        ahead = tape.peek(tape.at, min(tape.left, 1 << 14))
        zeros = len(ahead) - len(ahead.lstrip(b"\0"))
        if zeros < len(ahead):
            tape.read(zeros // RECORD * RECORD)
            report.add(TRAILING, tape.at)
            report.nested(Window(tape, tape.left), f"bytes {tape.at} to {tape.size}")
            return
        tape.read(len(ahead))
