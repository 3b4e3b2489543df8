"""The fuzzer's own judge: a parser that does wrong is noticed, and one that does right is not."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "fuzz"))

import check

from freehold.scan import formats


def kinds(monkeypatch, scan) -> list[str]:
    """What is said of a parser of which this is the scan function."""
    parser = SimpleNamespace(FORMAT="pretended", recognises=lambda head, tape, name: True, scan=scan)
    monkeypatch.setattr(formats, "SCANNERS", (parser,))
    return [one.kind.partition(":")[0] for one in check.complaints(b"twelve bytes", "name")]


def test_a_parser_that_reads_to_the_end_is_in_order(monkeypatch):
    """Nothing is said of a parser that reads its bytes and no more."""
    assert kinds(monkeypatch, lambda tape, report: tape.read(tape.size)) == []


def test_what_is_left_unread_is_in_order(monkeypatch):
    """Bytes that a parser leaves are unjudged, which is no fault of its own."""
    assert kinds(monkeypatch, lambda tape, report: tape.read(3)) == []


def test_an_exception_is_noticed(monkeypatch):
    """A parser that gives up by an exception of its own is noticed."""
    assert kinds(monkeypatch, lambda tape, report: {}["nothing"]) == ["scan.fault"]


def test_a_byte_counted_twice_is_noticed(monkeypatch):
    """Bytes that do not add up are noticed."""

    def scan(tape, report):
        tape.read(tape.size)
        tape.parsed += 1

    assert kinds(monkeypatch, scan) == ["accounting"]


def test_a_huge_allocation_is_noticed(monkeypatch):
    """Memory by a length that nobody checked is noticed, whether or not it can be had."""
    assert kinds(monkeypatch, lambda tape, report: bytes(1 << 60)) == ["scan.limit"]
    monkeypatch.setattr(check, "GROWTH", 8 << 20)
    assert kinds(monkeypatch, lambda tape, report: tape.read(tape.size) * (1 << 25)) == ["memory"]


def test_a_slow_parser_is_noticed(monkeypatch):
    """Processor time past the limit is noticed."""
    monkeypatch.setattr(check, "SLOW", 0.001)
    assert kinds(monkeypatch, lambda tape, report: sum(range(1_000_000))) == ["slow"]


def test_a_file_that_is_opened_is_noticed(monkeypatch):
    """A parser that opens a file, which the seal would not let it, is noticed."""
    assert kinds(monkeypatch, lambda tape, report: Path(__file__).open().close()) == ["outside"]


def test_a_late_import_is_noticed(monkeypatch):
    """A module imported while a file is judged, which the seal would not let it be, is noticed."""
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    assert kinds(monkeypatch, lambda tape, report: __import__("colorsys")) == ["outside"]


@pytest.mark.parametrize("name", sorted(check.parsers()))
def test_every_parser_is_in_order_on_nothing(monkeypatch, name):
    """Every parser takes, or leaves, a file without a byte and a file of a few."""
    monkeypatch.setattr(formats, "SCANNERS", formats.SCANNERS)
    check.ask_first(check.parsers()[name])
    assert check.complaints(b"", "file") == check.complaints(b"\0" * 64, "file") == []
