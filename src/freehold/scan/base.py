"""What every scanner is made of: rules, a report to write findings into, and the way to say that a file is broken.

A scanner is a module with three names:

- ``FORMAT``: what the format is called.
- ``recognises(head, tape, name) -> bool``: is this the format? ``head`` is the first 4 KiB, ``name`` the file's own
  name, which may support a guess but never makes one: content decides.
- ``scan(tape, report) -> None``: read the tape to its end and report. Whatever it leaves unread is unjudged, and
  holds the file. It may raise `Malformed`, and lets `Truncated` and `Oversized` of the tape pass.

Its rules are module constants of type `Rule`, from which the page of rules is made. `formats.py` lists the scanners in
the order in which they are asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from freehold.scan.tape import FileTape, MemoryTape, Tape
from freehold.types import Finding, Severity

NOTE, HOLD, BLOCK = Severity.NOTE, Severity.HOLD, Severity.BLOCK
MAX_FINDINGS = 200
MAX_DEPTH = 8
MAX_TEXT = 256 << 10  # bytes of a document that are kept for others to read
FETCH_AGAIN = "Fetch the file again from its publisher and compare the digest."
ASK = "Ask the publisher for the weights in a format without code (safetensors, GGUF), or decide by name and reason."


class Rule(Struct, frozen=True):
    """Something to look for: a stable id, what one finding asks for, what it means, what to do, where it is from."""

    id: str
    severity: Severity
    meaning: str
    remedy: str
    source: str


UNJUDGED = Rule(
    "scan.unjudged", HOLD, "Some bytes belong to nothing that could be parsed.",
    "Ask the publisher what they are; decide by name and reason.", "Freehold: what was not judged is never clean",
)  # fmt: skip
TRUNCATED = Rule("scan.truncated", BLOCK, "The file is cut off.", FETCH_AGAIN, "the format's own lengths")
CHANGED = Rule(
    "scan.changed", BLOCK, "The file was written to while it was read.",
    "Stop whoever writes to it, and scan again.", "Freehold: what is judged is what is hashed",
)  # fmt: skip
OVERSIZED = Rule(
    "scan.oversized", HOLD, "A part is larger than any sound file's.", FETCH_AGAIN, "Freehold: memory is bounded"
)
FAULT = Rule(
    "scan.fault", HOLD, "The parser gave up on this file.",
    "Report it with the file's digest; decide by name and reason.", "Freehold: a parser's fault is a finding",
)  # fmt: skip
LIMIT = Rule(
    "scan.limit", HOLD, "Judging the file took more time or memory than is allowed.",
    "Judge it on a machine with more of both, or decide by name and reason.", "Freehold: time and memory are bounded",
)  # fmt: skip
BOMB = Rule("scan.bomb", BLOCK, "It unpacks to far more than it is.", "Do not unpack it. Ask the publisher.", "CWE-409")
DEPTH = Rule(
    "scan.depth", HOLD, "Archives lie within archives, deeper than is looked.",
    "Unpack it and scan what is inside.", "Freehold: depth is bounded",
)  # fmt: skip
MANY = Rule(
    "scan.many", HOLD, "There are more findings than are listed.", "Mend what is listed and scan again.",
    "Freehold: a report is bounded",
)  # fmt: skip


class Malformed(Exception):
    """The file breaks a rule of its format, and cannot be read on. ``at`` is a byte offset or a place in words."""

    def __init__(self, rule: Rule, at: int | str, meaning: str = ""):
        super().__init__(meaning or rule.meaning)
        self.rule, self.at, self.meaning = rule, at, meaning


class Budget:
    """What one file may have unpacked, all nesting together, before it is called a bomb."""

    def __init__(self, size: int):
        self.unpacked = 0
        self.members = 0
        self._most = max(200 * size, 64 << 20)

    def spend(self, length: int, at: int | str) -> None:
        """Count unpacked bytes. Raises Malformed(BOMB) past 200 times the file's size (64 MiB at least)."""
        self.unpacked += length
        if self.unpacked > self._most:
            raise Malformed(BOMB, at, f"It unpacks to more than {self._most >> 20} MiB, 200 times what it is.")

    def member(self, at: int | str) -> None:
        """Count a member of an archive. Raises Malformed(BOMB) past 100,000."""
        self.members += 1
        if self.members > 100_000:
            raise Malformed(BOMB, at, "It holds more than 100,000 members.")


class Report:
    """What was found in one file, or in one member of it; a member's findings are its file's, with the way to it."""

    def __init__(
        self, name: str, dispatch: Callable[[Tape, Report], None], *, size: int, scratch: int | None = None,
    ):  # fmt: skip
        self.name = name  # without folders
        self.format = ""
        self.facts: dict[str, Any] = {}
        self.findings: list[Finding] = []
        self.budget = Budget(size)
        self.depth = 0
        self.scratch = scratch  # a file without a name to unpack into, for what is too large for memory
        self._file = name
        self._way: tuple[str, ...] = ()
        self._dispatch = dispatch
        self._seen: set[tuple[str, str, str]] = set()

    def add(self, rule: Rule, at: int | str = "", meaning: str = "", severity: Severity | None = None) -> None:
        """Write a finding down, once. ``at`` is a byte offset (within this member) or a place in words."""
        place = f"byte {at}" if isinstance(at, int) else at
        where = ", ".join(part for part in ("/".join(self._way), place) if part)
        meaning = " ".join((meaning or rule.meaning).split())[:1000]
        if (rule.id, where, meaning) in self._seen:
            return
        if len(self.findings) >= MAX_FINDINGS:  # what is not listed still counts for the verdict
            severity = severity or rule.severity
            rule, where, meaning = MANY, "", f"{MANY.meaning} One of them asks for {severity.value}."
            if (rule.id, where, meaning) in self._seen:
                return
        self._seen.add((rule.id, where, meaning))
        self.findings.append(
            Finding(rule.id, severity or rule.severity, self._file, where, meaning, rule.remedy, rule.source)
        )

    def nested(self, tape: Tape, name: str) -> Report:
        """Judge a member as the format that its content says it is, to its end. Gives the member's own report (its
        ``format`` and ``facts``); its findings are here already."""
        inner = Report.__new__(Report)
        inner.__dict__ = self.__dict__ | {
            "name": name.replace("\\", "/").rpartition("/")[2], "format": "", "facts": {}, "depth": self.depth + 1,
            "_way": (*self._way, name),
        }  # fmt: skip
        if inner.depth > MAX_DEPTH:
            inner.add(DEPTH)
            tape.skip(tape.left, "nested too deep")
        else:
            self._dispatch(tape, inner)
        if isinstance(tape, MemoryTape) and tape.unjudged:  # a window's are its file's own
            spans = ", ".join(f"{span.start} to {span.end} ({span.why})" for span in tape.unjudged[:3])
            inner.add(UNJUDGED, tape.unjudged[0].start, f"Bytes {spans} belong to nothing that could be parsed.")
        return inner

    def keep_text(self, name: str, text: str) -> None:
        """Keep a chat template: its hash whole, its text cut."""
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        self.facts.setdefault("templates", {})[name] = digest
        self.facts.setdefault("template_texts", {})[name] = text[: 64 << 10]


__all__ = [
    "ASK", "BLOCK", "BOMB", "FETCH_AGAIN", "HOLD", "MAX_TEXT", "NOTE", "UNJUDGED", "Budget", "FileTape", "Malformed",
    "MemoryTape", "Report", "Rule", "Tape",
]  # fmt: skip
