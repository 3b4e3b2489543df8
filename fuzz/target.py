"""One parser under atheris: ``target.py PARSER WORK -FLAGS...``, where flags are libFuzzer's.

What should not be is written down beside its smallest input, and the fuzzer goes on; only a hang or too much memory
ends it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import atheris
import msgspec  # noqa: F401 - what is no parser stays as it is

import freehold.types

with atheris.instrument_imports(include=["freehold"]):
    import freehold.scan.formats  # noqa: F401

import check

MOST_KINDS = 40


def main() -> None:
    """Fuzz until libFuzzer's flags say that it is enough."""
    parser, work = check.parsers()[sys.argv[1]], Path(sys.argv[2])
    names, found, judged = check.names_of(work), work / "found", 0
    count = os.open(work / "judged", os.O_WRONLY | os.O_CREAT, 0o644)
    check.ask_first(parser)

    def one(data: bytes) -> int:
        nonlocal judged
        content, name = check.split(data, names)
        if not check.known(parser, content, name):
            return -1  # not kept
        judged += 1
        os.pwrite(count, str(judged).encode(), 0)
        for complaint in check.complaints(content, name):
            keep(found, complaint, content, name)
        return 0

    atheris.Setup([sys.argv[0], *sys.argv[3:]], one)
    atheris.Fuzz()


def keep(found: Path, complaint: check.Complaint, content: bytes, name: str) -> None:
    """Write a complaint down, if it is new or its input is smaller than that of the last of its kind."""
    place = found / f"{hashlib.sha256(complaint.kind.encode()).hexdigest()[:12]}.bin"
    if place.exists() and place.stat().st_size <= len(content):
        return
    if not place.exists() and len(list(found.glob("*.bin"))) >= MOST_KINDS:
        return
    place.write_bytes(content)
    place.with_suffix(".json").write_text(json.dumps(complaint._asdict() | {"name": name}))


if __name__ == "__main__":
    main()
