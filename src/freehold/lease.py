"""A lease: everything that one call holds while it is answered, taken once and given back once.

It holds the call's place among its caller's calls and its slot at an engine; its share of the caller's rate is spent.
What is held is membership of a set, so a lease that is released twice, or in the middle of being taken, leaves
nothing behind.
"""

from __future__ import annotations

import math
import time

from freehold.config import CallerSettings
from freehold.engine.base import Reply
from freehold.engine.pool import Pool
from freehold.engine.seat import Ticket
from freehold.errors import RateLimited
from freehold.types import Caller, Kind, Manifest, Request


class Lease:
    """What one call holds."""

    __slots__ = ("_caller", "_in_hand", "_pool", "ticket")

    def __init__(self, caller: Caller, in_hand: set[Lease], pool: Pool):
        self._caller, self._in_hand, self._pool = caller, in_hand, pool
        self.ticket: Ticket | None = None
        in_hand.add(self)

    def ask(self, request: Request) -> Reply:
        """Put the request to the engine whose slot it holds. Raises as `base.Engine.ask`."""
        return self.ticket.engine.ask(request, self.ticket.model, self.engine_done)

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What the caller is told of its wait; nothing if it did not have to."""
        ticket = self.ticket
        if not ticket.place:
            return ()
        said = f'place={ticket.place}, waited_ms={ticket.waited * 1000:.0f}, engine="{ticket.found}"'
        return (("x-freehold-queue", said),)

    async def take(self, call_id: str, request: Request, model: Manifest) -> None:
        """Take the engine's slot too, waiting for it if need be. Raises as `Pool.take`."""
        choices = request.body.get("n", 1) if request.kind is Kind.CHAT and not request.sent else 1  # a slot for each
        self.ticket = await self._pool.take(call_id, self._caller, request, choices, model)

    def engine_done(self) -> None:
        """The engine has said its last: its slot is free, however long the client still reads."""
        if self.ticket is not None:
            self.ticket.release()

    def release(self) -> None:
        """Give everything back."""
        self.engine_done()
        self._in_hand.discard(self)


class Leases:
    """Begins leases, within what a caller may have."""

    def __init__(self, pool: Pool, limits: CallerSettings):
        self.pool = pool
        self._limits = limits
        self._in_hand: dict[str, set[Lease]] = {}  # by the caller's id
        self._due: dict[str, float] = {}  # by the caller's id; see `_keep_pace`

    def begin(self, caller: Caller) -> Lease:
        """Begin a call's lease, before its request is read. Whoever has it releases it.

        Raises:
            RateLimited: the caller has as many calls as it may have, at once or in a minute.
        """
        in_hand = self._in_hand.setdefault(caller.id, set())
        most = self._limits.calls_at_once
        if most and len(in_hand) >= most:
            raise RateLimited(f"{caller.name!r} has {len(in_hand)} calls in hand, and may have {most}.")
        if self._limits.calls_per_minute:
            self._keep_pace(caller)
        return Lease(caller, in_hand, self.pool)

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
