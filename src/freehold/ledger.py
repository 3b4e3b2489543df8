"""The ledger: the only writer of calls and of audit events.

A call's entry is opened before policy is asked and settled once, in one place, whatever happened on the
way. Entries are written in groups (`store.GroupCommit`). With ``ledger.durability = "strict"`` an answer's last
byte is sent when its settled entry is on the disk, and a stream's first when its open one is; with ``"relaxed"``
an entry is handed to the disk within `WINDOW` seconds, and waits for a commit that is under way. Either way, as
long as the ledger cannot be written nothing is served.

Acts (a key made, a model admitted, a proof run) are events in one append-only sequence. Each event's hash
covers its content and the hash of the event before it (`digest`), so that none can be changed, inserted, moved
or removed from among the others without `verify` naming the first that does not fit. Events cut off at the end
are found only against a head that was kept elsewhere.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, case, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from freehold.errors import Unaccountable
from freehold.store import GroupCommit, Store, calls, cause, events
from freehold.types import Call, Caller, Event, Kind, Outcome, Settlement

GENESIS = "sha256:" + "0" * 64
WINDOW = 0.05  # seconds that an entry may be in memory alone while nobody waits for it
_PAGE = 5_000  # calls in memory at once


def new_id(prefix: str) -> str:
    """An identifier that sorts by the time it was made: ``prefix_`` + 12 hex digits of ms + 16 random ones."""
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{random.getrandbits(64):016x}"


class Entry:
    """One call's entry. It is open until it is settled, once."""

    __slots__ = ("_commits", "_leaves", "_opened_at", "_settlement", "_strict", "_void", "caller", "id", "kind")

    def __init__(self, commits: GroupCommit, strict: bool, call_id: str, caller: Caller, kind: Kind):
        self.id, self.caller, self.kind = call_id, caller.name, kind.value
        self._opened_at = time.time()
        self._settlement: Settlement | None = None
        self._commits, self._strict, self._void, self._leaves = commits, strict, False, False
        commits.put(self)

    async def begin(self) -> None:
        """Before anything is done for the call: while the ledger cannot be written, nothing is.

        Raises:
            Unaccountable: it cannot, and there will be no entry, because there was no call.
        """
        if self._commits.failing:
            try:
                await self._commits.written(self, keep=False)
            except Unaccountable:
                self._void = True
                raise

    async def leaves(self) -> None:
        """Before the call is sent to an upstream: that it leaves the house is written down first, as the durability
        asks for it, and holds for a call that a crash interrupts.

        Raises:
            Unaccountable: it cannot be written, and so nothing is to leave.
        """
        self._leaves = True
        self._commits.put(self)
        await self.on_disk()

    def settle(self, settlement: Settlement) -> None:
        """Say how the call ended. Said a second time it changes nothing."""
        if self._settlement is None and not self._void:
            self._settlement = settlement
            self._commits.put(self)

    async def on_disk(self) -> None:
        """Wait, as long as the durability asks for it, until the entry is on the disk as it is now.

        Raises:
            Unaccountable: it cannot be written. If it was settled as answered it is now settled as failed, because
                the answer will not be sent; it is written when it can be.
        """
        if self._void or not (self._strict or self._commits.failing):
            return
        try:
            await self._commits.written(self)
        except Unaccountable as error:
            if self._settlement is not None and self._settlement.outcome is Outcome.ANSWERED:
                failed = {"outcome": Outcome.FAILED, "status": error.status, "error": error.code}
                self._settlement = msgspec.structs.replace(self._settlement, **failed)
            raise

    def __str__(self) -> str:
        return f"The ledger's entry {self.id}"

    @property
    def settlement(self) -> Settlement | None:
        """How the call ended, as the entry has it now; None while it is open."""
        return self._settlement

    def values(self) -> tuple:
        """The row, in the order of the table's columns; see `store.Row`."""
        opened = (self.id, self._opened_at, self.caller, self.kind)
        end = self._settlement
        if end is None:
            return *opened, None, None, None, None, None, 0, 0, 0, None, None, self._leaves, None, None, None, None
        usage = end.usage
        return (
            *opened, end.outcome.value, end.status, end.error or None, end.model or None, end.digest or None,
            usage.prompt, usage.completion, usage.cached, end.first_token_ms, end.total_ms,
            end.left_the_house, end.waited_ms, end.engine_ms, end.alias or None, end.joules,
        )  # fmt: skip


class Verification(Struct, frozen=True):
    """What `Ledger.verify` found: whether the chain holds, how long it is, its head, and what is wrong."""

    holds: bool
    events: int
    head: str
    problem: str = ""


class Ledger:
    """Calls and events of one store. `start` is needed before calls can be opened."""

    def __init__(self, store: Store):
        self._store = store
        self._commits: GroupCommit | None = None
        self._strict = True

    def start(self, durability: str = "strict") -> int:
        """Take calls in the running event loop; settle what a crash left open. Returns how many it left."""
        with self._store.write() as connection:
            left = connection.execute(
                update(calls).where(calls.c.outcome.is_(None)).values(outcome=Outcome.INTERRUPTED.value)
            ).rowcount
        self._strict = durability == "strict"
        self._commits = GroupCommit(self._store, calls, "outcome", WINDOW * 0.8)  # the rest is for the commit itself
        return left

    async def stop(self) -> None:
        """Write what is left, and take no more calls."""
        if self._commits:
            commits, self._commits = self._commits, None
            await commits.close()

    def open(self, call_id: str, caller: Caller, kind: Kind) -> Entry:
        """Open the entry of a call."""
        if self._commits is None:
            raise Unaccountable("The ledger is closed.")
        return Entry(self._commits, self._strict, call_id, caller, kind)

    @property
    def failing(self) -> str:
        """Why nothing can be written now; empty if it can."""
        return self._commits.failing if self._commits else "the ledger is closed"

    def head(self) -> tuple[int, str]:
        """The number and the hash of the last event; 0 and `GENESIS` where there is none. Raises one of the store's
        errors if the database does not answer."""
        with self._store.reader() as connection:
            last = connection.execute(
                select(events.c.seq, events.c.hash).order_by(events.c.seq.desc()).limit(1)
            ).first()
        return (last.seq, last.hash) if last else (0, GENESIS)

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What goes wrong with the database; see `Store.errors`."""
        return self._store.errors

    def calls(self, limit: int = 50) -> list[Call]:
        """The latest calls, newest first."""
        with self._store.reader() as connection:
            rows = connection.execute(select(calls).order_by(calls.c.opened_at.desc()).limit(limit))
            return [Call(**row) for row in rows.mappings()]

    def each(self, since: float = 0.0, until: float = math.inf) -> Iterator[Call]:
        """Every call opened from ``since`` on and before ``until``, oldest first. A page at a time, so that memory is
        bounded and nobody who writes has to wait."""
        at, id = since, ""
        while True:
            behind = (calls.c.opened_at > at) | (calls.c.id > id)
            wanted = select(calls).where(calls.c.opened_at >= at, behind)
            if until < math.inf:
                wanted = wanted.where(calls.c.opened_at < until)
            with self._store.reader() as connection:
                page = connection.execute(wanted.order_by(calls.c.opened_at, calls.c.id).limit(_PAGE)).all()
            for row in page:
                yield Call(*row)
            if len(page) < _PAGE:
                return
            at, id = page[-1].opened_at, page[-1].id

    def count(self, since: float = 0.0, until: float = math.inf) -> int:
        """How many calls `each` would give."""
        wanted = select(func.count()).select_from(calls).where(calls.c.opened_at >= since)
        if until < math.inf:
            wanted = wanted.where(calls.c.opened_at < until)
        with self._store.reader() as connection:
            return connection.execute(wanted).scalar_one()

    def totals(self) -> dict[str, int]:
        """How many calls ended in each outcome; an open one counts as ``open``."""
        with self._store.reader() as connection:
            rows = connection.execute(select(calls.c.outcome, func.count()).group_by(calls.c.outcome))
            return {outcome or "open": count for outcome, count in rows}

    def left_the_house(self) -> int:
        """How many calls were sent to an upstream."""
        with self._store.reader() as connection:
            return connection.execute(select(func.count()).where(calls.c.left_the_house)).scalar_one()

    def sent(self, names: Collection[str], until: float) -> dict[str, tuple[int, int]]:
        """Of the calls that were opened until then under each of some names, of models or aliases: how many there are,
        and how many of them were sent to an upstream. Names under which nobody called are left out."""
        left = func.sum(case((calls.c.left_the_house, 1), else_=0))
        asked = func.coalesce(calls.c.alias, calls.c.model)
        found: dict[str, tuple[int, int]] = {}
        with self._store.reader() as connection:
            for name in names:
                wanted = select(func.count(), left).where(calls.c.opened_at <= until)
                count, sent = connection.execute(wanted.where((asked == name) | (calls.c.model == name))).one()
                if count:
                    found[name] = (count, sent)
        return found

    def record(
        self,
        act: str,
        subject: str,
        *,
        actor: str,
        detail: dict[str, Any] | None = None,
        with_it: Callable[[Connection], None] | None = None,
    ) -> Event:
        """Append an event; ``with_it`` changes other rows in the same transaction, so neither stands alone.

        Raises:
            Unaccountable: it could not be written, and then ``with_it`` was not done either.
        """
        try:
            with self._store.write() as connection:
                if with_it:
                    with_it(connection)
                return _append(connection, act, subject, actor, detail or {})
        except SQLAlchemyError as error:
            raise Unaccountable(f"The audit chain cannot be written: {cause(error)}.") from None

    def events(self) -> Iterator[Event]:
        """Every event, oldest first."""
        with self._store.reader() as connection:
            for row in connection.execute(select(events).order_by(events.c.seq)).mappings():
                yield Event(**row)

    def verify(self) -> Verification:
        """Walk the chain from its start and name the first event that does not fit."""
        head, count = GENESIS, 0
        for expected, event in enumerate(self.events(), start=1):
            if problem := _problem(event, expected, head):
                return Verification(False, count, head, problem)
            head, count = event.hash, expected
        return Verification(True, count, head)


def digest(event: Event) -> str:
    """The hash of an event: SHA-256 of the UTF-8 JSON, keys sorted and without spaces, of every field but
    ``hash``."""
    content = {field: getattr(event, field) for field in event.__struct_fields__ if field != "hash"}
    return "sha256:" + hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()


def _append(connection: Connection, act: str, subject: str, actor: str, detail: dict[str, Any]) -> Event:
    last = connection.execute(select(events.c.seq, events.c.hash).order_by(events.c.seq.desc()).limit(1)).first()
    seq, previous = (last.seq + 1, last.hash) if last else (1, GENESIS)
    event = Event(seq, time.time(), actor, act, subject, detail, previous, "")
    event = msgspec.structs.replace(event, hash=digest(event))
    connection.execute(insert(events).values(msgspec.structs.asdict(event)))
    return event


def _problem(event: Event, expected: int, head: str) -> str:
    if event.seq != expected:
        return f"event {expected} is missing: after {expected - 1} comes {event.seq}"
    if event.previous != head:
        return f"event {event.seq} does not follow event {event.seq - 1}: it names another predecessor"
    if event.hash != digest(event):
        return f"event {event.seq} ({event.act} {event.subject}) was changed: its hash does not fit its content"
    return ""
