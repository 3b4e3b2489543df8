"""Recorded calls: the only reader and writer of a house's traffic.

A call is kept once: a second one that asks exactly the same is a duplicate, because it would say nothing new in a test
and would stand on both sides of a split. Where the incumbent answered it anew, that answer is kept as the first one's
``rerun``, from which the incumbent's own noise is known.

Splits are by time and never cut a group: groups in the order of their first call, the earliest to tuning, the next to
validation, the latest to certification. They are worked out anew as calls come in, until `Samples.fix` lays them down;
calls that come later wait for the next round (`Samples.renew`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, Row, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from freehold.errors import BadTraffic, StoreFailed
from freehold.store import Store, cause
from freehold.store.traffic import imports, samples, skips
from freehold.types import Import, Outline, Sample, Split, Task, Unusable

ORDER_ONLY = 1e8  # an ``at`` below it (1973) is a place in an order, and no time of this world
_PAGE = 500  # rows at once, so that memory stays bounded
_COMPLETED = ("content", "answer", "has_expected", "incumbent")
_OUTLINE = ("id", "at", "group", "split", "prompt", "answer", "has_expected", "incumbent")


class Kept(Struct, frozen=True):
    """What became of some samples: how many were kept, and which were duplicates or clashed, by their line."""

    kept: int
    duplicates: tuple[Unusable, ...]
    clashes: tuple[Unusable, ...]


class Placed(Struct, frozen=True):
    """A sample with the line of the file that it stood on, from 1."""

    line: int
    sample: Sample


class Samples:
    """The recorded calls in one store, by task."""

    def __init__(self, store: Store):
        self._store = store

    # coming in

    def begin(self, found: Import) -> None:
        """Note that a file is coming in."""
        with self._store.write() as connection:
            connection.execute(insert(imports).values(**msgspec.structs.asdict(found)))

    def add(
        self,
        of: Import,
        placed: Sequence[Placed],
        skipped: Sequence[Unusable] = (),
        *,
        line: int,
        sensitive: Mapping[str, int] | None = None,
    ) -> Import:
        """Keep what an import found up to ``line``, in one transaction, so that one which is cut off goes on behind
        the last line that was kept. Returns the import as it is then.

        Raises:
            StoreFailed: the disk is full, or the database cannot be written. Nothing of these was kept.
        """
        try:
            with self._store.write() as connection:
                kept = _keep(connection, of.task, placed, of.id)
                lost = [*skipped, *kept.clashes]
                rows = [_skip_row(of.id, found, False) for found in lost]
                rows += [_skip_row(of.id, found, True) for found in kept.duplicates]
                if rows:
                    connection.execute(insert(skips), rows)
                now = msgspec.structs.replace(
                    of, line=line, kept=of.kept + kept.kept, duplicates=of.duplicates + len(kept.duplicates),
                    skipped=of.skipped + len(lost), sensitive=dict(Counter(of.sensitive) + Counter(sensitive or {})),
                )  # fmt: skip
                connection.execute(update(imports).where(imports.c.id == of.id).values(_progress(now)))
                return now
        except SQLAlchemyError as error:
            raise StoreFailed(
                f"Recorded calls cannot be written: {cause(error)}.",
                hint="Free space where the home is, then give the same command: it goes on where it stopped.",
            ) from None

    def finish(self, of: Import) -> Import:
        """Note that an import came to its end."""
        done = msgspec.structs.replace(of, done=True)
        with self._store.write() as connection:
            connection.execute(update(imports).where(imports.c.id == of.id).values(_progress(done)))
        return done

    def keep(self, task: str, captured: Sequence[Sample]) -> Kept:
        """Keep calls that were captured. Raises StoreFailed."""
        placed = [Placed(line, sample) for line, sample in enumerate(captured, start=1)]
        try:
            with self._store.write() as connection:
                return _keep(connection, task, placed, "")
        except self._store.errors as error:
            raise StoreFailed(f"Captured calls cannot be written: {cause(error)}.") from None

    def imports(self, task: str) -> list[Import]:
        """What came in for a task, oldest first."""
        with self._store.reader() as connection:
            rows = connection.execute(select(imports).where(imports.c.task == task).order_by(imports.c.at))
            return [Import(**row) for row in rows.mappings()]

    def skipped(self, import_id: str, *, duplicates: bool = False) -> Iterator[Unusable]:
        """The lines of an import that were not kept, in their order, with the reason."""
        wanted = select(skips.c.line, skips.c.reason).where(
            skips.c["import"] == import_id, skips.c.duplicate.is_(duplicates)
        )
        with self._store.reader() as connection:
            for row in connection.execute(wanted.order_by(skips.c.line)):
                yield Unusable(row.line, row.reason)

    # looking

    def counts(self) -> dict[str, int]:
        """How many calls each task has."""
        with self._store.reader() as connection:
            return {
                row.task: row.calls
                for row in connection.execute(
                    select(samples.c.task, func.count().label("calls")).group_by(samples.c.task)
                )
            }

    def outlines(self, task: str) -> list[Outline]:
        """Every call of a task without its text, by time."""
        wanted = select(*(samples.c[name] for name in _OUTLINE)).where(samples.c.task == task)
        with self._store.reader() as connection:
            rows = connection.execute(wanted.order_by(samples.c.at, samples.c.id)).mappings()
            return [Outline(**dict(row) | {"split": row["split"] and Split(row["split"])}) for row in rows]

    def splits(self, task: Task) -> dict[str, Split]:
        """Where each call of a task belongs: as laid down, or as it would be now. Calls that came after a split was
        laid down are in none."""
        outlines = self.outlines(task.name)
        fixed = {outline.id: outline.split for outline in outlines if outline.split is not None}
        return fixed or divide(outlines, task.tuning, task.validation)

    def of_split(self, task: Task, split: Split | None = None) -> Iterator[Sample]:
        """The calls of a split, or of the whole task, by time. Of certification calls only the current round's."""
        if split is None:
            yield from self._read(task.name, None)
            return
        current = self.round(task.name)
        if current:
            found = samples.c.split == split.value
            now = found & (samples.c.round == current) if split is Split.CERTIFICATION else found
            yield from self._read(task.name, now)
            return
        wanted = {id for id, where in self.splits(task).items() if where is split}
        yield from (sample for sample in self._read(task.name, None) if sample.id in wanted)

    def get(self, task: str, ids: Iterable[str]) -> dict[str, Sample]:
        """Some calls by their ids."""
        found: dict[str, Sample] = {}
        ids = list(ids)
        with self._store.reader() as connection:
            for start in range(0, len(ids), _PAGE):
                wanted = select(samples.c.content).where(
                    samples.c.task == task, samples.c.id.in_(ids[start : start + _PAGE])
                )
                found |= {sample.id: sample for sample in map(_sample, connection.execute(wanted))}
        return found

    # splits laid down

    def round(self, task: str) -> int:
        """The current round of splits; 0 as long as none was laid down."""
        with self._store.reader() as connection:
            return connection.execute(select(func.max(samples.c.round)).where(samples.c.task == task)).scalar() or 0

    def fix(self, task: Task) -> int:
        """Lay the splits down, if they are not yet. Returns the round."""
        if current := self.round(task.name):
            return current
        with self._store.write() as connection:
            _assign(connection, task.name, self.splits(task), 1)
        return 1

    def renew(self, task: Task) -> int:
        """Begin another round: calls that came after the last one certify, if their group was not there before; what
        certified until now is for validation. Returns the round.

        Raises:
            BadTraffic: no such calls came.
        """
        current = self.round(task.name)
        outlines = self.outlines(task.name)
        if not current:
            raise BadTraffic(
                f"The splits of {task.name!r} are not laid down yet, so there is nothing to renew.",
                hint="They follow the calls that come in until something was certified or tuned on them.",
            )
        groups = {outline.group: outline.split for outline in outlines if outline.split is not None}
        fresh = {outline.id: outline.group for outline in outlines if outline.split is None}
        if all(group in groups for group in fresh.values()):
            raise BadTraffic(
                f"No group of calls came to {task.name!r} since its splits were laid down.",
                hint="Import or capture later calls; a certification needs calls that nothing was chosen on.",
            )
        used = samples.c.split == Split.CERTIFICATION.value
        with self._store.write() as connection:
            connection.execute(
                update(samples).where(samples.c.task == task.name, used).values(split=Split.VALIDATION.value)
            )
            _assign(connection, task.name, {id: _next(groups.get(group)) for id, group in fresh.items()}, current + 1)
        return current + 1

    def digest(self, task: Task, split: Split) -> str:
        """The digest of a split: of its calls' ids and contents."""
        found = hashlib.sha256()
        for sample in sorted(self.of_split(task, split), key=lambda sample: sample.id):
            found.update(hashlib.sha256(msgspec.json.encode(sample, order="deterministic")).digest())
        return "sha256:" + found.hexdigest()

    # going out

    def erase(self, task: str, *, caller: str | None = None, before: float | None = None) -> int:
        """Remove calls of a task: all, or a caller's, or those made before a time. Returns how many. What candidates
        made of them is for `Results.erase`, before this; `Store.scrub`, after it, clears the database's log."""
        with self._store.write() as connection:
            return connection.execute(delete(samples).where(_chosen(task, caller, before))).rowcount

    def chosen(self, task: str, *, caller: str | None = None, before: float | None = None) -> list[str]:
        """The ids of the calls that `erase` would remove."""
        with self._store.reader() as connection:
            return list(connection.execute(select(samples.c.id).where(_chosen(task, caller, before))).scalars())

    def _read(self, task: str, only: ColumnElement[bool] | None) -> Iterator[Sample]:
        """Samples by time, a page at a time."""
        wanted = select(samples.c.at, samples.c.id, samples.c.content).where(samples.c.task == task)
        if only is not None:
            wanted = wanted.where(only)
        wanted = wanted.order_by(samples.c.at, samples.c.id).limit(_PAGE)
        with self._store.reader() as connection:
            page = connection.execute(wanted).all()
            while page:
                yield from map(_sample, page)
                last = page[-1]
                behind = (samples.c.at > last.at) | ((samples.c.at == last.at) & (samples.c.id > last.id))
                page = connection.execute(wanted.where(behind)).all()


def divide(outlines: Sequence[Outline], tuning: float, validation: float) -> dict[str, Split]:
    """Which split each call belongs to, where ``outlines`` are by time: groups by their first call, as many to a
    split as come nearest to its share of the calls."""
    groups: dict[str, list[str]] = {}
    for outline in outlines:
        groups.setdefault(outline.group, []).append(outline.id)
    total, seen, found = len(outlines), 0, {}
    for ids in groups.values():
        middle = (seen + len(ids) / 2) / total  # a group goes where its middle falls
        split = Split.TUNING if middle < tuning else Split.VALIDATION
        split = Split.CERTIFICATION if middle >= tuning + validation else split
        found |= dict.fromkeys(ids, split)
        seen += len(ids)
    return found


def _chosen(task: str, caller: str | None, before: float | None) -> ColumnElement[bool]:
    chosen = samples.c.task == task
    if caller is not None:
        chosen &= samples.c.caller == caller
    if before is not None:
        chosen &= samples.c.at < before
    return chosen


def request_digest(sample: Sample) -> str:
    """The digest of what was asked: two calls with the same one are the same question."""
    asked = msgspec.json.encode([sample.kind, sample.request], order="deterministic")
    return "sha256:" + hashlib.sha256(asked).hexdigest()


def _keep(connection: Connection, task: str, placed: Sequence[Placed], import_id: str) -> Kept:
    rows, duplicates, clashes = [], [], []
    by_request, by_id = _there(connection, task, [found.sample for found in placed])
    for line, sample in ((found.line, found.sample) for found in placed):
        asked = request_digest(sample)
        if first := by_request.get(asked):
            by_request[asked] = _completed(connection, task, first, sample)
            duplicates.append(Unusable(line, f"asks exactly what {first.id} asks"))
        elif sample.id in by_id:
            clashes.append(Unusable(line, f"its id {sample.id} belongs to another call"))
        else:
            by_request[asked] = sample
            by_id.add(sample.id)
            rows.append((asked, sample))
    if rows:  # as they are now: a later one of these may have been an earlier one's rerun
        connection.execute(insert(samples), [_row(task, asked, by_request[asked], import_id) for asked, _ in rows])
    return Kept(len(rows), tuple(duplicates), tuple(clashes))


def _there(connection: Connection, task: str, new: Sequence[Sample]) -> tuple[dict[str, Sample], set[str]]:
    """Those of the task's calls that ask what some new ones ask, by what they ask, and the new ids that are taken."""
    by_request: dict[str, Sample] = {}
    by_id: set[str] = set()
    for start in range(0, len(new), _PAGE):
        some = new[start : start + _PAGE]
        asked = samples.c.request.in_([request_digest(sample) for sample in some])
        same = select(samples.c.request, samples.c.content).where(samples.c.task == task, asked)
        by_request |= {row.request: _sample(row) for row in connection.execute(same)}
        taken = select(samples.c.id).where(samples.c.task == task, samples.c.id.in_([sample.id for sample in some]))
        by_id |= set(connection.execute(taken).scalars())
    return by_request, by_id


def _completed(connection: Connection, task: str, first: Sample, again: Sample) -> Sample:
    """What a second record of the same question adds to the first: an answer or an expected one that it lacked, or, of
    the same incumbent, a second answer. What was laid down for a certification stays as it is."""
    both = first
    if first.answer is None and again.answer is not None:
        both = msgspec.structs.replace(both, answer=again.answer, incumbent=again.incumbent)
    elif first.id != again.id and first.rerun is None and first.incumbent == again.incumbent:
        both = msgspec.structs.replace(both, rerun=again.answer)
    if first.expected is None and again.expected is not None:
        both = msgspec.structs.replace(both, expected=again.expected)
    if both == first:
        return first
    same = (samples.c.task == task) & (samples.c.id == first.id) & samples.c.round.is_(None)
    row = {name: value for name, value in _row(task, "", both, "").items() if name in _COMPLETED}
    connection.execute(update(samples).where(same).values(row))
    return both


def _row(task: str, asked: str, sample: Sample, import_id: str) -> dict[str, Any]:
    return {
        "task": task,
        "id": sample.id,
        "at": sample.at,
        "group": sample.group or sample.id,
        "request": asked,
        "incumbent": sample.incumbent,
        "caller": sample.caller,
        "import": import_id,
        "prompt": len(msgspec.json.encode(sample.request.get("messages", sample.request))),
        "answer": len(sample.answer.text) if sample.answer else 0,
        "has_expected": sample.expected is not None,
        "content": msgspec.json.encode(sample),
    }


def _skip_row(import_id: str, found: Unusable, duplicate: bool) -> dict[str, Any]:
    return {"import": import_id, "line": found.line, "reason": found.reason, "duplicate": duplicate}


def _progress(of: Import) -> dict[str, Any]:
    names = ("line", "kept", "duplicates", "skipped", "sensitive", "done")
    return {name: getattr(of, name) for name in names}


def _assign(connection: Connection, task: str, splits: Mapping[str, Split], round: int) -> None:
    statement = update(samples).where(samples.c.task == task, samples.c.id == bindparam("of"))
    rows = [{"of": id, "to": split.value} for id, split in splits.items()]
    connection.execute(statement.values(split=bindparam("to"), round=round), rows)


def _next(before: Split | None) -> Split:
    """Where a new call goes: with its group, which certifies no more if it did; or, in a new group, to certify."""
    if before is None:
        return Split.CERTIFICATION
    return Split.VALIDATION if before is Split.CERTIFICATION else before


def _sample(row: Row) -> Sample:
    return msgspec.json.decode(row.content, type=Sample)
