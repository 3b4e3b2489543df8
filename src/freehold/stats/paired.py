"""Two columns of scores, call by call: is the candidate worse by the margin or more?"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from freehold.errors import NotDecidable
from freehold.stats import exact, grouped
from freehold.stats.bounds import lower_bound, upper_bound
from freehold.stats.grouped import Groups
from freehold.stats.special import Floats
from freehold.types import Estimate, Outlook

EXACT_CALLS = 5000  # up to here the exact test takes well under a second
EXACT = "exact unconditional test of paired proportions (Tango's order; Hsueh, Liu and Chen 2001)"
SINGLE = "Bayesian bootstrap with an unseen call (Rubin 1981, Gaffke 2005) and t test, the more careful of both"
GROUPED = (
    "Bayesian cluster bootstrap with an unseen group (after Rubin 1981, Gaffke 2005) and jackknife t, "
    "the more careful of both"
)

PValue = Callable[[float], float]


def compare(
    incumbent: ArrayLike, candidate: ArrayLike, groups: Sequence[Hashable], *, margin: float, alpha: float = 0.025
) -> Estimate:
    """The mean of candidate - incumbent over all calls, with one-sided bounds and the p-value of the margin.

    Args:
        incumbent: the scores of the n calls, each from 0 to 1.
        candidate: the same for the candidate, in the same order.
        groups: what each call belongs to; calls of different groups are taken to be independent.
        margin: the loss that is accepted, as a share between 0 and 1.
        alpha: the level of each bound, below 0.5.

    Nothing is drawn at random: the same scores give the same estimate.

    Raises:
        NotDecidable: there is no call, or only one group.
        ValueError: a score is not a number from 0 to 1, or the lengths, margin or alpha are wrong.
    """
    check_levels(margin, alpha)
    differences = paired(incumbent, candidate)
    which = numbered(groups, len(differences))
    forward, backward, method = _tests(differences, which)
    return Estimate(
        difference=float(differences.mean()),
        lower=lower_bound(forward, alpha, margin),
        upper=upper_bound(backward, alpha),
        alpha=alpha,
        p=forward(margin),
        method=method,
    )


def outlook(estimate: Estimate, margin: float) -> Outlook:
    """Non-inferior where the lower bound is above ``-margin``, inferior where the upper is below it, or undecided."""
    if estimate.lower > -margin:
        return Outlook.NON_INFERIOR
    return Outlook.INFERIOR if estimate.upper < -margin else Outlook.UNDECIDED


def _tests(differences: Floats, which: Floats) -> tuple[PValue, PValue, str]:
    """The p-value as a function of the margin, forwards and with the columns exchanged, and what it is called."""
    n, alone = len(differences), int(which.max()) + 1 == len(differences)
    if alone and n <= EXACT_CALLS and np.all(np.isin(differences, (-1.0, 0.0, 1.0))):
        better, worse = int((differences > 0).sum()), int((differences < 0).sum())
        return (
            lambda margin: exact.p_value(better, worse, n, margin),
            lambda margin: exact.p_value(worse, better, n, margin),
            EXACT,
        )
    sums = gather(differences, which)
    mirror = sums.mirrored()
    return (
        lambda margin: float(grouped.p_value(sums, margin)),
        lambda margin: float(grouped.p_value(mirror, margin)),
        SINGLE if alone else GROUPED,
    )


def gather(differences: Floats, which: Floats) -> Groups:
    """The sums over groups, those that are alike counted together."""
    columns = (differences, np.abs(differences), np.ones_like(differences))
    rows = np.stack([np.bincount(which, column) for column in columns], -1)
    distinct, times = np.unique(rows.round(12), axis=0, return_counts=True)
    return Groups(*distinct.T, times.astype(float))


def paired(incumbent: ArrayLike, candidate: ArrayLike) -> Floats:
    """Candidate - incumbent, call by call.

    Raises:
        ValueError: a score is not a number from 0 to 1, or there are more of one than of the other.
    """
    new, old = _scores(candidate, "candidate"), _scores(incumbent, "incumbent")
    if len(new) != len(old):
        raise ValueError(f"There are {len(old)} scores of the incumbent and {len(new)} of the candidate.")
    return new - old


def _scores(values: ArrayLike, name: str) -> Floats:
    column = np.asarray(values, float)
    if column.ndim != 1:
        raise ValueError(f"The scores of the {name} are not one column of numbers.")
    if not np.all((column >= 0) & (column <= 1)):
        raise ValueError(f"A score of the {name} is not a number from 0 to 1.")
    return column


def numbered(groups: Sequence[Hashable], n: int) -> Floats:
    """The groups as numbers from 0, in the order in which they appear.

    Raises:
        NotDecidable: there are fewer than two.
        ValueError: there is not one for each of the ``n`` calls.
    """
    if len(groups) != n:
        raise ValueError(f"There are {n} calls and {len(groups)} entries that say what they belong to.")
    numbers: dict[Hashable, int] = {}
    which = np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.intp)
    if n == 0:
        raise NotDecidable("There are no calls to compare.")
    if len(numbers) < 2:
        raise NotDecidable(
            f"All {n} calls belong to 1 group, and how groups differ from one another cannot be told from one.",
            hint="Group the calls by something finer (a conversation, a user), or record calls of more groups.",
        )
    return which


def check_levels(margin: float, alpha: float) -> None:
    """Raises ValueError unless the margin lies between 0 and 1 and alpha between 0 and 0.5."""
    if not 0 < margin < 1:
        raise ValueError(f"The margin is {margin}; it must lie between 0 and 1, as 0.03 for three points.")
    if not 0 < alpha < 0.5:
        raise ValueError(f"The level alpha is {alpha}; it must lie between 0 and 0.5.")
