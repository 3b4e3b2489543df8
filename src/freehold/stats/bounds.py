"""From a p-value to the bound that agrees with it."""

from __future__ import annotations

import math
from collections.abc import Callable

CLOSE = 1e-6
TRIES = 100


def lower_bound(p: Callable[[float], float], alpha: float, margin: float) -> float:
    """The lower bound at ``alpha``: minus the least margin in [-1, 1] with ``p`` at most ``alpha``, to `CLOSE`.

    ``p`` falls as its argument grows. The bound is above ``-margin`` exactly where ``p(margin) <= alpha``.
    """
    if p(margin) <= alpha:
        return max(-_crossing(p, alpha, -1.0, margin), math.nextafter(-margin, 1.0))
    return -_crossing(p, alpha, margin, 1.0)


def upper_bound(p: Callable[[float], float], alpha: float) -> float:
    """The upper bound, where ``p`` is the p-value with candidate and incumbent exchanged."""
    return _crossing(p, alpha, -1.0, 1.0)


def _deviate(p: float) -> float:
    """Something like the normal deviate of a small p, and so nearly straight in the margin: sqrt(-2 log p)."""
    return math.sqrt(-2 * math.log(min(max(p, 1e-300), 1.0)))


def _crossing(p: Callable[[float], float], alpha: float, low: float, high: float) -> float:
    """The end of a `CLOSE` bracket at which ``p`` is at most ``alpha``: regula falsi (Illinois: an end that stays
    counts half), with a halving at every fourth try, so that it ends whatever the shape of p."""

    def height(x: float) -> float:
        return _deviate(alpha) - _deviate(p(x))

    above, below = height(low), height(high)
    if below > 0 or above <= 0:
        return high if below > 0 else low
    stayed = 0
    for attempt in range(1, TRIES):
        x = low + (high - low) * (above / (above - below) if attempt % 4 else 0.5)
        # never nearer to an end than half the tolerance, so that the other end comes near as well
        x = min(max(x, low + CLOSE / 2), high - CLOSE / 2)
        y = height(x)
        if y > 0:
            low, above, below = x, y, below * (0.5 if stayed == 1 else 1)
            stayed = 1
        else:
            high, below, above = x, y, above * (0.5 if stayed == -1 else 1)
            stayed = -1
        if high - low <= CLOSE:
            break
    return high
