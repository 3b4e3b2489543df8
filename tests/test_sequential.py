"""The test that watches a canary: it may be looked at after every call, and cries wolf no oftener than it says."""

from __future__ import annotations

import itertools
import math
import random
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from freehold.stats import sequential
from freehold.stats.sequential import Evidence, begin, bounds, is_worse, taken

CALLS = 3000  # of one path, each of which is looked at
PATHS = 150
Rates = Callable[[int], tuple[float, float]]  # incumbent's and candidate's, at one call


def path(rng: random.Random, rates: Rates, share: Callable[[int], float], calls: int) -> Iterator[tuple[bool, bool]]:
    """Calls one after the other: whose, and did it go wrong?"""
    for call in range(calls):
        is_candidate = rng.random() < share(call)
        yield is_candidate, rng.random() < rates(call)[is_candidate]


def alarms(
    rates: Rates, *, tolerance: float = 0.0, share: Callable[[int], float] = lambda call: 0.5, alpha: float = 0.05,
    paths: int = PATHS, calls: int = CALLS,
) -> float:  # fmt: skip
    """The share of paths on which the candidate was ever said to be worse. ``peak`` has seen every block, so that a
    look at the end is one after every call."""
    rng = random.Random(7)
    found = (taken(begin(tolerance, ()), path(rng, rates, share, calls)) for _ in range(paths))
    return sum(is_worse(one, alpha) for one in found) / paths


def at_most(alpha: float, paths: int) -> float:
    """Three standard errors of the simulation above the promise."""
    return alpha + 3 * math.sqrt(alpha * (1 - alpha) / paths)


@st.composite
def histories(draw) -> Evidence:
    """Any state that a test can be in between two blocks."""
    seen = [sequential.Side(n, draw(st.integers(0, n))) for n in (draw(st.integers(0, 300)), draw(st.integers(0, 300)))]
    difference = draw(st.sampled_from([-0.3, -0.02, 0.0, 0.03, 0.2, 0.6]))
    return Evidence(difference, (difference,), (0.0,), (0.0,), incumbent=seen[0], candidate=seen[1])


@example(Evidence(0.6, (0.6,), (0.0,), (0.0,)), 1, False, 0.25, 1.0)  # begins beyond what a rate can be
@settings(max_examples=150, deadline=None)
@given(histories(), st.integers(1, 7), st.booleans(), st.floats(0, 1), st.floats(0, 1))
def test_no_block_can_be_expected_to_grow_where_the_hypothesis_holds(history, many, lone, incumbent, candidate):
    """Every outcome of a block, weighted by its probability: the mean of what it is worth is 1 at most, for "worse"
    where the candidate is not, and for "better" where it is not. A block is some of one side and one of the other."""
    sides, mean = [not lone] * many + [lone], {"worse": 0.0, "better": 0.0}
    for outcome in itertools.product((False, True), repeat=many + 1):
        rates = [candidate if whose else incumbent for whose in sides]
        chance = math.prod(rate if wrong else 1 - rate for rate, wrong in zip(rates, outcome, strict=True))
        after = taken(history, zip(sides, outcome, strict=True))
        mean["worse"] += chance * math.exp(after.worse[0])
        mean["better"] += chance * math.exp(after.better[0])
    if candidate <= incumbent + history.tolerance:
        assert mean["worse"] <= 1 + 1e-9
    if candidate >= incumbent + history.tolerance:
        assert mean["better"] <= 1 + 1e-9


@pytest.mark.parametrize(
    ("incumbent", "candidate", "tolerance", "share"),
    [(0.1, 0.1, 0.0, 0.5), (0.5, 0.5, 0.0, 0.1), (0.05, 0.08, 0.03, 0.5), (0.2, 0.23, 0.03, 0.1)],
)
def test_it_hardly_ever_cries_wolf(incumbent, candidate, tolerance, share):
    """Rates that are equal, or differ by exactly what is tolerated: looked at after each of 3,000 calls, the chance of
    ever being said to be worse stays below alpha."""
    found = alarms(lambda call: (incumbent, candidate), tolerance=tolerance, share=lambda call: share)
    assert found <= at_most(0.05, PATHS)


def test_a_habit_would_cry_wolf():
    """The simulation can say no: a z-test at 5% that is looked at after every call is wrong several times oftener."""
    rng, wrong = random.Random(7), 0
    for _ in range(200):
        n, bad = [0, 0], [0, 0]
        for is_candidate, went_wrong in path(rng, lambda call: (0.1, 0.1), lambda call: 0.5, CALLS):
            n[is_candidate] += 1
            bad[is_candidate] += went_wrong
            if min(n) < 30:
                continue
            pooled = sum(bad) / sum(n)
            error = math.sqrt(max(pooled * (1 - pooled), 1e-9) * (1 / n[0] + 1 / n[1]))
            if (bad[1] / n[1] - bad[0] / n[0]) / error > 1.645:
                wrong += 1
                break
    assert wrong / 200 > 0.2


def test_rates_that_swing_and_a_share_that_grows_do_not_fool_it():
    """Both sides go wrong oftener at times, and the candidate gets more of the calls just then: pooled over all calls
    it looks worse by several points, and is not."""
    swing = lambda call: (0.02, 0.02) if call < 1500 else (0.25, 0.25)  # noqa: E731
    grown = lambda call: 0.1 if call < 1500 else 0.5  # noqa: E731
    assert alarms(swing, share=grown) <= at_most(0.05, PATHS)
    assert alarms(lambda call: (0.1 + 0.09 * math.sin(call / 150),) * 2) <= at_most(0.05, PATHS)


@pytest.mark.parametrize(
    ("incumbent", "candidate", "share", "calls"),
    [(0.05, 0.5, 0.1, 300), (0.02, 0.2, 0.1, 1000), (0.1, 0.3, 0.5, 700), (0.02, 0.1, 0.5, 2500)],
)
def test_a_candidate_that_is_really_worse_is_caught(incumbent, candidate, share, calls):
    """By more than three points, within so many calls, nine times in ten."""
    found = alarms(
        lambda call: (incumbent, candidate), tolerance=0.03, share=lambda call: share, alpha=0.0125, paths=100,
        calls=calls,
    )  # fmt: skip
    assert found >= 0.9


def test_one_that_becomes_worse_later_is_caught_too():
    """As good for a thousand calls, then worse: within some three hundred more."""
    rates = lambda call: (0.05, 0.05) if call < 1000 else (0.05, 0.6)  # noqa: E731
    assert alarms(rates, tolerance=0.03, alpha=0.0125, paths=50, calls=1350) >= 0.9


def test_the_bounds_hold_the_truth_at_any_time():
    """On how many paths either bound was ever on the wrong side, looked at after every block: 5% for each at most."""
    rng, missed, paths, truth = random.Random(3), 0, 100, 0.12
    asked = (-0.05, 0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
    for _ in range(paths):
        found, was_wrong = begin(0.03, asked), False
        for one in path(rng, lambda call: (0.1, 0.1 + truth), lambda call: 0.5, 300):
            found = taken(found, [one])
            above, below = bounds(found, 0.05)
            was_wrong |= (above is not None and above >= truth) or (below is not None and below <= truth)
        missed += was_wrong
    assert missed / paths <= at_most(0.1, paths)
    above, below = bounds(taken(found, path(rng, lambda call: (0.1, 0.22), lambda call: 0.5, 8000)), 0.05)
    assert above is not None and below is not None and above < truth < below <= above + 0.1


def test_evidence_is_the_same_whether_it_comes_at_once_or_in_parts():
    """And the same again after it was written down and read."""
    import msgspec

    calls = list(path(random.Random(5), lambda call: (0.2, 0.3), lambda call: 0.3, 200))
    whole = taken(begin(0.03), calls)
    parts = begin(0.03)
    for start in range(0, 200, 7):
        kept = msgspec.json.encode(taken(parts, calls[start : start + 7]))
        parts = msgspec.json.decode(kept, type=Evidence)
    assert parts == whole
    counted = whole.incumbent.n + whole.candidate.n + whole.waiting_incumbent.n + whole.waiting_candidate.n
    assert counted == 200 and 0 in (whole.waiting_incumbent.n, whole.waiting_candidate.n)


def test_nothing_is_shown_before_both_sides_were_seen():
    """A thousand failures of the candidate alone prove nothing about a difference."""
    found = taken(begin(0.0), [(True, True)] * 1000)
    assert (
        not is_worse(found) and bounds(found) == (None, None) and found.waiting_candidate == sequential.Side(1000, 1000)
    )
    assert is_worse(taken(found, [(False, False), (True, True)] * 5))


def test_rates_at_their_ends_do_no_harm():
    """Never wrong, always wrong, and differences near 1."""
    for wrong in itertools.product((False, True), repeat=2):
        found = begin(0.99, (-0.99, 0.0))
        for _ in range(500):
            found = taken(found, [(False, wrong[0]), (True, wrong[1])])
        assert all(map(math.isfinite, (*found.worse, *found.better)))
    with pytest.raises(ValueError, match="between -1 and 1"):
        begin(1.0)


def test_the_gateway_loads_no_numpy_for_it():
    """Nor for the server as a whole."""
    program = "import sys, freehold.app.serve, freehold.stats.sequential; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
