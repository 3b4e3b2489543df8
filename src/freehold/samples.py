"""Recorded calls: the only reader and writer of a house's traffic.

A call is kept once: a second one that asks exactly the same is a duplicate, because it would say nothing new in a test
and would stand on both sides of a split. Where the incumbent answered it anew, that answer is kept as the first one's
``rerun``, from which the incumbent's own noise is known.

Splits are by time and never cut a group: groups in the order of their first call, the earliest to tuning, the next to
validation, the latest to certification. They are worked out anew as calls come in, until `Samples.fix` lays them down;
calls that come later wait for the next round (`Samples.renew`).

Where there is a key (`cipher`), what holds text is encrypted: a call's content and group, and why a line was skipped.
Each row says with which key, so that a home can be encrypted while it is used (`Samples.reseal`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from freehold.errors import BadTraffic, StoreFailed
from freehold.store import Store, cause
from freehold.store.cipher import PLAIN, Ring, Sealer
from freehold.store.sealed import Key, adopt, check, opened, otherwise, reseal, sealed
from freehold.store.traffic import imports, samples, sealing, skips
from freehold.types import Import, Outline, Sample, Split, Task, Unusable

ORDER_ONLY = 1e8  # an ``at`` below it (1973) is a place in an order, and no time of this world
_PAGE = 500  # rows at once, so that memory stays bounded
_COMPLETED = ("content", "group", "request", "sealed", "answer", "has_expected", "incumbent")
_SAMPLE: Key = ("samples", "task", "id")
_SKIP: Key = ("skips", "import", "line")
_CONTENT = tuple(samples.c[name] for name in ("task", "id", "content", "sealed"))
_WITH_IMPORT = samples.outerjoin(imports, samples.c["import"] == imports.c.id)
_CAME = func.coalesce(imports.c.at, samples.c.at)
_AGAIN = "See to the disk, then give the same command: it removes what is left."
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
    """The recorded calls in one store, by task; ``ring`` has the keys that they are encrypted with.

    Whatever reads or writes a text raises WrongKey where its key is not in the ring; nothing is changed then.
    """

    def __init__(self, store: Store, ring: Ring | None = None):
        self._store = store
        self._ring = ring or Ring()

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
                sealer = adopt(connection, self._ring)
                kept = _keep(connection, self._ring, of.task, placed, of.id)
                lost = [*skipped, *kept.clashes]
                rows = [_skip_row(sealer, of.id, found, False) for found in lost]
                rows += [_skip_row(sealer, of.id, found, True) for found in kept.duplicates]
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
                adopt(connection, self._ring)
                return _keep(connection, self._ring, task, placed, "")
        except self._store.errors as error:
            raise StoreFailed(f"Captured calls cannot be written: {cause(error)}.") from None

    def imports(self, task: str) -> list[Import]:
        """What came in for a task, oldest first."""
        with self._store.reader() as connection:
            rows = connection.execute(select(imports).where(imports.c.task == task).order_by(imports.c.at))
            return [Import(**row) for row in rows.mappings()]

    def skipped(self, import_id: str, *, duplicates: bool = False) -> Iterator[Unusable]:
        """The lines of an import that were not kept, in their order, with the reason."""
        wanted = select(skips).where(skips.c["import"] == import_id, skips.c.duplicate.is_(duplicates))
        with self._store.reader() as connection:
            for row in connection.execute(wanted.order_by(skips.c.line)).mappings():
                yield Unusable(row["line"], opened(self._ring, row, "reason", _SKIP))

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
        wanted = select(*(samples.c[name] for name in (*_OUTLINE, "task", "sealed"))).where(samples.c.task == task)
        with self._store.reader() as connection:
            rows = connection.execute(wanted.order_by(samples.c.at, samples.c.id)).mappings()
            return [self._outline(row) for row in rows]

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
                wanted = select(*_CONTENT).where(samples.c.task == task, samples.c.id.in_(ids[start : start + _PAGE]))
                rows = connection.execute(wanted).mappings()
                found |= {sample.id: sample for sample in (_sample(self._ring, row) for row in rows)}
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

    def remove(self, task: str, ids: Sequence[str]) -> int:
        """Remove these calls of a task, all or none. Returns how many. Raises StoreFailed; see `erase`."""
        gone = 0
        try:
            with self._store.write() as connection:
                for start in range(0, len(ids), _PAGE):
                    these = (samples.c.task == task) & samples.c.id.in_(ids[start : start + _PAGE])
                    gone += connection.execute(delete(samples).where(these)).rowcount
        except self._store.errors as error:
            raise StoreFailed(f"Recorded calls cannot be erased: {cause(error)}.", hint=_AGAIN) from None
        return gone

    def forget(self, task: str, before: float | None = None) -> None:
        """Remove why lines of a task's imports were skipped, and what files they were: of all imports; or, where there
        is a time, of those before it, and only why. Raises StoreFailed."""
        these = imports.c.task == task
        these = these if before is None else these & (imports.c.at < before)
        try:
            with self._store.write() as connection:
                connection.execute(delete(skips).where(skips.c["import"].in_(select(imports.c.id).where(these))))
                if before is None:
                    connection.execute(delete(imports).where(these))
        except self._store.errors as error:
            raise StoreFailed(f"Imports cannot be forgotten: {cause(error)}.", hint=_AGAIN) from None

    def older(self, task: str, before: float) -> list[str]:
        """The ids of the calls that came into the house before a time: when they were made, or when they were
        imported."""
        with self._store.reader() as connection:
            wanted = select(samples.c.id).select_from(_WITH_IMPORT).where(samples.c.task == task, before > _CAME)
            return list(connection.execute(wanted).scalars())

    def oldest(self) -> dict[str, float]:
        """When the first call of each task came into the house, of those that are there."""
        wanted = select(samples.c.task, func.min(_CAME).label("at")).select_from(_WITH_IMPORT).group_by(samples.c.task)
        with self._store.reader() as connection:
            return {row.task: row.at for row in connection.execute(wanted)}

    def chosen(self, task: str, *, caller: str | None = None, before: float | None = None) -> list[str]:
        """The ids of the calls that `erase` would remove."""
        with self._store.reader() as connection:
            return list(connection.execute(select(samples.c.id).where(_chosen(task, caller, before))).scalars())

    # encrypted

    def key(self) -> str | None:
        """The name of the key that is in use; None where none was used yet."""
        with self._store.reader() as connection:
            return connection.execute(select(sealing.c.key)).scalar()

    def ready(self) -> None:
        """Use the ring's key, if none was used yet. Raises WrongKey where another is in use, StoreFailed."""
        try:
            with self._store.reader() as connection:
                known = check(connection, self._ring)
            if known is None and self._ring.writes.id:
                with self._store.write() as connection:
                    adopt(connection, self._ring)
        except self._store.errors as error:
            raise StoreFailed(f"Recorded calls cannot be read: {cause(error)}.", hint="See to the disk.") from None

    def take_key(self) -> None:
        """From now on the ring's key is the one to write with."""
        with self._store.write() as connection:
            connection.execute(delete(sealing))
            adopt(connection, self._ring)

    def unsealed(self) -> int:
        """How many calls are not encrypted with the ring's key."""
        with self._store.reader() as connection:
            wanted = select(func.count()).select_from(samples).where(otherwise(samples, self._ring))
            return connection.execute(wanted).scalar_one()

    def reseal(self) -> Iterator[int]:
        """Encrypt what another key encrypted, or none, with the ring's; gives how many rows each step did. Broken off,
        it goes on where it stopped. Raises WrongKey, StoreFailed."""
        yield from reseal(self._store, self._ring, samples, _SAMPLE, ("content", "group"), self._digested)
        yield from reseal(self._store, self._ring, skips, _SKIP, ("reason",))

    def _digested(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What else of a row depends on the key: the digest of its question."""
        return {"request": self._ring.writes.digest(_asked(msgspec.json.decode(row["content"], type=Sample)))}

    def _outline(self, row: Mapping[str, Any]) -> Outline:
        facts = {name: row[name] for name in _OUTLINE} | {"split": row["split"] and Split(row["split"])}
        return Outline(**facts | {"group": opened(self._ring, row, "group", _SAMPLE)})

    def _read(self, task: str, only: ColumnElement[bool] | None) -> Iterator[Sample]:
        """Samples by time, a page at a time."""
        wanted = select(samples.c.at, *_CONTENT).where(samples.c.task == task)
        if only is not None:
            wanted = wanted.where(only)
        wanted = wanted.order_by(samples.c.at, samples.c.id).limit(_PAGE)
        with self._store.reader() as connection:
            page = connection.execute(wanted).all()
            while page:
                yield from (_sample(self._ring, row._mapping) for row in page)
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


def request_digest(sample: Sample, sealer: Sealer = PLAIN) -> str:
    """The digest of what was asked: two calls with the same one are the same question."""
    return sealer.digest(_asked(sample))


def _asked(sample: Sample) -> bytes:
    return msgspec.json.encode([sample.kind, sample.request], order="deterministic")


def _keep(connection: Connection, ring: Ring, task: str, placed: Sequence[Placed], import_id: str) -> Kept:
    rows, duplicates, clashes = [], [], []
    by_request, by_id = _there(connection, ring, task, [found.sample for found in placed])
    for line, sample in ((found.line, found.sample) for found in placed):
        asked = request_digest(sample)
        if first := by_request.get(asked):
            by_request[asked] = _completed(connection, ring, task, first, sample)
            duplicates.append(Unusable(line, f"asks exactly what {first.id} asks"))
        elif sample.id in by_id:
            clashes.append(Unusable(line, f"its id {sample.id} belongs to another call"))
        else:
            by_request[asked] = sample
            by_id.add(sample.id)
            rows.append(asked)
    if rows:  # as they are now: a later one of these may have been an earlier one's rerun
        connection.execute(insert(samples), [_row(ring.writes, task, by_request[asked], import_id) for asked in rows])
    return Kept(len(rows), tuple(duplicates), tuple(clashes))


def _there(connection: Connection, ring: Ring, task: str, new: Sequence[Sample]) -> tuple[dict[str, Sample], set[str]]:
    """Those of the task's calls that ask what some new ones ask, by the plain digest of that, and the new ids that are
    taken."""
    by_request: dict[str, Sample] = {}
    by_id: set[str] = set()
    for start in range(0, len(new), _PAGE):
        some = new[start : start + _PAGE]
        asked = samples.c.request.in_([digest for sample in some for digest in ring.digests(_asked(sample))])
        same = connection.execute(select(*_CONTENT).where(samples.c.task == task, asked)).mappings()
        there = [_sample(ring, row) for row in same]
        by_request |= {request_digest(sample): sample for sample in there}
        taken = select(samples.c.id).where(samples.c.task == task, samples.c.id.in_([sample.id for sample in some]))
        by_id |= set(connection.execute(taken).scalars())
    return by_request, by_id


def _completed(connection: Connection, ring: Ring, task: str, first: Sample, again: Sample) -> Sample:
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
    row = {name: value for name, value in _row(ring.writes, task, both, "").items() if name in _COMPLETED}
    connection.execute(update(samples).where(same).values(row))
    return both


def _row(sealer: Sealer, task: str, sample: Sample, import_id: str) -> dict[str, Any]:
    row = {
        "task": task,
        "id": sample.id,
        "at": sample.at,
        "group": sample.group or sample.id,
        "request": request_digest(sample, sealer),
        "incumbent": sample.incumbent,
        "caller": sample.caller,
        "import": import_id,
        "prompt": len(msgspec.json.encode(sample.request.get("messages", sample.request))),
        "answer": len(sample.answer.text) if sample.answer else 0,
        "has_expected": sample.expected is not None,
        "content": msgspec.json.encode(sample),
    }
    return sealed(sealer, row, _SAMPLE, ("content", "group"))


def _skip_row(sealer: Sealer, import_id: str, found: Unusable, duplicate: bool) -> dict[str, Any]:
    row = {"import": import_id, "line": found.line, "reason": found.reason, "duplicate": duplicate}
    return sealed(sealer, row, _SKIP, ("reason",))


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


def _sample(ring: Ring, row: Mapping[str, Any]) -> Sample:
    return msgspec.json.decode(opened(ring, row, "content", _SAMPLE), type=Sample)
