"""Files that are one compressed stream: gzip, zlib (joblib's .z), bzip2, xz, lzma; zstd and lz4 are known and held.

Formats: RFC 1952, RFC 1950, bzip2, the .xz file format 1.2.1, the LZMA SDK's lzma.txt, RFC 8878, the LZ4 frame format.
Streams that follow each other are one content, as every reader has it. What is unpacked is judged as a member.
"""

from __future__ import annotations

import lzma
import re
import zlib
from collections.abc import Callable

from msgspec import Struct

from freehold.scan.base import BLOCK, HOLD, Malformed, Report, Rule, Tape
from freehold.scan.unpack import BROKEN, LOOKBACK, MAX_LOOKBACK, Decoder, Inflate, Stream, bzip2, judge

FORMAT = "compressed"
_ENDINGS = (".gz", ".gzip", ".bz2", ".xz", ".lzma", ".zlib", ".z")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
_TRIAL = 1 << 16  # bytes that the start of a stream is unpacked to, to see whether it is one

TRAILING = Rule(
    "compressed.trailing", BLOCK, "Bytes follow the end of the compressed data and belong to nothing.",
    "Do not load it. Ask the publisher what they are.", "CWE-436: readers pass over them, or do not",
)  # fmt: skip
NO_DECODER = Rule(
    "compressed.decoder", HOLD, "The file is compressed in a way that is not read here, so nobody has looked inside.",
    "Unpack it and scan what is inside, or ask the publisher for gzip or xz.", "RFC 8878 (zstd); the LZ4 frame format",
)  # fmt: skip


class _Kind(Struct, frozen=True):
    """One way to compress: whether bytes begin so, what unpacks it, and what a next stream looks like."""

    name: str
    begins: Callable[[bytes], bool]
    decoder: Callable[[], Decoder] | None
    padding: bytes = b""  # what may stand between streams and behind the last


def _magic(*starts: bytes) -> Callable[[bytes], bool]:
    """Do bytes begin with one of these? A short rest may be the start of one."""
    return lambda found: any(found.startswith(start) or start.startswith(found) for start in starts)


def _zlib(found: bytes) -> bool:
    """A window of 32 KiB at most, no dictionary, the check on both bytes (RFC 1950 2.2), and it unpacks."""
    if len(found) < 2 or found[0] & 15 != 8 or found[0] >> 4 > 7 or found[1] & 32 or ((found[0] << 8) | found[1]) % 31:
        return False
    return _unpacks(Inflate(15), found)


def _alone(found: bytes) -> bool:
    """The settings, a dictionary of 2^n or 2^n + 2^(n-1) bytes, a size that can be, a zero, and it unpacks."""
    if len(found) < 14 or found[0] >= 225 or found[13]:
        return False
    lookback, size = int.from_bytes(found[1:5], "little"), int.from_bytes(found[5:13], "little")
    if lookback < 4096 or (size not in range(1, 1 << 38) and size != (1 << 64) - 1):
        return False
    if lookback.bit_count() > 2 or (lookback.bit_count() == 2 and not lookback & (lookback << 1)):
        return False
    return lookback > MAX_LOOKBACK or _unpacks(_lzma(), found)


def _bzip2(found: bytes) -> bool:
    """The level, then the magic number of a block or of the end."""
    blocks = (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")
    return _magic(*(b"BZh%d%b" % (level, block) for level in range(1, 10) for block in blocks))(found)


def _unpacks(decoder: Decoder, found: bytes) -> bool:
    """To 32 bytes or to the end, before any fault: what is damaged further on is damaged, and not something else."""
    if _is_text(found[:256]):
        return False  # "XGBoost" and "x^2" begin like streams
    unpacked = 0
    try:
        for at in range(0, len(found), 64):
            unpacked += len(decoder.decompress(found[at : at + 64], _TRIAL))
            if unpacked >= 32 or decoder.eof:
                return True
    except (zlib.error, lzma.LZMAError):
        pass
    return False


def _is_text(found: bytes) -> bool:
    try:
        found.decode("utf-8")
    except UnicodeDecodeError as fault:
        if fault.start < len(found) - 3:
            return False
    return not _CONTROL.search(found)


def _lzma() -> Decoder:
    return lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MAX_LOOKBACK)


def _xz() -> Decoder:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_LOOKBACK)


_SKIPPABLE = tuple(bytes([byte]) + b"\x2a\x4d\x18" for byte in range(0x50, 0x60))
KINDS = (
    _Kind("gzip", _magic(b"\x1f\x8b\x08"), lambda: Inflate(31), b"\0"),
    _Kind("bzip2", _bzip2, bzip2),
    _Kind("xz", _magic(b"\xfd7zXZ\0"), _xz, b"\0"),
    _Kind("zstd", _magic(b"\x28\xb5\x2f\xfd", *_SKIPPABLE), None),
    _Kind("lz4", _magic(b"\x04\x22\x4d\x18", b"\x02\x21\x4c\x18"), None),
    _Kind("zlib", _zlib, lambda: Inflate(15)),
    _Kind("lzma", _alone, _lzma),
)


def _kind(head: bytes) -> _Kind | None:
    return next((kind for kind in KINDS if len(head) >= 6 and kind.begins(head)), None)


def recognises(head: bytes, tape: Tape, name: str) -> bool:
    """The magic number of one of them; zlib and lzma have none, and must begin to unpack."""
    return _kind(head) is not None


def scan(tape: Tape, report: Report) -> None:
    """Unpack and judge what comes out. Facts: ``inside``, the format of what was unpacked."""
    kind = _kind(tape.peek(0, 4096))
    if kind is None:
        raise Malformed(BROKEN, 0)
    report.format = kind.name
    if kind.decoder is None:
        report.add(NO_DECODER, 0, f"The file is compressed as {kind.name}, which is not read here.")
        tape.skip(tape.left, "compressed in a way that is not read here")
        return
    _check_memory(kind, tape)
    stream = Stream(tape, tape.left, kind.decoder, report, lambda found: _follows(kind, found))
    done = judge(stream, report, _inside(report.name))
    if done.report is not None:
        report.facts["inside"] = done.report.format
    if stream.behind or stream.left:
        count, start = len(stream.behind) + stream.left, tape.at - len(stream.behind)
        report.add(TRAILING, start, f"{count} bytes follow the end of the {kind.name} data and belong to nothing.")


def _check_memory(kind: _Kind, tape: Tape) -> None:
    """Of what says how much it needs in its first bytes; xz's decoder finds out for itself."""
    lookback = int.from_bytes(tape.peek(1, 4), "little")
    if kind.name == "lzma" and lookback > MAX_LOOKBACK - (1 << 20):
        raise Malformed(LOOKBACK, 1, f"Unpacking it needs {lookback >> 20} MiB of memory at once.")


def _follows(kind: _Kind, found: bytes) -> bytes | None:
    """The next stream without the padding before it; None where what follows is none."""
    rest = found.lstrip(kind.padding) if kind.padding else found
    return rest if not rest or kind.begins(rest) else None


def _inside(name: str) -> str:
    """What the file is called once it is unpacked: model.tar of model.tgz, data.pkl of data.pkl.gz."""
    if name.lower().endswith(".tgz"):
        return name[:-4] + ".tar"
    return next((name[: -len(end)] for end in _ENDINGS if name.lower().endswith(end) and len(name) > len(end)), name)
