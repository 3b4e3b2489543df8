"""Whose time it was: the time in which a machine was busy, shared among the calls that it was busy with.

At any moment each of the k calls in hand has a share of 1/k, so the shares of all calls add up to the time in which
there was one at least: the union of their intervals. With A(t) the integral of 1/k over the busy time until t, a call's
share is A(end) - A(begin), so that each call is touched twice, however many it ran beside.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from typing import TypeVar

T = TypeVar("T")


def shares(spans: Iterable[tuple[float, float, float, T]]) -> Iterator[tuple[T, float]]:
    """Each thing with its share of the busy time, in the order in which they end.

    ``spans`` are of ``(seen, begin, end, thing)``, in seconds, with ``seen`` never falling and ``seen <= begin <=
    end``: a call is seen when it comes and begins at its turn. Memory holds what was seen and has not ended.
    """
    sweep = _Sweep()
    for number, (seen, begin, end, thing) in enumerate(spans):
        yield from sweep.until(seen)
        heappush(sweep.waiting, (begin, number, max(begin, end), thing))
    yield from sweep.until(math.inf)


class _Sweep:
    """A line that moves through time. The numbers in the heaps settle ties, so that things are never compared."""

    def __init__(self) -> None:
        self.waiting: list[tuple] = []  # (begin, number, end, thing)
        self.running: list[tuple] = []  # (end, number, A at its begin, thing)
        self.now = self.integral = 0.0

    def until(self, moment: float) -> Iterator[tuple]:
        """Everything that begins or ends up to a moment; those that end come out with their shares."""
        while True:
            begin = self.waiting[0][0] if self.waiting else math.inf
            end = self.running[0][0] if self.running else math.inf
            at = min(begin, end)
            if at > moment or at == math.inf:
                return
            if self.running:
                self.integral += (at - self.now) / len(self.running)
            self.now = at
            if end <= begin:
                _, _, before, thing = heappop(self.running)
                yield thing, self.integral - before
            else:
                _, number, ends, thing = heappop(self.waiting)
                heappush(self.running, (ends, number, self.integral, thing))
