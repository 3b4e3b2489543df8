"""Binary scores of calls that stand alone: an exact unconditional test of the difference of paired proportions.

The tables (better, worse) are ordered by the lower limit that Tango's score statistic gives them (Statistics in
Medicine 17, 1998). The p-value is the largest probability, over every share of discordant pairs, of a table at least as
good as the one seen (Hsueh, Liu and Chen, Biometrics 57, 2001); the order does not depend on the margin, so p falls as
the margin grows, and the bound where it crosses ``alpha`` is Buehler's (JASA 52, 1957). The shares are searched within
their own interval at confidence 1 - `SLACK`, and `SLACK` is added to p (Berger and Boos, JASA 89, 1994). No normal
approximation decides anything here: Tango's statistic only sets the order.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from freehold.stats.special import CUTS, Floats, beta_quantile, binomial_cdf, log_gamma

ORDER = 1.959963984540054  # the normal quantile at which Tango's limit orders the tables
SLACK = 1e-4
SHARES = 25  # shares of discordant pairs at which the probability is taken
WIDE = 5.0  # standard deviations of the binomial that are summed


@lru_cache(maxsize=65_536)
def p_value(better: int, worse: int, n: int, margin: float) -> float:
    """The p-value of "worse by ``margin`` or more", given the counts of discordant pairs among ``n``.

    ``margin`` may be negative: then the question is whether the candidate is better by that much.
    """
    shares = _shares(better + worse, n)
    if shares[-1] < margin:
        return SLACK
    shares = np.linspace(max(shares[0], margin), shares[-1], SHARES)
    chance = _probability(n, _limit(better, worse, n), shares, np.minimum(-margin, shares))
    return float(min(1.0, chance.max() + SLACK))


@lru_cache(maxsize=65_536)
def _shares(discordant: int, n: int) -> tuple[float, float]:
    """The shares of discordant pairs that are not ruled out at confidence 1 - `SLACK` (Clopper and Pearson)."""
    low = beta_quantile(SLACK / 2, discordant, n - discordant + 1)
    return low, beta_quantile(1 - SLACK / 2, discordant + 1, n - discordant)


def _probability(n: int, limit: float, shares: Floats, differences: Floats) -> Floats:
    """P(a table whose limit is ``limit`` or more), for each true share of discordant pairs and difference.

    It is the sum, over the number of discordant pairs, of its binomial chance times that of enough better ones among
    them. What the sum leaves out at its ends counts as good tables: p is never too small for it.
    """
    reach = WIDE * np.sqrt(n * shares * (1 - shares)) + WIDE**2
    low, high = max(0, int((n * shares - reach).min())), min(n, int((n * shares + reach).max()) + 1)
    discordant = np.arange(low, high + 1.0)
    chance = _binomial(discordant, n, shares[:, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        better = np.where(shares > 0, (1 + differences / shares) / 2, 0.5)
    tail = _tails(discordant, _least_better(discordant, n, limit), np.clip(better, 0, 1)[:, None])
    return (chance * tail).sum(1) + np.maximum(0, 1 - chance.sum(1))


def _tails(count: Floats, least: Floats, better: Floats) -> Floats:
    """P(Binomial(count, better) >= least) for successive counts, with ``least`` rising by 0 or 1 from each to the next:
    the first by its distribution function, the others by what one more trial adds."""
    first = binomial_cdf(count[0] - least[0], count[0], 1 - better)
    rises = np.diff(least) > 0
    at_edge = _binomial(least[:-1] - ~rises, count[:-1], better)
    steps = np.where(rises, -(1 - better), better) * at_edge
    return np.concatenate([first, first + np.cumsum(steps, axis=1)], axis=1)


def _binomial(k: Floats, n: Floats, p: Floats) -> Floats:
    """P(X = k) for X ~ Binomial(n, p), and 0 where k is not among 0 to n."""
    inside = (k >= 0) & (k <= n)
    k = np.where(inside, k, 0)
    with np.errstate(divide="ignore"):
        log_p, log_q = np.maximum(np.log(p), -1e300), np.maximum(np.log1p(-p), -1e300)
    log_choose = log_gamma(np.add(n, 1.0)) - log_gamma(k + 1) - log_gamma(n - k + 1)
    return np.where(inside, np.exp(log_choose + k * log_p + (n - k) * log_q), 0.0)


def _least_better(discordant: Floats, n: int, limit: float) -> Floats:
    """For each number of discordant pairs, the fewest better ones among them with which Tango's limit is ``limit``
    or more; one more than there are where no number is enough."""
    low, high = np.zeros_like(discordant), discordant + 1
    while np.any(low < high):
        middle = np.floor((low + high) / 2)
        good = tango(middle, discordant - middle, n, limit) >= ORDER - 1e-9
        low, high = np.where(good, low, middle + 1), np.where(good, middle, high)
    return low


@lru_cache(maxsize=65_536)
def _limit(better: int, worse: int, n: int) -> float:
    """Tango's lower limit: where his statistic is `ORDER`."""
    low, high = -1.0, (better - worse) / n
    while high - low > 1e-13:
        x = np.linspace(low, high, CUTS + 1)
        place = int((tango(better, worse, n, x[1:-1]) > ORDER).sum())
        if (x[place], x[place + 1]) == (low, high):
            break
        low, high = float(x[place]), float(x[place + 1])
    return (low + high) / 2


def tango(better: Floats, worse: Floats, n: int, difference: float) -> Floats:
    """Tango's score statistic for a true ``difference`` from -1 to 1; the share of worse pairs is estimated to fit."""
    linear = (2 * n - better + worse) * difference - better - worse
    constant = -worse * difference * (1 - difference)
    share = (np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0)) - linear) / (4 * n)
    variance = n * (2 * share + difference * (1 - difference))
    distance = better - worse - n * difference
    certain = np.where(distance >= 0, np.inf, -np.inf)
    return np.where(variance > 1e-12, distance / np.sqrt(np.maximum(variance, 1e-12)), certain)
