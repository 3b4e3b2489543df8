"""What /admin shows and does of a house: its aliases, its books, and what it keeps of texts."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import msgspec

from freehold import cost, promote
from freehold.app.opening import Parts
from freehold.results import Results
from freehold.samples import Samples
from freehold.store import TRAFFIC, Store
from freehold.traffic import retention
from freehold.types import Caller


class Moves:
    """What operators and applications do with the aliases (`api.admin.Moves`)."""

    def __init__(self, opened: Parts, watch: promote.Watch):
        self._opened, self._watch = opened, watch

    def facts(self) -> list[dict[str, Any]]:
        """See `api.admin.Moves.facts`."""
        return promote.facts(self._opened.aliases)

    def rollback(self, alias: str, by: str) -> dict[str, Any]:
        """See `api.admin.Moves.rollback`."""
        return promote.told(promote.rollback(self._opened.desk, alias, by=by))

    def feedback(self, caller: Caller, call_id: str, *, good: bool) -> None:
        """See `api.admin.Moves.feedback`."""
        self._watch.feedback(caller, call_id, good=good)


class Books:
    """What auditors see of the ledger and of the chain (`api.books.Source`)."""

    def __init__(self, opened: Parts):
        self._opened, self._audit, self._ledger = opened, opened.audit, opened.ledger

    def calls(self, limit: int) -> list[dict[str, Any]]:
        """See `api.books.Source.calls`."""
        return [msgspec.to_builtins(call) for call in self._ledger.calls(limit)]

    def sums(self, by: str, since: float, until: float) -> dict[str, Any]:
        """See `api.books.Source.sums`."""
        named, rates = self._opened.named, cost.rates(self._opened.settings.cost)
        found = self._ledger.each(since, until)
        return msgspec.to_builtins(cost.spending(found, named, rates, by=by, began=since, ended=until))

    def costs(self, task: str, calls_per_day: float | None) -> list[dict[str, Any]]:
        """See `api.books.Source.costs`."""
        own = msgspec.structs.replace(self._opened, _traffic=None)  # a database of its own, for another thread
        known = own.tasks.get(task)
        with contextlib.closing(own.traffic):
            return msgspec.to_builtins(own.every_cost(known, calls_per_day))

    def head(self) -> dict[str, Any]:
        """See `api.books.Source.head`."""
        return self._audit.head()

    def events(self, since: int, limit: int, calls: bool) -> list[dict[str, Any]]:
        """See `api.books.Source.events`."""
        found = self._ledger.events(since=since, calls=calls)
        return [msgspec.to_builtins(event) for event in itertools.islice(found, limit)]

    def verify(self) -> dict[str, Any]:
        """See `api.books.Source.verify`."""
        return msgspec.to_builtins(self._audit.verify())

    def export(self, since: int, by: str) -> Iterator[bytes]:
        """See `api.books.Source.export`."""
        lines = self._audit.export(since)
        first = next(lines)
        self._ledger.record("audit.exported", "audit chain", actor=by, detail={"from": since})
        return itertools.chain([first], lines)


class Records:
    """What operators see and do of what is kept of texts (`api.records.Source`)."""

    def __init__(self, opened: Parts):
        self._opened = opened
        self.retention = retention.Retention(self._shelf)

    def facts(self) -> dict[str, Any]:
        """See `api.records.Source.facts`."""
        key, last = self._opened.ring.writes.id, self.retention.facts()
        with self._open() as shelf:
            spans = retention.spans(shelf) if shelf else []
            plain = (shelf.samples.unsealed() if key else sum(span.calls for span in spans)) if shelf else 0
        return {"tasks": msgspec.to_builtins(spans), "key": key, "not_encrypted": plain, "expired": last}

    def erase(self, task: str, caller: str | None, before: float | None, *, confirm: bool, by: str) -> dict[str, Any]:
        """See `api.records.Source.erase`."""
        wish = retention.check(retention.Wish(task, caller, before))
        with self._open() as shelf:
            gone = []
            if shelf is not None:
                gone = retention.erase(shelf, wish, actor=by) if confirm else retention.counted(shelf, wish)
        return {"erased": confirm, "calls": msgspec.to_builtins(gone)}

    def expire(self, by: str) -> dict[str, Any]:
        """See `api.records.Source.expire`."""
        return {"erased": True, "calls": msgspec.to_builtins(self.retention.expire(by))}

    async def daily(self) -> None:
        """Erase what is due now and every day; an hour later where it failed."""
        while True:
            await asyncio.to_thread(self.retention.run)
            await asyncio.sleep(3600 if self.retention.failing else retention.DAY)

    @contextlib.contextmanager
    def _open(self) -> Iterator[retention.Shelf | None]:
        shelf = self._shelf()
        try:
            yield shelf
        finally:
            if shelf is not None:
                shelf.store.close()

    def _shelf(self) -> retention.Shelf | None:
        """With a database of its own, for another thread; None where nothing was ever recorded."""
        opened = self._opened
        if not opened.home.traffic.exists():
            return None
        store = Store(opened.home.traffic, TRAFFIC)
        kept = Samples(store, opened.ring), Results(store, opened.ring)
        return retention.Shelf(store, *kept, opened.tasks, opened.ledger, opened.settings.traffic.days)
