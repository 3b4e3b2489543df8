"""How many calls a margin takes, and how small a margin a number of calls can certify."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from freehold.stats.grouped import jackknife_error
from freehold.stats.paired import gather, numbered


def needed(
    variance: float, margin: float, *, difference: float = 0.0, design_effect: float = 1.0,
    alpha: float = 0.025, power: float = 0.8,
) -> int | None:  # fmt: skip
    """The calls at which a candidate whose true difference is ``difference`` is certified with probability ``power``.

    ``variance`` is that of a pair's difference: the share of discordant pairs - difference^2 for binary scores. With
    no difference the answer is 7.85 * variance / margin^2 (alpha 0.025, power 0.8), or `needed_groups` where that is
    more. None where no number helps, because the true difference is a loss of the margin or more.
    """
    room = margin + difference
    if room <= 0:
        return None
    calls = _reach(alpha, power) ** 2 * max(variance, 0.0) / room**2
    return math.ceil(max(calls, needed_groups(min(room, margin), alpha)) * design_effect - 1e-9)


def needed_groups(margin: float, alpha: float = 0.025) -> int:
    """The groups (or lone calls) from which a candidate that never differs from the incumbent is certified: with
    fewer, a share ``margin`` of groups that are all loss may stay unseen with a probability above ``alpha``."""
    return math.ceil(math.log(alpha) / math.log1p(-margin) - 1e-9) if margin < 1 else 1


def certifiable(
    variance: float, n: int, *, design_effect: float = 1.0, alpha: float = 0.025, power: float = 0.8
) -> float:  # fmt: skip
    """The smallest margin that ``n`` calls certify with probability ``power`` where there is no true difference: what
    `needed` says, the other way round. At most 1."""
    calls = n / design_effect
    if calls <= 0:
        return 1.0
    return min(1.0, max(_reach(alpha, power) * math.sqrt(max(variance, 0.0) / calls), 1 - alpha ** (1 / calls)))


def _reach(alpha: float, power: float) -> float:
    """Standard errors between the margin and the true difference: 1.96 + 0.84 at alpha 0.025 and power 0.8."""
    normal = NormalDist()
    return normal.inv_cdf(1 - alpha) + normal.inv_cdf(power)


def design_effect(differences: ArrayLike, groups: Sequence[Hashable]) -> float:
    """How many times the variance of the mean is that of as many independent calls; 1 at least.

    Raises:
        NotDecidable, ValueError: as `compare`.
    """
    column = np.asarray(differences, float)
    sums = gather(column, numbered(groups, len(column)))
    n, mean = len(column), column.mean()
    error = jackknife_error((sums.sums - mean * sums.sizes) / (n - sums.sizes), sums.times)
    naive = column.var(ddof=1) / n
    return max(1.0, float(error**2 / naive)) if naive > 1e-15 else 1.0
