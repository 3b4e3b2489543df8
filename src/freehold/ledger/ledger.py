"""The ledger: the only writer of calls and of audit events.

A call's entry is opened before policy is asked and settled once, in one place, whatever happened on the
way. Entries are written in groups (`store.GroupCommit`). With ``ledger.durability = "strict"`` an answer's last
byte is sent when its settled entry is on the disk, and a stream's first when its open one is; with ``"relaxed"``
an entry is handed to the disk within `WINDOW` seconds, and waits for a commit that is under way. Either way, as
long as the ledger cannot be written nothing is served.

Acts (a key made, a model admitted, a proof run) and settlements of calls are events in one append-only sequence. Each
event's hash covers its content and the hash of the event before it (`chain`), so that none can be changed, inserted,
moved or removed from among the others without `verify` naming the first that does not fit, and no call's row without
its event saying so. Events cut off at the end are found against a checkpoint (`audit`) that was kept elsewhere.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import msgspec
from sqlalchemy import Connection, case, func, select
from sqlalchemy.exc import SQLAlchemyError

from freehold.errors import CannotDo, Unaccountable
from freehold.ledger import chain, house
from freehold.ledger.chain import Head, Links
from freehold.ledger.knocks import Knocks
from freehold.ledger.settled import Details
from freehold.ledger.verify import Verification, verify
from freehold.store import NO_CALL, GroupCommit, Store, calls, cause, events
from freehold.types import Call, Caller, Event, Kind, Outcome, Settlement

WINDOW = 0.05  # seconds that an entry may be in memory alone while nobody waits for it
_PAGE = 5_000  # calls in memory at once


def new_id(prefix: str) -> str:
    """An identifier that sorts by the time it was made: ``prefix_`` + 12 hex digits of ms + 16 random ones."""
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{random.getrandbits(64):016x}"


class Entry:
    """One call's entry. It is open until it is settled, once."""

    __slots__ = (
        "_commits",
        "_leaves",
        "_opened_at",
        "_settlement",
        "_strict",
        "_void",
        "actor",
        "caller",
        "id",
        "kind",
    )

    def __init__(self, commits: GroupCommit, strict: bool, call_id: str, caller: Caller, kind: Kind):
        self.id, self.actor, self.caller, self.kind = call_id, caller.id, caller.name, kind.value
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
        """The row, in the order of `settled.COLUMNS`."""
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


class Ledger:
    """Calls and events of one store. `start` is needed before calls can be opened."""

    def __init__(self, store: Store):
        self._store = store
        self._commits: GroupCommit | None = None
        self._strict = True
        self._knocks: Knocks | None = None
        self._details: Details | None = None

    def start(self, durability: str = "strict") -> int:
        """Take calls in the running event loop; settle what a crash left open. Returns how many it left."""
        with self._store.write() as connection:
            details = Details(house.found(connection).salt)
            left = house.settle_open(connection, details)
        self._strict = durability == "strict"
        self._details, self._knocks = details, Knocks(self.record)
        rest = WINDOW * 0.8  # the other fifth is for the commit itself
        self._commits = GroupCommit(self._store, calls, "outcome", rest, Links(details))
        return left

    async def stop(self) -> None:
        """Write what is left, and take no more calls."""
        if self._knocks:
            knocks, self._knocks = self._knocks, None
            await asyncio.to_thread(knocks.close)
        if self._commits:
            commits, self._commits = self._commits, None
            await commits.close()

    async def flush(self) -> None:
        """Wait until every entry is on the disk as it is now. Raises Unaccountable."""
        if self._commits is None:
            raise Unaccountable("The ledger is closed.")
        await self._commits.flush()

    def open(self, call_id: str, caller: Caller, kind: Kind) -> Entry:
        """Open the entry of a call."""
        if self._commits is None:
            raise Unaccountable("The ledger is closed.")
        return Entry(self._commits, self._strict, call_id, caller, kind)

    @property
    def failing(self) -> str:
        """Why nothing can be written now; empty if it can."""
        return self._commits.failing if self._commits else "the ledger is closed"

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
                chain.alone(connection)
                if with_it:
                    with_it(connection)
                return chain.append(connection, act, subject, actor, detail or {})
        except SQLAlchemyError as error:
            raise Unaccountable(f"The audit chain cannot be written: {cause(error)}.") from None

    def failed_login(self, why: str, subject: str, sent: str) -> None:
        """Somebody came with a key that does not count: enter it, if not too many are entered already. ``sent`` is the
        hash of the key that was sent; a salted hash of it tells one stranger from another. Where no server runs in this
        process, nothing is entered."""
        if self._knocks and self._details:
            self._knocks.note(why, subject, self._details.pseudonym(sent))

    def latest(self, act: str) -> Event | None:
        """The last event of an act that is no call's."""
        with self._store.reader() as connection:
            wanted = select(events).where(NO_CALL, events.c.act == act).order_by(events.c.seq.desc()).limit(1)
            row = connection.execute(wanted).first()
        return Event(*row) if row else None

    def events(self, act: str = "", *, since: int = 1, calls: bool = True) -> Iterator[Event]:
        """Every event from number ``since`` on, oldest first: of one act, or without the calls', or all. A page at a
        time."""
        wanted = select(events).order_by(events.c.seq).limit(_PAGE)
        if act and act != chain.SETTLED:
            wanted = wanted.where(NO_CALL, events.c.act == act)
        elif act:
            wanted = wanted.where(events.c.act == act)
        elif not calls:
            wanted = wanted.where(NO_CALL)
        after = since - 1
        while True:
            with self._store.reader() as connection:
                page = connection.execute(wanted.where(events.c.seq > after)).all()
            for row in page:
                yield Event(*row)
            if len(page) < _PAGE:
                return
            after = page[-1].seq

    def last_events(self, number: int, *, since: int = 1, calls: bool = True) -> list[Event]:
        """The last so many events from number ``since`` on, oldest first."""
        wanted = select(events).where(events.c.seq >= since).order_by(events.c.seq.desc()).limit(number)
        with self._store.reader() as connection:
            found = connection.execute(wanted if calls else wanted.where(NO_CALL)).all()
        return [Event(*row) for row in reversed(found)]

    def head(self) -> Head:
        """The number and the hash of the last event."""
        with self._store.reader() as connection:
            last = connection.execute(
                select(events.c.seq, events.c.hash).order_by(events.c.seq.desc()).limit(1)
            ).first()
        return (last.seq, last.hash) if last else chain.START

    def head_at(self, at: float) -> Head:
        """The last event before the first that is later than a moment."""
        with self._store.reader() as connection:
            later = connection.execute(select(func.min(events.c.seq)).where(events.c.at > at)).scalar()
            if later is None:
                return self.head()
            wanted = select(events.c.seq, events.c.hash).where(events.c.seq == later - 1)
            last = connection.execute(wanted).first()
        return (last.seq, last.hash) if last else chain.START

    def pseudonym(self, name: str) -> str:
        """The salted hash under which a caller's name stands in the chain. A call's row may have it in place of the
        name, and still agrees with its event. Raises CannotDo as long as no server has started here."""
        with self._store.reader() as connection:
            known = house.find(connection)
        if known is None:
            raise CannotDo("This home's chain has no salt yet.", hint="'freehold up' makes it at its first start.")
        return Details(known.salt).pseudonym(name)

    def verify(self, **how: Any) -> Verification:
        """Walk the chain, and the calls with it; name the first that does not fit. ``how``: see `verify.verify`."""
        return verify(self._store, **how)
