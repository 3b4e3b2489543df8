"""The axis of a picture: which values it spans, where its ticks are, and where on it a value lies."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from freehold.types.traffic import Verdict

_REACH = 6  # an interval is drawn to this many margins from zero, then cut off with an arrow


class Scale(Struct, frozen=True):
    """From ``low`` to ``high``, in points, with ``ticks`` between them at ``step`` from one another."""

    low: float
    high: float
    step: float
    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Where ``value`` lies: 0 at the left end, 1 at the right, never beyond."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def digits(self) -> int:
        """Decimals that a tick's label needs."""
        return max(0, -math.floor(math.log10(self.step) + 1e-9))


def scale(verdicts: Sequence[Verdict], most: int) -> Scale:
    """An axis on which every margin, zero and every estimate lie, with at most ``most`` ticks."""
    margins = [-verdict.margin * 100 for verdict in verdicts] or [-1.0]
    found = [verdict.estimate for verdict in verdicts if verdict.estimate]
    middle = [estimate.difference * 100 for estimate in found if math.isfinite(estimate.difference)]
    reach = max([1.0, _REACH * -min(margins), *(abs(at) * 1.25 for at in middle)])
    ends = [end * 100 for estimate in found for end in (estimate.lower, estimate.upper) if not math.isnan(end)]
    inside = [min(max(end, -reach), reach) for end in ends]
    values = [*margins, 0.0, *middle, *inside]
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or 1.0
    return _ticked(low - room, max(high + room, -min(margins) * 0.5), most)


def _ticked(low: float, high: float, most: int) -> Scale:
    step = nice((high - low) / max(most, 1))
    first, last = math.ceil(low / step), math.floor(high / step)
    return Scale(low, high, step, tuple(number * step for number in range(first, last + 1)))


def nice(least: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, 50... that is at least ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
