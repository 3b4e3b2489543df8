"""Pictures beside a model (PNG, JPEG, GIF, WebP): walked to their end, so that nothing rides behind them.

Formats: PNG, third edition (W3C); ITU-T T.81, annex B (JPEG); GIF89a; RFC 9649 (WebP). What is drawn is data under a
parsed header: no engine reads it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator

from freehold.scan.base import FETCH_AGAIN, HOLD, Malformed, Report, Rule, Tape
from freehold.scan.tape import Window

FORMAT = "image"
MAX_SEGMENTS = 10_000  # of a JPEG
_LOOK = 1 << 14

BROKEN = Rule("image.broken", HOLD, "The picture is damaged.", FETCH_AGAIN, "the picture format's own structure")
TRAILING = Rule(
    "image.trailing", HOLD, "Bytes follow the end of the picture: it may be something else to another reader.",
    "Leave the picture out, or ask the publisher what they are.", "CWE-436 (interpretation conflict)",
)  # fmt: skip

_PNG, _JPEG, _GIF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", (b"GIF87a", b"GIF89a")
_TYPE = re.compile(rb"[A-Za-z]{4}")
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # neither a stuffed byte, nor a fill byte, nor a restart


def recognises(head: bytes, tape: Tape, name: str) -> bool:
    """The magic number, and the first part as it must be."""
    return _walker(head) is not None


def scan(tape: Tape, report: Report) -> None:
    """Walk to the end of the picture, and say if anything follows."""
    walk = _walker(tape.peek(0, 32))
    if walk is None:
        raise Malformed(BROKEN, 0)
    report.format, walker = walk
    walker(tape)
    if tape.left:
        report.add(TRAILING, tape.at, f"{tape.left} bytes follow the end of the picture and belong to nothing.")
        report.nested(Window(tape, tape.left), f"bytes {tape.at} to {tape.size}")


def _walker(head: bytes) -> tuple[str, Callable[[Tape], None]] | None:
    if head.startswith(_PNG) and head[8:16] == b"\0\0\0\rIHDR":
        return "png", _png
    if head.startswith(_JPEG):
        return "jpeg", _jpeg
    if head.startswith(_GIF):
        return "gif", _gif
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP" and head[12:16] in (b"VP8 ", b"VP8L", b"VP8X"):
        return "webp", _webp
    return None


def _parts(tape: Tape, most: int = 1_000_000) -> Iterator[int]:
    """Where each part begins; gives up on a picture of too many."""
    for _ in range(most):
        yield tape.at
    raise Malformed(BROKEN, tape.at, f"The picture has more than {most:,} parts.")


def _png(tape: Tape) -> None:
    """Chunks of length, type, data and checksum, to IEND."""
    tape.read(len(_PNG))
    for at in _parts(tape):
        length, kind = int.from_bytes(tape.read(4), "big"), tape.read(4)
        if not _TYPE.fullmatch(kind) or length > tape.left:
            raise Malformed(BROKEN, at, f"A chunk of type {kind!r} and {length} bytes cannot be.")
        made = zlib.crc32(kind)

        def count(piece: memoryview) -> None:
            nonlocal made
            made = zlib.crc32(piece, made)

        tape.data(length, count)
        if int.from_bytes(tape.read(4), "big") != made:
            raise Malformed(BROKEN, at, f"The chunk {kind.decode()} has the wrong checksum.")
        if kind == b"IEND":
            return


def _jpeg(tape: Tape) -> None:
    """Segments of marker and length, scans to the next marker, to EOI."""
    tape.read(2)
    for at in _parts(tape, MAX_SEGMENTS):
        mark, kind = tape.read(2)
        for _ in range(255):  # fill bytes may stand before a marker
            kind = kind if kind != 0xFF else tape.read(1)[0]
        if mark != 0xFF or kind in (0x00, 0xD8, 0xFF):
            raise Malformed(BROKEN, at, f"There is no segment where one is due, but {mark:02x} {kind:02x}.")
        if kind == 0xD9:
            return
        if kind != 0x01 and not 0xD0 <= kind <= 0xD7:
            length = int.from_bytes(tape.read(2), "big")
            if length < 2:
                raise Malformed(BROKEN, at, f"A segment of {length} bytes cannot be.")
            tape.data(length - 2)
            if kind == 0xDA:
                _entropy(tape)


def _entropy(tape: Tape) -> None:
    """A scan's coded data, up to the next marker."""
    while tape.left:
        ahead = tape.peek(tape.at, _LOOK)
        found = _MARKER.search(ahead)
        if found:
            tape.data(found.start())
            return
        tape.data(max(len(ahead) - 1, 1))  # the last byte may be the first of a marker


def _gif(tape: Tape) -> None:
    """The screen, then blocks of pieces of 255 bytes at most, to the trailer."""
    screen = tape.read(13)
    _colours(tape, screen[10])
    parts = _parts(tape)
    for at in parts:
        kind = tape.read(1)
        if kind == b";":
            return
        if kind == b"!":
            tape.read(1)
        elif kind == b",":
            _colours(tape, tape.read(9)[8])
            tape.read(1)
        else:
            raise Malformed(BROKEN, at, f"A block of type {kind!r} cannot be.")
        while length := tape.read(1)[0]:
            next(parts)
            tape.data(length)


def _colours(tape: Tape, flags: int) -> None:
    if flags & 0x80:
        tape.data(3 << ((flags & 7) + 1))


def _webp(tape: Tape) -> None:
    """RIFF chunks of type, length and data, filled to an even length, to the length that RIFF says."""
    end = 8 + int.from_bytes(tape.read(12)[4:8], "little")
    for at in _parts(tape):
        if tape.at >= end:
            break
        kind, length = tape.read(4), int.from_bytes(tape.read(4), "little")
        if tape.at + length + length % 2 > end:
            raise Malformed(BROKEN, at, f"The chunk {kind!r} reaches past the end of the picture.")
        tape.data(length + length % 2)
