"""A lease: everything that one call holds while it is answered, taken once and given back once.

It holds the call's place among its caller's calls, its share of the caller's rate, and its slot at an engine.
What is held is membership of a set, so a lease that is released twice, or in the middle of being taken, leaves
nothing behind.
"""

from __future__ import annotations

import math
import time

from freehold.config import CallerSettings
from freehold.engine.base import Engine
from freehold.engine.pool import Pool, Slot
from freehold.errors import RateLimited
from freehold.types import Caller, Kind, Manifest, Request


class Lease:
    """What one call holds."""

    __slots__ = ("_in_hand", "slot")

    def __init__(self, in_hand: set[Lease]):
        self._in_hand = in_hand
        self.slot: Slot | None = None
        in_hand.add(self)

    @property
    def engine(self) -> Engine:
        """The engine whose slot it holds."""
        return self.slot.engine

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What the caller is told of its wait; nothing if it did not have to."""
        slot = self.slot
        if not slot.place:
            return ()
        said = f'place={slot.place}, waited_ms={slot.waited * 1000:.0f}, engine="{slot.found}"'
        return (("x-freehold-queue", said),)

    def engine_done(self) -> None:
        """The engine has said its last: its slot is free, however long the client still reads."""
        if self.slot is not None:
            self.slot.release()

    def release(self) -> None:
        """Give everything back."""
        self.engine_done()
        self._in_hand.discard(self)


class Leases:
    """Takes leases: within what a caller may have, and as engines have slots."""

    def __init__(self, pool: Pool, limits: CallerSettings):
        self.pool = pool
        self._limits = limits
        self._in_hand: dict[str, set[Lease]] = {}  # by the caller's id
        self._due: dict[str, float] = {}  # by the caller's id; see `_keep_pace`

    async def take(self, call_id: str, caller: Caller, request: Request, model: Manifest) -> Lease:
        """Take a lease, waiting for the engine's slot if need be. Whoever took it releases it.

        Raises:
            RateLimited: the caller has as many calls as it may have, or the line is full.
            Overloaded, EngineUnready: as `Pool.take`.
        """
        in_hand = self._in_hand.setdefault(caller.id, set())
        self._admit(caller, in_hand)
        lease = Lease(in_hand)
        try:
            lease.slot = await self.pool.take(call_id, caller, request.kind, _width(request), model)
        except BaseException:
            lease.release()
            raise
        return lease

    def _admit(self, caller: Caller, in_hand: set[Lease]) -> None:
        most = self._limits.calls_at_once
        if most and len(in_hand) >= most:
            raise RateLimited(f"{caller.name!r} has {len(in_hand)} calls in hand, and may have {most}.")
        if self._limits.calls_per_minute:
            self._keep_pace(caller)

    def _keep_pace(self, caller: Caller) -> None:
        """Generic cell rate algorithm: each call pushes the caller's due time on by its share of a minute, and
        the due time may run a minute ahead of the clock. Source: ITU-T I.371."""
        rate, now = self._limits.calls_per_minute, time.monotonic()
        due = max(self._due.get(caller.id, now), now) + 60 / rate
        if (early := due - now - 60) > 1e-6:
            raise RateLimited(
                f"{caller.name!r} has begun {rate} calls within a minute, and may begin no more.",
                retry_after=math.ceil(early),
            )
        self._due[caller.id] = due


def _width(request: Request) -> int:
    """The slots that a call takes: one for each choice; counting tokens takes none."""
    if request.kind is Kind.COUNT:
        return 0
    return request.body.get("n", 1) if request.kind is Kind.CHAT else 1
