"""Programs among a model's files: native executables and libraries are blocked, byte code is held.

Formats: the ELF specification (gABI), Microsoft's PE format, Apple's Mach-O loader.h, the Java class file format, the
WebAssembly core specification, CPython's .pyc. They are recognised, never read: no finding would make them safe.
"""

from __future__ import annotations

import re
import struct

from freehold.scan.base import ASK, BLOCK, HOLD, Report, Rule, Tape

FORMAT = "executable"

NATIVE = Rule(
    "executable.native", BLOCK, "This is a program, not a model: whoever starts it gives it their machine.", ASK,
    "Freehold: weights are data",
)  # fmt: skip
LIBRARY = Rule(
    "executable.library", HOLD, "This is a library of native code, as custom operators are: loading it runs it.",
    "Build it from its source, or decide by name and reason.", "Freehold: weights are data",
)  # fmt: skip
BYTECODE = Rule(
    "executable.bytecode", HOLD, "This is compiled code, which nobody can read as it is.",
    "Ask the publisher for the source, or decide by name and reason.", "Freehold: weights are data",
)  # fmt: skip

_APE = (b"MZqFpD", b"jartsr='", b"APEDBG='")  # "actually portable": a shell, Windows and Unix all run it
_MACHO = {b"\xfe\xed\xfa\xce": ">", b"\xfe\xed\xfa\xcf": ">", b"\xce\xfa\xed\xfe": "<", b"\xcf\xfa\xed\xfe": "<"}
_SHARED, _INTERPRETER = 3, 3  # ELF: a shared object; the segment that names the program's loader


def recognises(head: bytes, tape: Tape, name: str) -> bool:
    """The magic number and a second sign."""
    return _kind(head, tape) is not None


def scan(tape: Tape, report: Report) -> None:
    """Say what it is. Its bytes are unjudged."""
    found = _kind(tape.peek(0, 4096), tape)
    if found is not None:
        rule, what = found
        report.format = what[0]
        report.add(rule, 0, f"{what[1]} {rule.meaning}")
    tape.skip(tape.left, "a program")


def _kind(head: bytes, tape: Tape) -> tuple[Rule, tuple[str, str]] | None:
    if head.startswith(_APE):
        return NATIVE, ("ape", "An actually portable executable, as a llamafile is one: a model inside a program.")
    if head[:4] == b"\x7fELF" and len(head) >= 20:
        return (LIBRARY if _library(head) else NATIVE), ("elf", "It is an ELF file.")
    if _windows(head, tape):
        return NATIVE, ("pe", "It is a Windows or DOS executable.")
    if _apple(head):
        return NATIVE, ("mach-o", "It is a Mach-O file.")
    if head[:4] == b"\xca\xfe\xba\xbe" and len(head) >= 10 and 45 <= int.from_bytes(head[6:8], "big") < 200:
        return BYTECODE, ("class", "It is a Java class.")
    if head[:8] == b"\0asm\1\0\0\0" or re.match(rb"dex\n0[0-9]{2}\0", head):
        return BYTECODE, ("bytecode", "It is WebAssembly or Android byte code.")
    if _pyc(head):
        return BYTECODE, ("pyc", "It is compiled Python.")
    return None


def _library(head: bytes) -> bool:
    """Is an ELF file a shared object without a start of its own, and without a loader that would start it?"""
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    if len(head) < (64 if wide else 52):
        return False
    kind, _, _, entry, table = struct.unpack_from(order + ("2HI2Q" if wide else "2H3I"), head, 16)
    size, count = struct.unpack_from(order + "2H", head, 54 if wide else 42)
    kinds = [head[at : at + 4] for at in range(table, table + size * count, size or 1)] if size >= 8 else []
    if kind != _SHARED or entry or any(len(found) < 4 for found in kinds):
        return False
    return struct.pack(order + "I", _INTERPRETER) not in kinds


def _windows(head: bytes, tape: Tape) -> bool:
    """MZ and, where it points, PE or one of its elders; or a DOS header that adds up."""
    if head[:2] != b"MZ" or len(head) < 64:
        return False
    if tape.peek(int.from_bytes(head[60:64], "little"), 4)[:2] in (b"PE", b"NE", b"LE", b"LX"):
        return True
    last, pages, _, header = struct.unpack_from("<4H", head, 2)
    return last < 512 and pages > 0 and 2 <= header <= pages * 32 and int.from_bytes(head[24:26], "little") >= 28


def _apple(head: bytes) -> bool:
    """One architecture, with a kind of file that there is; or a fat file of a few."""
    if head[:4] in _MACHO and len(head) >= 16:
        return 1 <= struct.unpack_from(_MACHO[head[:4]] + "I", head, 12)[0] <= 12
    return head[:4] in (b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf") and 0 < int.from_bytes(head[4:8], "big") < 45


def _pyc(head: bytes) -> bool:
    """CPython 3's magic number, then within 16 bytes the marshalled code object (type c, with or without a flag)."""
    if head[2:4] != b"\r\n" or not 3000 <= int.from_bytes(head[:2], "little") < 4000:
        return False
    return any(head[at : at + 1] in (b"c", b"\xe3") for at in (8, 12, 16))
