"""Bring a file of recorded calls in: in batches, each in one transaction, so that an import which was killed goes on
behind the last one when the same command is given again."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from freehold import said
from freehold.errors import BadTraffic, StoreFailed
from freehold.ledger import new_id
from freehold.names import shown
from freehold.said import Unfit
from freehold.samples import ORDER_ONLY, Placed, Samples
from freehold.traffic import batch, formats
from freehold.traffic.line import Format, Given, read, texts
from freehold.traffic.lines import Piece, Source
from freehold.traffic.watch import Look, Watch
from freehold.types import Answer, Import, Progress, Sample, Task, Unusable

LINES, BYTES = 500, 8 << 20  # of one batch, at most
HOPELESS = 1_000_000  # lines of which hardly one in a thousand is a call: this is no file of calls
SHOWN = 10
_DAY = 86_400.0
_HEAD_PIECES, _HEAD_BYTES = 50, 4 << 20


class Wish(Struct, frozen=True):
    """What the command asks for. ``file`` and ``answers`` are paths; ``-`` is standard input; ``incumbent`` and
    ``terms`` hold where a line does not say them."""

    file: str
    format: str = ""
    answers: str = ""
    incumbent: str = ""
    terms: str = ""


class Report(Struct, frozen=True):
    """What came of it. ``why`` says how the format was known, ``digest`` is of the file; ``went_on_behind`` is the line
    up to which an earlier run had come. What follows is of the lines that this run read: how many calls had no time,
    how many had several choices, and the first lines that hold each kind of what is sensitive."""

    done: Import
    why: str
    digest: str
    went_on_behind: int
    untimed: int
    several: int
    sensitive_lines: dict[str, tuple[int, ...]]


class _Entry(Struct, frozen=True):
    """A line that was read: a call, or the reason why it is none."""

    line: int
    size: int
    sample: Sample | None = None
    reason: str = ""
    several: bool = False


def bring_in(
    samples: Samples,
    task: Task,
    wish: Wish,
    *,
    by: str,
    look: Look | None = None,
    workers: int = 0,
    progress: Progress = lambda what, done, total: None,
    now: Callable[[], float] = time.time,
) -> Report:
    """Keep the calls in a file, and count every line that is none.

    ``look`` finds what is sensitive in a text; with ``workers`` it does so in other processes.

    Raises:
        BadTraffic: the file cannot be read, or its format is not known.
        StoreFailed: the disk is full. What was kept stays, and the same command goes on from there.
    """
    try:
        with ExitStack() as stack:
            return _Run(samples, task, wish, by, now, stack).run(stack.enter_context(Watch(look, workers)), progress)
    except sqlite3.Error as error:
        raise StoreFailed(
            f"The answers cannot be laid aside: {error}.", hint="Free space in the temporary folder."
        ) from None


class _Run:
    """One run of one import."""

    def __init__(self, samples: Samples, task: Task, wish: Wish, by: str, now: Callable[[], float], stack: ExitStack):
        self._samples, self._task, self._wish, self._stack = samples, task, wish, stack
        self._source = stack.enter_context(Source(wish.file))
        self._answers = stack.enter_context(Source(wish.answers)) if wish.answers else None
        found = wish.format or formats.whole(self._source.start)
        self._whole = found if found in formats.WHOLE else ""
        self._head, self._pieces = _begun(self._source) if not self._whole else ([], iter(()))
        if self._answers and any(map(batch.is_answer, self._head)):
            self._turn_round()
        self._name, self._why = self._format()
        self._of = self._begin(by, now())
        self._first = self._of.line
        self._given = Given(task, self._of.at, wish.incumbent, wish.terms or task.terms)
        self._base = min(self._place(), ORDER_ONLY // _DAY - 1) * _DAY
        self._untimed = self._several = 0
        self._lines: dict[str, list[int]] = {}

    def run(self, watch: Watch, progress: Progress) -> Report:
        """Everything that is not done yet."""
        waiting: deque[tuple[list[_Entry], Callable[[], list[frozenset[str]]]]] = deque()
        for entries in _batches(map(self._timed, self._entries())):
            waiting.append((entries, watch.begin([_text(entry) for entry in entries if entry.sample])))
            if len(waiting) > watch.ahead:
                self._keep(*waiting.popleft())
                progress("importing", self._source.done, self._source.size)
        for entries, kinds in waiting:
            self._keep(entries, kinds)
        progress("importing", self._source.size, self._source.size)
        done = self._samples.finish(self._of)
        first = {kind: tuple(found) for kind, found in self._lines.items()}
        return Report(done, self._why, self._source.digest, self._first, self._untimed, self._several, first)

    def _turn_round(self) -> None:
        """The two files of a batch were given the other way round; each is opened anew."""
        self._source = self._stack.enter_context(Source(self._wish.answers))
        self._answers = self._stack.enter_context(Source(self._wish.file))
        self._head, self._pieces = _begun(self._source)

    def _format(self) -> tuple[str, str]:
        wish = self._wish
        if wish.format and wish.format not in formats.NAMES:
            raise BadTraffic(
                f"There is no format {shown(wish.format)!r}.", hint=f"There are {', '.join(formats.NAMES)}."
            )
        if wish.format:
            found = wish.format, "it was asked for"
        elif self._whole:
            found = self._whole, f"it begins as a file of {self._whole} does"
        else:
            found = formats.recognise(self._head, wish.file)
        self._check_pair(found[0])
        return found

    def _check_pair(self, name: str) -> None:
        if name == batch.FORMAT and not self._answers:
            raise BadTraffic(
                "What a batch was asked is in one file, and what it answered in another.",
                hint="Give the second with --answers.",
            )
        if name != batch.FORMAT and self._answers:
            raise BadTraffic(
                f"{shown(self._wish.file)} is in the format {name}, which has no second file.",
                hint="--answers is for batches.",
            )

    def _begin(self, by: str, now: float) -> Import:
        """The import of this file with these words that was broken off, or else a new one."""
        wish, source, answers = self._wish, self._source, self._answers
        if not source.digest or (answers and not answers.digest):  # nothing to know it by
            key, earlier = new_id("im"), []
        else:
            words = [self._task.name, self._task.group, source.digest, answers.digest if answers else "", self._name]
            words += [wish.incumbent, wish.terms or self._task.terms]
            key = "im-" + hashlib.sha256(msgspec.json.encode(words)).hexdigest()[:24]
            earlier = [found for found in self._samples.imports(self._task.name) if found.id.startswith(key)]
        if earlier and not earlier[-1].done:
            return earlier[-1]
        found = Import(f"{key}-{len(earlier) + 1}", self._task.name, source.name, self._name, now, by)
        self._samples.begin(found)
        return found

    def _place(self) -> int:
        """Which of the task's imports this is: calls without a time come in the order of their files."""
        return [found.id for found in self._samples.imports(self._task.name)].index(self._of.id)

    def _entries(self) -> Iterator[_Entry]:
        if self._name in formats.WHOLE:
            yield from _whole(self._read_whole(), self._first, self._given.terms)
            return
        format = self._joined() if self._answers else formats.LINES[self._name]
        last = 0
        for piece in self._pieces:
            last = piece.line
            if last > self._first:
                yield _entry(piece, format, self._given)
            elif isinstance(format, batch.Batch):
                with suppress(Unfit):
                    format.passed(read(piece.content))
        if isinstance(format, batch.Batch):
            for line, reason in enumerate(format.left(), start=last + 1):
                if line > self._first:
                    yield _Entry(line, len(reason), reason=reason)

    def _read_whole(self) -> Iterator[Sample | Unusable]:
        """By a reader of its own, which opens the file itself."""
        if not self._source.digest:
            raise BadTraffic(f"{self._name} cannot be read from standard input.", hint="Give the file.")
        reader, path = importlib.import_module(formats.WHOLE[self._name]), Path(self._wish.file)
        more = {"incumbent": self._wish.incumbent} if self._name == "promptfoo" else {}
        return reader.read(path, group=self._task.group, **more)

    def _joined(self) -> batch.Batch:
        return self._stack.enter_context(closing(batch.Batch(self._answers)))

    def _timed(self, entry: _Entry) -> _Entry:
        """Where a call's time is not known, its line's number keeps the order."""
        if entry.sample is None or entry.sample.at:
            return entry
        self._untimed += 1
        at = self._base + entry.line / 1000
        return msgspec.structs.replace(entry, sample=msgspec.structs.replace(entry.sample, at=at))

    def _keep(self, entries: list[_Entry], kinds: Callable[[], list[frozenset[str]]]) -> None:
        placed = [Placed(entry.line, entry.sample) for entry in entries if entry.sample]
        skipped = [Unusable(entry.line, entry.reason) for entry in entries if not entry.sample]
        found: Counter[str] = Counter()
        for call, held in zip(placed, kinds(), strict=True):
            found.update(held)
            for kind in held:
                lines = self._lines.setdefault(kind, [])
                if len(lines) < SHOWN:
                    lines.append(call.line)
        self._several += sum(entry.several for entry in entries)
        self._of = self._samples.add(self._of, placed, skipped, line=entries[-1].line, sensitive=found)
        calls = self._of.kept + self._of.duplicates
        if self._of.line - self._first > HOPELESS and self._of.line > 1000 * calls:
            found = f"only {calls} were calls" if calls else "none is a call"
            raise BadTraffic(f"Of {self._of.line} lines of {shown(self._wish.file)} {found}.")


def _begun(source: Source) -> tuple[list[Any], Iterator[Piece]]:
    """The first documents of a file, and all of its pieces. Raises BadTraffic where there are none."""
    pieces = source.pieces()
    head, documents, held = [], [], 0
    for piece in itertools.islice(pieces, _HEAD_PIECES):
        head.append(piece)
        held += len(piece.content)
        with suppress(Unfit):
            documents += [] if piece.reason else [read(piece.content)]
        if held > _HEAD_BYTES:
            break
    if not head:
        raise BadTraffic(f"{shown(source.name)} is empty.")
    return documents, itertools.chain(head, pieces)


def _entry(piece: Piece, format: Format, given: Given) -> _Entry:
    if piece.reason:
        return _Entry(piece.line, len(piece.content), reason=piece.reason)
    try:
        document = read(piece.content)
        if not isinstance(document, dict):
            raise Unfit("is no object")
        if not format.recognises(document) and (other := formats.otherwise(document)):
            raise Unfit(f"is in another format ({other})")
        sample = format.sample(document, given)
    except Unfit as error:
        return _Entry(piece.line, len(piece.content), reason=str(error))
    return _Entry(piece.line, len(piece.content), sample, several=_had_several(document, format))


def _had_several(document: dict[str, Any], format: Format) -> bool:
    if isinstance(format, batch.Batch):
        return format.several
    return said.several(document.get("answer")) or said.several(document.get("output"))


def _whole(samples: Iterable[Sample | Unusable], behind: int, terms: str) -> Iterator[_Entry]:
    """What a reader of whole files finds; what it calls unusable keeps its reason."""
    for line, found in enumerate(samples, start=1):
        if line <= behind:
            continue
        if isinstance(found, Sample):
            call = msgspec.structs.replace(found, terms=found.terms or terms)
            yield _Entry(line, len(msgspec.json.encode(found.request)), call)
        else:
            yield _Entry(line, 0, reason=found.reason)


def _batches(entries: Iterable[_Entry]) -> Iterator[list[_Entry]]:
    held: list[_Entry] = []
    size = 0
    for entry in entries:
        held.append(entry)
        size += entry.size
        if len(held) >= LINES or size >= BYTES:
            yield held
            held, size = [], 0
    if held:
        yield held


def _text(entry: _Entry) -> str:
    """All that a call says, as one text."""
    call = entry.sample
    answers = [part for one in (call.answer, call.expected, call.rerun) if one for part in _parts(one)]
    return "\n".join([*texts(call.request), *answers])


def _parts(answer: Answer) -> list[str]:
    return [answer.text, *(call.arguments for call in answer.tools)]
