"""Does the candidate go wrong oftener than the incumbent? A test of two rates that may be looked at after every call.

Observations come one at a time, each from one of two sides and each 0 or 1 (it went wrong). As soon as both sides have
some that wait, all that wait are a block. With rates q estimated from earlier blocks alone, a block is worth

    E = product over its observations y of  q(y) / p(y)

where p are the rates nearest to q among those of the hypothesis (the least sum of Kullback-Leibler divergences, each
counted as often as its side has observations). Under any rates of the hypothesis the expectation of E is at most 1:
the expectation of one observation's q(y) / p(y) is linear in its side's rate; the mean of these over the block is at
most 1, because the hypothesis is convex and p nearest to q; and a product is at most the mean, raised to the number of
factors. So the product of all blocks so far reaches 1/alpha with probability alpha at most, ever (Ville 1939), however
often it is looked at and whatever decides when to stop.

Source: R. Turner, A. Ly and P. Gruenwald, "Generic E-variables for exact sequential k-sample tests that allow for
optional stopping", Journal of Statistical Planning and Inference 230 (2024), arXiv 2106.02693; for differences other
than 0, R. Turner and P. Gruenwald, "Safe sequential testing and effect estimation in stratified count data", AISTATS
(2023), arXiv 2302.11401.

Blocks are as long as it happens: their lengths depend on what came when, not on what it was. The rates may change all
the time, as they do over a day; the hypothesis is about their means in each block. No columns of numbers here, and no
numpy: the gateway imports this module.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from msgspec import Struct

ALPHA = 0.025
DIFFERENCES = (
    -0.5, -0.3, -0.2, -0.15, -0.1, -0.07, -0.05, -0.03, -0.02, -0.01, 0.0,
    0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5,
)  # fmt: skip
_WRONG, _RIGHT = 1.0, 4.0  # what is taken for seen of each side before anything is: a Beta(1, 4) prior's counts
_CLOSE = 1e-12  # of the way to the nearer end of what a rate can be


class Side(Struct, frozen=True):
    """So many observations of one side, and how many of them went wrong."""

    n: int = 0
    wrong: int = 0


class Evidence(Struct, frozen=True):
    """What the observations so far say, for each of some ``differences`` d (candidate's rate - incumbent's).

    ``worse`` holds the natural logarithm of the evidence (of the e-value) that the difference is more than d,
    ``better`` of that it is less. ``peak`` is the highest that the former ever was for the ``tolerance``. ``incumbent``
    and ``candidate`` are the observations in blocks; of those that wait for a block one side has none.
    """

    tolerance: float
    differences: tuple[float, ...]
    worse: tuple[float, ...]
    better: tuple[float, ...]
    peak: float = 0.0
    incumbent: Side = Side()
    candidate: Side = Side()
    waiting_incumbent: Side = Side()
    waiting_candidate: Side = Side()


def begin(tolerance: float, differences: Iterable[float] = DIFFERENCES) -> Evidence:
    """Nothing seen yet. The ``tolerance`` is tested, and the ``differences`` besides for `bounds`.

    Raises:
        ValueError: one of them is not between -1 and 1.
    """
    tested = tuple(sorted({tolerance, *differences}))
    if not all(-1 < difference < 1 for difference in tested):
        raise ValueError(f"The differences {tested} are not all between -1 and 1.")
    nothing = (0.0,) * len(tested)
    return Evidence(tolerance, tested, nothing, nothing)


def taken(evidence: Evidence, observations: Iterable[tuple[bool, bool]]) -> Evidence:
    """The evidence with further observations, in their order: is it the candidate's, and did it go wrong?"""
    seen = [evidence.incumbent.n, evidence.candidate.n], [evidence.incumbent.wrong, evidence.candidate.wrong]
    here, there = evidence.waiting_incumbent, evidence.waiting_candidate
    waiting = [here.n, there.n], [here.wrong, there.wrong]
    worse, better, peak = list(evidence.worse), list(evidence.better), evidence.peak
    tested = evidence.differences.index(evidence.tolerance)
    for is_candidate, went_wrong in observations:
        waiting[0][is_candidate] += 1
        waiting[1][is_candidate] += went_wrong
        if not waiting[0][not is_candidate]:
            continue
        theirs, ours = ((wrong + _WRONG) / (n + _WRONG + _RIGHT) for n, wrong in zip(*seen, strict=True))
        for place, difference in enumerate(evidence.differences):
            one_that_grows = worse if ours > theirs + difference else better
            one_that_grows[place] += _worth(theirs, ours, *waiting, difference)
        for counted, more in zip(seen, waiting, strict=True):
            counted[0], counted[1] = counted[0] + more[0], counted[1] + more[1]
            more[0] = more[1] = 0
        peak = max(peak, worse[tested])
    sides = [Side(n, wrong) for counts in (seen, waiting) for n, wrong in zip(*counts, strict=True)]
    return Evidence(evidence.tolerance, evidence.differences, tuple(worse), tuple(better), peak, *sides)


def is_worse(evidence: Evidence, alpha: float = ALPHA) -> bool:
    """Is it shown, or was it ever, that the candidate goes wrong oftener by more than the tolerance? Where it does not,
    this says so with probability ``alpha`` at most, however often it is asked."""
    return evidence.peak >= -math.log(alpha)


def bounds(evidence: Evidence, alpha: float = ALPHA) -> tuple[float | None, float | None]:
    """The difference that the candidate's rate is above, and that which it is below, among those tested: each with
    confidence ``1 - alpha``, at whatever time it is asked. None where nothing is shown yet."""
    needed = -math.log(alpha)
    above = [d for d, found in zip(evidence.differences, evidence.worse, strict=True) if found >= needed]
    below = [d for d, found in zip(evidence.differences, evidence.better, strict=True) if found >= needed]
    return max(above, default=None), min(below, default=None)


def value(logarithm: float) -> float:
    """The e-value of which this is the logarithm, as large as can be said."""
    return math.exp(min(logarithm, 700.0))


def _worth(theirs: float, ours: float, n: Sequence[int], wrong: Sequence[int], difference: float) -> float:
    """The logarithm of what a block is worth where the rates are expected to be ``theirs`` and ``ours``; ``n`` and
    ``wrong`` are the incumbent's and the candidate's."""
    nearest = _nearest(theirs, ours, n[0], n[1], difference)
    return _gain(theirs, nearest, n[0], wrong[0]) + _gain(ours, nearest + difference, n[1], wrong[1])


def _gain(expected: float, nearest: float, n: int, wrong: int) -> float:
    return wrong * math.log(expected / nearest) + (n - wrong) * math.log((1 - expected) / (1 - nearest))


def _nearest(theirs: float, ours: float, n: int, m: int, difference: float) -> float:
    """The incumbent's rate p for which (p, p + difference) is nearest to (theirs, ours), weighted by n and m: where
    the derivative of n KL(theirs, p) + m KL(ours, p + difference) is 0. By Newton's method, kept between two ends that
    close in on it. Close to an end of what p can be, a step is about as long as the way to that end, however far off
    the root is; so a step is small only by that way's measure."""
    floor, ceiling = max(0.0, -difference), min(1.0, 1.0 - difference)
    low, high = floor, ceiling
    p = (n * theirs + m * (ours - difference)) / (n + m)
    if not low < p < high:
        p = (low + high) / 2
    for _ in range(200):
        r = p + difference
        slope = n * (theirs / p - (1 - theirs) / (1 - p)) + m * (ours / r - (1 - ours) / (1 - r))
        if slope > 0:
            low = p
        else:
            high = p
        curve = n * (theirs / p**2 + (1 - theirs) / (1 - p) ** 2) + m * (ours / r**2 + (1 - ours) / (1 - r) ** 2)
        step = slope / curve
        if abs(step) < _CLOSE * min(p - floor, ceiling - p):
            break
        p = p + step if low < p + step < high else (low + high) / 2
    return p
