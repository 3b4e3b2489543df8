"""The distribution functions that the tests need, without scipy.

The regularised incomplete beta function by its continued fraction (NIST DLMF 8.17.22, evaluated by Lentz's method),
and what follows from it: the binomial and Student's t. All of them take and return arrays.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

TINY = 1e-300
CUTS = 48  # into which an interval is cut at a time
STEPS = 10_000  # the fraction needs about the square root of the larger parameter


def log_gamma(x: ArrayLike) -> Floats:
    """The logarithm of the gamma function for ``x > 0``: Stirling's series (DLMF 5.11.1) after a shift to above 8."""
    x = np.asarray(x, float)
    shift = np.zeros_like(x)
    low = x < 8
    if np.any(low):
        raised = np.where(low, x, 1.0)
        shift = np.where(low, sum(np.log(raised + k) for k in range(8)), 0.0)
        x = np.where(low, x + 8, x)
    inverse = 1 / (x * x)
    series = (1 / 12 - inverse * (1 / 360 - inverse * (1 / 1260 - inverse * (1 / 1680 - inverse / 1188)))) / x
    return (x - 0.5) * np.log(x) - x + 0.5 * math.log(2 * math.pi) + series - shift


def beta_cdf(x: ArrayLike, a: ArrayLike, b: ArrayLike) -> Floats:
    """P(Beta(a, b) <= x) for ``a, b > 0`` and ``x`` from 0 to 1."""
    x, a, b = np.broadcast_arrays(*(np.asarray(v, float) for v in (x, a, b)))
    inside = (x > 0) & (x < 1)
    safe = np.where(inside, x, 0.5)
    mirrored = safe > (a + 1) / (a + b + 2)
    y, p, q = np.where(mirrored, 1 - safe, safe), np.where(mirrored, b, a), np.where(mirrored, a, b)
    front = np.exp(log_gamma(p + q) - log_gamma(p) - log_gamma(q) + p * np.log(y) + q * np.log1p(-y)) / p
    value = front * _fraction(y, p, q)
    value = np.clip(np.where(mirrored, 1 - value, value), 0.0, 1.0)
    return np.where(inside, value, (x >= 1).astype(float))


def _fraction(x: Floats, a: Floats, b: Floats) -> Floats:
    """The continued fraction of the incomplete beta function, by the modified Lentz method."""
    c, d = np.ones_like(x), _away(1 - (a + b) * x / (a + 1))
    d = 1 / d
    value = d.copy()
    for m in range(1, STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away(1 + term * d)
            c = _away(1 + term / c)
            change = c * d
            value *= change
        if np.all(np.abs(change - 1) < 1e-13):
            break
    return value


def _away(x: Floats) -> Floats:
    return np.where(np.abs(x) < TINY, TINY, x)


def beta_quantile(probability: float, a: float, b: float) -> float:
    """The x with P(Beta(a, b) <= x) = probability, to 1e-8; 0 where ``a`` is 0 and 1 where ``b`` is."""
    if a <= 0 or b <= 0:
        return 0.0 if a <= 0 else 1.0
    low, high = 0.0, 1.0
    while high - low > 1e-8:
        x = np.linspace(low, high, CUTS + 1)
        place = int(np.searchsorted(beta_cdf(x[1:-1], a, b), probability))
        low, high = float(x[place]), float(x[place + 1])
    return (low + high) / 2


def binomial_cdf(k: ArrayLike, n: ArrayLike, p: ArrayLike) -> Floats:
    """P(X <= k) for X ~ Binomial(n, p); 0 below 0 and 1 from n on."""
    k, n, p = np.broadcast_arrays(*(np.asarray(v, float) for v in (k, n, p)))
    inside = (k >= 0) & (k < n)
    a, b = np.where(inside, n - k, 1.0), np.where(inside, k + 1, 1.0)
    return np.where(inside, beta_cdf(1 - p, a, b), (k >= n).astype(float))


def t_upper(t: ArrayLike, df: ArrayLike) -> Floats:
    """P(T >= t) for Student's t with ``df`` degrees of freedom; t may be infinite."""
    t, df = np.broadcast_arrays(np.asarray(t, float), np.asarray(df, float))
    finite = np.where(np.isfinite(t), t, 0.0)
    half = 0.5 * beta_cdf(df / (df + finite**2), df / 2, np.full_like(df, 0.5))
    value = np.where(finite > 0, half, 1 - half)
    return np.where(np.isfinite(t), value, (t < 0).astype(float))
