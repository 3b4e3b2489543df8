"""Several candidates on one split: the level at which each is judged."""

from __future__ import annotations

from collections.abc import Mapping


def holm(p_values: Mapping[str, float], alpha: float = 0.025) -> dict[str, float]:
    """The level for each candidate, so that the chance of even one false "non-inferior" among them stays at ``alpha``.

    Holm's step-down (Scandinavian Journal of Statistics 6, 1979): of k candidates the one with the smallest p is judged
    at alpha / k, the next at alpha / (k - 1), and so on, until one fails; that one and all after it are judged at the
    level of the failure. Holm certifies a candidate exactly where its p is at most its level here, so an interval at
    this level says the same as the step-down. Together the intervals are no simultaneous ones: only the decisions are
    protected. Equal p-values are taken in the order of their names.

    Raises:
        ValueError: a p-value is not a number from 0 to 1.
    """
    levels, failed = {}, None
    for rank, name in enumerate(sorted(p_values, key=lambda name: (p_values[name], name))):
        if not 0 <= p_values[name] <= 1:
            raise ValueError(f"The p-value of {name} is {p_values[name]}; it must be a number from 0 to 1.")
        level = alpha / (len(p_values) - rank)
        levels[name] = failed or level
        if p_values[name] > level:
            failed = failed or level
    return levels
