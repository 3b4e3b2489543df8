"""Archives written by hand, sound and broken, and one file judged: what the tests of the containers stand on.

Whatever is called a payload is inert: the header of a program, never one, and nothing is ever loaded or run.
"""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from dataclasses import dataclass, field

from freehold.scan import formats
from freehold.types import Judged, Severity


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


PNG = (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">2I5B", 1, 1, 8, 0, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(b"\0\0"))
    + chunk(b"IEND")
)  # a picture: what nobody objects to
PROGRAM = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<2HI", 2, 62, 1) + bytes(100)  # a payload, which is always found


def judge(content: bytes, name: str = "x", *, scratch: bool = True) -> Judged:
    """One file judged, every byte of it accounted for, and nothing left behind in the scratch file."""
    with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as room:
        file.write(content)
        file.flush()
        found = formats.judge(file.fileno(), len(content), name, scratch=room.fileno() if scratch else None)
        assert os.fstat(room.fileno()).st_size == 0
    assert found.parsed + found.data + sum(span.end - span.start for span in found.unjudged) == len(content)
    assert found.digest.startswith("sha256:") and "scan.fault" not in rules(found), found.findings
    return found


def rules(found: Judged) -> set[str]:
    """The rules that found something."""
    return {finding.rule for finding in found.findings}


def blocked(found: Judged) -> set[str]:
    """The rules that block."""
    return {finding.rule for finding in found.findings if finding.severity is Severity.BLOCK}


def deflated(content: bytes) -> bytes:
    """Raw deflate."""
    state = zlib.compressobj(9, zlib.DEFLATED, -15)
    return state.compress(content) + state.flush()


@dataclass
class Member:
    """A member of a zip. ``local`` and ``central`` replace fields of the two headers by name; ``descriptor`` is the
    form of what stands behind the data: "signed", "bare" or "wide"."""

    name: str | bytes = "a.png"
    content: bytes = PNG
    method: int = 0
    flags: int = 0
    mode: int = 0
    packed: bytes | None = None
    extra: bytes = b""  # of the local header
    more: bytes = b""  # of the directory's entry
    descriptor: str = ""
    before: bytes = b""  # bytes that belong to nothing
    local: dict = field(default_factory=dict)
    central: dict = field(default_factory=dict)

    def written(self, offset: int) -> tuple[bytes, bytes]:
        """The member with its header, and its entry in the directory."""
        raw = self.name.encode() if isinstance(self.name, str) else self.name
        packed = self.packed if self.packed is not None else self._pack()
        values = {
            "flags": self.flags | (8 if self.descriptor else 0), "method": self.method,
            "crc": zlib.crc32(self.content), "packed": len(packed), "size": len(self.content), "name": raw,
            "offset": offset + len(self.before),
        }  # fmt: skip
        later = {"crc": 0, "packed": 0, "size": 0} if self.descriptor else {}
        return (
            self.before + self._local(values | later | self.local) + packed + self._descriptor(values),
            self._central(values | self.central),
        )

    def _pack(self) -> bytes:
        return deflated(self.content) if self.method == 8 else self.content

    def _local(self, v: dict) -> bytes:
        head = struct.pack(
            "<4s5H3I2H", b"PK\3\4", 20, v["flags"], v["method"], 0, 33, v["crc"], v["packed"], v["size"],
            len(v["name"]), len(self.extra),
        )  # fmt: skip
        return head + v["name"] + self.extra

    def _central(self, v: dict) -> bytes:
        head = struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", 3 << 8 | 20, 20, v["flags"], v["method"], 0, 33, v["crc"], v["packed"],
            v["size"], len(v["name"]), len(self.more), 0, 0, 0, self.mode << 16, v["offset"],
        )  # fmt: skip
        return head + v["name"] + self.more

    def _descriptor(self, v: dict) -> bytes:
        sizes = v["crc"], v["packed"], v["size"]
        return {
            "": b"", "signed": b"PK\7\x08" + struct.pack("<3I", *sizes), "bare": struct.pack("<3I", *sizes),
            "wide": b"PK\7\x08" + struct.pack("<I2Q", *sizes),
        }[self.descriptor]  # fmt: skip


def zipped(
    *members: Member, prefix: bytes = b"", between: bytes = b"", comment: bytes = b"", suffix: bytes = b"",
    wide: bool | str = False, **end: int,
) -> bytes:  # fmt: skip
    """A zip. ``between`` stands before the directory; ``end`` replaces fields of the end by name."""
    body, directory = b"", b""
    for member in members:
        here, entry = member.written(len(body))
        body, directory = body + here, directory + entry
    body += between
    v = {"count": len(members), "length": len(directory), "offset": len(body)} | end
    tail = b""
    if wide:
        counts = v["count"], v["count"], v["length"], v["offset"]
        tail += struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, *counts)
        tail += struct.pack("<4sIQI", b"PK\6\7", 0, len(body) + len(directory), 1)
    v["count"] = min(v["count"], 0xFFFF)
    if wide == "full":
        v = {"count": 0xFFFF, "length": 0xFFFFFFFF, "offset": 0xFFFFFFFF}
    tail += struct.pack(
        "<4s4H2IH", b"PK\5\6", 0, 0, v["count"], v["count"], v["length"], v["offset"], len(comment)
    )  # fmt: skip
    return prefix + body + directory + tail + comment + suffix


def record(name: str = "a.png", size: int = 0, kind: bytes = b"0", target: str = "", **put: bytes) -> bytes:
    """A header of a tar. ``put`` sets bytes at places: ``at345=b"folder"``."""
    head = bytearray(512)
    fields = {
        0: name.encode(), 100: b"0000644\0", 108: b"0000000\0", 116: b"0000000\0", 124: b"%011o\0" % size,
        136: b"%011o\0" % 0, 148: b" " * 8, 156: kind, 157: target.encode(), 257: b"ustar\x0000",
    }  # fmt: skip
    for at, content in (fields | {int(at[2:]): content for at, content in put.items()}).items():
        head[at : at + len(content)] = content
    if "at148" not in put:
        head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def padded(content: bytes) -> bytes:
    """Filled to whole records."""
    return content + bytes(-len(content) % 512)


def filed(name: str, content: bytes = PNG, kind: bytes = b"0", **put: bytes) -> bytes:
    """A member of a tar."""
    return record(name, len(content), kind, **put) + padded(content)


def pax(kind: bytes = b"x", **pairs: str) -> bytes:
    """An extended header."""
    lines = b""
    for key, value in pairs.items():
        rest = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(rest) + 1
        length += len(str(length + len(str(length)) - 1)) - 1
        lines += str(length).encode() + rest
    return filed("pax", lines, kind)


END = bytes(1024)
