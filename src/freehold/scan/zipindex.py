"""A zip's table of contents: the end of the archive, the central directory before it, and whether there is but one.

Format: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 to 4.5. All of it is peeked at, as it stands behind the members; the
numbers are little-endian. Two readers that look for the end, or for the directory, in different ways must come to the
same members, or the archive is blocked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from msgspec import Struct

from freehold.scan.base import BLOCK, FETCH_AGAIN, HOLD, Malformed, Report, Rule, Tape
from freehold.scan.tape import Oversized

END_MAGIC, ENTRY_MAGIC = b"PK\5\6", b"PK\1\2"
_LOCATOR_MAGIC, _END64_MAGIC = b"PK\6\7", b"PK\6\6"
MAX_TAIL = 22 + 0xFFFF  # bytes from the end in which the end of the archive lies
MAX_DIRECTORY = 16 << 20
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_ZIP64, _UNICODE_NAME, _PADDING = 0x0001, 0x7075, 0x4246
# zip64, PyTorch's and Android's padding, Info-ZIP's names and times, NTFS, Unix, Java's mark (APPNOTE.TXT 4.5.2, 4.6)
_KNOWN_FIELDS = {
    _ZIP64, _PADDING, 0xD935, _UNICODE_NAME, 0x6375, 0x5455, 0x5855, 0x7855, 0x7875, 0x000A, 0x000D, 0xCAFE, 0x9901,
}  # fmt: skip
_FULL = 0xFFFFFFFF  # "see the zip64 field"

NO_END = Rule(
    "zip.end", BLOCK, "The archive has no end, or ends that disagree, so that readers see different members.",
    FETCH_AGAIN, "APPNOTE.TXT 4.3.16, 4.3.14",
)  # fmt: skip
DIRECTORY = Rule(
    "zip.directory", BLOCK, "The archive's table of contents is damaged.", FETCH_AGAIN, "APPNOTE.TXT 4.3.12"
)
DIFFERS = Rule(
    "zip.differs", BLOCK, "The archive says two things of one member, and readers disagree which of them counts.",
    "Do not load it. Ask the publisher for an archive that ordinary tools write.",
    "APPNOTE.TXT 4.3.7, 4.3.12; CVE-2025-1944 (GHSA-7q5r-7gvp-wc82)",
)  # fmt: skip
EXTRA = Rule(
    "zip.extra", HOLD, "A member's header carries bytes that belong to nothing.",
    "Ask the publisher what they are; decide by name and reason.", "APPNOTE.TXT 4.5",
)  # fmt: skip


class End(Struct, frozen=True):
    """Where the archive ends and its directory stands. ``prefix`` bytes lie before what it calls its start."""

    begin: int  # of the directory
    length: int  # of the directory
    count: int
    prefix: int
    stop: int  # where the comment begins
    comment: int  # bytes of it


class Entry(Struct, frozen=True):
    """One member, as the directory has it. ``offset`` counts from the start of the tape; ``at`` is the entry's own."""

    name: str
    raw: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    mode: int  # Unix mode, 0 where there is none
    at: int


def ends(tape: Tape, most: int = MAX_TAIL) -> bool:
    """Does the tape end as a zip does, with a directory that begins where its end says? Looks at ``most`` bytes."""
    try:
        found = find(tape, most)
    except (Malformed, Oversized):
        return False
    return found.stop + found.comment == tape.size and tape.peek(found.begin, 4) == ENTRY_MAGIC


def find(tape: Tape, most: int = MAX_TAIL) -> End:
    """The end of the archive, from the last place that says that it is one. Raises Malformed where that is unclear."""
    begin = max(tape.size - most, 0)
    tail = tape.peek(begin, most)
    last = tail.rfind(END_MAGIC, 0, max(len(tail) - 18, 0))
    if last < 0:
        raise Malformed(NO_END, tape.size, "The archive has no end: it is cut off.")
    at = begin + last
    _, disk, first, here, count, length, offset, comment = _END.unpack_from(tail, last)
    if at + 22 + comment > tape.size:
        raise Malformed(NO_END, at, "The archive's comment is longer than the file.")
    if _another(tail, last):
        raise Malformed(NO_END, at, "The archive ends in two places, one within the other's comment.")
    wide, stop = _wide(tape, at), at
    if wide is not None:
        (count, length, offset), stop = _agreed(wide, (here, count, length, offset), at), at - 76
    elif disk or first or here != count:
        raise Malformed(NO_END, at, "The archive is one part of several.")
    prefix = stop - length - offset
    if prefix < 0 or (wide and wide[3] + prefix != stop):
        raise Malformed(NO_END, at, "The archive's directory is not where its end says.")
    return End(stop - length, length, count, prefix, at + 22, comment)


def _another(tail: bytes, last: int) -> bool:
    """Does an earlier place say that it is the end, with a comment that reaches exactly to the end of the file?"""
    at = tail.find(END_MAGIC)
    while 0 <= at < last:
        if at + 22 + int.from_bytes(tail[at + 20 : at + 22], "little") == len(tail):
            return True
        at = tail.find(END_MAGIC, at + 1)
    return False


def _wide(tape: Tape, at: int) -> tuple[int, int, int, int] | None:
    """Members, length and offset by the zip64 record before the end at ``at``, and where that record says it is."""
    if at < 20 or tape.peek(at - 20, 4) != _LOCATOR_MAGIC:
        return None
    _, disk, claimed, disks = _LOCATOR.unpack(tape.peek(at - 20, 20))
    record = tape.peek(at - 76, 56) if at >= 76 else b""
    if len(record) != 56 or record[:4] != _END64_MAGIC or disk or disks > 1:
        raise Malformed(NO_END, at - 20, "The archive's zip64 end is not where it belongs.")
    _, size, _, _, disk, first, here, count, length, offset = _END64.unpack(record)
    if size != 44 or disk or first or here != count:
        raise Malformed(NO_END, at - 76, "The archive's zip64 end is impossible.")
    return count, length, offset, claimed


def _agreed(
    wide: tuple[int, int, int, int], narrow: tuple[int, int, int, int], at: int
) -> tuple[int, int, int]:  # fmt: skip
    count, length, offset, _ = wide
    for value, full, other in zip((count, count, length, offset), (0xFFFF, 0xFFFF, _FULL, _FULL), narrow, strict=True):
        if other not in (full, value):
            raise Malformed(NO_END, at, f"The archive's two ends disagree: {other} and {value}.")
    return count, length, offset


def entries(tape: Tape, end: End, report: Report) -> Iterator[Entry]:
    """The members by the directory, in its order. Raises Malformed, and Oversized for more than `MAX_DIRECTORY`."""
    if end.length > MAX_DIRECTORY:
        raise Oversized(end.begin, end.length)
    content, at = tape.peek(end.begin, end.length), 0
    if END_MAGIC in content:
        raise Malformed(NO_END, end.begin, "The archive's directory contains another end of the archive.")
    for _ in range(end.count):
        if content[at : at + 4] != ENTRY_MAGIC or at + 46 > end.length:
            raise Malformed(DIRECTORY, end.begin + at, "The directory holds fewer members than the archive says.")
        entry, length = _entry(content, at, end, report)
        report.budget.member(end.begin + at)
        yield entry
        at += length
    if at != end.length:
        raise Malformed(DIRECTORY, end.begin + at, "The directory goes on behind the last member.")


def _entry(content: bytes, at: int, end: End, report: Report) -> tuple[Entry, int]:
    (
        _, _, _, flags, method, _, _, crc, packed, size, names, extras, comments, disk, _, attributes, offset
    ) = _ENTRY.unpack_from(content, at)  # fmt: skip
    where, begin = end.begin + at, at + 46
    raw, extra = content[begin : begin + names], content[begin + names : begin + names + extras]
    length = 46 + names + extras + comments
    if at + length > end.length or disk:
        raise Malformed(DIRECTORY, where, "A member's entry reaches past the end of the directory.")
    size, packed, offset = fields(extra, raw, (size, packed, offset), where, report)
    name = decoded(raw, flags)
    return Entry(
        name, raw, flags, method, crc, packed, size, offset + end.prefix, attributes >> 16, where
    ), length  # fmt: skip


def decoded(raw: bytes, flags: int) -> str:
    """A member's name: UTF-8 where its flag says so or it is ASCII, else code page 437 (APPNOTE.TXT, appendix D)."""
    return raw.decode("utf-8", "surrogateescape") if flags & 0x800 else raw.decode("cp437")


def fields(extra: bytes, raw: bytes, values: tuple[int, ...], at: int, report: Report) -> tuple[int, ...]:
    """Look through a header's extra fields; give ``values`` with those that are full replaced by zip64's.

    Raises Malformed where they break off, or name the member anew.
    """
    found: dict[int, bytes] = {}
    begin = 0
    while begin + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, begin)
        content = extra[begin + 4 : begin + 4 + length]
        if len(content) < length or (kind in found and kind in (_ZIP64, _UNICODE_NAME)):
            raise Malformed(DIFFERS, at, "A member's extra fields break off, or say one thing twice.")
        found[kind] = content
        begin += 4 + length
    if unknown := [kind for kind in found if kind not in _KNOWN_FIELDS]:
        report.add(EXTRA, at, f"A member's header has a field of the unknown kind {unknown[0]:#06x}.")
    _check_fill(extra[begin:], found.get(_PADDING, b""), at, report)
    _check_name(found.get(_UNICODE_NAME, b""), raw, at, report)
    return _widened(values, found.get(_ZIP64), at, report)


def _check_fill(rest: bytes, padding: bytes, at: int, report: Report) -> None:
    """PyTorch aligns tensors with a field ``FB`` full of Z, Android's tools with bare zeros."""
    if rest.strip(b"\0") or len(set(padding)) > 1:
        report.add(EXTRA, at)


def _check_name(content: bytes, raw: bytes, at: int, report: Report) -> None:
    """Info-ZIP's Unicode name, which some readers prefer to the name itself."""
    if content and content[5:] != raw:
        meaning = f"Its name is {raw[:100]!r} to some readers and {content[5:105]!r} to others."
        report.add(DIFFERS, at, meaning, BLOCK if raw.isascii() else HOLD)


def _widened(values: tuple[int, ...], content: bytes | None, at: int, report: Report) -> tuple[int, ...]:
    full = sum(value == _FULL for value in values)
    if content is None:
        return values
    if len(content) < 8 * full:
        raise Malformed(DIFFERS, at, "A member's zip64 field is too short.")
    # PyTorch's local headers have one that nobody reads, as the sizes stand behind the data
    if len(values) == 3 and len(content) != 8 * full:
        report.add(EXTRA, at, "A member's zip64 field is longer than its entry has use for.")
    wide = iter(struct.unpack_from(f"<{full}Q", content))
    return tuple(next(wide) if value == _FULL else value for value in values)
