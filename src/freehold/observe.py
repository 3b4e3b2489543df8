"""What operators see: every call that is over is counted, traced if its trace is kept, and logged if that is wanted;
and what is true of the house is gathered when somebody asks.

Calls are looked at a few at a time, a moment after they are over. One right after the other they cost much less than
each between other work, whose code and data push theirs out of the processor's caches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from freehold import log, traces
from freehold.engine.pool import Pool
from freehold.ledger import Ledger
from freehold.login import Login
from freehold.metrics import LOG_DROPPED, LOGINS, SESSIONS, SPAN_BYTES, SPANS, Family, Metrics, Now, Process
from freehold.traces import Traces
from freehold.types import Captures, Seen, UpstreamState

_GATHER = 0.02  # seconds


class Observer:
    """Sees calls end, in the event loop, and answers what the house can say of itself in figures (`api.admin.Gauges`).

    ``processes`` and ``upstreams`` give those that there are now, ``captures`` what is recorded, ``faults`` what goes
    on failing behind the calls' back; ``info`` is the version, the durability and the seal. There are no traces without
    ``traces``, and no lines of calls without ``lines``.
    """

    def __init__(
        self, ledger: Ledger, pool: Pool, login: Login, processes: Callable[[], Sequence[Process]],
        upstreams: Callable[[], Sequence[UpstreamState]], captures: Callable[[], Captures],
        faults: Callable[[], dict[Family, bool]], info: tuple[str, str, str],
        traces: Traces | None = None, lines: log.Lines | None = None,
    ):  # fmt: skip
        self.metrics = Metrics()
        self.traces, self.lines = traces, lines
        self._over: list[Seen] = []  # calls that nobody has looked at yet
        self._timer: asyncio.TimerHandle | None = None
        self._ledger, self._pool, self._login, self._info = ledger, pool, login, info
        self._processes, self._upstreams = processes, upstreams
        self._captures, self._faults = captures, faults

    def start(self) -> None:
        """Begin to send and to write."""
        if self.traces is not None:
            self.traces.start()
        if self.lines is not None:
            self.lines.start()

    async def stop(self) -> None:
        """Send and write what is left, as far as somebody takes it in time."""
        self._look()
        if self.traces is not None:
            await self.traces.stop()
        if self.lines is not None:
            await asyncio.to_thread(self.lines.stop)

    def see(self, seen: Seen) -> None:
        """A call is over. Neither waits nor raises: whoever looks on is no part of the call."""
        self._over.append(seen)
        if self._timer is None:
            try:
                self._timer = asyncio.get_running_loop().call_later(_GATHER, self._look)
            except RuntimeError:  # the loop is closing, and comes round no more
                self._look()

    def _look(self) -> None:
        """Look at the calls that are over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        over, self._over = self._over, []
        for seen in over:
            self._look_at(seen)

    def _look_at(self, seen: Seen) -> None:
        try:
            self.metrics.see(seen)
            if self.traces is not None:
                context = self.traces.context(seen)
                self.traces.see(seen, context)
            elif self.lines is not None:
                context = traces.read(seen.traceparent)
            if self.lines is not None:
                self.lines.put(record(seen, context.trace if context else ""))
        except Exception as error:  # noqa: BLE001 - whoever looks on is no part of the call
            log.fault(error)

    async def page(self, accept: str) -> tuple[bytes, str]:
        """See `api.admin.Gauges.page`."""
        self._look()
        now = self._now()
        head = await self._head()
        return await asyncio.to_thread(self.metrics.page, now, head, accept)

    async def facts(self) -> dict[str, Any]:
        """See `api.admin.Gauges.facts`."""
        self._look()
        return {
            "outcomes": self.metrics.outcomes(),
            "ledger_failing": bool(self._ledger.failing),
            "audit_head": await self._head(),
            "processes": self._processes(),
        }

    def traced(self) -> dict[str, Any] | None:
        """What status shows of traces; None where there are none."""
        self._look()
        return self.traces.facts() if self.traces is not None else None

    async def _head(self) -> int | None:
        """The number of the last event; None where it cannot be read."""
        try:
            return (await asyncio.to_thread(self._ledger.head))[0]
        except self._ledger.errors:
            return None

    def _now(self) -> Now:
        pool = self._pool
        return Now(
            pool.states(), pool.views(), self._upstreams(), self._processes(), self._captures(),
            bool(self._ledger.failing), self._info, self._counts(),
        )  # fmt: skip

    def _counts(self) -> dict[str, dict[tuple[str, ...], float]]:
        """The figures that others keep."""
        login = self._login
        found = {family.name: {(): failing} for family, failing in self._faults().items()}
        found[LOGINS.name] = {("done",): login.done, ("failed",): login.failed, ("locked",): login.locked}
        found[SESSIONS.name] = {(): login.sessions}
        found[LOG_DROPPED.name] = {(): self.lines.dropped if self.lines is not None else 0}
        if (sent := self.traces) is not None:
            kinds = ("exported", "rejected", "failed", "dropped")
            found[SPANS.name] = {(kind,): getattr(sent, kind) for kind in kinds}
            found[SPAN_BYTES.name] = {(): sent.sent_bytes}
        return found


def record(seen: Seen, trace: str) -> dict[str, Any]:
    """The line of a call in the log. It has no text of the call, and no name that its client made up."""
    end = seen.settlement
    return {
        "time": seen.opened_at + end.total_ms / 1000, "id": seen.id, "caller": seen.caller, "kind": seen.kind.value,
        "alias": end.alias or None, "model": seen.model or None, "upstream": seen.upstream or None,
        "status": end.status, "outcome": end.outcome.value, "error": end.error or None,
        "prompt_tokens": end.usage.prompt, "completion_tokens": end.usage.completion,
        "cached_tokens": end.usage.cached, "first_token_ms": _ms(end.first_token_ms), "total_ms": _ms(end.total_ms),
        "trace_id": trace or None,
    }  # fmt: skip


def _ms(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 3)
