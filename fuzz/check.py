"""What must hold whatever the bytes are: no exception escapes, no parser gives up, every byte is accounted for, the
digest is that of the bytes, nothing is imported, opened or run, and time and memory stay small.

As a script: ``check.py PARSER FOLDER`` looks at every kept input of a fuzzed parser again, outside the fuzzer, and
prints as JSON what it took; ``check.py PARSER FILE NAME`` looks at one file.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from freehold.scan import child, formats
from freehold.scan.tape import MemoryTape
from freehold.types import Judged

LONGEST = 64 << 10  # bytes of an input
SLOW = 5.0  # seconds of processor time for one of these
GROWTH = 128 << 20  # bytes that one of these may add to the process's largest size
REPLAYED = 5000  # inputs that are looked at again
_HEAD = 4096
_WRONG = ("scan.fault", "scan.limit", "scan.changed")  # nobody writes to the file: each of these is our own fault
_OUTSIDE = ("import", "open", "exec", "marshal.", "pickle.", "subprocess.", "os.exec", "os.fork",
            "os.posix_spawn", "os.system", "socket.", "ctypes.")  # fmt: skip
_heard: list[str] | None = None  # what the interpreter did of these, while somebody listens


class Complaint(NamedTuple):
    """What does not hold. ``kind`` is the same for the same fault, whatever the input."""

    kind: str
    says: str


def parsers() -> dict[str, ModuleType]:
    """Every parser there is, by its module's name."""
    return {module.__name__.rpartition(".")[2]: module for module in formats.SCANNERS}


def ask_first(parser: ModuleType) -> None:
    """Put one parser before all others, so that what it knows goes to it."""
    formats.SCANNERS = (parser, *(other for other in formats.SCANNERS if other is not parser))


def known(parser: ModuleType, content: bytes, name: str) -> bool:
    """Does the parser take these bytes for its own?"""
    return bool(parser.recognises(content[:_HEAD], MemoryTape(content), name))


def complaints(content: bytes, name: str) -> list[Complaint]:
    """Judge a file of these bytes, and say what should not be."""
    before, begun = _largest(), time.process_time()
    try:
        judged, heard = _listening(content, name)
    except Exception as fault:  # noqa: BLE001 - this is what we are here for
        return [Complaint(f"escaped: {type(fault).__name__} in {_line(fault)}", f"{type(fault).__name__}: {fault}")]
    took, grown = time.process_time() - begun, _largest() - before
    ours = [found for found in judged.findings if found.rule in _WRONG]
    return [
        *(Complaint(f"{found.rule}: {found.meaning}"[:300], found.where) for found in ours),
        *(Complaint(f"outside: {event}", "the sealed process could not do this") for event in heard[:1]),
        *_account(judged, content),
        *([Complaint("slow", f"{took:.1f} s for {len(content)} bytes")] if took > SLOW else []),
        *([Complaint("memory", f"{grown >> 20} MiB more for {len(content)} bytes")] if grown > GROWTH else []),
    ]  # fmt: skip


def _account(judged: Judged, content: bytes) -> Iterator[Complaint]:
    spans = judged.unjudged
    total = judged.parsed + judged.data + sum(span.end - span.start for span in spans)
    if total != len(content):
        yield Complaint("accounting: sum", f"{total} bytes are accounted for, of {len(content)}")
    edges = [edge for span in spans for edge in (span.start, span.end)]
    if edges != sorted(edges) or any(not 0 <= edge <= len(content) for edge in edges):
        yield Complaint("accounting: order", f"the unjudged parts overlap or lie outside: {spans[:5]}")
    if judged.digest not in ("", "sha256:" + hashlib.sha256(content).hexdigest()):
        yield Complaint("digest", f"{judged.digest} is not the digest of these bytes")


def _listening(content: bytes, name: str) -> tuple[Judged, list[str]]:
    global _heard
    _heard = heard = []
    try:
        return _judge(content, name), heard
    finally:
        _heard = None


def _hear(event: str, arguments: tuple) -> None:
    if _heard is not None and event.startswith(_OUTSIDE):
        _heard.append(f"{event} {arguments[0] if arguments else ''}"[:200])


for _codec in child._CODECS:  # the sealed process has them when it begins
    codecs.lookup(_codec)
sys.addaudithook(_hear)


def _judge(content: bytes, name: str) -> Judged:
    file, scratch = os.memfd_create("input"), os.memfd_create("scratch")
    try:
        os.write(file, content)
        return formats.judge(file, len(content), name, scratch=scratch)
    finally:
        os.close(file)
        os.close(scratch)


def _largest() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _line(fault: BaseException) -> str:
    trace = fault.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_name}, line {trace.tb_lineno}" if trace else "nowhere"


def split(content: bytes, names: list[str]) -> tuple[bytes, str]:
    """An input of the fuzzer: the bytes of a file, and one byte that says which of the known names it has."""
    return content[:-1], names[content[-1] % len(names)] if content else names[0]


def names_of(work: Path) -> list[str]:
    """The names that a parser's files may have."""
    return json.loads((work / "names.json").read_text())


def replay(parser: ModuleType, work: Path) -> dict:
    """Look at the kept inputs again: how many there are, the slowest, the largest size, and what should not be."""
    names, slowest, wrong = names_of(work), 0.0, {}
    inputs = sorted((work / "kept").iterdir())[:REPLAYED]
    for path in inputs:
        content, name = split(path.read_bytes(), names)
        begun = time.process_time()
        if known(parser, content, name):
            wrong |= {one.kind: one.says for one in complaints(content, name)}
        slowest = max(slowest, time.process_time() - begun)
    return {"inputs": len(inputs), "slowest_s": round(slowest, 3), "peak_mb": _largest() >> 20, "wrong": wrong}


def main() -> int:
    """Read what to look at, look, print."""
    parser, path = parsers()[sys.argv[1]], Path(sys.argv[2])
    ask_first(parser)
    if path.is_dir():
        print(json.dumps(replay(parser, path)))
        return 0
    found = complaints(path.read_bytes(), sys.argv[3])
    print(json.dumps([one._asdict() for one in found]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
