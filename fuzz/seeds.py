"""The first inputs of every parser: whatever of the corpus of attack files and near-misses comes before it, members of
archives among them, and what the parsers' own tests judge. ``seeds.py FOLDER`` writes ``FOLDER/PARSER/kept`` and
``names.json``."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import check
import pytest

from freehold.scan import formats
from freehold.scan.base import Report
from freehold.scan.tape import Tape

PATIENCE = 120  # seconds for one file of the corpus
MOST_NAMES = 256
MOST_FROM_CORPUS, MOST_FROM_TESTS = 10_000, 300  # inputs of one parser; hypothesis makes many
TESTS = Path(__file__).parent.parent / "tests"

sys.path.insert(0, str(TESTS))

Seen = dict[str, set[tuple[bytes, str]]]


def main() -> int:
    """Judge the corpus with parsers that write down what they are given, run the tests likewise, and keep that."""
    seen: Seen = {name: {(b"", "file")} for name in check.parsers()}
    parsers = formats.SCANNERS
    formats.SCANNERS = tuple(_recorder(module, seen, MOST_FROM_CORPUS) for module in parsers)
    signal.signal(signal.SIGALRM, _enough)
    with tempfile.TemporaryDirectory() as folder:
        from assets.corpus import build

        build(Path(folder))
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and not path.is_symlink():
                signal.alarm(PATIENCE)
                _judge(path)
                signal.alarm(0)
    tested: Seen = {name: set() for name in seen}
    formats.SCANNERS = tuple(_recorder(module, tested, MOST_FROM_TESTS) for module in parsers)
    with contextlib.redirect_stdout(io.StringIO()):  # whether they pass is not what is asked here
        pytest.main(["-q", "-p", "no:cacheprovider", *map(str, sorted(TESTS.glob("test_scan_*.py")))])
    for name, found in seen.items():
        _write(Path(sys.argv[1]) / name, found | tested[name])
        print(f"{name}: {len(found)} seeds of the corpus, {len(tested[name])} of the tests")
    return 0


def _recorder(module: ModuleType, seen: Seen, most: int) -> ModuleType:
    """The parser again, as a module that writes down what it scans."""
    name = module.__name__.rpartition(".")[2]
    recorder = ModuleType(module.__name__)
    recorder.__dict__.update(vars(module))

    def scan(tape: Tape, report: Report) -> None:
        if tape.size <= check.LONGEST and len(seen[name]) < most:
            seen[name].add((tape.peek(0, tape.size), report.name))
        module.scan(tape, report)

    recorder.scan = scan
    return recorder


def _judge(path: Path) -> None:
    file, scratch = os.open(path, os.O_RDONLY), os.memfd_create("scratch")
    try:
        formats.judge(file, os.fstat(file).st_size, path.name, scratch=scratch)
    finally:
        os.close(file)
        os.close(scratch)


def _write(work: Path, found: set[tuple[bytes, str]]) -> None:
    for folder in ("kept", "found"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    listed = work / "names.json"
    names = json.loads(listed.read_text()) if listed.exists() else []  # what was kept before counts on their order
    names = [*names, *sorted({name for _, name in found} - set(names))][:MOST_NAMES]
    listed.write_text(json.dumps(names))
    for content, name in found:
        data = content + bytes([names.index(name) if name in names else 0])
        (work / "kept" / hashlib.sha1(data).hexdigest()).write_bytes(data)


def _enough(*_: object) -> None:
    raise TimeoutError(f"more than {PATIENCE} s")


if __name__ == "__main__":
    sys.exit(main())
