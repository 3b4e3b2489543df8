"""The engines of the house: each started at its model's first call, stopped when it is idle for long or when
another needs its memory, never in mid-call.

Adapters are answered by their base's engine, which loads them when it starts. A call for one that it has not loaded
brings up another engine beside it, with all adapters that there are by then; that one takes over, and the calls in hand
are answered to their end by the one before. Only where the memory does not hold both does the one before go first.

A call takes a `Ticket`: it holds a slot at once where one is free, and else waits in the line before the engine, which
is also where it waits while the engine comes up.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from freehold import log
from freehold.config import PoolSettings, QueueSettings
from freehold.engine import memory
from freehold.engine.base import Engine
from freehold.engine.power import Meter
from freehold.engine.seat import Seat, Ticket
from freehold.engine.upstream import REMOTE
from freehold.errors import EngineUnready, FreeholdError, ModelNotFound, Overloaded, QueueFull, Stopping
from freehold.names import size
from freehold.types import Caller, EngineState, Kind, Manifest, Request, SeatView

_LOOK = 1.0  # seconds between looks at who is idle
_REMEMBER = 3.0  # seconds in which an engine that did not come up is not tried again
_LOADS_NOT = 600.0  # and an adapter that the engine could not load: the same bytes will hardly do better


class Builder(Protocol):
    """Makes engines, and knows the adapters. All but `base` may block; they run in threads."""

    def base(self, adapter: Manifest) -> Manifest:
        """The model that an adapter belongs to. Raises ModelNotFound."""

    def adapters(self, model: Manifest) -> list[Manifest]:
        """Every adapter of a model that is admitted now, the newest first."""

    def build(self, model: Manifest, vectors: bool, adapters: Sequence[Manifest]) -> Engine:
        """The engine of a model with adapters over it, not started."""

    def verify(self, model: Manifest, report: Callable[[int, int], None]) -> None:
        """Compare the model's bytes with what was admitted, telling how far it is. Raises BadModel."""


class Pool:
    """Every engine that there is. An upstream has one engine for all its models: ``upstreams`` is its manifest, by the
    name of each of them. ``meter`` shares the machine's energy among the calls that are answered here."""

    def __init__(
        self,
        builder: Builder,
        pool: PoolSettings,
        queue: QueueSettings,
        upstreams: Mapping[str, Manifest] | None = None,
        meter: Meter | None = None,
    ):
        self._upstreams, self._meter = upstreams or {}, meter
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
            seat = self._seat(self._home(model, vectors=False), vectors=False)
            seat.asked_for = not seat.is_up
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
        if leaving := [task for seat in self._seats.values() for task in seat.leaving.values()]:
            for task in leaving:
                task.cancel()
            await asyncio.wait(leaving)
        remaining = [engine for seat in self._seats.values() for engine in seat.leaving]
        await asyncio.gather(*(engine.stop() for engine in remaining))  # of a task that had not even begun
        await asyncio.gather(*(self._down(seat) for seat in self._seats.values()))

    async def take(self, call_id: str, caller: Caller, request: Request, width: int, model: Manifest) -> Ticket:
        """Take ``width`` slots of the model's engine, waiting for them if need be. Whoever took them gives them back.

        Raises:
            BadRequest: the engine could not answer it.
            ModelNotFound: it is an adapter, and it or its base was removed meanwhile.
            QueueFull: the line is full, and this call would be the last in it.
            Overloaded: it waited as long as a call may.
            EngineUnready: the engine does not come up.
        """
        upstream = self._upstreams.get(model.name)
        vectors = request.kind is Kind.EMBEDDING and upstream is None
        seat = self._seat(upstream or self._home(model, vectors), vectors)
        ticket = Ticket(call_id, caller, request.kind, width, seat, model)
        if seat.is_free(ticket):
            seat.give(ticket)
            return ticket
        if seat.engine is not None:
            seat.engine.check(request)  # nobody shall wait for a refusal
        await self._wait(ticket)
        return ticket

    def states(self) -> list[EngineState]:
        """Every engine that is up or coming up."""
        return [engine.state() for seat in self._seats.values() for engine in _engines(seat)]

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
        ticket.found = seat.state_for(ticket)
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
            if not ticket.turn.done() and (ticket.is_served or ticket.seat.bringing_up is None):
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
            seat = self._seats[key] = Seat(model, vectors, None if model.format == REMOTE else self._meter)
        return seat

    # engines coming up and going down

    def _bring_up(self, seat: Seat) -> None:
        """See to it that an engine comes up that serves those who wait; where that fails, they hear why."""
        if seat.bringing_up is not None or self._stopping or not seat.is_wanted:
            return
        if seat.failure is not None and time.monotonic() < seat.failed_at + _REMEMBER:
            seat.dismiss(seat.failure, _is_left_out)
            return
        seat.bringing_up = asyncio.create_task(self._up(seat))
        seat.bringing_up.add_done_callback(_look)

    async def _up(self, seat: Seat) -> None:
        """Build an engine, compare the bytes that it will open, make room and start it, as long as somebody wants it.
        One that is up meanwhile goes on answering, and is followed by the new one."""
        try:
            seat.stage = "reading"
            adapters = await self._adapters(seat)
            if seat.is_wanted:  # an adapter that nobody can have is nobody's wish
                for model in _opened(seat.model, self._builder):
                    await self._verify(seat, model)
                seat.stage = "waiting for memory"
                async with self._starting:
                    await self._follow(seat, adapters)
        except Exception as error:
            self._failed(seat, error)
            raise
        finally:
            seat.bringing_up, seat.stage = None, "stopped"
        self._serve(seat)  # somebody may have come after all

    async def _follow(self, seat: Seat, adapters: list[Manifest]) -> None:
        """Start an engine with these adapters where there is room for it, and let it follow the one that is up."""
        engine, fitting = await asyncio.to_thread(self._fitting, seat, adapters)
        if not await self._make_room(seat, engine.need):
            return
        seat.stage = "starting"
        engine = await self._started(seat, engine, fitting)
        before, seat.engine = seat.engine, engine
        seat.up_since = seat.used_at = time.monotonic()
        if before is not None:
            seat.leaving[before] = asyncio.create_task(self._see_off(seat, before))
        for adapter in adapters:
            if not engine.serves(adapter):
                self._left_out(seat, adapter, adapter in fitting)

    async def _started(self, seat: Seat, engine: Engine, adapters: list[Manifest]) -> Engine:
        """The engine, started. Where it does not come up beside the one before (a GPU may have no memory for two), that
        one goes first; and where it does not come up with adapters at all, it does without: none of them shall keep
        its model from answering."""
        try:
            await engine.start(lambda: self._serve(seat))
            return engine
        except Exception as error:
            if not adapters:
                raise
            reason = _reason(error)
        if seat.is_up:
            await self._drain(seat)
            with contextlib.suppress(Exception):
                return await self._start(seat, adapters)
        engine = await self._start(seat, [])
        for adapter in adapters:
            self._unloadable(seat, adapter, f"The engine did not come up with it: {reason}", _LOADS_NOT)
        return engine

    async def _start(self, seat: Seat, adapters: list[Manifest]) -> Engine:
        engine = await asyncio.to_thread(self._builder.build, seat.model, seat.vectors, adapters)
        await engine.start(lambda: self._serve(seat))
        return engine

    def _left_out(self, seat: Seat, adapter: Manifest, fitted: bool) -> None:
        """An adapter that was to be loaded and was not. That there was no room for all of them is told only to who
        waits: another time it may be this one's turn."""
        if fitted and adapter.digest not in seat.unloadable:
            self._unloadable(seat, adapter, "The engine could not load it, as its log says.", _LOADS_NOT)
        elif not fitted and any(ticket.model.digest == adapter.digest for ticket in seat.line):
            self._unloadable(seat, adapter, "There is no memory for it: see pool.memory_bytes.", _REMEMBER)

    def _serve(self, seat: Seat) -> None:
        """Free slots are given away; for those whom the engine cannot serve, another is brought up."""
        seat.serve()
        self._bring_up(seat)

    def _failed(self, seat: Seat, error: Exception) -> None:
        """Tell whoever waits, and for a moment whoever comes: to try at every call would keep others from starting."""
        said, hint = f"The engine of {seat.model.name} does not come up: {_reason(error)}", getattr(error, "hint", "")
        log.note(f"{said} {hint}".strip())
        seat.failure, seat.failed_at = lambda: EngineUnready(said, hint=hint), time.monotonic()
        seat.dismiss(seat.failure, _is_left_out)

    # adapters

    def _home(self, model: Manifest, vectors: bool) -> Manifest:
        """The model whose engine answers as this one: an adapter's base. The vectors of an adapter have their own."""
        return model if vectors or not model.is_adapter else self._builder.base(model)

    async def _adapters(self, seat: Seat) -> list[Manifest]:
        """The adapters to load: all that there are, but none whose bytes are not what was admitted; those that are
        waited for first, then those that were called last, then the newest. Who waits for one that cannot be had is
        told so."""
        if seat.vectors or not seat.model.digest:
            return []
        known = await asyncio.to_thread(self._builder.adapters, seat.model)
        there = {seat.model.digest, *(adapter.digest for adapter in known)}
        wanted = {ticket.model.digest for ticket in seat.line}
        seat.dismiss(_gone, lambda ticket: _is_left_out(ticket) and ticket.model.digest not in there)
        good = []
        used = seat.adapters_used
        for adapter in sorted(known, key=lambda one: (one.digest not in wanted, -used.get(one.digest, 0.0))):
            until, why = seat.unloadable.get(adapter.digest, (0.0, _gone))
            if time.monotonic() < until:
                seat.dismiss(why, lambda ticket, digest=adapter.digest: ticket.model.digest == digest)
                continue
            try:
                await self._verify(seat, adapter)
                seat.unloadable.pop(adapter.digest, None)
                good.append(adapter)
            except FreeholdError as error:
                self._unloadable(seat, adapter, error.sentence(), _REMEMBER)
        return good

    async def _verify(self, seat: Seat, model: Manifest) -> None:
        seat.stage = "verifying"
        await asyncio.to_thread(self._builder.verify, model, seat.report)

    def _unloadable(self, seat: Seat, adapter: Manifest, reason: str, seconds: float) -> None:
        """Tell whoever waits for an adapter that it cannot be had, and for so long whoever comes."""
        said = f"The adapter {adapter.name} cannot be served: {reason}"
        log.note(said)
        seat.unloadable[adapter.digest] = time.monotonic() + seconds, lambda: EngineUnready(said, hint="")
        seat.dismiss(lambda: EngineUnready(said, hint=""), lambda ticket: ticket.model.digest == adapter.digest)

    def _fitting(self, seat: Seat, adapters: list[Manifest]) -> tuple[Engine, list[Manifest]]:
        """An engine with those of the adapters that fit into the memory, the first ones first; and which they are.
        Raises EngineUnready where not even the model alone fits."""
        engine = self._builder.build(seat.model, seat.vectors, [])
        if (room := self._budget - engine.need) < 0:
            raise EngineUnready(
                f"It needs {size(engine.need)} of memory, and all engines together may have {size(self._budget)}.",
                hint="Give it fewer slots or a shorter context in freehold.toml, or raise pool.memory_bytes.",
            )
        fitting = []
        for adapter in adapters:
            if adapter.size <= room:
                room -= adapter.size
                fitting.append(adapter)
        return (self._builder.build(seat.model, seat.vectors, fitting) if fitting else engine), fitting

    # room

    async def _make_room(self, seat: Seat, need: int) -> bool:
        """See to it that there is memory: what is leaving anyway is waited for; then the engine before this one gives
        way; then others are stopped, the least recently used first. Says whether it is still wanted."""
        while seat.is_wanted and need > self._budget - self._taken():
            if leaving := [task for other in self._seats.values() for task in other.leaving.values()]:
                await asyncio.wait(leaving, return_when=asyncio.FIRST_COMPLETED)
            elif seat.is_up:
                await self._drain(seat)
            else:
                taking = [other for other in self._up_now() if other.engine.need]
                await self._evict(min(taking, key=lambda other: (not other.is_idle, other.used_at)), seat)
        return seat.is_wanted

    def _taken(self) -> int:
        """The memory of all engines that are there."""
        return sum(engine.need for seat in self._seats.values() for engine in _engines(seat))

    def _up_now(self) -> list[Seat]:
        return [seat for seat in self._seats.values() if seat.is_up]

    async def _evict(self, seat: Seat, newcomer: Seat) -> None:
        """Let the calls in hand finish, then stop the engine; those in its line wait for it to come back. One that
        was used a moment ago stays for a while first: two models that fight shall each get something done."""
        stays_until = seat.up_since + self._settings.stay_seconds
        while time.monotonic() < min(stays_until, seat.busy_until):
            await asyncio.sleep(min(_LOOK, stays_until - time.monotonic()))
        if newcomer.is_wanted:
            await self._drain(seat)

    async def _drain(self, seat: Seat) -> None:
        """Let the calls in hand finish, then stop the engine."""
        seat.draining = True
        try:
            while seat.holding:
                seat.freed.clear()
                await seat.freed.wait()
            await self._down(seat)
        finally:
            seat.draining = False

    async def _see_off(self, seat: Seat, engine: Engine) -> None:
        """Stop an engine that another followed, when its last call is done."""
        try:
            await seat.until_left(engine)
        finally:
            try:
                await engine.stop()
            finally:
                del seat.leaving[engine]

    async def _down(self, seat: Seat) -> None:
        """Stop the engine, whose memory counts until it is gone. Who came meanwhile waits for it to come back."""
        engine = seat.engine
        try:
            if engine is not None:
                await engine.stop()
        finally:
            if seat.engine is engine:  # and no other has followed it
                seat.engine, seat.stage = None, "stopped"
            self._bring_up(seat)

    async def _sweep(self) -> None:
        """Stop what nobody called for long."""
        while True:
            await asyncio.sleep(min(_LOOK, self._settings.idle_seconds))
            if self._meter is not None:
                self._meter.settle()  # counters begin again after a while
            for seat in self._up_now():
                if (
                    seat.is_up
                    and seat.engine.need
                    and seat.is_idle
                    and seat.bringing_up is None
                    and time.monotonic() - seat.used_at > self._settings.idle_seconds
                ):
                    await self._down(seat)


def _look(task: asyncio.Task) -> None:
    """What went wrong was told to those who waited."""
    if not task.cancelled():
        task.exception()


def _engines(seat: Seat) -> Iterator[Engine]:
    """The engine of a seat, and those that it followed and that still answer."""
    if seat.engine is not None:
        yield seat.engine
    yield from seat.leaving


def _opened(model: Manifest, builder: Builder) -> Iterator[Manifest]:
    """The models whose bytes an engine opens, but for the adapters over its own."""
    if model.is_adapter:
        yield builder.base(model)
    yield model


def _is_left_out(ticket: Ticket) -> bool:
    """Is there no engine up that serves this call?"""
    return not ticket.is_served


def _gone() -> ModelNotFound:
    """An adapter that was removed while somebody waited for it."""
    return ModelNotFound("The adapter was removed.", hint="GET /v1/models lists what there is.", param="model")


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, FreeholdError) else f"unexpectedly, {type(error).__name__}: {error}."
