"""What operators see and do: is it alive, is it ready, what is true now, what do the aliases point at, and the document
of the whole API; what auditors see of the chain; and what applications say of their calls."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from itertools import islice
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from freehold import policy
from freehold.answer import House
from freehold.api import acts, document
from freehold.api.message import HttpRequest, HttpResponse
from freehold.api.pages import SHOWN, Overview
from freehold.api.people import People, allow, as_json
from freehold.errors import BadRequest, CannotDo, Conflict, Unaccountable
from freehold.guard import Place
from freehold.samples import ORDER_ONLY
from freehold.types import Action, Call, Caller, SeatView, TicketView

Page = Callable[[Caller], HttpResponse | Awaitable[HttpResponse]]
_LINES = 500
_OWN = 1000  # of the latest calls of the house, those among which somebody finds their own
_THROUGH = ("forwarded", "x-forwarded-for", "x-real-ip", "via")  # what a proxy adds


class Moves(Protocol):
    """What the house does with its aliases."""

    def facts(self) -> list[dict[str, Any]]:
        """How they stand."""

    def rollback(self, alias: str, by: str) -> dict[str, Any]:
        """Move one back; says from what to what. May wait for the disk. Raises CannotDo."""

    def feedback(self, caller: Caller, call_id: str, *, good: bool) -> None:
        """What an application says of one of its calls. Raises NotFound."""


class Books(Protocol):
    """What auditors see of the ledger and of the chain. All may wait for the disk. Raise CannotDo."""

    def calls(self, limit: int) -> list[dict[str, Any]]:
        """The latest calls, newest first."""

    def sums(self, by: str, since: float, until: float) -> dict[str, Any]:
        """What the calls of a time come to, and cost; see `cost.BY`."""

    def head(self) -> dict[str, Any]:
        """Where it ends, and the latest checkpoint."""

    def events(self, since: int, limit: int, calls: bool) -> list[dict[str, Any]]:
        """So many events from a number on, with those of calls or without."""

    def verify(self) -> dict[str, Any]:
        """What a walk along all of it finds."""

    def export(self, since: int, by: str) -> Iterator[bytes]:
        """The lines of a file of it, from an event on."""


class Records(Protocol):
    """What the house keeps of texts."""

    def facts(self) -> dict[str, Any]:
        """How long each task's calls are kept, and with which key."""

    def erase(self, task: str, caller: str | None, before: float | None, *, confirm: bool, by: str) -> dict[str, Any]:
        """Erase recorded calls, or only count them. Raises CannotDo."""

    def expire(self, by: str) -> dict[str, Any]:
        """Erase those whose days are over. Raises CannotDo."""


class Gauges(Protocol):
    """What the house can say of itself in figures."""

    async def page(self, accept: str) -> tuple[bytes, str]:
        """The page of /metrics, and its media type."""

    async def facts(self) -> dict[str, Any]:
        """What the front page shows beside what status does."""


class Admin:
    """``open_to_all`` are the two paths that need no key; ``pages`` are those that do, and ``acts`` those that do
    something, which may wait for the disk. ``facts`` do not change; ``outside`` tells what the gateway knows of its
    upstreams and their relay; ``metrics_open``: whoever asks from this machine may read the metrics."""

    def __init__(
        self, house: House, facts: Mapping[str, Any], moves: Moves, gauges: Gauges,
        outside: Callable[[], dict[str, Any]], people: People, books: Books, records: Records, *,
        metrics_open: bool = False,
    ):  # fmt: skip
        self._house, self._moves, self._outside, self._gauges = house, moves, outside, gauges
        self._records, self._metrics_open = records, metrics_open
        self._facts = dict(facts)
        self._books, self._walking = books, threading.Lock()
        self.is_up = False  # until the engines that were asked for are
        self.open_to_all: dict[str, Callable[[], HttpResponse]] = {"/healthz": self.health, "/readyz": self.ready}
        self.pages: dict[str, Page] = {
            "/admin/aliases": self.aliases,
            "/admin/audit/head": self.head,
            "/admin/guard": self.guard,
            "/admin/ledger": self.ledger,
            "/admin/traffic": self.traffic,
            "/admin/status": self.status,
            "/admin/queue": self.queue,
            "/openapi.json": self.openapi,
        } | people.pages
        self.acts: dict[str, tuple[acts.Act, Callable[[Caller, Any], HttpResponse]]] = {
            acts.FEEDBACK.path: (acts.FEEDBACK, self.feedback),
            acts.MOVE.path: (acts.MOVE, self.move),
            acts.SUMS.path: (acts.SUMS, self.sums),
            acts.EVENTS.path: (acts.EVENTS, self.events),
            acts.TRIAL.path: (acts.TRIAL, self.trial),
            acts.WALK.path: (acts.WALK, self.verify),
            acts.EXPORT.path: (acts.EXPORT, self.export),
            acts.ERASE.path: (acts.ERASE, self.erase),
            acts.EXPIRE.path: (acts.EXPIRE, self.expire),
        } | people.acts

    def health(self) -> HttpResponse:
        """The process is alive."""
        return as_json(200, {"status": "ok"})

    def ready(self) -> HttpResponse:
        """Calls are taken, and no engine that should answer does not. Names no model: this page needs no key."""
        if not self.is_up:
            return _not_ready("the engine is starting")
        if faults := self._house.leases.pool.unready:
            return _not_ready(f"an engine is {' and '.join(faults)}")
        return as_json(200, {"status": "ready"})

    def status(self, caller: Caller) -> HttpResponse:
        """What the gateway knows of itself; ``freehold status`` holds it against the kernel."""
        allow(caller, Action.LOOK)
        return as_json(200, self._status())

    def _status(self) -> dict[str, Any]:
        engines = [msgspec.to_builtins(state) for state in self._house.leases.pool.states()]
        models = [msgspec.to_builtins(manifest) for manifest in self._house.models().values()]
        return self._facts | {"engines": engines, "models": models} | self._outside()

    def queue(self, caller: Caller) -> HttpResponse:
        """Who is served and who waits, for which model and where in line. Of others' calls, a caller who may not
        look at the server sees how many there are."""
        allow(caller, Action.OWN)
        return as_json(200, {"models": self._queue(caller)})

    def _queue(self, caller: Caller) -> list[dict[str, Any]]:
        sees_all = policy.may(caller, Action.LOOK).allowed
        return [_seat(view, caller, sees_all) for view in self._house.leases.pool.views()]

    def is_open_to(self, request: HttpRequest) -> bool:
        """May the metrics be read without a key? Only if the settings say so, by this machine itself: no proxy
        between, and by a name of this machine, so that no page in a browser here can have another name lead to it."""
        if not self._metrics_open or any(name in request.headers for name in _THROUGH):
            return False
        host = _host(request.headers.get("host", ""))
        return _is_loopback(request.peer) and (host == "localhost" or _is_loopback(host))

    async def metrics(self, caller: Caller | None, accept: str) -> HttpResponse:
        """The figures of the house, in Prometheus' format; ``caller`` is None where nobody needs to be known."""
        if caller is not None:
            allow(caller, Action.LOOK)
        content, media_type = await self._gauges.page(accept)
        return HttpResponse(200, content, media_type)

    async def overview(self, caller: Caller) -> Overview:
        """What the front page shows to a caller: all of it to one who may look at the server, else what is their
        own."""
        if policy.may(caller, Action.LOOK).allowed:
            status = self._status() | await self._gauges.facts()
            aliases = sorted(self._house.aliases().values(), key=lambda alias: alias.name)
            return Overview(self._queue(caller), await self._calls(SHOWN), status, aliases)
        own = [call for call in await self._calls(_OWN) if call.caller == caller.name]
        return Overview(self._queue(caller), own)

    async def _calls(self, limit: int) -> list[Call]:
        ledger = self._house.ledger
        try:
            return await asyncio.to_thread(ledger.calls, limit)
        except ledger.errors:
            raise Unaccountable("The ledger cannot be read.") from None

    def aliases(self, caller: Caller) -> HttpResponse:
        """What each alias points at, and how its canary goes."""
        allow(caller, Action.LOOK)
        return as_json(200, {"aliases": self._moves.facts()})

    def feedback(self, caller: Caller, said: acts.Feedback) -> HttpResponse:
        """What an application says of one of its own calls."""
        allow(caller, Action.TELL)
        self._moves.feedback(caller, said.call, good=said.good)
        return as_json(200, {"call": said.call, "good": said.good})

    def move(self, caller: Caller, wanted: acts.Move) -> HttpResponse:
        """Move an alias back; calls that come after the answer find it there."""
        allow(caller, Action.MOVE)
        try:
            return as_json(200, self._moves.rollback(wanted.alias, f"key {caller.name}"))
        except CannotDo as error:
            raise Conflict(error.message, hint=error.hint) from None

    async def ledger(self, caller: Caller) -> HttpResponse:
        """The latest calls."""
        allow(caller, Action.LEDGER)
        return as_json(200, {"calls": await asyncio.to_thread(self._books.calls, SHOWN)})

    def sums(self, caller: Caller, wanted: acts.Sums) -> HttpResponse:
        """What the calls of a time come to, and what they cost here and would have cost elsewhere; one at a time."""
        allow(caller, Action.LEDGER)
        now = datetime.now(UTC)
        since = _instant(wanted.since, "since") if wanted.since else _month(now)
        until = min(_instant(wanted.until, "until") if wanted.until else math.inf, now.timestamp())
        if since >= until:
            raise BadRequest("until is not after since.", hint="Give a later one.", param="until")
        with self._alone():
            return as_json(200, self._books.sums(wanted.by, since, until))

    def guard(self, caller: Caller) -> HttpResponse:
        """What the guard does with each kind, and what it has done since the start."""
        allow(caller, Action.LOOK)
        guard = self._house.guard
        return as_json(200, {"rules": guard.table(), "callers": guard.named, "done": guard.facts()})

    def trial(self, caller: Caller, wanted: acts.Trial) -> HttpResponse:
        """What the guard would make of a text; nothing of it is kept."""
        allow(caller, Action.LOOK)
        return as_json(200, msgspec.to_builtins(self._house.guard.trial(wanted.caller, Place(wanted.to), wanted.text)))

    def head(self, caller: Caller) -> HttpResponse:
        """Where the audit chain ends, and its latest checkpoint: what is worth keeping elsewhere."""
        allow(caller, Action.AUDIT)
        return as_json(200, self._books.head())

    def events(self, caller: Caller, wanted: acts.Events) -> HttpResponse:
        """Some events of the chain."""
        allow(caller, Action.AUDIT)
        return as_json(200, {"events": self._books.events(wanted.since, wanted.limit, wanted.calls)})

    def verify(self, caller: Caller, _wanted: acts.Walk) -> HttpResponse:
        """Walk the chain; one at a time."""
        allow(caller, Action.AUDIT)
        with self._alone():
            return as_json(200, self._books.verify())

    def export(self, caller: Caller, wanted: acts.Export) -> HttpResponse:
        """The chain as a file; one begins at a time. Breaks off without its last line where an event does not hold."""
        allow(caller, Action.EXPORT)
        with self._alone():
            lines = self._books.export(wanted.since, f"key {caller.name}")
        return HttpResponse(200, _streamed(lines), "application/jsonl")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._walking.acquire(blocking=False):
            raise Conflict("The books are being read for somebody else.", hint="Ask again in a moment.")
        try:
            yield
        except CannotDo as error:
            raise Conflict(error.message, hint=error.hint) from None
        finally:
            self._walking.release()

    def traffic(self, caller: Caller) -> HttpResponse:
        """How long recorded calls are kept."""
        allow(caller, Action.LOOK)
        try:
            return as_json(200, self._records.facts())
        except CannotDo as error:
            raise Conflict(error.message, hint=error.hint) from None

    def erase(self, caller: Caller, wanted: acts.Erase) -> HttpResponse:
        """Erase recorded calls, or count those that would go."""
        allow(caller, Action.ERASE)
        before = _instant(wanted.before, "before") if wanted.before else None
        by = f"key {caller.name}"
        try:
            gone = self._records.erase(wanted.task or "", wanted.caller, before, confirm=wanted.confirm, by=by)
        except CannotDo as error:
            raise Conflict(error.message, hint=error.hint) from None
        return as_json(200, gone)

    def expire(self, caller: Caller, _wanted: acts.Expire) -> HttpResponse:
        """Erase the recorded calls whose days are over."""
        allow(caller, Action.ERASE)
        try:
            return as_json(200, self._records.expire(f"key {caller.name}"))
        except CannotDo as error:
            raise Conflict(error.message, hint=error.hint) from None

    def openapi(self, _caller: Caller) -> HttpResponse:
        """The API's own description."""
        return as_json(200, document.openapi())


async def _streamed(lines: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Lines that are read from the disk in a thread, some hundreds at a time."""
    with suppress(CannotDo):  # what comes before it is good, and has no end
        while piece := await asyncio.to_thread(lambda: b"".join(islice(lines, _LINES))):
            yield piece


def _month(now: datetime) -> float:
    """When the month began."""
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()


def _instant(text: str, field: str) -> float:
    """A day or a time, of UTC where it names no zone. Raises BadRequest."""
    try:
        found = datetime.fromisoformat(text)
        at = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        at = 0.0
    if at < ORDER_ONLY:
        raise BadRequest(f"{field} is no date after 1973.", hint="Write it like 2026-05-03.", param=field)
    return at


def _host(header: str) -> str:
    """The name in a Host header, without the port, in lower case."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(address: str) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def _seat(view: SeatView, caller: Caller, sees_all: bool) -> dict[str, Any]:
    def shown(tickets: tuple[TicketView, ...]) -> list[dict[str, Any]]:
        return [
            {
                "call": ticket.call_id,
                "caller": ticket.caller.name,
                "model": ticket.model,
                "kind": ticket.kind.value,
                "seconds": round(ticket.seconds, 3),
            }
            | ({"place": ticket.place} if ticket.place else {})
            for ticket in tickets
            if sees_all or ticket.caller.id == caller.id
        ]

    counts = {"answering": len(view.holding), "waiting": len(view.waiting)}
    facts = {"model": view.model.name, "purpose": view.purpose, "engine": view.stage, "slots": view.slots}
    return facts | {"counts": counts, "answering": shown(view.holding), "waiting": shown(view.waiting)}


def _not_ready(reason: str) -> HttpResponse:
    return as_json(503, {"status": "not ready", "reason": reason}, ("retry-after", "2"))
