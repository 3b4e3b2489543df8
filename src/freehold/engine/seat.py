"""One engine, with the calls that hold its slots and those that wait for their turn."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable

from freehold.engine.base import Engine
from freehold.engine.line import Line
from freehold.errors import FreeholdError
from freehold.types import Caller, Kind, Manifest, SeatView, TicketView

_MOMENT = 1.0  # seconds


class Ticket:
    """A call's place at an engine: waiting for its turn, holding a slot (or several, or none), or done."""

    __slots__ = ("arrived", "call_id", "caller", "found", "held", "kind", "place", "seat", "turn", "waited", "width")

    def __init__(self, call_id: str, caller: Caller, kind: Kind, width: int, seat: Seat):
        self.call_id, self.caller, self.kind, self.width, self.seat = call_id, caller, kind, width, seat
        self.arrived = time.monotonic()
        self.turn: asyncio.Future | None = None
        self.place = 0  # in the line, when it came; 0: it did not have to wait
        self.found = ""  # what the engine was doing when it came
        self.waited = 0.0  # seconds
        self.held = 0.0  # seconds for which it had its slots, once it has given them back

    @property
    def engine(self) -> Engine:
        """The engine, once it is this call's turn."""
        return self.seat.engine

    def view(self, place: int = 0) -> TicketView:
        """How it stands now."""
        since = self.arrived if place else self.arrived + self.waited
        return TicketView(self.call_id, self.caller, self.kind, time.monotonic() - since, place)

    def release(self) -> None:
        """Give back the slot, or the place in line. Doing it twice does nothing."""
        self.seat.release(self)


class Seat:
    """One engine, or the intention of one: who holds it and who waits for it."""

    def __init__(self, model: Manifest, vectors: bool):
        self.model, self.vectors = model, vectors
        self.engine: Engine | None = None
        self.line: Line[Ticket] = Line()
        self.holding: set[Ticket] = set()
        self.stage = "stopped"
        self.bringing_up: asyncio.Task | None = None
        self.asked_for = False  # at the server's start, by whoever started it
        self.failure: Callable[[], FreeholdError] | None = None  # why it did not come up the last time
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
        """Is there anybody for whom it should come up?"""
        return bool(self.line) or self.asked_for

    @property
    def busy_until(self) -> float:
        """Until when it counts as in use: for a moment after its last call."""
        return math.inf if not self.is_idle else self.used_at + _MOMENT

    def report(self, done: int, total: int) -> None:
        """How far its model's bytes are compared."""
        self.stage = f"verifying {done / (total or 1):.0%}"

    def takes(self, width: int) -> bool:
        """Could a call of that width begin now?"""
        if self.engine is None or self.draining or not self.engine.ready:
            return False
        taken = sum(ticket.width for ticket in self.holding)  # more than there are, where a call asks for them all
        return max(self.engine.slots - taken, 0) >= min(width, self.engine.slots)

    def held(self) -> Counter[Caller]:
        """The slots that each caller holds."""
        held: Counter[Caller] = Counter()
        for ticket in self.holding:
            held[ticket.caller] += ticket.width
        return held

    def serve(self) -> None:
        """Give free slots to those whose turn it is."""
        while self.line and self.takes((first := self.line.first(self.held())).width):
            self.line.leave(first)
            if not first.turn.done():  # it may have left already, and not come round to say so
                self.holding.add(first)
                first.turn.set_result(None)

    def release(self, ticket: Ticket) -> None:
        """See `Ticket.release`."""
        self.line.leave(ticket)
        if ticket in self.holding:
            self.holding.discard(ticket)
            self.used_at = time.monotonic()
            ticket.held = self.used_at - ticket.arrived - ticket.waited
            self.mean_seconds += 0.1 * (ticket.held - self.mean_seconds)
        self.serve()
        if not self.holding:
            self.freed.set()

    def dismiss(self, error: Callable[[], FreeholdError]) -> None:
        """Send everybody away who waits."""
        waiting, self.line = self.line, Line()
        for ticket in waiting:
            if not ticket.turn.done():
                ticket.turn.set_exception(error())

    @property
    def state(self) -> str:
        """What it is doing, in a word or two."""
        if self.engine is None:
            return self.stage
        return "making room" if self.draining else self.engine.state().state

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
        )

    def retry_after(self) -> int:
        """Seconds in which those in line may all have had their turn, for a client to come back after."""
        slots = self.engine.slots if self.engine else 1
        return min(max(math.ceil(len(self.line) * self.mean_seconds / slots), 1), 60)
