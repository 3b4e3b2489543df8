"""What operators see and do: is it alive, is it ready, what is true now, what do the aliases point at, and the document
of the whole API; and what applications say of their calls. Who may call is in `people`, the ledger and the chain in
`books`, what is kept of texts in `records`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from freehold import policy
from freehold.answer import House
from freehold.api import acts, document
from freehold.api.message import HttpRequest, HttpResponse
from freehold.api.pages import SHOWN, Overview
from freehold.api.reply import allow, as_json, done
from freehold.errors import Unaccountable
from freehold.guard import Destination
from freehold.types import Action, Call, Caller, SeatView, TicketView

Page = Callable[[Caller], HttpResponse | Awaitable[HttpResponse]]
Act = Callable[[Caller, Any], HttpResponse]
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


class Gauges(Protocol):
    """What the house can say of itself in figures."""

    async def page(self, accept: str) -> tuple[bytes, str]:
        """The page of /metrics, and its media type."""

    async def facts(self) -> dict[str, Any]:
        """What the front page shows beside what status does."""


class Room(Protocol):
    """Pages and acts that belong together: `people`, `books`, `records`."""

    pages: Mapping[str, Page]
    acts: Mapping[str, tuple[acts.Act, Act]]


class Admin:
    """``open_to_all`` are the two paths that need no key; ``pages`` are those that do, and ``acts`` those that do
    something, which may wait for the disk. ``facts`` do not change; ``outside`` tells what the gateway knows of its
    upstreams and their relay; ``metrics_open``: whoever asks from this machine may read the metrics."""

    def __init__(
        self, house: House, facts: Mapping[str, Any], moves: Moves, gauges: Gauges,
        outside: Callable[[], dict[str, Any]], rooms: Sequence[Room], *, metrics_open: bool = False,
    ):  # fmt: skip
        self._house, self._moves, self._outside, self._gauges = house, moves, outside, gauges
        self._facts, self._metrics_open = dict(facts), metrics_open
        self.is_up = False  # until the engines that were asked for are
        self.open_to_all: dict[str, Callable[[], HttpResponse]] = {"/healthz": self.health, "/readyz": self.ready}
        self.pages: dict[str, Page] = {
            "/admin/aliases": self.aliases,
            "/admin/guard": self.guard,
            "/admin/status": self.status,
            "/admin/queue": self.queue,
            "/openapi.json": self.openapi,
        }
        self.acts: dict[str, tuple[acts.Act, Act]] = {
            acts.FEEDBACK.path: (acts.FEEDBACK, self.feedback),
            acts.MOVE.path: (acts.MOVE, self.move),
            acts.TRIAL.path: (acts.TRIAL, self.trial),
        }
        for room in rooms:
            self.pages |= room.pages
            self.acts |= room.acts

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
        return as_json(200, done(lambda: self._moves.rollback(wanted.alias, caller.id)))

    def guard(self, caller: Caller) -> HttpResponse:
        """What the guard does with each kind, and what it has done since the start."""
        allow(caller, Action.LOOK)
        guard = self._house.guard
        return as_json(200, {"rules": guard.table(), "callers": guard.named, "done": guard.facts()})

    def trial(self, caller: Caller, wanted: acts.Trial) -> HttpResponse:
        """What the guard would make of a text; nothing of it is kept."""
        allow(caller, Action.LOOK)
        return as_json(
            200, msgspec.to_builtins(self._house.guard.trial(wanted.caller, Destination(wanted.to), wanted.text))
        )

    def openapi(self, _caller: Caller) -> HttpResponse:
        """The API's own description."""
        return as_json(200, document.openapi())


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
