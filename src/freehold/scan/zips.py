"""Zip archives, and what is one by another name: PyTorch (.pt), Keras (.keras), NumPy (.npz), .mar, .nemo, .jar.

Format: PKWARE's APPNOTE.TXT 6.3.10. The table of contents at the end is peeked at; then the members are walked forward
in the order in which they lie, each local header held against its entry, each checksum made, and every byte between
them accounted for. Members are judged by their content; only the storages of a PyTorch archive pass as tensor data.
"""

from __future__ import annotations

import lzma
import stat
import struct
import zlib
from collections.abc import Callable
from typing import Any

from freehold.scan import keras, npy, pickles, pytorch
from freehold.scan.base import BLOCK, BOMB, FETCH_AGAIN, HOLD, Malformed, MemoryTape, Report, Rule, Tape
from freehold.scan.tape import Window
from freehold.scan.unpack import (
    DEVICE,
    MAX_LOOKBACK,
    Checked,
    Decoder,
    Inflate,
    Names,
    Stream,
    Unpacked,
    bzip2,
    collect,
    drain,
    judge,
    link,
    lzma1_options,
    lzma_raw,
    special,
)  # fmt: skip
from freehold.scan.zipindex import DIFFERS, END_MAGIC, MAX_TAIL, End, Entry, ends, entries, fields, find

FORMAT = "zip"
_MAGIC = b"PK\3\4"
_LOCAL = struct.Struct("<4s5H3I2H")
_HARMLESS = 0x080E  # flags: how hard the encoder tried, sizes behind the data, UTF-8 names
_STORED, _DEFLATED, _BZIP2, _LZMA, _XZ = 0, 8, 12, 14, 95
MAX_TARGET = 4096  # bytes of a link's target
MAX_LISTED = 1000  # members in the facts

FLAGS = Rule(
    "zip.flags", BLOCK, "A member is marked as encrypted or patched: scanners refuse it, and PyTorch loads it.",
    "Do not load it. Ask the publisher for an archive without.",
    "APPNOTE.TXT 4.4.4; CVE-2025-1945 (GHSA-w8jq-xcqf-f792)",
)  # fmt: skip
CHECKSUM = Rule(
    "zip.checksum", BLOCK, "A member is damaged: its checksum is another. Scanners refuse it, and PyTorch loads it.",
    FETCH_AGAIN, "APPNOTE.TXT 4.4.7; CVE-2025-10156",
)  # fmt: skip
POLYGLOT = Rule(
    "zip.polyglot", BLOCK, "Bytes lie before, between or behind the members and belong to none: the file may be "
    "something else to another reader.", "Do not load it. Ask the publisher what they are.", "CWE-436",
)  # fmt: skip
OVERLAP = Rule(
    "zip.overlap", BLOCK, "Members overlap, as in a bomb.", "Do not unpack it. Ask the publisher.", "CWE-409"
)
METHOD = Rule(
    "zip.method", HOLD, "A member is packed in a way that is not read here, so nobody has looked inside.",
    "Unpack it and scan what is inside, or decide by name and reason.", "APPNOTE.TXT 4.4.5",
)  # fmt: skip
COMMENT = Rule(
    "zip.comment", HOLD, "The archive's comment is not text.",
    "Ask the publisher what it is; decide by name and reason.", "APPNOTE.TXT 4.4.26",
)  # fmt: skip
SKOPS = Rule(
    "zip.skops", HOLD, "It is a skops file: its schema names the classes and functions that loading calls.",
    "Ask the publisher for the weights in a format without code, or decide by name and reason.", "CVE-2025-54412",
)  # fmt: skip
PACKAGE = Rule(
    "zip.package", HOLD, "It is a Python package, whose code runs when it is installed or imported.",
    "Leave it out, or decide by name and reason.", "Freehold: weights are data",
)  # fmt: skip


def recognises(head: bytes, tape: Tape, name: str) -> bool:
    """It begins as a zip, or ends as one, whatever it begins with (in a member of an archive, without a comment)."""
    if head[:4] in (_MAGIC, END_MAGIC):
        return True
    return ends(tape, 22 if isinstance(tape, Window) else MAX_TAIL)


def scan(tape: Tape, report: Report) -> None:
    """Judge every member, and call the archive by what its members make of it: pytorch, keras, numpy (.npz), or zip.
    Facts: ``members`` (name to format, the first 1,000)."""
    end = find(tape)
    found = list(entries(tape, end, report))
    names = dict.fromkeys(entry.name for entry in found)
    seen = Names(report, BLOCK)
    for entry in found:
        seen.add(entry.name)
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        report.format = pytorch.FORMAT
    walk = _Walk(tape, report, end, names)
    walk.walk(sorted(found, key=lambda entry: entry.offset))
    for rule, mark in ((SKOPS, "schema.json"), (PACKAGE, ".dist-info/WHEEL"), (PACKAGE, ".dist-info/METADATA")):
        if any(name.endswith(mark) for name in names) and (rule is PACKAGE or report.name.endswith(".skops")):
            report.add(rule)
    if report.name.lower().endswith((".whl", ".egg")):
        report.add(PACKAGE)
    pytorch.look(names.keys(), report, {entry.name: entry.size for entry in found}, walk.facts)
    if keras.look(names.keys(), report) and report.format == FORMAT:
        report.format = "keras"
    if set(walk.members.values()) == {npy.FORMAT} and all(name.endswith(".npy") for name in names):
        report.format = "numpy"


class _Walk:
    """The way through one archive, from its first byte to its last."""

    def __init__(self, tape: Tape, report: Report, end: End, names: dict[str, None]):
        self.tape, self.report, self.end, self.names = tape, report, end, names
        self.facts: dict[str, dict[str, Any]] = {}  # of pickles by the name that PyTorch gives them
        self.members: dict[str, str] = report.facts.setdefault("members", {})

    def walk(self, found: list[Entry]) -> None:
        """Every member, then the directory and the end, which were looked at before."""
        for number, entry in enumerate(found):
            upcoming = found[number + 1].offset if number + 1 < len(found) else self.end.begin
            self.member(entry, upcoming)
        self.gap(self.end.begin)
        self.close()

    def member(self, entry: Entry, upcoming: int) -> None:
        """One member: ``upcoming`` is where the next one begins."""
        where = repr(entry.name[:200])
        if entry.offset < self.tape.at or entry.offset + 30 > self.end.begin:
            self.report.add(OVERLAP, where, f"The member {where} begins within another part of the archive.")
            return
        self.gap(entry.offset)
        if not self.local(entry):
            return
        stop = self.tape.at + entry.packed
        if stop > self.end.begin:
            self.report.add(OVERLAP, where, f"The member {where} reaches into the directory.")
            return
        self.content(entry, where)
        self.tape.skip(stop - self.tape.at, "a member that could not be unpacked")
        if entry.flags & 8:
            self.descriptor(entry, upcoming, where)

    def gap(self, until: int) -> None:
        """Whatever lies before ``until`` and belongs to no member: judged by its content, and blocked anyway."""
        start = self.tape.at
        if start < until:
            self.report.budget.member(start)
            part = "before the archive" if not start else "between its members"
            self.report.add(POLYGLOT, start, f"{until - start} bytes lie {part} and belong to none of them.")
            self.report.nested(Window(self.tape, until - start), f"bytes {start} to {until}")

    def local(self, entry: Entry) -> bool:
        """Read the local header and hold it against the directory's entry. False where there is none."""
        at, tape = self.tape.at, self.tape
        if tape.peek(at, 4) != _MAGIC:
            self.report.add(DIFFERS, at, f"There is no member where the directory says {entry.name[:200]!r} is.")
            return False
        _, _, flags, method, _, _, crc, packed, size, names, extras = _LOCAL.unpack(tape.read(30))
        raw, extra = tape.read(names), tape.read(extras)
        size, packed = fields(extra, raw, (size, packed), at, self.report)
        if (entry.flags | flags) & ~_HARMLESS:
            meaning = f"The member {entry.name[:200]!r} has the flags {entry.flags:#06x} and {flags:#06x}."
            self.report.add(FLAGS, at, f"{meaning} {FLAGS.meaning}")
        if raw != entry.raw:
            self.differs(at, entry, "name", raw[:200], entry.raw[:200])
        if (method, flags & ~6) != (entry.method, entry.flags & ~6):
            self.differs(at, entry, "method and flags", (method, flags), (entry.method, entry.flags))
        later = flags & 8 and entry.flags & 8  # then the header may leave these to the descriptor
        for what, here, there in (
            ("checksum", crc, entry.crc), ("packed size", packed, entry.packed), ("size", size, entry.size)
        ):  # fmt: skip
            if here != there and not (later and here in (0, 0xFFFFFFFF)):
                self.differs(at, entry, what, here, there)
        return True

    def differs(self, at: int, entry: Entry, what: str, here: object, there: object) -> None:
        """Say on which point the local header and the directory disagree."""
        meaning = f"The {what} of {entry.name[:200]!r} is {here} in its own header and {there} in the directory."
        self.report.add(DIFFERS, at, meaning)

    def content(self, entry: Entry, where: str) -> None:
        """Judge what the member holds, and its length and its checksum."""
        if special(entry.mode):
            self.report.add(DEVICE, where, severity=HOLD)  # no unpacker makes one from a zip
        try:
            if entry.method == _STORED:
                size, crc, inner = self.stored(entry)
            elif entry.method in _DECODERS:
                size, crc, inner = self.unpacked(entry, where)
            else:
                self.report.add(METHOD, where, f"The member {where} is packed by method {entry.method}.")
                return
        except Malformed as fault:
            if fault.rule is BOMB:
                raise
            self.report.add(fault.rule, where, fault.meaning)
            return
        if inner is not None:
            self.note(entry.name, inner)
        if size != entry.size:
            meaning = f"The member {where} is said to have {entry.size} bytes, and has {size}."
            self.report.add(DIFFERS, where, meaning)
        if crc not in (None, entry.crc):
            meaning = f"The member {where} has the checksum {crc:08x}, where {entry.crc:08x} is due."
            self.report.add(CHECKSUM, where, f"{meaning} {CHECKSUM.meaning}")

    def note(self, name: str, inner: Report) -> None:
        """Remember what a member was."""
        if len(self.members) < MAX_LISTED:
            self.members[name[:500]] = inner.format
        if name.rpartition("/")[2] == "data.pkl" and len(self.facts) < 10:
            self.facts[name] = inner.facts

    def stored(self, entry: Entry) -> tuple[int, int | None, Report | None]:
        """A member as it is."""
        part, inner = Checked(self.tape, entry.packed), None
        if stat.S_ISLNK(entry.mode):
            self.link(entry, part.read(min(part.left, MAX_TARGET)))
        elif self.passes(entry):
            part.data(part.left)
        else:
            inner = self.report.nested(part, entry.name)
        return part.size, part.crc, inner

    def unpacked(self, entry: Entry, where: str) -> Unpacked:
        """A member that is packed. Raises Malformed."""
        stop = self.tape.at + entry.packed
        decoder, size = _DECODERS[entry.method](self.tape, entry)
        stream = Stream(self.tape, stop - self.tape.at, decoder, self.report)
        if stat.S_ISLNK(entry.mode):
            target = collect(stream, MAX_TARGET)
            self.link(entry, target)
            return Unpacked(len(target), zlib.crc32(target), None)
        done = drain(stream, size) if self.passes(entry) else judge(stream, self.report, entry.name, size)
        if stream.left or stream.behind:
            self.report.add(POLYGLOT, where, f"Bytes lie behind the end of what {where} unpacks to.")
        return done

    def link(self, entry: Entry, target: bytes) -> None:
        """Report a symbolic link."""
        link(self.report, entry.name, target.decode("utf-8", "replace"), entry.name)

    def passes(self, entry: Entry) -> bool:
        """Needs it no judging: a storage of tensors, an empty file or a folder?"""
        if not (entry.size if entry.method else entry.packed):
            return True
        return pytorch.is_storage(entry.name, self.names.keys()) and not pytorch.hides(self.head(entry))

    def head(self, entry: Entry) -> bytes:
        """The first bytes of the member that comes next, unpacked where it is deflated."""
        found = self.tape.peek(self.tape.at, min(entry.packed, 4096))
        try:
            return zlib.decompressobj(-15).decompress(found, 4096) if entry.method == 8 else found
        except zlib.error:
            return b""

    def descriptor(self, entry: Entry, upcoming: int, where: str) -> None:
        """The sizes and the checksum behind the data: with a signature or without, in 32 bits or 64."""
        forms = [
            sign + struct.pack(f"<I2{width}", entry.crc, entry.packed, entry.size)
            for sign in (b"PK\7\x08", b"")
            for width in ("I" if max(entry.packed, entry.size) <= 0xFFFFFFFF else "Q", "Q")
        ]
        ahead = self.tape.peek(self.tape.at, 24)
        fitting = [len(form) for form in forms if ahead.startswith(form)]
        if not fitting:
            self.report.add(DIFFERS, where, f"What stands behind {where} does not repeat its sizes and checksum.")
            return
        room = upcoming - self.tape.at
        self.tape.read(room if room in fitting else fitting[0])

    def close(self) -> None:
        """The directory and the end; then anything behind them."""
        tape = self.tape
        while tape.at < self.end.stop:
            tape.read(min(self.end.stop - tape.at, 1 << 20))
        if self.end.comment:
            self.comment(tape)
        if tape.left:
            self.report.add(POLYGLOT, tape.at, f"{tape.left} bytes lie behind the end of the archive.")
            self.report.nested(Window(tape, tape.left), f"bytes {tape.at} to {tape.size}")

    def comment(self, tape: Tape) -> None:
        """A comment is text, and no program in disguise either."""
        at, comment = tape.at, tape.read(self.end.comment)
        if not _is_text(comment):
            self.report.add(COMMENT, at)
        elif pickles.recognises(comment[:4096], MemoryTape(comment), "comment"):
            self.report.nested(MemoryTape(comment), "comment")


def _is_text(comment: bytes) -> bool:
    try:
        return comment.decode("utf-8").replace("\n", "").replace("\r", "").replace("\t", "").isprintable()
    except UnicodeDecodeError:
        return False


def _xz() -> Decoder:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_LOOKBACK)


def _lzma(tape: Tape, entry: Entry) -> tuple[Callable[[], Decoder], int | None]:
    """LZMA in a zip: two bytes of version, two of length, the five of the settings (APPNOTE.TXT 5.8)."""
    head = tape.read(min(9, entry.packed))
    if len(head) < 9 or head[2:4] != b"\5\0":
        raise Malformed(DIFFERS, tape.at, "The settings of an LZMA member are impossible.")
    try:
        options = lzma1_options(head[4:])
    except ValueError as fault:
        raise Malformed(DIFFERS, tape.at, f"An LZMA member cannot be unpacked: {fault}.") from None
    return lzma_raw(lzma.FILTER_LZMA1, **options), None if entry.flags & 2 else entry.size


# method -> what makes its decoder, and how much comes out where the packed bytes do not say so themselves
_DECODERS: dict[int, Callable[[Tape, Entry], tuple[Callable[[], Decoder], int | None]]] = {
    _DEFLATED: lambda tape, entry: (Inflate, None),
    _BZIP2: lambda tape, entry: (bzip2, None),
    _LZMA: _lzma,
    _XZ: lambda tape, entry: (_xz, None),
}
