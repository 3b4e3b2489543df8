"""The engines of the house: each started at its model's first call, stopped when it is idle for long or when
another needs its memory, never in mid-call.

A call takes a `Ticket`: it holds a slot at once where one is free, and else waits in the line before the engine, which
is also where it waits while the engine comes up.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from freehold.config import PoolSettings, QueueSettings
from freehold.engine import memory
from freehold.engine.base import Engine
from freehold.engine.seat import Seat, Ticket
from freehold.errors import EngineUnready, FreeholdError, Overloaded, QueueFull, Stopping
from freehold.names import size
from freehold.types import Caller, EngineState, Kind, Manifest, Request, SeatView

_LOOK = 1.0  # seconds between looks at who is idle
_REMEMBER = 3.0  # seconds in which an engine that did not come up is not tried again


class Builder(Protocol):
    """Makes engines. Both methods may block; they run in threads."""

    def build(self, model: Manifest, vectors: bool) -> Engine:
        """The engine of a model, not started."""

    def verify(self, model: Manifest, report: Callable[[int, int], None]) -> None:
        """Compare the model's bytes with what was admitted, telling how far it is. Raises BadModel."""


class Pool:
    """Every engine that there is. An upstream has one engine for all its models: ``upstreams`` is its manifest, by the
    name of each of them."""

    def __init__(
        self,
        builder: Builder,
        pool: PoolSettings,
        queue: QueueSettings,
        upstreams: Mapping[str, Manifest] | None = None,
    ):
        self._upstreams = upstreams or {}
        self._builder, self._settings, self._queue = builder, pool, queue
        self._budget = pool.memory_bytes or memory.machine() // 4 * 3
        self._seats: dict[tuple[str, str, bool], Seat] = {}  # by the model's name and digest, and for vectors or not
        self._starting = asyncio.Lock()  # one engine comes up at a time: each counts the memory that the others left
        self._sweeper: asyncio.Task | None = None
        self._stopping = False

    async def start(self, models: list[Manifest]) -> None:
        """Bring up the engines of these models. Raises what the first that fails raises."""
        self._sweeper = asyncio.create_task(self._sweep())
        for model in models:
            seat = self._seat(model, vectors=False)
            seat.asked_for = True
            self._bring_up(seat)
            if seat.bringing_up is not None:
                await seat.bringing_up
            seat.asked_for = False

    async def stop(self) -> None:
        """Send away whoever waits, and stop every engine."""
        self._stopping = True
        if self._sweeper:
            self._sweeper.cancel()
        for seat in self._seats.values():
            seat.dismiss(lambda: Stopping("The server is stopping."))
        if under_way := [seat.bringing_up for seat in self._seats.values() if seat.bringing_up]:
            for task in under_way:
                task.cancel()
            await asyncio.wait(under_way)
        await asyncio.gather(*(self._down(seat) for seat in self._seats.values()))

    async def take(self, call_id: str, caller: Caller, request: Request, width: int, model: Manifest) -> Ticket:
        """Take ``width`` slots of the model's engine, waiting for them if need be. Whoever took them gives them back.

        Raises:
            BadRequest: the engine could not answer it.
            QueueFull: the line is full, and this call would be the last in it.
            Overloaded: it waited as long as a call may.
            EngineUnready: the engine does not come up.
        """
        upstream = self._upstreams.get(model.name)
        seat = self._seat(upstream or model, vectors=request.kind is Kind.EMBEDDING and upstream is None)
        ticket = Ticket(call_id, caller, request.kind, width, seat)
        if not seat.line and seat.takes(width):
            seat.holding.add(ticket)
            return ticket
        if seat.engine is not None:
            seat.engine.check(request)  # nobody shall wait for a refusal
        await self._wait(ticket)
        return ticket

    def states(self) -> list[EngineState]:
        """Every engine that is up or coming up."""
        return [seat.engine.state() for seat in self._seats.values() if seat.engine is not None]

    def views(self) -> list[SeatView]:
        """Every engine that was ever called, with the calls that it answers and those that wait for it."""
        return [seat.view() for seat in self._seats.values()]

    @property
    def unready(self) -> list[str]:
        """What keeps engines that should answer from answering."""
        states = {seat.engine.state().state for seat in self._seats.values() if seat.is_up}
        return sorted(states - {"ready", "stopped"})

    async def _wait(self, ticket: Ticket) -> None:
        seat = ticket.seat
        ticket.turn = asyncio.get_running_loop().create_future()
        ticket.found = seat.state
        seat.line.append(ticket)
        order = seat.line.order(seat.held())
        ticket.place = order.index(ticket) + 1
        try:
            if len(order) > self._queue.calls:
                self._send_away(order[-1])
            self._bring_up(seat)
            seat.serve()
            await self._turn(ticket)
        except BaseException:
            ticket.release()
            raise
        finally:
            ticket.waited = time.monotonic() - ticket.arrived

    async def _turn(self, ticket: Ticket) -> None:
        """Until it is the ticket's turn; so long and no longer, but for the time that its engine takes to come up."""
        while not ticket.turn.done():
            await asyncio.wait([ticket.turn], timeout=self._queue.seconds)
            if not ticket.turn.done() and ticket.seat.is_up:
                said = f"The call waited {self._queue.seconds:g} s for its turn; the engine is {ticket.seat.state}."
                raise Overloaded(said, retry_after=ticket.seat.retry_after())
        ticket.turn.result()

    def _send_away(self, last: Ticket) -> None:
        """The line is full: the last in it has to go."""
        seat = last.seat
        seat.line.leave(last)
        own = sum(ticket.caller == last.caller for ticket in seat.line)
        said = f"{len(seat.line)} calls wait for {seat.model.name}, {own} of them yours, and there is room for no more."
        if not last.turn.done():
            last.turn.set_exception(QueueFull(said, retry_after=seat.retry_after()))

    def _seat(self, model: Manifest, vectors: bool) -> Seat:
        key = (model.name, model.digest, vectors)
        seat = self._seats.get(key)
        if seat is None:
            seat = self._seats[key] = Seat(model, vectors)
        return seat

    # engines coming up and going down

    def _bring_up(self, seat: Seat) -> None:
        """See to it that the engine comes up; where that fails, whoever waits for it hears why."""
        if seat.is_up or seat.bringing_up is not None or self._stopping:
            return
        if seat.failure is not None and time.monotonic() < seat.failed_at + _REMEMBER:
            seat.dismiss(seat.failure)
            return
        seat.bringing_up = asyncio.create_task(self._up(seat))
        seat.bringing_up.add_done_callback(_look)

    async def _up(self, seat: Seat) -> None:
        """Build the engine, compare its model's bytes, make room and start it, as long as somebody wants it."""
        try:
            seat.stage = "reading"
            engine = await asyncio.to_thread(self._builder.build, seat.model, seat.vectors)
            self._check_fits(engine.need)
            seat.stage = "verifying"
            await asyncio.to_thread(self._builder.verify, seat.model, seat.report)
            seat.stage = "waiting for memory"
            async with self._starting:
                if await self._make_room(seat, engine.need):
                    seat.stage = "starting"
                    await engine.start(seat.serve)
                    seat.engine = engine
                    seat.up_since = seat.used_at = time.monotonic()
        except Exception as error:
            self._failed(seat, error)
            raise
        finally:
            seat.bringing_up, seat.stage = None, "stopped"
        seat.serve()
        if seat.line and not seat.is_up:  # somebody came after all
            self._bring_up(seat)

    def _failed(self, seat: Seat, error: Exception) -> None:
        """Tell whoever waits, and for a moment whoever comes: to try at every call would keep others from starting."""
        cause = error.message if isinstance(error, FreeholdError) else f"unexpectedly, {type(error).__name__}: {error}."
        said, hint = f"The engine of {seat.model.name} does not come up: {cause}", getattr(error, "hint", "")
        with contextlib.suppress(OSError):  # the log may be on a full disk
            print(f"{said} {hint}".strip(), file=sys.stderr, flush=True)
        seat.failure, seat.failed_at = lambda: EngineUnready(said, hint=hint), time.monotonic()
        seat.dismiss(seat.failure)

    def _check_fits(self, need: int) -> None:
        if need > self._budget:
            raise EngineUnready(
                f"It needs {size(need)} of memory, and all engines together may have {size(self._budget)}.",
                hint="Give it fewer slots or a shorter context in freehold.toml, or raise pool.memory_bytes.",
            )

    async def _make_room(self, seat: Seat, need: int) -> bool:
        """Stop others, the least recently used first, until there is memory; says whether it is still wanted."""
        while seat.is_wanted and need > self._budget - sum(other.engine.need for other in self._up_now()):
            taking = [other for other in self._up_now() if other.engine.need]
            await self._evict(min(taking, key=lambda other: (not other.is_idle, other.used_at)), seat)
        return seat.is_wanted

    def _up_now(self) -> list[Seat]:
        return [seat for seat in self._seats.values() if seat.is_up]

    async def _evict(self, seat: Seat, newcomer: Seat) -> None:
        """Let the calls in hand finish, then stop the engine; those in its line wait for it to come back. One that
        was used a moment ago stays for a while first: two models that fight shall each get something done."""
        stays_until = seat.up_since + self._settings.stay_seconds
        while time.monotonic() < min(stays_until, seat.busy_until):
            await asyncio.sleep(min(_LOOK, stays_until - time.monotonic()))
        if not newcomer.is_wanted:
            return
        seat.draining = True
        try:
            while seat.holding:
                seat.freed.clear()
                await seat.freed.wait()
            await self._down(seat)
        finally:
            seat.draining = False

    async def _down(self, seat: Seat) -> None:
        """Stop the engine, whose memory counts until it is gone. Who came meanwhile waits for it to come back."""
        try:
            if seat.engine is not None:
                await seat.engine.stop()
        finally:
            seat.engine, seat.stage = None, "stopped"
            if seat.line:
                self._bring_up(seat)

    async def _sweep(self) -> None:
        """Stop what nobody called for long."""
        while True:
            await asyncio.sleep(min(_LOOK, self._settings.idle_seconds))
            for seat in self._up_now():
                if (
                    seat.is_up
                    and seat.engine.need
                    and seat.is_idle
                    and time.monotonic() - seat.used_at > self._settings.idle_seconds
                ):
                    await self._down(seat)


def _look(task: asyncio.Task) -> None:
    """What went wrong was told to those who waited."""
    if not task.cancelled():
        task.exception()
