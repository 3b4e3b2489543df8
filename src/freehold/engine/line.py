"""The line before an engine: fair between callers, and bounded.

Whoever has the least goes first. A waiting call's level is the number of slots that its caller holds already
plus those that the same caller's calls before it wait for; calls go by level, and by arrival within one. So a caller
with a hundred waiting calls delays another's first by no more than the calls that run, and each caller's own
calls keep their order. When the line is full, it is the last in it who has to leave, whoever came last.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Protocol, TypeVar

from freehold.types import Caller


class Waiting(Protocol):
    """A call in a line."""

    caller: Caller
    width: int


W = TypeVar("W", bound=Waiting)


class Line(list[W]):
    """Waiting calls, in the order of their arrival."""

    def order(self, holding: Counter[Caller]) -> list[W]:
        """The calls in the order in which they would be served. ``holding``: the slots that callers have now."""
        before: defaultdict[Caller, int] = defaultdict(int, holding)
        levels = []
        for arrival, waiting in enumerate(self):
            levels.append((before[waiting.caller], arrival))
            before[waiting.caller] += waiting.width
        return [self[arrival] for _, arrival in sorted(levels)]

    def first(self, holding: Counter[Caller]) -> W:
        """The call whose turn is next: the first of the caller who holds the least."""
        firsts: dict[Caller, W] = {}
        for waiting in self:
            firsts.setdefault(waiting.caller, waiting)
        return min(firsts.values(), key=lambda waiting: holding[waiting.caller])

    def those(self, which: Callable[[W], bool]) -> Line[W]:
        """The calls of which something holds, in the order of their arrival."""
        return Line(waiting for waiting in self if which(waiting))

    def leave(self, waiting: W) -> None:
        """Take a call out of the line, if it is in it."""
        if waiting in self:
            self.remove(waiting)
