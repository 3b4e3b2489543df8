"""One engine, with the calls that hold its slots and those that wait for their turn.

An engine may be followed by another of the same model that has loaded more adapters: then calls take slots of the new
one, and those of the old one are answered to their end there.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable

from freehold.engine.base import Engine
from freehold.engine.line import Line
from freehold.engine.power import Meter
from freehold.errors import FreeholdError
from freehold.types import Caller, Kind, Manifest, SeatView, TicketView

Why = Callable[[], FreeholdError]  # makes the error that tells one who waited
_MOMENT = 1.0  # seconds


class Ticket:
    """A call's place at an engine: waiting for its turn, holding a slot (or several, or none), or done. ``model`` is
    the engine's own or an adapter over it; ``engine`` is there once it is this call's turn, and stays the same."""

    __slots__ = (
        "arrived", "call_id", "caller", "engine", "found", "held", "joules", "kind", "mark", "model", "place", "seat",
        "turn", "waited", "width",
    )  # fmt: skip

    def __init__(self, call_id: str, caller: Caller, kind: Kind, width: int, seat: Seat, model: Manifest):
        self.call_id, self.caller, self.kind, self.width, self.seat = call_id, caller, kind, width, seat
        self.model = model
        self.engine: Engine | None = None
        self.arrived = time.monotonic()
        self.turn: asyncio.Future | None = None
        self.place = 0  # in the line, when it came; 0: it did not have to wait
        self.found = ""  # what the engine was doing when it came
        self.waited = 0.0  # seconds
        self.held = 0.0  # seconds for which it had its slots, once it has given them back
        self.mark: float | None = None  # of the energy meter, when it got them
        self.joules: float | None = None  # its part of what the machine drew meanwhile, where that is counted

    @property
    def is_served(self) -> bool:
        """Is there an engine up that answers as its model?"""
        return self.seat.engine is not None and self.seat.engine.serves(self.model)

    def fail(self, error: FreeholdError) -> None:
        """It will not get its turn."""
        self.seat.line.leave(self)
        if self.turn is not None and not self.turn.done():
            self.turn.set_exception(error)

    def view(self, place: int = 0) -> TicketView:
        """How it stands now."""
        since = self.arrived if place else self.arrived + self.waited
        return TicketView(self.call_id, self.caller, self.kind, time.monotonic() - since, self.model.name, place)

    def release(self) -> None:
        """Give back the slot, or the place in line. Doing it twice does nothing."""
        self.seat.release(self)


class Seat:
    """One engine, or the intention of one: who holds it and who waits for it."""

    def __init__(self, model: Manifest, vectors: bool, meter: Meter | None = None):
        self.model, self.vectors, self._meter = model, vectors, meter
        self.engine: Engine | None = None
        self.leaving: dict[Engine, asyncio.Task] = {}  # engines that another followed, until their calls are done
        self.unloadable: dict[str, tuple[float, Why]] = {}  # adapters that cannot be had, by digest: until when, why
        self.adapters_used: dict[str, float] = {}  # when each was last called, by digest
        self.line: Line[Ticket] = Line()
        self.holding: set[Ticket] = set()
        self.stage = "stopped"
        self.bringing_up: asyncio.Task | None = None
        self.asked_for = False  # at the server's start, by whoever started it
        self.failure: Why | None = None  # why it did not come up the last time
        self.failed_at = 0.0
        self.draining = False  # it takes no more calls, because another model needs its memory
        self.used_at = self.up_since = time.monotonic()
        self.mean_seconds = 1.0  # how long a call holds its slot, on a moving average
        self.freed = asyncio.Event()

    @property
    def is_up(self) -> bool:
        """Is there a process, whether or not it takes calls now?"""
        return self.engine is not None

    @property
    def is_idle(self) -> bool:
        """Does nobody hold it or wait for it?"""
        return not self.holding and not self.line

    @property
    def is_wanted(self) -> bool:
        """Is there anybody for whom it, or one with more adapters, should come up?"""
        return self.asked_for or any(not ticket.is_served for ticket in self.line)

    @property
    def busy_until(self) -> float:
        """Until when it counts as in use: for a moment after its last call."""
        return math.inf if not self.is_idle else self.used_at + _MOMENT

    def report(self, done: int, total: int) -> None:
        """How far its model's bytes are compared."""
        self.stage = f"verifying {done / (total or 1):.0%}"

    def takes(self, ticket: Ticket) -> bool:
        """Could this call begin now?"""
        engine = self.engine
        if engine is None or self.draining or not engine.ready or not engine.serves(ticket.model):
            return False
        taken = sum(other.width for other in self.holding if other.engine is engine)  # more than there are, where a
        return max(engine.slots - taken, 0) >= min(ticket.width, engine.slots)  # call asks for them all

    def give(self, ticket: Ticket) -> None:
        """Give a call its slot."""
        ticket.engine = self.engine
        self.holding.add(ticket)
        if self._meter is not None:
            ticket.mark = self._meter.enter()
        if ticket.model.is_adapter:
            self.adapters_used[ticket.model.digest] = time.monotonic()

    def is_free(self, ticket: Ticket) -> bool:
        """Could it begin now, and does nobody wait who could too?"""
        return self.takes(ticket) and not (self.line and any(other.is_served for other in self.line))

    def held(self) -> Counter[Caller]:
        """The slots that each caller holds."""
        held: Counter[Caller] = Counter()
        for ticket in self.holding:
            held[ticket.caller] += ticket.width
        return held

    def serve(self) -> None:
        """Give free slots to those whose turn it is. Who waits for an adapter to be loaded keeps nobody waiting."""
        while (
            self.line
            and (able := self.line.those(lambda ticket: ticket.is_served))
            and self.takes(first := able.first(self.held()))
        ):
            self.line.leave(first)
            if not first.turn.done():  # it may have left already, and not come round to say so
                self.give(first)
                first.turn.set_result(None)

    def release(self, ticket: Ticket) -> None:
        """See `Ticket.release`."""
        self.line.leave(ticket)
        if ticket in self.holding:
            self.holding.discard(ticket)
            self.used_at = time.monotonic()
            ticket.held = self.used_at - ticket.arrived - ticket.waited
            if self._meter is not None and ticket.mark is not None:
                ticket.joules = self._meter.leave(ticket.mark)
            self.mean_seconds += 0.1 * (ticket.held - self.mean_seconds)
        self.serve()
        if self.leaving or not self.holding:
            self.freed.set()

    async def until_left(self, engine: Engine) -> None:
        """Until no call holds a slot of that engine."""
        while any(ticket.engine is engine for ticket in self.holding):
            self.freed.clear()
            await self.freed.wait()

    def dismiss(self, error: Why, which: Callable[[Ticket], bool] = lambda ticket: True) -> None:
        """Send away those who wait: all, or some of them."""
        for ticket in self.line.those(which):
            ticket.fail(error())

    @property
    def state(self) -> str:
        """What it is doing, in a word or two."""
        if self.engine is None:
            return self.stage
        return "making room" if self.draining else self.engine.state().state

    def state_for(self, ticket: Ticket) -> str:
        """What it is doing, for one who comes now."""
        return "loading an adapter" if self.is_up and not ticket.is_served and not self.draining else self.state

    def view(self) -> SeatView:
        """How it stands now."""
        waiting = self.line.order(self.held())
        return SeatView(
            model=self.model,
            purpose="vectors" if self.vectors else "text",
            stage=self.state,
            slots=self.engine.slots if self.engine else 0,
            holding=tuple(ticket.view() for ticket in sorted(self.holding, key=lambda ticket: ticket.arrived)),
            waiting=tuple(ticket.view(place) for place, ticket in enumerate(waiting, start=1)),
            taken=sum(ticket.width for ticket in self.holding),
        )

    def retry_after(self) -> int:
        """Seconds in which those in line may all have had their turn, for a client to come back after."""
        slots = self.engine.slots if self.engine else 1
        return min(max(math.ceil(len(self.line) * self.mean_seconds / slots), 1), 60)
