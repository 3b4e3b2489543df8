"""What operators see and do: is it alive, is it ready, what is true now, what do the aliases point at, and the document
of the whole API; and what applications say of their calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from freehold import policy
from freehold.answer import House
from freehold.api import acts, document
from freehold.api.message import HttpResponse
from freehold.errors import BadRequest, CannotDo, Conflict, Forbidden, NotFound
from freehold.samples import ORDER_ONLY
from freehold.types import Caller, Decision, SeatView, TicketView

Page = Callable[[Caller], HttpResponse]


class Moves(Protocol):
    """What the house does with its aliases."""

    def facts(self) -> list[dict[str, Any]]:
        """How they stand."""

    def rollback(self, alias: str, by: str) -> dict[str, Any]:
        """Move one back; says from what to what. May wait for the disk. Raises CannotDo."""

    def feedback(self, caller: Caller, call_id: str, *, good: bool) -> None:
        """What an application says of one of its calls. Raises NotFound."""


class Records(Protocol):
    """What the house keeps of texts."""

    def facts(self) -> dict[str, Any]:
        """How long each task's calls are kept, and with which key."""

    def erase(self, task: str, caller: str | None, before: float | None, *, confirm: bool, by: str) -> dict[str, Any]:
        """Erase recorded calls, or only count them. Raises CannotDo."""

    def expire(self, by: str) -> dict[str, Any]:
        """Erase those whose days are over. Raises CannotDo."""


class Admin:
    """``open_to_all`` are the two paths that need no key; ``pages`` are those that do, and ``acts`` those that do
    something, which may wait for the disk. ``facts`` do not change; ``outside`` tells what the gateway knows of its
    upstreams and their relay."""

    def __init__(
        self, house: House, facts: Mapping[str, Any], moves: Moves, outside: Callable[[], dict[str, Any]] = dict,
        records: Records | None = None,
    ):  # fmt: skip
        self._house, self._moves, self._outside, self._records = house, moves, outside, records
        self._facts = dict(facts)
        self.is_up = False  # until the engines that were asked for are
        self.open_to_all: dict[str, Callable[[], HttpResponse]] = {"/healthz": self.health, "/readyz": self.ready}
        self.pages: dict[str, Page] = {
            "/admin/aliases": self.aliases,
            "/admin/traffic": self.traffic,
            "/admin/status": self.status,
            "/admin/queue": self.queue,
            "/openapi.json": self.openapi,
        }
        self.acts: dict[str, tuple[acts.Act, Callable[[Caller, Any], HttpResponse]]] = {
            acts.FEEDBACK.path: (acts.FEEDBACK, self.feedback),
            acts.MOVE.path: (acts.MOVE, self.move),
            acts.ERASE.path: (acts.ERASE, self.erase),
            acts.EXPIRE.path: (acts.EXPIRE, self.expire),
        }

    def health(self) -> HttpResponse:
        """The process is alive."""
        return _json(200, {"status": "ok"})

    def ready(self) -> HttpResponse:
        """Calls are taken, and no engine that should answer does not. Names no model: this page needs no key."""
        if not self.is_up:
            return _not_ready("the engine is starting")
        if faults := self._house.leases.pool.unready:
            return _not_ready(f"an engine is {' and '.join(faults)}")
        return _json(200, {"status": "ready"})

    def status(self, caller: Caller) -> HttpResponse:
        """What the gateway knows of itself; ``freehold status`` holds it against the kernel."""
        _allow(policy.may_look(caller))
        engines = [msgspec.to_builtins(state) for state in self._house.leases.pool.states()]
        models = [msgspec.to_builtins(manifest) for manifest in self._house.models().values()]
        return _json(200, self._facts | {"engines": engines, "models": models} | self._outside())

    def queue(self, caller: Caller) -> HttpResponse:
        """Who is served and who waits, for which model and where in line. Of others' calls, a caller who may not
        look at the server sees how many there are."""
        sees_all = policy.may_look(caller).allowed
        return _json(200, {"models": [_seat(view, caller, sees_all) for view in self._house.leases.pool.views()]})

    def aliases(self, caller: Caller) -> HttpResponse:
        """What each alias points at, and how its canary goes."""
        _allow(policy.may_look(caller))
        return _json(200, {"aliases": self._moves.facts()})

    def feedback(self, caller: Caller, said: acts.Feedback) -> HttpResponse:
        """What an application says of one of its own calls."""
        _allow(policy.may_judge(caller))
        self._moves.feedback(caller, said.call, good=said.good)
        return _json(200, {"call": said.call, "good": said.good})

    def move(self, caller: Caller, wanted: acts.Move) -> HttpResponse:
        """Move an alias back; calls that come after the answer find it there."""
        _allow(policy.may_move(caller))
        try:
            return _json(200, self._moves.rollback(wanted.alias, f"key {caller.name}"))
        except CannotDo as error:
            raise Conflict(error.message, hint=error.hint) from None

    def traffic(self, caller: Caller) -> HttpResponse:
        """How long recorded calls are kept."""
        _allow(policy.may_look(caller))
        try:
            return _json(200, self._kept.facts())
        except CannotDo as error:
            raise Conflict(error.message, hint=error.hint) from None

    def erase(self, caller: Caller, wanted: acts.Erase) -> HttpResponse:
        """Erase recorded calls, or count those that would go."""
        _allow(policy.may_erase(caller))
        before = _instant(wanted.before) if wanted.before else None
        by = f"key {caller.name}"
        try:
            gone = self._kept.erase(wanted.task or "", wanted.caller, before, confirm=wanted.confirm, by=by)
        except CannotDo as error:
            raise Conflict(error.message, hint=error.hint) from None
        return _json(200, gone)

    def expire(self, caller: Caller, _wanted: acts.Expire) -> HttpResponse:
        """Erase the recorded calls whose days are over."""
        _allow(policy.may_erase(caller))
        try:
            return _json(200, self._kept.expire(f"key {caller.name}"))
        except CannotDo as error:
            raise Conflict(error.message, hint=error.hint) from None

    @property
    def _kept(self) -> Records:
        if self._records is None:
            raise NotFound("Nothing is recorded here.")
        return self._records

    def openapi(self, _caller: Caller) -> HttpResponse:
        """The API's own description."""
        return _json(200, document.openapi())


def _instant(text: str) -> float:
    """A day or a time, of UTC where it names no zone. Raises BadRequest."""
    try:
        found = datetime.fromisoformat(text)
        at = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        at = 0.0
    if at < ORDER_ONLY:
        raise BadRequest("before is no date after 1973.", hint="Write it like 2026-05-03.", param="before")
    return at


def _allow(decision: Decision) -> None:
    """Raises Forbidden."""
    if not decision.allowed:
        raise Forbidden(decision.reason)


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
    return _json(503, {"status": "not ready", "reason": reason}, ("retry-after", "2"))


def _json(status: int, content: dict[str, Any], *headers: tuple[str, str]) -> HttpResponse:
    return HttpResponse(status, msgspec.json.encode(content), headers=headers)
