"""The ledger: the only writer of calls and of audit events.

A call's entry is opened before policy is asked and settled once, in one place, whatever happened on the
way. Both halves go through one writer thread that commits whatever has gathered while the disk was busy
with the commit before (group commit), so a caller waits for at most two commits and never for a turn of
its own. `Entry.opened` and the future of `Entry.settle` are done when the row is on the disk; what fails
to get there fails with `Unaccountable`, and the answer is not sent.

Acts (a key made, a model admitted, a proof run) are events in one append-only sequence. Each event's hash
covers its content and the hash of the event before it (`digest`), so that none can be changed, inserted, moved
or removed from among the others without `verify` naming the first that does not fit. Events cut off at the end
are found only against a head that was kept elsewhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, bindparam, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from freehold.errors import Unaccountable
from freehold.store import Store, calls, events
from freehold.types import Call, Caller, Event, Kind, Outcome, Settlement

GENESIS = "sha256:" + "0" * 64
_BATCH = 512

_INSERT = insert(calls)
_SETTLE = (
    update(calls)
    .where(calls.c.id == bindparam("call"), calls.c.outcome.is_(None))
    .values(
        {column: bindparam("new_" + column) for column in (
            "outcome", "status", "error", "model", "digest", "prompt_tokens", "completion_tokens",
            "cached_tokens", "first_token_ms", "total_ms",
        )}
    )
)  # fmt: skip


def new_id(prefix: str) -> str:
    """An identifier that sorts by the time it was made: ``prefix_`` + 12 hex digits of ms + 16 random ones."""
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{os.urandom(8).hex()}"


class Entry:
    """One open entry. `opened` is done when its row is on the disk."""

    def __init__(self, writer: Writer, call_id: str, caller: Caller, kind: Kind):
        self.id = call_id
        self._writer = writer
        self._settled: asyncio.Future | None = None
        row = {"id": call_id, "opened_at": time.time(), "caller": caller.name, "kind": kind.value}
        self.opened = writer.put(_INSERT, row | {"prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": 0})

    def settle(self, settlement: Settlement) -> asyncio.Future:
        """Settle the call, once: a second settlement changes nothing. Done when it is on the disk."""
        if self._settled is None:
            usage = settlement.usage
            self._settled = self._writer.put(
                _SETTLE,
                {
                    "call": self.id,
                    "new_outcome": settlement.outcome.value,
                    "new_status": settlement.status,
                    "new_error": settlement.error or None,
                    "new_model": settlement.model or None,
                    "new_digest": settlement.digest or None,
                    "new_prompt_tokens": usage.prompt,
                    "new_completion_tokens": usage.completion,
                    "new_cached_tokens": usage.cached,
                    "new_first_token_ms": settlement.first_token_ms,
                    "new_total_ms": settlement.total_ms,
                },
            )
        return self._settled


class Writer:
    """The thread that owns the write connection and commits in groups."""

    def __init__(self, store: Store):
        self._store = store
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def put(self, statement: Any, row: dict[str, Any]) -> asyncio.Future:
        """Queue one row; the future is done when it is committed, and fails with `Unaccountable`."""
        future = self._loop.create_future()
        future.add_done_callback(_look)
        self._queue.put((statement, row, future))
        return future

    def close(self) -> None:
        """Write what is queued, then end."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        connection: Connection | None = None
        while batch := self._gather():
            try:
                connection = connection or self._store.engine.connect()
                self._commit(connection, batch)
            except Exception as error:  # noqa: BLE001 - this thread must outlive whatever one row does
                _discard(connection)
                connection = None
                if len(batch) > 1:
                    self._one_by_one(batch)
                else:
                    self._tell(batch, Unaccountable(f"The ledger cannot be written: {_cause(error)}."))
            else:
                self._tell(batch, None)
        if connection is not None:
            connection.close()

    def _one_by_one(self, batch: list) -> None:
        """A batch that failed as a whole: no row may fail for another's sake."""
        for row in batch:
            failure = None
            try:
                with self._store.write() as connection:
                    connection.execute(row[0], [row[1]])
            except Exception as error:  # noqa: BLE001 - as above
                failure = Unaccountable(f"The ledger cannot be written: {_cause(error)}.")
            self._tell([row], failure)

    def _tell(self, batch: list, failure: Exception | None) -> None:
        self._loop.call_soon_threadsafe(_resolve, [future for _, _, future in batch], failure)

    def _gather(self) -> list:
        """Everything that waits, up to one batch; blocks while nothing does; empty when closed."""
        batch = []
        while len(batch) < _BATCH:
            try:
                item = self._queue.get(block=not batch)
            except queue.Empty:
                break
            if item is None:
                if batch:
                    self._queue.put(None)
                break
            batch.append(item)
        return batch

    @staticmethod
    def _commit(connection: Connection, batch: list) -> None:
        with connection.begin():
            for statement in (_INSERT, _SETTLE):
                if rows := [row for kind, row, _ in batch if kind is statement]:
                    connection.execute(statement, rows)


class Verification(Struct, frozen=True):
    """What `Ledger.verify` found: whether the chain holds, how long it is, its head, and what is wrong."""

    holds: bool
    events: int
    head: str
    problem: str = ""


class Ledger:
    """Calls and events of one store. `start` is needed before calls can be opened (it makes the writer)."""

    def __init__(self, store: Store):
        self._store = store
        self._writer: Writer | None = None

    def start(self) -> int:
        """Start the writer in the running event loop; settle what a crash left open. Returns how many."""
        with self._store.write() as connection:
            left = connection.execute(
                update(calls).where(calls.c.outcome.is_(None)).values(outcome=Outcome.INTERRUPTED.value)
            ).rowcount
        self._writer = Writer(self._store)
        return left

    def close(self) -> None:
        """Write what is queued and stop the writer."""
        if self._writer:
            self._writer.close()
            self._writer = None

    def open(self, call_id: str, caller: Caller, kind: Kind) -> Entry:
        """Open the entry of a call."""
        if self._writer is None:
            raise Unaccountable("The ledger is closed.")
        return Entry(self._writer, call_id, caller, kind)

    def calls(self, limit: int = 50) -> list[Call]:
        """The latest calls, newest first."""
        with self._store.reader() as connection:
            rows = connection.execute(select(calls).order_by(calls.c.opened_at.desc()).limit(limit))
            return [Call(**row) for row in rows.mappings()]

    def totals(self) -> dict[str, int]:
        """How many calls ended in each outcome; an open one counts as ``open``."""
        with self._store.reader() as connection:
            rows = connection.execute(select(calls.c.outcome, func.count()).group_by(calls.c.outcome))
            return {outcome or "open": count for outcome, count in rows}

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
            raise Unaccountable(f"The audit chain cannot be written: {_cause(error)}.") from None

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


def _resolve(futures: list[asyncio.Future], failure: Exception | None) -> None:
    for future in futures:
        if future.done():
            continue
        if failure:
            future.set_exception(failure)
        else:
            future.set_result(None)


def _look(future: asyncio.Future) -> None:
    """A failed future whose owner has gone has been looked at: the row's absence is not a second fault."""
    if not future.cancelled():
        future.exception()


def _discard(connection: Connection | None) -> None:
    """Give up a connection whose state is unknown; the next batch opens a new one."""
    if connection is not None:
        try:
            connection.invalidate()
            connection.close()
        except SQLAlchemyError:
            return


def _cause(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]
