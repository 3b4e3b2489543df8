"""The online sentence: a request is tied to a caller, gets a decision from policy, is given a route, is
answered by an engine inside the seal, and leaves one ledger entry, whatever happens on the way.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from freehold import identity, policy, route
from freehold.engine.base import Reply
from freehold.engine.seat import Ticket
from freehold.errors import EngineFailed, Forbidden, FreeholdError, Refused
from freehold.guard import Guard
from freehold.lease import Lease, Leases
from freehold.ledger import Ledger
from freehold.types import Aim, Alias, Caller, Kind, Manifest, Outcome, Request, Route, Seen, Settlement, Usage


class Tap(Protocol):
    """Takes in an answer on its way out. ``keep`` is called where it was whole and accounted for."""

    def take(self, piece: bytes) -> None: ...

    def keep(self, call_id: str) -> None: ...


class Models(Protocol):
    """The models that can be called, by name, at most a moment old; ``now``: not even that."""

    def __call__(self, *, now: bool = False) -> Mapping[str, Manifest]: ...


class Eye(Protocol):
    """Sees what becomes of one call in a canary: the answer as it passes, and how the call was settled."""

    def take(self, piece: bytes) -> None: ...

    def settled(self, settlement: Settlement) -> None: ...


class House(Struct, frozen=True):
    """What a call needs of the house: the ledger, the leases on its engines, the models and the aliases by name, as
    they are when it asks, the names of the upstreams that run some of them, by the model's name, who records the answer
    to a caller's request, if anybody does, who watches the call, if it is in a canary, what guards the texts, and who
    hears of every call once it is over: it may neither wait nor raise."""

    ledger: Ledger
    leases: Leases
    models: Models
    upstreams: Mapping[str, str] = {}
    tap: Callable[[Caller, Request], Tap | None] = lambda caller, request: None
    aliases: Callable[[], Mapping[str, Alias]] = dict
    eye: Callable[[str, Caller, Kind, Aim], Eye | None] = lambda call_id, caller, kind, aim: None
    guard: Guard = msgspec.field(default_factory=Guard)
    observe: Callable[[Seen], None] = lambda seen: None


class Beginning(Struct, frozen=True):
    """What is known of an answer before its first byte."""

    media_type: str
    headers: tuple[tuple[str, str], ...] = ()


async def answer(
    house: House, call_id: str, caller: Caller, kind: Kind, read: Callable[[Callable[[dict[str, Any]], Aim]], Request],
    traceparent: str = "",
) -> AsyncIterator[Beginning | bytes]:  # fmt: skip
    """Answer one call: first its `Beginning`, then the bytes.

    ``read`` makes the checked request out of what the client sent, by means of what it is given, which finds what the
    name in a document leads to; it is called after the entry is open, so that a request which cannot be read is
    accounted for too. In strict durability nothing of a stream is yielded before its entry is on the disk, and of no
    answer the last bytes before its settlement is. ``traceparent`` is the request's header of that name.

    Raises:
        Refused, Failed: as `policy`, `route`, the guard, the lease, the ledger and the engine do.
    """
    tally = _Tally()
    failure: FreeholdError | None = None
    lease: Lease | None = None
    tap: Tap | None = None
    last = b""  # what makes the answer whole is sent when the entry is settled
    entry = house.ledger.open(call_id, caller, kind)
    try:
        await entry.begin()
        lease = house.leases.begin(call_id, caller, kind)
        request = read(partial(_aim, house, tally, call_id, caller, kind))
        tally.model, tally.stream = request.model, request.stream
        decision = policy.decide(caller, request, lease.limits)
        if not decision.allowed:
            raise Forbidden(decision.reason)
        request = policy.within(request, lease.limits)
        way = _route(house, request)
        tally.manifest, tally.upstream = way.model, way.upstream
        given = await house.guard(caller, request, leaves=bool(way.upstream))
        tap = house.tap(caller, given.request)
        await lease.take(given.request, way.model)
        reply = tally.reply = given.over(lease.ask(given.request), tap)
        if way.upstream:
            await entry.leaves()
        while piece := await reply.read():
            if tally.first is None:
                if request.stream:
                    await entry.on_disk()
                tally.first_byte()
                yield Beginning(reply.media_type, (*lease.headers, _whose(way)))
            if tally.eye is not None:
                tally.eye.take(piece)
            if reply.complete:
                last += piece
            else:
                yield piece
        if tally.first is None:
            raise EngineFailed("The engine answered nothing.")
        tally.outcome = Outcome.ANSWERED if reply.complete and not reply.failure else Outcome.FAILED
    except FreeholdError as error:
        failure = error
        tally.fault(error)
    except Exception:  # a fault of ours, and not the client's going
        tally.fault(FreeholdError("An unexpected fault."))
        raise
    finally:
        try:
            if tally.reply is not None:
                await tally.reply.close()
        finally:  # whatever happens, a second cancellation too
            if lease is not None:
                lease.release(tally.outcome)
                tally.ticket = lease.ticket
            settlement = tally.settlement()
            entry.settle(settlement)
            if tally.eye is not None:
                tally.eye.settled(settlement)
            if settlement.outcome is not Outcome.ANSWERED:
                house.observe(tally.seen(call_id, caller, kind, settlement, traceparent))
    try:
        await entry.on_disk()
    finally:
        if settlement.outcome is Outcome.ANSWERED:  # as far as is known until the entry is on the disk
            house.observe(tally.seen(call_id, caller, kind, entry.settlement or settlement, traceparent))
    if failure is not None:
        try:
            raise failure
        finally:
            failure = None  # or it, its traceback and this frame, with the request, would hold each other
    if tap is not None and tally.outcome is Outcome.ANSWERED:
        tap.keep(call_id)
    if last:
        yield last


def _route(house: House, request: Request) -> Route:
    """Where the request goes; a model that is not known may have come in a moment ago. Raises ModelNotFound."""
    models = house.models()
    if request.model not in models:
        models = house.models(now=True)
    return route.find(request, models, house.upstreams)


def _aim(house: House, tally: _Tally, call_id: str, caller: Caller, kind: Kind, document: dict[str, Any]) -> Aim:
    """What the name in a document leads to, and who watches the call if that is a canary's draw."""
    conversation = partial(identity.of, caller.id, kind, document)
    models = partial(house.models, now=True)  # an alias may lead to a model that came in a moment ago
    found = route.aim(document.get("model"), conversation, house.aliases(), models, house.upstreams)
    tally.alias = found.alias
    if found.canary:
        tally.eye = house.eye(call_id, caller, kind, found)
    return found


def _whose(way: Route) -> tuple[str, str]:
    """The header that says which bytes answered, or whose model did."""
    digest = f"upstream:{way.upstream}" if way.upstream else way.model.digest
    return ("x-freehold-model", f"{way.model.name}@{digest}")


class _Tally:
    """What is known of a call so far. Until something else is known, the client has left."""

    def __init__(self) -> None:
        self.outcome = Outcome.ABANDONED
        self.status = 200
        self.error = ""
        self.model = self.alias = ""
        self.eye: Eye | None = None
        self.stream = False
        self.manifest: Manifest | None = None
        self.upstream = ""
        self.reply: Reply | None = None
        self.ticket: Ticket | None = None  # once it is given back
        self.started = time.perf_counter()
        self.first: float | None = None

    def first_byte(self) -> None:
        self.first = time.perf_counter()

    def fault(self, error: FreeholdError) -> None:
        self.outcome = Outcome.REFUSED if isinstance(error, Refused) else Outcome.FAILED
        self.error = error.code
        self.status = error.status if self.first is None else 200

    def seen(self, call_id: str, caller: Caller, kind: Kind, settlement: Settlement, traceparent: str) -> Seen:
        """The call as operators see it."""
        model = self.manifest.name if self.manifest else ""
        opened_at = time.time() - (time.perf_counter() - self.started)
        return Seen(call_id, caller.name, kind, settlement, model, self.upstream, traceparent, opened_at)

    def settlement(self) -> Settlement:
        """The second half of the entry."""
        now = time.perf_counter()
        return Settlement(
            outcome=self.outcome,
            status=499 if self.outcome is Outcome.ABANDONED else self.status,
            error=self.error or ("engine_failed" if self.outcome is Outcome.FAILED else ""),
            model=self.model[:200].replace("\0", ""),
            digest=self.manifest.digest if self.manifest else "",
            usage=self.reply.usage if self.reply else Usage(),
            first_token_ms=(self.first - self.started) * 1000 if self.first and self.stream else None,
            total_ms=(now - self.started) * 1000,
            left_the_house=self.reply is not None and self.reply.left_the_house,
            waited_ms=self.ticket.waited * 1000 if self.ticket else None,
            engine_ms=self.ticket.held * 1000 if self.ticket else 0.0,
            alias=self.alias,
            joules=self.ticket.joules if self.ticket else None,
        )
