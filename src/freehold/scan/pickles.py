"""Pickles: told by what they do, run on a machine that does nothing (`machine.py`), held against a list (`globals.py`).

Several pickles one after the other are judged each; so are the arrays that joblib writes between (`joblib.py`).
"""

from __future__ import annotations

from typing import Any

from freehold.scan import joblib
from freehold.scan.base import HOLD, Malformed, MemoryTape, Report, Rule, Tape
from freehold.scan.globals import CODE, UNKNOWN, acts_at_once, is_infamous, is_plausible, names_ahead, shown
from freehold.scan.machine import Machine
from freehold.scan.picklereader import WINDOW
from freehold.scan.picklerules import (
    BUFFER,
    CALL,
    EXTENSION,
    FRAME,
    HIDDEN,
    LARGE,
    MALFORMED,
    PERSISTENT,
    PICKLE_BOMB,
)  # fmt: skip
from freehold.scan.tape import Oversized, Truncated, Window
from freehold.scan.values import Node

FORMAT = "pickle"
MAX_GLOBALS = 200  # names in the facts
MAX_PICKLES = 10_000  # in one file
AHEAD = 1 << 20  # bytes that are looked through for names where a trial fails
TRIAL = 4 << 20  # bytes that a pickle without a magic number may be tried on
_FIRST = frozenset(b"(])}IJKLMNSTUVXFGBCcP\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x95\x96\x82\x83\x84\x97")
BEHIND = Rule(
    "pickle.behind", HOLD, "More follows behind the end of what the format describes.",
    "Ask the publisher what it is; decide by name and reason.", "Freehold: what was not judged is never clean",
)  # fmt: skip
MANY = Rule(
    "pickle.many", HOLD, f"More than {MAX_PICKLES} pickles follow each other; the rest was not judged.",
    "Ask the publisher what it is; decide by name and reason.", "Freehold: what was not judged is never clean",
)  # fmt: skip
RULES = (BUFFER, CALL, CODE, EXTENSION, FRAME, HIDDEN, LARGE, MALFORMED, PERSISTENT, PICKLE_BOMB, UNKNOWN)


def recognises(head: bytes, tape: Tape, name: str) -> bool:
    """By the magic number of protocols 2 to 5 where sound instructions follow; else by what the first bytes do."""
    if len(head) < 2:
        return False
    if head[0] == 0x80:
        tried = try_on(head)
        return tried.goes_on(head, tape.left) or _is_named(name)
    return head[0] in _FIRST and _works(head, tape)


def scan(tape: Tape, report: Report) -> None:
    """Judge each pickle of the file. Facts: ``protocol``, ``pickles``, ``globals`` (sorted, the first 200); where they
    are PyTorch's also ``tensors``, ``parameters`` and ``storages`` ({key: bytes})."""
    run_all(tape, report)


def run_all(tape: Tape, report: Report) -> None:
    """Judge pickle after pickle for as long as one follows, then whatever else does."""
    made = 1
    run(tape, report)
    while tape.left and try_on(head := tape.peek(tape.at, WINDOW)).goes_on(head, tape.left):
        if made == MAX_PICKLES:
            report.add(MANY, tape.at)
            tape.skip(tape.left, MANY.meaning)
            break
        run(tape, report)
        made += 1
    report.facts["pickles"] = made
    behind(tape, report)


def behind(tape: Tape, report: Report) -> None:
    """Judge what follows an end, if anything does, as what it is; and say that it follows."""
    if not tape.left:
        return
    report.add(BEHIND, tape.at, f"{tape.left} bytes follow behind the end of the {report.format} structure.")
    while tape.left and not (ahead := tape.peek(tape.at, WINDOW)).strip(b"\0"):
        tape.skip(len(ahead), "zeros behind the end")
    zeros = len(ahead) - len(ahead.lstrip(b"\0")) if tape.left else 0
    tape.skip(zeros, "zeros behind the end")
    if tape.left:
        report.nested(Window(tape, tape.left), f"bytes from {tape.at}")


def run(tape: Tape, report: Report) -> Machine:
    """Judge one pickle, to its STOP: ``value`` is what it would make. Raises Malformed, Truncated and Oversized."""
    machine = Machine(tape, report, _array)
    try:
        machine.run()
    finally:
        _tell(machine, report)
    return machine


def _array(machine: Machine, node: Node) -> Any:
    return joblib.read(machine, node, would_run)


def would_run(head: bytes) -> bool:
    """Would it import an infamous name or call anything, as a pickle?"""
    tried = try_on(head)
    return tried.called or tried.infamous


def _tell(machine: Machine, report: Report) -> None:
    facts = report.facts
    facts["protocol"] = max(facts.get("protocol", 0), machine.protocol)
    facts["globals"] = sorted({*facts.get("globals", ()), *map(shown, machine.imported)})[:MAX_GLOBALS]
    if machine.storages:
        sizes = facts.setdefault("storages", {})
        sizes.update((found.key, found.count * found.width) for found in machine.storages.values())
        facts["tensors"] = facts.get("tensors", 0) + machine.tensors
        facts["parameters"] = facts.get("parameters", 0) + sum(found.count for found in machine.storages.values())


# --- is it one? ---------------------------------------------------------------------------------------------------


class Trial:
    """What became of a pickle that was tried: findings count for nothing here, only how far it came."""

    format = ""

    def __init__(self) -> None:
        self.ended = self.failed = self.called = self.infamous = False
        self.steps = self.kinds = 0  # instructions that it came through, and kinds of them
        self.end = 0  # the byte behind its STOP
        self.needs = 0  # bytes that it needs, where these were too few

    def add(self, rule: Rule, at: int | str = "", meaning: str = "") -> None:
        """Heard, and forgotten."""

    def goes_on(self, head: bytes, size: int) -> bool:
        """Is it a pickle, as far as these first bytes of ``size`` go?"""
        if self.ended or self.called or self.infamous or self.works:
            return True
        framed = head[:1] == b"\x80" and head[2:3] == b"\x95"
        return bool(self.needs) and (self.needs <= size or self.steps >= 4 or framed)

    @property
    def works(self) -> bool:
        """It came so far that it is no accident."""
        return self.steps >= 64 and self.kinds >= 4


def try_on(head: bytes) -> Trial:
    """Run what may be a pickle on these bytes."""
    trial, tape = Trial(), MemoryTape(head)
    machine = Machine(tape, trial, _array)
    try:
        machine.run()
        trial.ended, trial.end = True, tape.at
    except Truncated as fault:
        trial.needs = fault.at + fault.wanted
    except Malformed as fault:
        trial.failed, trial.called = True, fault.rule is not MALFORMED  # text breaks a rule, but makes no bomb
    except Oversized:
        trial.failed = True
    trial.steps, trial.kinds, trial.called = machine.steps, len(machine.used), trial.called or _has_called(machine)
    trial.infamous = any(is_infamous(*found) for found in machine.imported.values()) or acts_at_once(head)
    if trial.failed and not trial.infamous:
        trial.infamous = trial.steps > 2 and any(is_plausible(*found) for found in machine.imported.values())
    return trial


def _has_called(machine: Machine) -> bool:
    """Did it call what could be there? "(if so)" and an empty line are an INST, but no name has a bracket or is ''."""
    found = machine.imported.values()
    return machine.called and (not found or any(name and not set(" ()") & set(module) for module, name in found))


def _works(head: bytes, tape: Tape) -> bool:
    """Protocols 0 and 1 have no magic number. It is a pickle if it imports an infamous name, calls anything, ends where
    the file or another pickle does, comes so far that it is no accident, or breaks off with an infamous name ahead;
    text and tables stop at once."""
    tried, size = try_on(head), len(head)
    while tried.needs and not tried.works and size < min(tape.left, TRIAL):
        size = min(size * 16, TRIAL, tape.left)
        tried = try_on(tape.peek(tape.at, size))
    if tried.called or tried.infamous or tried.works:
        return True
    if not tried.ended and tried.steps > 1 and names_ahead(tape.peek(tape.at, min(tape.left, AHEAD))):
        return True
    if not tried.ended:
        return bool(tried.needs) and size < tape.left  # no text is one string of megabytes after sound instructions
    rest = tape.peek(tape.at + tried.end, WINDOW)
    return not rest or (rest[0] in _FIRST | {0x80} and try_on(rest).goes_on(rest, tape.left - tried.end))


def _is_named(name: str) -> bool:
    return name.lower().endswith((".pkl", ".pickle", ".p", ".pk", ".pt", ".pth", ".joblib", ".ckpt", ".dill"))
