"""Calls that belong together: two tests on the sums of groups, of which the more careful one decides.

The **jackknife t** leaves one group out at a time (CV3: MacKinnon, Nielsen and Webb, Journal of Econometrics 232,
2023) and takes Student's t with the degrees of freedom of Bell and McCaffrey (Survey Methodology 28, 2002), the fewer
of those for calls that are independent and for groups that are all of a piece. It is exact for groups of one size whose
means are normal, and fails where losses are rare and come together: nobody has then seen the bad group yet.

The **weighted bootstrap** (Rubin's Bayesian bootstrap over groups, Annals of Statistics 9, 1981) adds one group that
nobody has seen and that is as bad as it may be. With one call to a group and a loss of 1 that is the bound of Gaffke
(Mathematical Methods of Statistics 14, 2005; that it holds its level is a conjecture), which is Clopper and Pearson's
where scores only fall. How bad the unseen group may be
follows from how far losses come together in the groups that were seen, with `UNSEEN` groups of nothing but losses put
to them: as many as can stay unseen, with probability 0.025, among any number. Where few pairs differ the unseen
group is all loss, and so pairs that are all equal never give an interval without width.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from freehold.stats.special import Floats, t_upper
from freehold.stats.weighted import below_zero

UNSEEN = 3.7  # -log(0.025): fixed, so that p does not depend on the level at which it is judged


class Groups(Struct, frozen=True):
    """Sums over groups, on the last axis of each array: ``sums`` of the differences, ``spread`` of their absolute
    values, ``sizes`` in calls, ``times``: how many groups are just like it. Leading axes are separate data sets."""

    sums: Floats
    spread: Floats
    sizes: Floats
    times: Floats

    def mirrored(self) -> Groups:
        """The same with candidate and incumbent exchanged."""
        return Groups(-self.sums, self.spread, self.sizes, self.times)


def p_value(groups: Groups, margin: float) -> Floats:
    """The p-value of "worse by ``margin`` or more", for each data set. It falls as the margin grows."""
    return np.maximum(_jackknife(groups, margin), _bootstrap(groups, margin))


def _jackknife(groups: Groups, margin: float) -> Floats:
    calls = (groups.times * groups.sizes).sum(-1)
    mean = (groups.times * groups.sums).sum(-1) / calls
    share = groups.sizes / calls[..., None]
    residual = (groups.sums - mean[..., None] * groups.sizes) / calls[..., None]
    error = jackknife_error(residual / (1 - share), groups.times)
    return t_tail(mean + margin, error, freedom(groups.sizes, groups.times))


def jackknife_error(changes: Floats, times: Floats) -> Floats:
    """The standard error, given by how much leaving out each group changes the mean."""
    count = times.sum(-1)
    return np.sqrt((times * changes**2).sum(-1) * (count - 1) / count)


def t_tail(distance: Floats, error: Floats, degrees: Floats) -> Floats:
    """P(T >= distance / error); with no error at all it is 0 or 1, by the sign of the distance."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(error > 1e-12, distance / error, np.where(distance > 1e-12, np.inf, -np.inf))
    return t_upper(t, degrees)


def freedom(sizes: Floats, times: Floats) -> Floats:
    """Bell and McCaffrey's degrees of freedom of a mean over groups; groups - 1 where all have one size."""
    alone = _freedom(sizes, times, sizes)
    return np.minimum(alone, _freedom(sizes, times, sizes**2))


def _freedom(sizes: Floats, times: Floats, variances: Floats) -> Floats:
    """(sum of eigenvalues)^2 / (sum of their squares) of the quadratic form that estimates the variance, for sums of
    groups that are independent with ``variances``. The double sum over pairs of groups is expanded into single ones."""

    def total(x: Floats) -> Floats:
        return (times * x).sum(-1)

    share = sizes / total(sizes)[..., None]
    weight = 1 / (1 - share)
    whole = total(variances)[..., None]
    own = (variances * (1 - 2 * share) + share**2 * whole) * weight
    a, b, c = total(variances**2 * weight), total(share**2 * weight), total(variances * share * weight)
    whole = whole[..., 0]
    pairs = 2 * a * b + 2 * c**2 + whole**2 * b**2 - 4 * whole * c * b
    same = total((share**2 * whole[..., None] - 2 * share * variances) ** 2 * weight**2)
    return total(own) ** 2 / (pairs - same + total(own**2))


def _bootstrap(groups: Groups, margin: float) -> Floats:
    size, loss = unseen(groups)
    u = np.concatenate([groups.sums + margin * groups.sizes, (margin * size - np.minimum(loss, size))[..., None]], -1)
    return below_zero(u, with_one(groups.times, u))


def with_one(times: Floats, u: Floats) -> Floats:
    """``times`` with a 1 for each group of ``u`` that was put to the end."""
    times = np.broadcast_to(times, (*u.shape[:-1], times.shape[-1]))
    return np.concatenate([times, np.ones((*u.shape[:-1], u.shape[-1] - times.shape[-1]))], -1)


def unseen(groups: Groups) -> tuple[Floats, Floats]:
    """The group that nobody has seen: its size in calls, and the sum of its losses.

    The size is the one at which groups enter the skewness of the sum: that of cubes over that of squares.
    """

    def total(x: Floats) -> Floats:
        return (groups.times * x).sum(-1)

    size = total(groups.sizes**3) / total(groups.sizes**2)
    together = (total(groups.sums**2) + UNSEEN * size**2) / (total(groups.spread) + UNSEEN * size)
    return size, together
