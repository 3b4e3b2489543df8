"""How the aliases stand, for people and programs: what each points at, and how its canary goes."""

from __future__ import annotations

from typing import Any

import msgspec

from freehold.aliases import Aliases
from freehold.stats import sequential
from freehold.types import Alias, Canary, Target, Trial

_SHOWN = ("id", "share", "tolerance", "alpha", "began_at", "ended_at", "ended")
TESTS = ("own", "told")  # each has half of a canary's chance of a false alarm


def facts(aliases: Aliases) -> list[dict[str, Any]]:
    """Every alias, with its earlier targets, the canary that runs, and those that are over; the latest first."""
    return [_alias(aliases, alias) for alias in aliases.every()]


def evidence(trial: Trial, test: str) -> sequential.Evidence:
    """The state of one of a canary's two tests."""
    return msgspec.convert(getattr(trial, test), sequential.Evidence)


def level(canary: Canary) -> float:
    """The chance of a false alarm that each of the two tests has."""
    return canary.alpha / len(TESTS)


def outline(trial: Trial) -> dict[str, Any]:
    """A canary with its counts and what its tests say, without what decides who is in it."""
    own = {name: getattr(trial.canary, name) for name in _SHOWN}
    sides = {side: msgspec.to_builtins(getattr(trial, side)) for side in ("incumbent", "candidate")}
    tests = {test: _test(trial, test) for test in TESTS}
    return own | {"target": _target(trial.canary.target)} | sides | {"missed": trial.missed, "tests": tests}


def _alias(aliases: Aliases, alias: Alias) -> dict[str, Any]:
    *earlier, _ = [target for target in aliases.targets(alias.name) if target.left_at is None]
    trials = [outline(trial) for trial in aliases.trials(alias.name)][::-1]
    return {
        "alias": alias.name, "target": _target(alias.target), "before": [_target(target) for target in earlier[::-1]],
        "canary": next((trial for trial in trials if not trial["ended"]), None),
        "canaries": [trial for trial in trials if trial["ended"]],
    }  # fmt: skip


def _target(target: Target) -> dict[str, Any]:
    return msgspec.to_builtins(target)


def _test(trial: Trial, test: str) -> dict[str, Any]:
    """What a test has counted (conversations), and what it says: the candidate goes wrong oftener by more than
    ``more_than`` and less than ``less_than``, where that is shown; ``evidence`` out of ``needed`` for going wrong more
    than is tolerated."""
    found, alpha = evidence(trial, test), level(trial.canary)
    above, below = sequential.bounds(found, alpha)
    place = found.differences.index(found.tolerance)
    sides = {}
    for side in ("incumbent", "candidate"):
        counted, waiting = getattr(found, side), getattr(found, f"waiting_{side}")
        sides[side] = {"conversations": counted.n + waiting.n, "went_wrong": counted.wrong + waiting.wrong}
    return sides | {
        "more_than": above, "less_than": below, "is_worse": sequential.is_worse(found, alpha),
        "evidence": sequential.value(found.worse[place]), "needed": 1 / alpha,
    }  # fmt: skip
