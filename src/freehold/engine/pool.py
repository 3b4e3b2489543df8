"""The engines of the house: each started at its model's first call, stopped when it is idle for long or when
another needs its memory, never in mid-call.

A call takes a `Slot`: at once where one is free, else from the line before the engine, which is also where it
waits while the engine starts. What a slot holds is the call's membership of one set, so giving it back twice
does nothing, and nothing is counted up and down.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
import time
from collections import Counter
from collections.abc import Callable

from freehold.config import PoolSettings, QueueSettings
from freehold.engine import memory
from freehold.engine.base import Engine
from freehold.engine.line import Line
from freehold.errors import EngineUnready, FreeholdError, Overloaded, QueueFull
from freehold.types import Caller, EngineState, Kind, Manifest, SeatView, SlotView

Report = Callable[[str, int, int], None]  # what, done, total
Make = Callable[[Manifest, bool, Report], Engine]  # may block: it verifies and reads the model's file

_LOOK = 1.0  # seconds between looks at who is idle


class Slot:
    """A call's place at an engine: waiting for it, holding it, or done with it."""

    __slots__ = ("arrived", "call_id", "caller", "found", "kind", "place", "seat", "turn", "waited", "width")

    def __init__(self, call_id: str, caller: Caller, kind: Kind, width: int, seat: Seat):
        self.call_id, self.caller, self.kind, self.width, self.seat = call_id, caller, kind, width, seat
        self.arrived = time.monotonic()
        self.turn: asyncio.Future | None = None
        self.place = 0  # in the line, when it came; 0: it did not have to wait
        self.found = ""  # what the engine was doing when it came
        self.waited = 0.0  # seconds

    @property
    def engine(self) -> Engine:
        """The engine, once it is this call's turn."""
        return self.seat.engine

    def view(self, place: int = 0) -> SlotView:
        """How it stands now."""
        since = self.arrived if place else self.arrived + self.waited
        return SlotView(self.call_id, self.caller, self.kind, time.monotonic() - since, place)

    def release(self) -> None:
        """Give back the slot, or the place in line. Doing it twice does nothing."""
        self.seat.release(self)


class Seat:
    """One engine, or the intention of one: who holds it and who waits for it."""

    def __init__(self, model: Manifest, vectors: bool):
        self.model, self.vectors = model, vectors
        self.engine: Engine | None = None
        self.line: Line[Slot] = Line()
        self.holding: set[Slot] = set()
        self.stage = "stopped"
        self.bringing_up: asyncio.Task | None = None
        self.yielding = False  # it takes no more calls, because another model needs its memory
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

    def takes(self, width: int) -> bool:
        """Could a call of that width begin now?"""
        if self.engine is None or self.yielding or not self.engine.ready:
            return False
        taken = sum(slot.width for slot in self.holding)  # more than there are, where a call asks for them all
        return max(self.engine.slots - taken, 0) >= min(width, self.engine.slots)

    def held(self) -> Counter[Caller]:
        """The slots that each caller holds."""
        held: Counter[Caller] = Counter()
        for slot in self.holding:
            held[slot.caller] += slot.width
        return held

    def serve(self) -> None:
        """Give free slots to those whose turn it is."""
        while self.line and self.takes((first := self.line.first(self.held())).width):
            self.line.leave(first)
            if not first.turn.done():  # it may have left already, and not come round to say so
                self.holding.add(first)
                first.turn.set_result(None)

    def release(self, slot: Slot) -> None:
        """See `Slot.release`."""
        self.line.leave(slot)
        if slot in self.holding:
            self.holding.discard(slot)
            self.used_at = time.monotonic()
            self.mean_seconds += 0.1 * (self.used_at - slot.arrived - slot.waited - self.mean_seconds)
        self.serve()
        if not self.holding:
            self.freed.set()

    def dismiss(self, error: Callable[[], FreeholdError]) -> None:
        """Send everybody away who waits."""
        waiting, self.line = self.line, Line()
        for slot in waiting:
            if not slot.turn.done():
                slot.turn.set_exception(error())

    @property
    def state(self) -> str:
        """What it is doing, in a word or two."""
        return self.engine.state().state if self.engine is not None else self.stage

    def view(self) -> SeatView:
        """How it stands now."""
        waiting = self.line.order(self.held())
        return SeatView(
            model=self.model,
            purpose="vectors" if self.vectors else "text",
            stage=self.state,
            slots=self.engine.slots if self.engine else 0,
            holding=tuple(slot.view() for slot in sorted(self.holding, key=lambda slot: slot.arrived)),
            waiting=tuple(slot.view(place) for place, slot in enumerate(waiting, start=1)),
        )

    def retry_after(self) -> int:
        """Seconds until a place in line may be free, for a client to come back after."""
        slots = self.engine.slots if self.engine else 1
        return min(max(math.ceil(len(self.line) * self.mean_seconds / slots), 1), 60)


class Pool:
    """Every engine that there is. ``make`` builds the engine of a model; it may block, and runs in a thread."""

    def __init__(self, make: Make, pool: PoolSettings, queue: QueueSettings):
        self._make, self._settings, self._queue = make, pool, queue
        self._budget = pool.memory_bytes or memory.machine() // 4 * 3
        self._seats: dict[tuple[str, bool], Seat] = {}
        self._moving = asyncio.Lock()  # one engine at a time comes up for want of memory
        self._sweeper: asyncio.Task | None = None
        self._stopping = False

    async def start(self, models: list[Manifest]) -> None:
        """Bring up the engines of these models. Raises what the first that fails raises."""
        self._sweeper = asyncio.create_task(self._sweep())
        for model in models:
            await self._up(self._seat(model, vectors=False))

    async def stop(self) -> None:
        """Send away whoever waits, and stop every engine."""
        self._stopping = True
        if self._sweeper:
            self._sweeper.cancel()
        for seat in self._seats.values():
            seat.dismiss(lambda: EngineUnready("The server is stopping."))
            if seat.bringing_up:
                seat.bringing_up.cancel()
                with contextlib.suppress(asyncio.CancelledError, FreeholdError):
                    await seat.bringing_up
        await asyncio.gather(*(self._down(seat) for seat in self._seats.values()))

    async def take(self, call_id: str, caller: Caller, kind: Kind, width: int, model: Manifest) -> Slot:
        """Take a slot of the model's engine, waiting for it if need be. Whoever took it releases it.

        Raises:
            QueueFull: the line is full, and this call would be the last in it.
            Overloaded: it waited as long as a call may.
            EngineUnready: the engine does not come up.
        """
        seat = self._seats.get((model.digest, kind is Kind.EMBEDDING)) or self._seat(model, kind is Kind.EMBEDDING)
        slot = Slot(call_id, caller, kind, width, seat)
        if not seat.line and seat.takes(width):
            seat.holding.add(slot)
        else:
            await self._wait(slot)
        return slot

    def states(self) -> list[EngineState]:
        """Every engine that is up or coming up."""
        return [seat.engine.state() for seat in self._seats.values() if seat.engine is not None]

    def views(self) -> list[SeatView]:
        """Every engine that was ever called, with the calls that it answers and those that wait for it."""
        return [seat.view() for seat in self._seats.values()]

    @property
    def restarting(self) -> list[str]:
        """What keeps engines that should answer from answering."""
        states = {seat.engine.state().state for seat in self._seats.values() if seat.is_up}
        return sorted(states - {"ready", "stopped"})

    async def _wait(self, slot: Slot) -> None:
        seat = slot.seat
        slot.turn = asyncio.get_running_loop().create_future()
        slot.found = seat.state
        seat.line.append(slot)
        order = seat.line.order(seat.held())
        slot.place = order.index(slot) + 1
        try:
            if len(order) > self._queue.calls:
                self._send_away(seat, order[-1])
            self._bring_up(seat)
            seat.serve()
            async with asyncio.timeout(self._queue.seconds):
                await slot.turn
        except TimeoutError:
            slot.release()
            raise Overloaded(
                f"The call waited {self._queue.seconds:g} s for its turn ({seat.stage}).",
                retry_after=seat.retry_after(),
            ) from None
        except BaseException:
            slot.release()
            raise
        finally:
            slot.waited = time.monotonic() - slot.arrived

    def _send_away(self, seat: Seat, last: Slot) -> None:
        """The line is full: the last in it has to go."""
        waiting = sum(slot.caller == last.caller for slot in seat.line)
        seat.line.leave(last)
        said = f"{self._queue.calls} calls wait for {seat.model.name} already, and you have {waiting} in line."
        if not last.turn.done():
            last.turn.set_exception(QueueFull(said, retry_after=seat.retry_after()))

    def _seat(self, model: Manifest, vectors: bool) -> Seat:
        return self._seats.setdefault((model.digest, vectors), Seat(model, vectors))

    # engines coming up and going down

    def _bring_up(self, seat: Seat) -> None:
        """See to it that the engine comes up; where that fails, whoever waits for it hears why."""
        if not seat.is_up and seat.bringing_up is None and not self._stopping:
            seat.bringing_up = asyncio.create_task(self._up(seat))
            seat.bringing_up.add_done_callback(_look)

    async def _up(self, seat: Seat) -> None:
        def report(what: str, done: int, total: int) -> None:
            seat.stage = f"{what} {done / total:.0%}" if total else what

        try:
            async with self._moving:
                seat.stage = "verifying"
                engine = await asyncio.to_thread(self._make, seat.model, seat.vectors, report)
                seat.stage = "waiting for memory"
                await self._make_room(seat, engine.need)
                seat.stage = "starting"
                await engine.start(seat.serve)
                seat.engine = engine
                seat.up_since = seat.used_at = time.monotonic()
                seat.stage = "ready"
        except asyncio.CancelledError:
            seat.stage = "stopped"
            raise
        except Exception as error:
            seat.stage = "stopped"
            said = error.message if isinstance(error, FreeholdError) else f"{type(error).__name__}: {error}"
            print(f"The engine of {seat.model.name} does not come up: {said}", file=sys.stderr, flush=True)
            seat.dismiss(lambda: EngineUnready(f"The engine of {seat.model.name} does not come up: {said}", hint=""))
            raise
        finally:
            seat.bringing_up = None
        seat.serve()

    async def _make_room(self, seat: Seat, need: int) -> None:
        """Stop others, the least recently used first, until there is memory. Raises EngineUnready if there never
        can be."""
        if need > self._budget:
            raise EngineUnready(
                f"It needs {_size(need)} of memory, and all engines together may have {_size(self._budget)}.",
                hint="Give it fewer slots or a shorter context in freehold.toml, or raise pool.memory_bytes.",
            )
        while need > self._budget - sum(other.engine.need for other in self._seats.values() if other.is_up):
            await self._make_go(self._least_wanted())

    def _least_wanted(self) -> Seat:
        """The engine that shall go: an idle one before a busy one, the longest unused first."""
        return min(
            (seat for seat in self._seats.values() if seat.is_up), key=lambda seat: (not seat.is_idle, seat.used_at)
        )

    async def _make_go(self, seat: Seat) -> None:
        """Let the calls in hand finish, then stop the engine; those in its line wait for it to come back."""
        if not seat.is_idle:
            await asyncio.sleep(max(0.0, seat.up_since + self._settings.stay_seconds - time.monotonic()))
        seat.yielding = True
        try:
            while seat.holding:
                seat.freed.clear()
                await seat.freed.wait()
            await self._down(seat)
        finally:
            seat.yielding = False
        if seat.line:
            self._bring_up(seat)

    async def _down(self, seat: Seat) -> None:
        engine, seat.engine = seat.engine, None
        seat.stage = "stopped"
        if engine is not None:
            await engine.stop()

    async def _sweep(self) -> None:
        """Stop what nobody called for long."""
        while True:
            await asyncio.sleep(min(_LOOK, self._settings.idle_seconds))
            for seat in list(self._seats.values()):
                if seat.is_up and seat.is_idle and time.monotonic() - seat.used_at > self._settings.idle_seconds:
                    await self._down(seat)
                    if seat.line:  # somebody came meanwhile
                        self._bring_up(seat)


def _look(task: asyncio.Task) -> None:
    """What went wrong was told to those who waited."""
    if not task.cancelled():
        task.exception()


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
