"""What auditors see: the ledger and its sums, and the audit chain, walked and handed out."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Protocol

from freehold.api import acts
from freehold.api.message import HttpResponse
from freehold.api.pages import SHOWN
from freehold.api.reply import allow, as_json, instant
from freehold.errors import BadRequest, CannotDo, Conflict
from freehold.types import Action, Caller

_LINES = 500  # that are read from the disk at once


class Source(Protocol):
    """What auditors see of the ledger and of the chain. All may wait for the disk. Raise CannotDo."""

    def calls(self, limit: int) -> list[dict[str, Any]]:
        """The latest calls, newest first."""

    def sums(self, by: str, since: float, until: float) -> dict[str, Any]:
        """What the calls of a time come to, and cost; see `cost.BY`."""

    def costs(self, task: str, calls_per_day: float | None) -> list[dict[str, Any]]:
        """What a task's recorded calls cost, by each candidate of this house that answered them."""

    def head(self) -> dict[str, Any]:
        """Where it ends, and the latest checkpoint."""

    def events(self, since: int, limit: int, calls: bool) -> list[dict[str, Any]]:
        """So many events from a number on, with those of calls or without."""

    def verify(self) -> dict[str, Any]:
        """What a walk along all of it finds."""

    def export(self, since: int, by: str) -> Iterator[bytes]:
        """The lines of a file of it, from an event on."""


class Books:
    """``pages`` show, ``acts`` read what takes longer, each for those whose role allows it."""

    def __init__(self, source: Source):
        self._source, self._reading = source, threading.Lock()
        self.pages: dict[str, Callable[[Caller], Any]] = {
            "/admin/audit/head": self.head,
            "/admin/ledger": self.ledger,
        }
        self.acts: dict[str, tuple[acts.Act, Callable[[Caller, Any], HttpResponse]]] = {
            acts.SUMS.path: (acts.SUMS, self.sums),
            acts.COSTS.path: (acts.COSTS, self.costs),
            acts.EVENTS.path: (acts.EVENTS, self.events),
            acts.WALK.path: (acts.WALK, self.verify),
            acts.EXPORT.path: (acts.EXPORT, self.export),
        }

    async def ledger(self, caller: Caller) -> HttpResponse:
        """The latest calls."""
        allow(caller, Action.LEDGER)
        return as_json(200, {"calls": await asyncio.to_thread(self._source.calls, SHOWN)})

    def sums(self, caller: Caller, wanted: acts.Sums) -> HttpResponse:
        """What the calls of a time come to, and what they cost here and would have cost elsewhere; one at a time."""
        allow(caller, Action.LEDGER)
        now = datetime.now(UTC)
        since = instant(wanted.since, "since") if wanted.since else _month(now)
        until = min(instant(wanted.until, "until") if wanted.until else math.inf, now.timestamp())
        if since >= until:
            raise BadRequest("until is not after since.", hint="Give a later one.", param="until")
        with self._alone():
            return as_json(200, self._source.sums(wanted.by, since, until))

    def costs(self, caller: Caller, wanted: acts.Costs) -> HttpResponse:
        """What a task's recorded calls cost, owned and rented, with the break-even; one at a time."""
        allow(caller, Action.LEDGER)
        with self._alone():
            return as_json(200, {"costs": self._source.costs(wanted.task, wanted.calls_per_day)})

    async def head(self, caller: Caller) -> HttpResponse:
        """Where the audit chain ends, and its latest checkpoint: what is worth keeping elsewhere."""
        allow(caller, Action.AUDIT)
        return as_json(200, await asyncio.to_thread(self._source.head))

    def events(self, caller: Caller, wanted: acts.Events) -> HttpResponse:
        """Some events of the chain."""
        allow(caller, Action.AUDIT)
        return as_json(200, {"events": self._source.events(wanted.since, wanted.limit, wanted.calls)})

    def verify(self, caller: Caller, _wanted: acts.Walk) -> HttpResponse:
        """Walk the chain; one at a time."""
        allow(caller, Action.AUDIT)
        with self._alone():
            return as_json(200, self._source.verify())

    def export(self, caller: Caller, wanted: acts.Export) -> HttpResponse:
        """The chain as a file; one begins at a time. Breaks off without its last line where an event does not hold."""
        allow(caller, Action.EXPORT)
        with self._alone():
            lines = self._source.export(wanted.since, caller.id)
        return HttpResponse(200, _streamed(lines), "application/jsonl")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._reading.acquire(blocking=False):
            raise Conflict("The books are being read for somebody else.", hint="Ask again in a moment.")
        try:
            yield
        except CannotDo as error:
            raise Conflict(error.message, hint=error.hint) from None
        finally:
            self._reading.release()


async def _streamed(lines: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Lines that are read from the disk in a thread, some hundreds at a time."""
    with suppress(CannotDo):  # what comes before it is good, and has no end
        while piece := await asyncio.to_thread(lambda: b"".join(islice(lines, _LINES))):
            yield piece


def _month(now: datetime) -> float:
    """When the month began."""
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()
