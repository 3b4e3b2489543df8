"""The Bayesian bootstrap of a sum, exactly: P(sum of E_k u_k <= 0) for independent standard exponential weights E_k.

A bootstrap that draws its weights gives this figure with an error of its own. Here it is an integral of the moment
generating function along a line through its saddle point (Butler, Saddlepoint Approximations with Applications, 2007,
section 1.1), which some thirty nodes give to six digits or more. No random number is drawn, so there is no seed.
"""

from __future__ import annotations

import math

import numpy as np

from freehold.stats.special import Floats

STEP = 0.25
NODES = np.arange(STEP, 8.0, STEP)  # even on the scale of v, where y = width * sinh(v)
HALVINGS = 24  # any line between the poles gives the integral; the saddle only gives it soonest
AT_ONCE = 2**18  # numbers held at a time
NEGLIGIBLE = -45.0  # a logarithm


def below_zero(u: Floats, times: Floats) -> Floats:
    """P(sum of E_k u_k <= 0) over the last axis, where each ``u`` stands for ``times`` terms: (..., K) -> (...).

    It is 0 where no ``u`` is negative, and 1 where none is positive and some are negative.
    """
    counted = np.where(times > 0, u, 0.0)
    least, most = counted.min(-1), counted.max(-1)
    mixed = (least < 0) & (most > 0)
    result = np.asarray(np.where(least < 0, 1.0, 0.0))
    if np.any(mixed):
        scale = np.maximum(most, -least)[mixed]
        result[mixed] = _integral(counted[mixed] / scale[..., None], np.broadcast_to(times, u.shape)[mixed])
    return result


def _integral(u: Floats, times: Floats) -> Floats:
    centre = _saddle(u, times)
    tilt = u / (1 - centre[..., None] * u)
    width = 1 / np.sqrt((times * tilt**2).sum(-1) + 1 / centre**2)
    height = -(times * np.log1p(-centre[..., None] * u)).sum(-1) - np.log(-centre)
    total = np.full_like(centre, 0.5)  # half of the node at 0; the integrand is scaled to be 1 there
    for v in np.array_split(NODES, max(1, math.ceil(NODES.size * u.size / AT_ONCE))):
        y = width[..., None] * np.sinh(v)
        # relative to the saddle c, 1 - (c + iy)u is (1 - cu)(1 - iy tilt), and -(c + iy) is -c(1 + iy/c)
        turned, pole = y[..., None] * tilt[..., None, :], y / centre[..., None]
        size = -0.5 * (times[..., None, :] * np.log1p(turned * turned)).sum(-1) - 0.5 * np.log1p(pole * pole)
        angle = (times[..., None, :] * np.arctan(turned)).sum(-1) - np.arctan(pole)
        total += (np.exp(size) * np.cos(angle) * np.cosh(v)).sum(-1)
        if size[..., -1].max() < NEGLIGIBLE:
            break
    return np.clip(total * STEP * width / np.pi * np.exp(height), 0.0, 1.0)


def _saddle(u: Floats, times: Floats) -> Floats:
    """Where the integrand is least on the real axis between its pole at 1/min(u) and the one at 0."""
    low, high = 1 / u.min(-1), np.zeros(u.shape[:-1])
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        slope = (times * u / (1 - middle[..., None] * u)).sum(-1) - 1 / middle
        low, high = np.where(slope < 0, middle, low), np.where(slope < 0, high, middle)
    return (low + high) / 2
