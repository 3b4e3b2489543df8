"""The walk along the chain: every event, every call's row beside the event that settled it, every checkpoint.

The events come a page at a time with their calls' rows, out of one snapshot. An event is good if it has the next
number, names the hash of the one before and has the hash of its content; a call's row is good if the detail of its
event is what `settled` makes of the row now. That no row is there without an event is seen by counting: a row names its
event and the event its row, so where there are as many of each, each has its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from heapq import merge
from operator import attrgetter
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, String, bindparam, cast, func, or_, select

from freehold import sign
from freehold.errors import CannotDo, ChainBroken
from freehold.ledger import checkpoint as checkpoints
from freehold.ledger import house as houses
from freehold.ledger.chain import GENESIS, SETTLED, Head, content, hashed, original
from freehold.ledger.settled import COLUMNS, Details
from freehold.store import Query, Store, calls, events
from freehold.store import house as house_table

REKEYED = "audit.rekeyed"
_PAGE = 2_000
_BEFORE_ALL = -(2**62)
_EVENT = 8  # columns
_DETAIL = cast(events.c.detail, String).label("text")
EVENT_COLUMNS = [_DETAIL if column is events.c.detail else column for column in events.columns]
_ID = _EVENT + COLUMNS.index("id")
_WALK = (
    select(*EVENT_COLUMNS, *(calls.columns[name] for name in COLUMNS), calls.c.event)
    .select_from(events.outerjoin(calls, (calls.c.id == events.c.subject) & (events.c.act == SETTLED)))
    .where(events.c.seq > bindparam("after"))
    .order_by(events.c.seq)
    .limit(_PAGE)
)

Told = Callable[[int, int], None]


class Verification(Struct, frozen=True):
    """What a walk found: whether all holds, the number and the hash of the last good event, and what is wrong.

    ``calls`` rows agree with their events; they are covered from event ``calls_from`` on, None where no server has
    started since version 0.6; ``earlier`` settled calls are from before that, and as they were then. ``signed`` is the
    number of the last event that a checkpoint signs, of so many ``checkpoints`` that were looked at; ``notes`` are
    what else there is to know.
    """

    holds: bool
    events: int
    head: str
    problem: str = ""
    calls: int = 0
    calls_from: int | None = None
    earlier: int = 0
    checkpoints: int = 0
    signed: int = 0
    notes: tuple[str, ...] = ()


class Mark(Struct, frozen=True):
    """A checkpoint to hold the chain against, and where it is from. ``key`` is the fingerprint of the key that signed
    it, where that is none of those that may; ``problem``: it is itself at fault."""

    events: int
    head: str
    at: float
    where: str
    home: str
    key: str = ""
    problem: str = ""


def verify(
    store: Store,
    *,
    keys: Sequence[str] | None = None,
    outside: Sequence[Mark] = (),
    since: Head | None = None,
    told: Told = lambda done, total: None,
) -> Verification:
    """Walk the chain.

    ``keys`` are the public keys that may have signed the home's own checkpoints; None: they are not looked at.
    ``outside`` are marks of checkpoints that were kept elsewhere. With ``since`` only the events after that head are
    walked, and calls are not counted. ``told`` hears how many events of how many are done.
    """
    kept = sorted(outside, key=attrgetter("events"))
    with store.snapshot() as connection:
        own = _own(connection, keys, since) if keys is not None else iter(())
        return _Walk(connection, merge(own, kept, key=attrgetter("events")), since, told).run()


_OPENED = ("id", "opened_at", "caller", "kind", "outcome", "left_the_house")  # what an open call has
_UNSAID = ("prompt_tokens", "completion_tokens", "cached_tokens")  # 0 as long as a call is open
_ODD = (
    select(calls.c.id)
    .where(
        calls.c.outcome.is_(None),
        or_(
            *(calls.c[name] != 0 for name in _UNSAID),
            *(calls.c[name].is_not(None) for name in COLUMNS if name not in (*_OPENED, *_UNSAID)),
        ),
    )
    .limit(1)
)


class _Broken(Exception):
    """The first thing that is wrong."""


class _Walk:
    """One walk, inside a snapshot."""

    def __init__(self, connection: Connection, marks: Iterator[Mark], since: Head | None, told: Told):
        self._connection, self._marks, self._told = connection, marks, told
        self._whole = since is None
        self._seq, self._head = since or (0, GENESIS)
        self._mark = next(marks, None)
        self._foreign: list[Mark] = []  # signed by a key that is not the home's now
        self._rekeyed: set[str] = set()
        self._calls = self._checkpoints = self._signed = self._earlier = 0
        self._began: tuple[int, dict[str, Any]] | None = None
        rows = connection.execute(select(house_table.c.id, house_table.c.salt).limit(2)).all()
        self._house = houses.House(*rows[0]) if rows else None
        self._many = len(rows) > 1
        self._details = None
        with suppress(ChainBroken):  # the event that binds the house says it better
            self._details = Details(self._house.salt) if self._house else None

    def run(self) -> Verification:
        """From the first event to the last, then the calls."""
        problem = ""
        try:
            if self._many:
                raise _Broken("the house has two rows, and was given one")
            self._events()
            self._rest()
            if self._whole:
                self._rows()
        except _Broken as error:
            problem = str(error)
        began = self._began[0] if self._began else None
        return Verification(
            not problem, self._seq, self._head, problem, self._calls, began, self._earlier, self._checkpoints,
            self._signed,
        )  # fmt: skip

    def _events(self) -> None:
        total = self._connection.execute(select(func.max(events.c.seq))).scalar() or 0
        query = Query(self._connection, _WALK)
        first = self._seq
        while self._mark is not None and self._mark.events < first:
            self._mark = next(self._marks, None)
        self._reached()
        after = _BEFORE_ALL if self._whole else self._seq
        while page := query.every(after=after):
            for row in page:
                self._event(row)
            after = page[-1][0]
            self._told(self._seq - first, total - first)

    def _event(self, row: tuple) -> None:
        seq, at, actor, act, subject, detail, previous, hash = row[:_EVENT]
        if seq != self._seq + 1:
            missing = f"event {self._seq + 1} is missing: after {self._seq} comes {seq}"
            raise _Broken(missing if seq > self._seq else f"event {seq} was inserted: the first has the number 1")
        if previous != self._head:
            raise _Broken(f"event {seq} does not follow event {seq - 1}: it names another predecessor")
        try:
            good = hashed(content(seq, at, actor, act, subject, detail, previous)) == hash
        except (TypeError, ValueError):
            good = False
        if not good and original(row[:_EVENT]) is None:
            raise _Broken(f"event {seq} ({act} {subject}) was changed: its hash does not fit its content")
        if act == SETTLED:
            self._call(row)
        elif act == houses.BEGAN:
            self._binds(seq, subject, json.loads(detail))
        elif act == REKEYED:
            self._rekeyed.add(json.loads(detail).get("from", ""))
        self._seq, self._head = seq, hash
        if self._mark is not None and self._mark.events <= seq:
            self._reached()

    def _call(self, row: tuple) -> None:
        """A call's row beside its event."""
        if self._details is None:
            raise _Broken(f"event {row[0]} settles a call, and the house's row is missing")
        if row[_ID] is None:
            raise _Broken(f"the call {row[4]} was removed: event {row[0]} settled it, and it has no row")
        try:
            text = self._details.text(row[_EVENT:-1])
        except (TypeError, ValueError, KeyError, AttributeError):
            text = ""
        if text != row[5] or row[-1] != row[0]:
            raise _Broken(f"the call {row[4]} was changed: {_difference(row, text)}")
        self._calls += 1

    def _binds(self, seq: int, home: str, detail: dict[str, Any]) -> None:
        if self._house is None:
            raise _Broken(f"event {seq} binds this home to its chain, and the house's row is missing")
        expected = houses.binding(self._house)
        if home != self._house.id or any(detail.get(name) != value for name, value in expected.items()):
            raise _Broken(f"the house's row was changed: event {seq} binds this home to its chain, and names another")
        self._began = (seq, detail)

    def _reached(self) -> None:
        """The chain has come as far as a checkpoint, or as several."""
        while (mark := self._mark) is not None and mark.events <= self._seq:
            self._mark = next(self._marks, None)
            self._marked(mark)

    def _marked(self, mark: Mark) -> None:
        if mark.problem:
            raise _Broken(mark.problem)
        if self._house is None or mark.home != self._house.id:
            raise _Broken(f"{mark.where} is of another home, {mark.home}")
        if mark.events != self._seq or mark.head != self._head:
            raise _Broken(
                f"event {mark.events} is not the one that {mark.where} signs: the chain was rewritten up to there"
            )
        if mark.key:
            self._foreign.append(mark)
        self._checkpoints, self._signed = self._checkpoints + 1, self._seq

    def _rest(self) -> None:
        """What there is of checkpoints beyond the end."""
        if (mark := self._mark) is not None:
            raise _Broken(
                mark.problem
                or f"the chain ends at event {self._seq}, and {mark.where} signs {mark.events} events: "
                f"the last {mark.events - self._seq} were cut off"
            )
        for mark in self._foreign if self._whole else ():
            if mark.key not in self._rekeyed:
                raise _Broken(f"{mark.where} is signed by {mark.key}, which is not this home's key and never was")

    def _rows(self) -> None:
        """The rows that no event led to."""
        named = select(func.count()).select_from(calls).where(calls.c.event.is_not(None))
        if self._connection.execute(named).scalar_one() != self._calls:
            raise _Broken(self._unsettled())
        if self._house is None:
            settled = select(func.count()).select_from(calls).where(calls.c.outcome.is_not(None))
            self._earlier = self._connection.execute(settled).scalar_one()
            return
        if (odd := self._connection.execute(_ODD).first()) is not None:
            raise _Broken(f"the call {odd.id} is open and says what only a settled one can: it was inserted or changed")
        if self._began is None:
            raise _Broken("no event binds this home to its chain, and it has a row of the house")
        seq, detail = self._began
        if self._details is None:
            raise _Broken("the house's row was changed: it has no salt any more")
        self._earlier, digest = houses.before(self._connection, self._details)
        if self._earlier != detail.get("calls"):
            what = f"there are {self._earlier} and were {detail.get('calls')}"
            raise _Broken(
                f"settled calls that name no event were inserted or removed: {what} when event {seq} was written"
            )
        if digest != detail.get("digest"):
            raise _Broken(f"calls from before event {seq} were changed: they are not what it says of them")

    def _unsettled(self) -> str:
        """The first row that names an event which does not settle it."""
        other = (events.c.seq.is_(None)) | (events.c.subject != calls.c.id) | (events.c.act != SETTLED)
        joined = calls.outerjoin(events, events.c.seq == calls.c.event)
        wanted = select(calls.c.id, calls.c.event).select_from(joined).where(calls.c.event.is_not(None) & other)
        row = self._connection.execute(wanted.order_by(calls.c.opened_at, calls.c.id).limit(1)).first()
        if row is None:
            return "there are more calls than events that settle one"
        return f"the call {row.id} was inserted: it names event {row.event}, which does not settle it"


def _difference(row: tuple, text: str) -> str:
    """In what a call's row and its event disagree."""
    said, now = json.loads(row[5]), json.loads(text) if text else None
    if now is None:
        return f"it has a value that its column cannot have, and event {row[0]} settled it"
    if names := sorted(name for name in said.keys() | now.keys() if said.get(name) != now.get(name)):
        shown = [f"{name} is {now.get(name)!r} and was {said.get(name)!r}" for name in names]
        return f"event {row[0]} settled it otherwise ({'; '.join(shown)})"
    return f"event {row[0]} settled it, and it names event {row[-1]}"


def _own(connection: Connection, keys: Sequence[str], since: Head | None) -> Iterator[Mark]:
    """The home's own checkpoints, as marks."""
    known = {sign.fingerprint(key): key for key in keys}
    for kept in checkpoints.every(connection, since[0] if since else 0):
        yield _mark(kept, known)


def _mark(kept: checkpoints.Kept, known: dict[str, str]) -> Mark:
    where = f"the checkpoint of event {kept.seq}"
    try:
        named = sign.fingerprint(kept.key)
        found = checkpoints.opened(kept.envelope.encode(), [kept.key])
        if (found.events, found.at) != (kept.seq, kept.at):
            raise CannotDo("it signs another event, or another time.")
        return Mark(found.events, found.head, found.at, where, found.home, "" if named in known else named)
    except (CannotDo, ValueError, TypeError, AttributeError) as error:
        return Mark(kept.seq, "", 0.0, where, "", problem=f"{where} is not good: {error}".rstrip("."))
