"""A judge's scores on all calls, put right by people's on some: prediction-powered inference.

The estimate is the mean of the judge's paired differences over all calls, plus the mean over the labelled calls of
(people's difference - judge's difference): unbiased however wrong the judge is, if the labelled calls are a random part
(Angelopoulos et al., Science 382, 2023, arXiv 2301.09633). The errors of both means are in the bounds, by groups.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike

from freehold.errors import NotDecidable
from freehold.stats.bounds import lower_bound, upper_bound
from freehold.stats.grouped import Groups, freedom, t_tail, unseen, with_one
from freehold.stats.paired import check_levels, numbered, paired
from freehold.stats.special import Floats
from freehold.stats.weighted import below_zero
from freehold.types import Estimate

METHOD = "prediction-powered mean (Angelopoulos et al. 2023), cluster bootstrap with an unseen group and jackknife t"


class Rectified(Struct, frozen=True):
    """Sums over the same groups, on the last axis: of the judge's differences on all calls, and of people's minus the
    judge's on the labelled ones. Leading axes are separate data sets."""

    judged: Groups
    gap: Groups

    def mirrored(self) -> Rectified:
        """The same with candidate and incumbent exchanged."""
        return Rectified(self.judged.mirrored(), self.gap.mirrored())


def rectified(
    incumbent: ArrayLike, candidate: ArrayLike, groups: Sequence[Hashable], *, labelled: Sequence[int],
    human_incumbent: ArrayLike, human_candidate: ArrayLike, margin: float, alpha: float = 0.025,
) -> Estimate:  # fmt: skip
    """`compare` for scores that a judge gave, with people's scores on the rows ``labelled`` (drawn at random).

    Args:
        incumbent, candidate, groups, margin, alpha: as in `compare`, the scores being the judge's.
        labelled: the rows that people scored, each once.
        human_incumbent, human_candidate: people's scores of those rows, in that order.

    Raises:
        NotDecidable: there are fewer than two groups, or the labelled calls belong to fewer than two.
        ValueError: as in `compare`, or ``labelled`` names a row twice or one that is not there.
    """
    check_levels(margin, alpha)
    judged, people = paired(incumbent, candidate), paired(human_incumbent, human_candidate)
    which, rows = numbered(groups, len(judged)), _rows(labelled, len(judged), len(people))
    forward = _gathered(judged, which, rows, people)
    backward = forward.mirrored()
    return Estimate(
        difference=float(judged.mean() + (people - judged[rows]).mean()),
        lower=lower_bound(lambda m: float(p_value(forward, m)), alpha, margin),
        upper=upper_bound(lambda m: float(p_value(backward, m)), alpha),
        alpha=alpha,
        p=float(p_value(forward, margin)),
        method=METHOD,
    )


def _rows(labelled: Sequence[int], n: int, people: int) -> np.ndarray:
    rows = np.asarray(labelled, dtype=np.intp)
    if len(rows) != people:
        raise ValueError(f"There are {len(rows)} labelled rows and {people} scores by people.")
    if len(np.unique(rows)) != len(rows) or np.any((rows < 0) | (rows >= n)):
        raise ValueError(f"A labelled row is named twice, or is not among the {n} calls.")
    return rows


def _gathered(judged: Floats, which: np.ndarray, rows: np.ndarray, people: Floats) -> Rectified:
    count = int(which.max()) + 1
    if len(np.unique(which[rows])) < 2:
        raise NotDecidable(
            f"The {len(rows)} labelled calls belong to fewer than 2 groups, so the judge's error cannot be told.",
            hint="Have people score calls drawn at random from all groups.",
        )
    return Rectified(_groups(judged, which, count), _groups(people - judged[rows], which[rows], count))


def _groups(values: Floats, which: np.ndarray, count: int) -> Groups:
    columns = (values, np.abs(values), np.ones_like(values))
    return Groups(*(np.bincount(which, column, count) for column in columns), np.ones(count))


def p_value(data: Rectified, margin: float) -> Floats:
    """The p-value of "worse by ``margin`` or more", for each data set. It falls as the margin grows."""
    return np.maximum(_jackknife(data, margin), _bootstrap(data, margin))


def _jackknife(data: Rectified, margin: float) -> Floats:
    (judge, share), (gap, labelled) = _mean(data.judged), _mean(data.gap)
    change = _residual(data.judged, judge) / (1 - share) + _residual(data.gap, gap) / (1 - labelled)
    error = np.sqrt((change**2).sum(-1))
    return t_tail(judge + gap + margin, error, freedom(data.gap.sizes, data.gap.times))


def _bootstrap(data: Rectified, margin: float) -> Floats:
    """The weight of a group goes to its judged calls, as changes about their mean, and to its labelled ones, which
    carry the estimate and the margin. One unseen group is put to the judged calls and one to the labelled ones."""
    judge, _ = _mean(data.judged)
    labels = data.gap.sizes.sum(-1)[..., None]
    level = (judge + margin)[..., None]
    u = _residual(data.judged, judge) + (data.gap.sums + level * data.gap.sizes) / labels
    size, loss = (x[..., None] for x in unseen(data.gap))
    far, lost = (x[..., None] for x in unseen(data.judged))
    beyond = (level * size - loss) / labels
    aside = np.minimum(0.0, -np.minimum(lost, far) - far * judge[..., None]) / data.judged.sizes.sum(-1)[..., None]
    u = np.concatenate([u, beyond, aside], -1)
    return below_zero(u, with_one(data.gap.times, u))


def _mean(groups: Groups) -> tuple[Floats, Floats]:
    """The mean over calls, and each group's share of them."""
    calls = groups.sizes.sum(-1)
    return groups.sums.sum(-1) / calls, groups.sizes / calls[..., None]


def _residual(groups: Groups, mean: Floats) -> Floats:
    return (groups.sums - mean[..., None] * groups.sizes) / groups.sizes.sum(-1)[..., None]
