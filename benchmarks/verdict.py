"""Is the verdict right? A simulation study of `freehold.stats`; writes docs/reference/statistics.md.

    python benchmarks/verdict.py [--repetitions 1000] [--fresh] [--only PART]

Each cell is a kind of traffic whose true difference is known. The shipped functions judge it many times over, beside
two habits: an unpaired test of two means, and a bootstrap that resamples calls as if each stood alone. What
is found for a cell is kept in benchmarks/verdict-results.jsonl, so that a study which was stopped goes on where it was;
each cell's random numbers depend on the seed and the cell alone.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import textwrap
import time
import zlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from freehold.stats import exact, grouped, needed, rectify
from freehold.stats.grouped import Groups

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "verdict-results.jsonl", HERE.parent / "docs" / "reference" / "statistics.md"
SEED = 20261124
ALPHA, NORMAL = 0.025, 1.959964
STEPS = np.array([0.2, 0.4, 0.6, 0.8, 1.0])  # how far graded scores differ where they do; 0.6 on average
RESAMPLES = 400  # of the unclustered bootstrap
AGAIN = 8  # a cell that is over the line by a standard error is simulated anew, with so many times the repetitions
AT_ONCE = 2_000_000  # numbers held at a time


class Cell(NamedTuple):
    """One kind of traffic. ``groups`` is 0 where each call stands alone; ``how`` says what ties the calls of a group:
    "rates" (each group has its own rates, Dirichlet) or "copies" (a call repeats its group's outcome, or does not)."""

    part: str
    n: int
    groups: int
    icc: float
    how: str
    uneven: bool
    psi: float
    graded: bool
    margin: float
    difference: float
    labelled: int = 0


class Found(NamedTuple):
    """Shares of the repetitions: called non-inferior by us, by the unpaired test and by the unclustered bootstrap; and
    those in which our lower or our upper bound was on the wrong side of the truth."""

    repetitions: int
    certified: float
    unpaired: float
    unclustered: float
    low_miss: float
    high_miss: float


def outcomes(cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    """The differences that a pair can have, and their probabilities."""
    mean = STEPS.mean() if cell.graded else 1.0
    worse, better = (cell.psi - cell.difference / mean) / 2, (cell.psi + cell.difference / mean) / 2
    steps = STEPS if cell.graded else np.array([1.0])
    chances = [1 - cell.psi, *[max(worse, 0) / len(steps)] * len(steps), *[max(better, 0) / len(steps)] * len(steps)]
    return np.concatenate([[0.0], -steps, steps]), np.array(chances) / sum(chances)


def possible(cell: Cell) -> bool:
    """Whether so large a difference can come of so few discordant pairs."""
    return abs(cell.difference) <= cell.psi * (STEPS.mean() if cell.graded else 1.0) + 1e-12


def group_sizes(rng: np.random.Generator, cell: Cell, repetitions: int) -> np.ndarray:
    if not cell.uneven:
        even = np.full(cell.groups, cell.n // cell.groups)
        even[: cell.n % cell.groups] += 1
        return np.broadcast_to(even, (repetitions, cell.groups))
    weights = rng.lognormal(0, 1, (repetitions, cell.groups))
    sizes = 1 + np.floor(weights / weights.sum(1, keepdims=True) * (cell.n - cell.groups)).astype(int)
    sizes[:, 0] += cell.n - sizes.sum(1)
    return sizes


def draw(rng: np.random.Generator, cell: Cell, repetitions: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts of each outcome, shape (repetitions, groups, outcomes), and the group sizes; lone calls are one group."""
    _, chances = outcomes(cell)
    if not cell.groups:
        return rng.multinomial(cell.n, chances, (repetitions, 1)), np.full((repetitions, 1), cell.n)
    sizes, shape = group_sizes(rng, cell, repetitions), (repetitions, cell.groups, len(chances))
    rates = np.broadcast_to(chances, shape)
    if cell.icc and cell.how == "rates":
        rates = rng.standard_gamma(np.broadcast_to(chances * (1 / cell.icc - 1), shape)) + 1e-300
        rates = rates / rates.sum(-1, keepdims=True)
    elif cell.icc:
        own = np.eye(len(chances))[rng.choice(len(chances), p=chances, size=shape[:2])]
        rates = (1 - math.sqrt(cell.icc)) * chances + math.sqrt(cell.icc) * own
    return rng.multinomial(sizes, rates), sizes


def judge(cell: Cell, counts: np.ndarray, sizes: np.ndarray, margin: float, *, mirrored: bool = False) -> np.ndarray:
    """The shipped p-value, for each repetition."""
    values, _ = outcomes(cell)
    if not cell.groups and not cell.graded:
        tables = counts[:, 0, [1, 2] if mirrored else [2, 1]]
        return np.array([exact.p_value(int(better), int(worse), cell.n, margin) for better, worse in tables])
    if not cell.groups:
        ones = np.ones_like(counts[:, 0], float)
        sums = Groups(values * ones, np.abs(values) * ones, ones, counts[:, 0].astype(float))
    else:
        sums = Groups(counts @ values, counts @ np.abs(values), sizes.astype(float), np.ones(sizes.shape))
    return grouped.p_value(sums.mirrored() if mirrored else sums, margin)


def unpaired(rng: np.random.Generator, cell: Cell, totals: np.ndarray) -> np.ndarray:
    """Whether a one-sided test of two independent means would call it non-inferior. The incumbent is right on 80% of
    the calls on which the two agree, and its score is drawn from those which leave room for the difference."""
    values, _ = outcomes(cell)
    sums, squares = np.zeros((2, len(totals))), np.zeros((2, len(totals)))
    for value, count in zip(values, totals.T, strict=True):
        if value == 0:
            right = rng.binomial(count, 0.8)
            scores, split = np.array([0.0, 1.0]), np.stack([count - right, right], -1)
        else:
            scores = np.arange(0.0, 1.0001, 0.2) if cell.graded else np.array([0.0, 1.0])
            scores = scores[(scores + value > -1e-9) & (scores + value < 1 + 1e-9)]
            split = rng.multinomial(count, np.full(len(scores), 1 / len(scores)))
        for who, column in enumerate((scores, scores + value)):
            sums[who] += split @ column
            squares[who] += split @ column**2
    variance = squares / cell.n - (sums / cell.n) ** 2
    error = np.sqrt(variance.sum(0) / cell.n)
    return (sums[1] - sums[0]) / cell.n + cell.margin > NORMAL * error


def unclustered(rng: np.random.Generator, cell: Cell, totals: np.ndarray) -> np.ndarray:
    """Whether the percentile bootstrap over single calls would call it non-inferior."""
    values, _ = outcomes(cell)
    means = rng.multinomial(cell.n, totals / cell.n, (RESAMPLES, len(totals))) @ values / cell.n
    return np.quantile(means, ALPHA, axis=0) > -cell.margin


def simulate(cell: Cell, repetitions: int, stream: int = 0) -> Found:
    """What came of ``repetitions`` data sets of this kind. ``stream`` tells apart runs that are to be independent."""
    rng = np.random.default_rng([SEED, stream, zlib.crc32(repr(cell).encode())])
    width = max(cell.groups, 1) * len(outcomes(cell)[1])
    rows, left = [], repetitions
    while left > 0:
        now = min(left, max(1, AT_ONCE // width // 4))
        rows.append(_once(rng, cell, now) * now)
        left -= now
    return Found(repetitions, *(float(x) for x in np.sum(rows, 0) / repetitions))


def _once(rng: np.random.Generator, cell: Cell, repetitions: int) -> np.ndarray:
    if cell.labelled:
        return _once_rectified(rng, cell, repetitions)
    counts, sizes = draw(rng, cell, repetitions)
    totals = counts.sum(1)
    at_truth = judge(cell, counts, sizes, -cell.difference)
    certified = at_truth if cell.difference == -cell.margin else judge(cell, counts, sizes, cell.margin)
    beyond = judge(cell, counts, sizes, cell.difference, mirrored=True)
    habits = unpaired(rng, cell, totals), unclustered(rng, cell, totals)
    ours = [(p <= ALPHA).mean() for p in (certified, at_truth, beyond)]
    return np.array([ours[0], *(habit.mean() for habit in habits), *ours[1:]])


def _once_rectified(rng: np.random.Generator, cell: Cell, repetitions: int) -> np.ndarray:
    """A judge that calls a third of the worse answers equal, and one in fifty equal ones better: biased by
    psi / 6 or so towards the candidate. "Unpaired" is then the judge taken at its word, "unclustered" nothing."""
    values, chances = outcomes(cell)
    size = cell.n // cell.groups
    own = rng.random((repetitions, cell.groups, size)) < math.sqrt(cell.icc)
    shared = rng.choice(3, p=chances, size=(repetitions, cell.groups, 1))
    truth = values[np.where(own, shared, rng.choice(3, p=chances, size=own.shape))]
    slip = rng.random(own.shape)
    judged = np.where((truth < 0) & (slip < 1 / 3), 0.0, np.where((truth == 0) & (slip < 0.02), 1.0, truth))
    chosen = rng.random(own.shape).reshape(repetitions, -1).argsort(1).argsort(1).reshape(own.shape) < cell.labelled
    ones, times = np.ones(own.shape).sum(-1), np.ones(own.shape[:2])
    said = Groups(judged.sum(-1), np.abs(judged).sum(-1), ones, times)
    gaps = np.where(chosen, truth - judged, 0.0)
    data = rectify.Rectified(said, Groups(gaps.sum(-1), np.abs(gaps).sum(-1), chosen.sum(-1) * 1.0, times))
    at_truth = rectify.p_value(data, -cell.difference)
    certified = at_truth if cell.difference == -cell.margin else rectify.p_value(data, cell.margin)
    beyond = rectify.p_value(data.mirrored(), cell.difference)
    believed = grouped.p_value(said, cell.margin)
    return np.array([(p <= ALPHA).mean() for p in (certified, believed, np.ones(1), at_truth, beyond)])


def cells() -> Iterator[Cell]:
    """The whole study, in parts: level and coverage for lone calls and for groups, power, and a judge put right."""
    yield from filter(possible, lone())
    yield from filter(possible, clustered())
    yield from power()
    yield from judged()


MARGINS = {0.05: (0.03, 0.05), 0.15: (0.05, 0.09, 0.15), 0.25: (0.05, 0.15, 0.25)}


def lone() -> Iterator[Cell]:
    for n in (50, 100, 200, 500, 2000):
        for psi, margins in MARGINS.items():
            for margin in margins:
                for graded in (False, True):
                    yield Cell("lone", n, 0, 0.0, "", False, psi, graded, margin, -margin)


def clustered() -> Iterator[Cell]:
    hanging = ((0.0, ""), (0.2, "rates"), (0.2, "copies"), (0.5, "rates"), (0.5, "copies"))
    kinds = [(psi, False, margin) for psi, margins in MARGINS.items() for margin in margins]
    kinds += [(psi, True, round(psi * 0.6, 2)) for psi in MARGINS]
    for groups, n, (icc, how), uneven, (psi, graded, margin) in product(
        (2, 3, 5, 10, 20, 50, 100), (50, 400, 2000), hanging, (False, True), kinds
    ):
        if n >= 2 * groups:
            yield Cell("groups", n, groups, icc, how, uneven, psi, graded, margin, -margin)


def power() -> Iterator[Cell]:
    """No true difference, and as many calls as the formula says; with groups, times the design effect."""
    for psi in (0.05, 0.15, 0.25):
        for margin in (0.03, 0.05, 0.1):
            for graded in (False, True):
                variance = psi * (float((STEPS**2).mean()) if graded else 1.0)
                n = needed(variance, margin)
                yield Cell("power", n, 0, 0.0, "", False, psi, graded, margin, 0.0)
                for groups in (20, 50, 100, 200):
                    for icc in (0.0, 0.05, 0.2):
                        room = 1 - icc * n / groups
                        many = math.ceil(n * (1 - icc) / room) if room > 0 else 10**9
                        if 2 * groups <= many <= 4000 and not graded:
                            yield Cell("power", many, groups, icc, "rates", False, psi, graded, margin, 0.0)


def judged() -> Iterator[Cell]:
    for labelled in (30, 100, 300):
        for n, groups, icc in ((500, 500, 0.0), (2000, 2000, 0.0), (500, 50, 0.2), (2000, 100, 0.2)):
            for psi, margin in ((0.05, 0.05), (0.15, 0.05), (0.15, 0.15), (0.25, 0.1)):
                if labelled < n:
                    yield Cell("judge", n, groups, icc, "copies", False, psi, False, margin, -margin, labelled)
                    if psi == 0.15:
                        yield Cell("judge", n, groups, icc, "copies", False, psi, False, margin, 0.0, labelled)


def study(repetitions: int, only: str, fresh: bool) -> dict[Cell, Found]:
    """Every cell's result, read from `RESULTS` or found now and written there."""
    if fresh:
        RESULTS.unlink(missing_ok=True)
    known = dict(_read())
    wanted = [cell for cell in cells() if only in ("", cell.part)]
    begun, done = time.monotonic(), 0
    todo = [cell for cell in wanted if cell not in known]
    with RESULTS.open("a") as file:
        for cell in todo:
            found = simulate(cell, effort(cell, repetitions))
            if cell.difference == -cell.margin and found.certified > ALPHA + error(found.repetitions):
                found = simulate(cell, AGAIN * effort(cell, repetitions), 1)
            known[cell] = found
            file.write(json.dumps([cell, found]) + "\n")
            file.flush()
            done += 1
            progress(done, len(todo), time.monotonic() - begun)
    return {cell: known[cell] for cell in wanted}


def effort(cell: Cell, repetitions: int) -> int:
    """How often a cell is simulated. Lone calls with graded scores cost next to nothing; large tables cost most."""
    if cell.groups:
        return repetitions
    return repetitions * (4 if cell.graded else 2 if cell.n <= 200 else 1)


def error(repetitions: int) -> float:
    """The standard error of a share that is `ALPHA` in truth."""
    return math.sqrt(ALPHA * (1 - ALPHA) / repetitions)


def _read() -> Iterator[tuple[Cell, Found]]:
    if RESULTS.exists():
        for line in RESULTS.read_text().splitlines():
            cell, found = json.loads(line)
            yield Cell(*cell), Found(*found)


def progress(done: int, of: int, seconds: float) -> None:
    end = "\n" if done == of else ""
    left = seconds / done * (of - done)
    text = f"\r{done} of {of} kinds of traffic, {seconds:.0f} s, {left:.0f} s to go "
    print(text, end=end, file=sys.stderr, flush=True)


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def table(head: str, rows: Iterator[list[object]]) -> str:
    """A Markdown table: ``head`` holds the names of the columns, split at bars."""
    names = head.split("|")
    lines = [names, ["---"] * len(names), *([str(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(name.strip() for name in line) + " |" for line in lines)


Results = dict[Cell, Found]


def some(results: Results, **fields: object) -> Results:
    """The cells in which the fields have these values."""
    return {cell: f for cell, f in results.items() if all(getattr(cell, k) == v for k, v in fields.items())}


def false_row(part: Results) -> list[object]:
    """Of the kinds of traffic in a row: how many; our false verdicts, mean and most; coverage, mean and least; and the
    false verdicts of the two habits."""
    found = list(part.values())
    ours, covered = [f.certified for f in found], [1 - f.low_miss - f.high_miss for f in found]
    one, two = [f.unpaired for f in found], [f.unclustered for f in found]
    figures = np.mean(ours), max(ours), np.mean(covered), min(covered), np.mean(one), max(one), np.mean(two), max(two)
    return [len(found), *map(percent, figures)]


def lone_rows(results: Results) -> Iterator[list[object]]:
    for graded in (False, True):
        for n in sorted({cell.n for cell in results}):
            yield ["graded" if graded else "binary", n, *false_row(some(results, n=n, graded=graded))]


def group_rows(results: Results) -> Iterator[list[object]]:
    for groups in sorted({cell.groups for cell in results}):
        for icc in (0.0, 0.2, 0.5):
            yield [groups, icc, *false_row(some(results, groups=groups, icc=icc))]


def power_rows(results: Results, *, grouped: bool) -> Iterator[list[object]]:
    for cell, f in results.items():
        if bool(cell.groups) == grouped:
            kind = [cell.groups, cell.icc] if grouped else ["graded" if cell.graded else "binary"]
            shares = map(percent, (f.certified, f.unpaired, f.unclustered, 1 - f.low_miss - f.high_miss))
            yield [*kind, cell.psi, cell.margin, cell.n, round(cell.n * cell.psi), *shares]


def judge_rows(results: Results) -> Iterator[list[object]]:
    for labelled in (30, 100, 300):
        for alone in (True, False):
            part = {c: f for c, f in some(results, labelled=labelled).items() if (c.n == c.groups) == alone}
            losses = [f for c, f in part.items() if c.difference]
            even = [f for c, f in part.items() if not c.difference and c.margin == 0.15]
            covered = min(1 - f.low_miss - f.high_miss for f in part.values())
            most = max(f.certified for f in losses), np.mean([f.unpaired for f in losses])
            figures = *most, np.mean([f.certified for f in even]), covered
            yield [labelled, "alone" if alone else "groups, ICC 0.2", *map(percent, figures)]


def over(results: Results) -> str:
    """What to say of the cells whose share lies above the line, in a sentence."""
    level = {cell: f for cell, f in results.items() if cell.difference == -cell.margin}
    far = [(c, f) for c, f in level.items() if f.certified > ALPHA + 2 * error(f.repetitions)]
    pooled = np.average([f.certified for f in level.values()], weights=[f.repetitions for f in level.values()])
    named = "".join(f" {percent(f.certified)}% of {f.repetitions}: {tuple(c)}." for c, f in far)
    return (
        f"Of {len(level):,} kinds of traffic with a true loss of the margin, {len(far)} lie more than two standard "
        f"errors above 2.5%.{named} All taken together, {pooled:.2%} of their verdicts were falsely non-inferior."
    )


COLUMNS = (
    "kinds | ours, mean | ours, most | coverage, mean | coverage, least | "
    "unpaired, mean | unpaired, most | unclustered, mean | unclustered, most"
)
POWER = "psi | margin | calls | discordant | ours | unpaired | unclustered | coverage"


def page(results: Results, repetitions: int) -> str:
    part = {name: some(results, part=name) for name in ("lone", "groups", "power", "judge")}
    return f"""# Is the verdict right? A simulation study

Written by `make bench-verdict` (`python benchmarks/verdict.py --repetitions {repetitions}`), seed {SEED}. The functions
are the shipped ones of `freehold.stats`; what they do, and why, is in [the concept](../concepts/verdict.md). All shares
are percentages.

A kind of traffic is simulated at least {repetitions} times, so a share of 2.5% has a standard error of
{100 * error(repetitions):.1f} points at most. One that came out more than one standard error above the line was
simulated anew with {AGAIN} times the repetitions ({100 * error(AGAIN * repetitions):.2f} points), and only the second
figure counts.

{textwrap.fill(over(results), 118)}

*Unpaired* is a test of two independent means, *unclustered* the percentile bootstrap over calls: what is done most
often. *Most* is the worst kind of traffic in the row, *coverage* how often the truth lies between our two bounds
(95% is promised).

## False verdicts: the candidate is worse by exactly the margin

At most 2.5% may be called non-inferior. Shares of discordant pairs .05, .15 and .25; margins from .03 to all of that
share, where every differing pair is a loss. Graded scores differ by .2, .4, .6, .8 or 1.

### Calls that stand alone

{table("scores | calls | " + COLUMNS, lone_rows(part["lone"]))}

### Calls in groups

50 to 2,000 calls, groups of one size and of log-normal sizes; ICC is the correlation within a group, made in two ways:
each group has its own rates (Dirichlet), or calls repeat the outcome of their group.

{table("groups | ICC | " + COLUMNS, group_rows(part["groups"]))}

With ten groups and fewer next to nothing is certified, rightly or wrongly: the test is sound there, but it has no power
at these margins, and the outcome is undecided.

## Power: no true difference, as many calls as the formula says

n = 7.85 * variance / margin^2 (psi for binary scores; with groups, times the design effect) promises 80%. The formula
is a normal approximation. We are within five points of it from some 40 discordant pairs on for binary scores, and from
some 80 for graded ones; with fewer it promises more than a test that keeps its level can hold. (At psi .05,
margin .03 and 437 calls Tango's score test, which is not always on the safe side, has a power of 74.8% and not 80%.)

{table("scores | " + POWER, power_rows(part["power"], grouped=False))}

With groups there is a second price. Nobody can rule out that a group which was not seen is all loss, so few groups
bear no small margin, however many calls they hold:

{table("groups | ICC | " + POWER, power_rows(part["power"], grouped=True))}

## A judge put right by people

The judge overlooks a third of the losses and calls one in fifty equal pairs better. *Believed* is what `compare` says
of the judge's scores alone. False verdicts at a true loss of the margin; power at no difference, margin 15 points,
psi .15.

{table("labelled | calls | ours, most | believed, mean | power | coverage, least", judge_rows(part["judge"]))}
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--repetitions", type=int, default=500)
    options.add_argument("--only", default="", choices=["", "lone", "groups", "power", "judge"])
    options.add_argument("--fresh", action="store_true", help="forget what was found before")
    chosen = options.parse_args()
    results = study(chosen.repetitions, chosen.only, chosen.fresh)
    if chosen.only != "power":
        print(over(results))
    if not chosen.only:
        PAGE.write_text(page(results, chosen.repetitions))


if __name__ == "__main__":
    main()
