"""Group commit: rows of one table, written together by one thread while the event loop goes on.

A row is an object that knows its values now; `put` says that they have changed, and within the window they are
written. Whoever must be sure waits for `written`, which starts a commit at once, or joins the next one if the
disk is busy: however many wait, the disk sees one commit after the other and nobody waits for more than two.

A group is a few statements, not one for each row: the interpreter's lock is given up and taken back once for each
statement, and beside a busy event loop taking it back is what costs.

Rows that are complete may be followed by an event each in a chain (`Chain`), written in their transaction.
"""

from __future__ import annotations

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from typing import Any, Protocol

from msgspec import Struct
from sqlalchemy import Connection, Table
from sqlalchemy.exc import SQLAlchemyError

from freehold import log
from freehold.errors import Unaccountable
from freehold.store.database import Store, cause

_LARGEST = 256  # rows in one statement: SQLite takes 32,766 values, PostgreSQL 65,535
_RETRY = 0.25  # seconds between tries while nothing can be written


class Row(Protocol):
    """What can be written: its values in the order of the table's columns, but for the one that names its event; and
    ``actor``, by whom that event is."""

    actor: str

    def values(self) -> tuple:
        """The values as they are now."""


class Chain(Protocol):
    """What makes the event that follows a complete row. It is used by the thread alone. ``column`` of the rows' table
    takes the event's number, ``table`` the events."""

    column: str
    table: Table

    def detail(self, row: tuple) -> str:
        """What the event says of the row, which does not depend on where in the chain it comes to stand."""

    def at(self, cursor: Any) -> Any:
        """Where the chain ends, inside a transaction that no other writer can interleave with. Raises where it is not
        as it was left."""

    def link(self, head: Any, row: tuple, actor: str, detail: str) -> tuple[Any, int, tuple]:
        """The event after ``head``: where the chain ends with it, its number, and its values."""

    def left(self, head: Any) -> None:
        """The chain was written as far as that."""


class _Change(Struct):
    """What is to be written of one row. ``detail`` is None as long as it is not complete."""

    values: tuple
    actor: str
    detail: str | None


class _Waiting(Struct):
    """Somebody who waits for a row, or for all that there are now."""

    row: Row | None
    future: asyncio.Future
    keep: bool

    def resolve(self, failure: Exception | None) -> None:
        if self.future.done():
            return
        if failure is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(Unaccountable(f"The ledger cannot be written: {cause(failure)}."))


class GroupCommit:
    """Rows of ``table``, by its primary key: inserted, or updated as long as ``until`` is null; where it is not, an
    event of ``chain`` follows the row, once.

    ``window`` is the number of seconds within which a row is written for which nobody waits.
    """

    def __init__(self, store: Store, table: Table, until: str, window: float, chain: Chain):
        self.failing = ""  # why the last commit came to nothing; empty if it did not
        self._store = store
        self._statements = _Statements(store, table, until, chain)
        self._dbapi = store.engine.dialect.dbapi
        self._window = window
        self._changed: dict[Row, None] = {}
        self._waiting: list[_Waiting] = []
        self._loop = asyncio.get_running_loop()
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._thread = ThreadPoolExecutor(1, "commits")
        self._connection: Connection | None = None  # the thread's own, and so is the cursor
        self._cursor: Any = None
        self._closing = False
        self._task = self._loop.create_task(self._run())

    def put(self, row: Row) -> None:
        """The row has something new to say: it is written within the window."""
        self._check_open()
        self._changed[row] = None
        if self._timer is None and not self._due.is_set():
            self._timer = self._loop.call_later(self._window, self._due.set)

    async def written(self, row: Row, *, keep: bool = True) -> None:
        """Wait until what the row says now is on the disk. A row that could not be written is tried again until it
        can, unless ``keep`` is false.

        Raises:
            Unaccountable: it cannot be written now.
        """
        self._check_open()
        future = self._loop.create_future()
        self._changed[row] = None
        self._waiting.append(_Waiting(row, future, keep))
        self._due.set()
        await future

    async def flush(self) -> None:
        """Wait until everything that was put is on the disk. Raises Unaccountable where it cannot be written now."""
        self._check_open()
        future = self._loop.create_future()
        self._waiting.append(_Waiting(None, future, True))
        self._due.set()
        await future
        if self.failing:
            raise Unaccountable(f"The ledger cannot be written: {self.failing}.")

    async def close(self) -> None:
        """Write what is left, once more if need be, and end."""
        self._closing = True
        self._due.set()
        await self._task
        self._thread.shutdown()

    def _check_open(self) -> None:
        if self._task.done():
            raise Unaccountable("The ledger is closed.", hint="")

    async def _run(self) -> None:
        failures: dict[Row, Exception] = {}
        while not self._closing or (self._changed and not failures):
            await self._due.wait()
            self._due.clear()
            if self._timer:
                self._timer.cancel()
                self._timer = None
            changed, self._changed = list(self._changed), {}
            waiting, self._waiting = self._waiting, []
            failures = await self._commit(changed)
            for one in waiting:
                one.resolve(failures.get(one.row))
            self._keep(failures, given_up={one.row for one in waiting if not one.keep})
        await self._loop.run_in_executor(self._thread, self._disconnect)

    async def _commit(self, changed: list[Row]) -> dict[Row, Exception]:
        """Write the rows; returns those that could not be written, each with its reason."""
        error = await self._write(changed) if changed else None
        if error is None:
            return {}
        if not self._is_the_rows(error) or len(changed) == 1:
            return dict.fromkeys(changed, error)
        each = [(row, await self._write([row])) for row in changed]  # no row may fail for another's sake
        return {row: failure for row, failure in each if failure is not None}

    def _keep(self, failures: dict[Row, Exception], given_up: set[Row]) -> None:
        """What could not be written is tried again, unless the row itself is at fault or was given up."""
        trouble = ""
        for row, failure in failures.items():
            if self._is_the_rows(failure):
                log.note(f"{row} could not be written and is lost: {cause(failure)}.", log.ERROR)
                continue
            trouble = cause(failure)
            if row not in given_up:
                self._changed.setdefault(row)
        self._note(trouble)
        if self._changed and trouble and self._timer is None:
            self._timer = self._loop.call_later(_RETRY, self._due.set)

    def _is_the_rows(self, error: Exception) -> bool:
        """Is it this row that cannot be written, whatever the disk does?"""
        values = ValueError | TypeError | KeyError | OverflowError
        return isinstance(error, values | self._dbapi.DataError | self._dbapi.IntegrityError)

    def _note(self, failing: str) -> None:
        if bool(failing) != bool(self.failing):
            said = "The ledger can be written again."
            if failing:
                said = f"The ledger cannot be written, and nothing is served until it can: {failing}. See the disk."
            log.note(said, log.ERROR if failing else log.INFO)
        self.failing = failing

    async def _write(self, rows: list[Row]) -> Exception | None:
        found = [(row.values(), row.actor) for row in rows]
        return await self._loop.run_in_executor(self._thread, self._transact, found)

    def _transact(self, rows: list[tuple[tuple, str]]) -> Exception | None:
        """In the thread: all of the rows in one transaction, or none and the reason."""
        try:
            if self._cursor is None:
                self._connection = self._store.reader()  # each statement a transaction, unless it is told otherwise
                self._cursor = self._connection.connection.cursor()
            self._statements.execute(self._cursor, rows)
        except Exception as error:  # noqa: BLE001 - this thread must outlive whatever one row does
            self._disconnect()
            return error
        return None

    def _disconnect(self) -> None:
        """Give up the connection, whose state may be unknown; the next commit opens another."""
        if self._connection is not None:
            with suppress(SQLAlchemyError, self._dbapi.Error):  # it is given up in any case
                if self._cursor is not None:
                    self._cursor.close()  # an open one would keep the lock of a transaction that came to nothing
                self._connection.invalidate()
                self._connection.close()
        self._connection = self._cursor = None


class _Statements:
    """One statement for each power of two rows, so that few have to be prepared. They go to the driver itself:
    nobody waits for it but those whose answers wait for the disk."""

    def __init__(self, store: Store, table: Table, until: str, chain: Chain):
        names = [name for name in table.columns.keys() if name != chain.column]  # noqa: SIM118 - no dict
        self._until = names.index(until)
        self._chain = chain
        (key,) = table.primary_key.columns.keys()
        self._rows = _Insert(
            store, table, [*names, chain.column],
            f" ON CONFLICT ({key}) DO UPDATE SET "
            + ", ".join(f"{name} = excluded.{name}" for name in [*names, chain.column] if name != key)
            + f" WHERE {table.name}.{until} IS NULL",
        )  # fmt: skip
        self._events = _Insert(store, chain.table, list(chain.table.columns.keys()), "")
        self._begin = store.exclusively(chain.table)

    def execute(self, cursor: Any, rows: list[tuple[tuple, str]]) -> None:
        """Write the rows and the events that follow them, all or none."""
        changes = [self._change(*row) for row in rows]
        if all(change.detail is None for change in changes) and _is_one(len(changes)):
            self._rows.execute(cursor, [(*change.values, None) for change in changes])  # is one transaction
        elif not self._together(cursor, changes):
            self._one_by_one(cursor, changes)

    def _change(self, values: tuple, actor: str) -> _Change:
        return _Change(values, actor, None if values[self._until] is None else self._chain.detail(values))

    def _together(self, cursor: Any, changes: list[_Change]) -> bool:
        """Write all of them, in few statements; nothing, and False, where one was complete on the disk before."""
        head = self._open(cursor)
        rows, events = [], []
        for change in changes:
            number = None
            if change.detail is not None:
                head, number, event = self._chain.link(head, change.values, change.actor, change.detail)
                events.append(event)
            rows.append((*change.values, number))
        if self._rows.execute(cursor, rows) != len(rows):
            cursor.execute("ROLLBACK")
            return False
        self._events.execute(cursor, events)
        cursor.execute("COMMIT")
        self._chain.left(head)
        return True

    def _one_by_one(self, cursor: Any, changes: list[_Change]) -> None:
        """Write those that change something, each with its event."""
        head = self._open(cursor)
        for change in changes:
            after, number, event = head, None, None
            if change.detail is not None:
                after, number, event = self._chain.link(head, change.values, change.actor, change.detail)
            if self._rows.execute(cursor, [(*change.values, number)]) and event is not None:
                self._events.execute(cursor, [event])
                head = after
        cursor.execute("COMMIT")
        self._chain.left(head)

    def _open(self, cursor: Any) -> Any:
        for statement in self._begin:
            cursor.execute(statement)
        return self._chain.at(cursor)


class _Insert:
    """Rows into one table, in one statement for each power of two."""

    def __init__(self, store: Store, table: Table, names: list[str], tail: str):
        mark = "?" if store.engine.dialect.paramstyle == "qmark" else "%s"
        self._row = f"({', '.join([mark] * len(names))})"
        self._head = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES "
        self._tail = tail

    def execute(self, cursor: Any, rows: list[tuple]) -> int:
        """Insert them; how many rows of the table that made or changed."""
        start = changed = 0
        while start < len(rows):
            size = min(_LARGEST, 1 << (len(rows) - start).bit_length() - 1)
            cursor.execute(self._text(size), _flat(rows[start : start + size]))
            changed += cursor.rowcount
            start += size
        return changed

    @lru_cache(maxsize=16)  # noqa: B019 - as long as its writer lives
    def _text(self, size: int) -> str:
        return self._head + ", ".join([self._row] * size) + self._tail


def _is_one(size: int) -> bool:
    """Do so many rows fit into one statement?"""
    return size <= _LARGEST and size & size - 1 == 0


def _flat(rows: list[tuple]) -> tuple:
    return tuple(itertools.chain.from_iterable(rows))
