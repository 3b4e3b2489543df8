"""An alias moves: to a candidate, to a share for one, and back. Each move and its event are one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from freehold import aliases as store
from freehold.aliases import Aliases
from freehold.errors import BadModel, CannotDo
from freehold.ledger import Ledger, new_id
from freehold.promote.standing import Standing
from freehold.stats import sequential
from freehold.types import Alias, Canary, Manifest, Target

PROMOTED, CANARY, BACK = "alias.promoted", "alias.canary", "alias.rolled-back"  # acts in the audit chain
_TRIES = 5  # of a move that others move under

T = TypeVar("T")


class Desk(Struct, frozen=True):
    """What a move needs: the aliases, the ledger, the models of the vault that an engine opens, by name, and who runs
    the upstreams' models, by their names."""

    aliases: Aliases
    ledger: Ledger
    models: Callable[[], Mapping[str, Manifest]]
    upstreams: Mapping[str, str] = {}

    def target(self, model: str) -> Target:
        """The target that a model's name stands for. Raises BadModel where there is no such model."""
        if manifest := self.models().get(model):
            return Target(model, manifest.digest)
        if model in self.upstreams:
            return Target(model, upstream=self.upstreams[model])
        there = ", ".join(sorted({*self.models(), *self.upstreams})) or "none"
        raise BadModel(f"There is no model {model!r} that could answer.", hint=f"There are: {there}.")

    def has(self, target: Target) -> bool:
        """Is the very model here that a target names?"""
        if target.upstream:
            return self.upstreams.get(target.model) == target.upstream
        manifest = self.models().get(target.model)
        return manifest is not None and manifest.digest == target.digest

    def stands_for(self, alias: str) -> Target | None:
        """What a name means as long as there is no alias: the upstream's model of that name, if there is one."""
        return Target(alias, upstream=self.upstreams[alias]) if alias in self.upstreams else None


class Moved(Struct, frozen=True):
    """What came of a move: ``act`` is that of its event, empty where nothing had to change; ``before`` and ``now`` are
    what most calls were and are answered by, ``canary`` the one that runs now, ``ended`` the one that was ended, and
    ``skipped`` the targets that a rollback passed over because their models are gone."""

    alias: str
    act: str
    before: Target | None
    now: Target
    canary: Canary | None = None
    ended: Canary | None = None
    skipped: tuple[Target, ...] = ()


def told(moved: Moved) -> dict[str, Any]:
    """A move for programs: without what decides who is in a canary."""
    found = msgspec.to_builtins(moved)
    for canary in ("canary", "ended"):
        if found[canary]:
            del found[canary]["salt"]
    return found


def promote(
    desk: Desk, alias: str, target: Target, standing: Standing, *, by: str, share: float | None = None,
    tolerance: float | None = None, anyway: str = "",
) -> Moved:  # fmt: skip
    """Point an alias at a target, or let it answer a ``share`` (0 to 1) of the conversations. With a standing that says
    no, ``anyway`` is the reason why it is done all the same.

    ``tolerance`` is how much oftener the candidate may go wrong before it is taken back; that of the standing, if none
    is given, or 0.

    Raises:
        CannotDo: the name cannot be an alias, or is a model of the vault; another canary runs; there is nothing to keep
            the rest at; or the standing says no, and nobody says why it should be done.
    """
    if not standing.may and not anyway:
        raise CannotDo(f"{alias!r} is not promoted: {standing.why}")
    _check_free(desk, alias)
    ground: dict[str, Any] = {"verdicts": list(standing.ground), "tasks": list(standing.tasks)}
    if anyway:
        ground |= {"anyway": anyway, "lacking": "" if standing.may else standing.why}
    why = f"anyway: {anyway}" if anyway else standing.why
    task = standing.tasks[0] if standing.tasks else ""
    target = msgspec.structs.replace(target, task=task, by=by, at=time.time(), why=why)
    if share is None or share >= 1:
        return _again(lambda: _complete(desk, alias, target, ground))
    if not share > 0:
        raise CannotDo(f"A share of {share:g} is none.", hint="Give one between 0 and 100%.")
    least = standing.margin or 0.0
    return _again(lambda: _share(desk, alias, target, ground, share, tolerance, least))


def rollback(desk: Desk, alias: str, *, by: str) -> Moved:
    """Restore what an alias pointed at before: a canary is ended, and without one the last target is left. What is no
    longer here is passed over.

    Raises:
        CannotDo: there is no such alias, or nothing before what it points at.
    """
    return _again(lambda: _back(desk, alias, by))


def give_up(desk: Desk, canary: Canary, detail: Mapping[str, Any], by: str) -> bool:
    """End a canary whose candidate was shown worse; says whether it still ran. Raises Unaccountable."""

    def move() -> bool:
        seen = desk.aliases.get(canary.alias)
        if seen is None or seen.canary is None or seen.canary.id != canary.id:
            return False
        _ended(desk, seen, store.WORSE, by, detail)
        return True

    return _again(move)


def _complete(desk: Desk, alias: str, target: Target, ground: dict[str, Any]) -> Moved:
    """All calls go to the target."""
    seen = desk.aliases.get(alias)
    canary = seen.canary if seen else None
    _check_canary(alias, canary, target)
    before = seen.target if seen else desk.stands_for(alias)
    if canary is None and before is not None and _same(before, target):
        return Moved(alias, "", before, before)
    detail = _fact(target) | {"from": _fact(before), "canary": canary.id if canary else None} | ground
    desk.ledger.record(
        PROMOTED, alias, actor=target.by, detail=detail,
        with_it=lambda connection: desk.aliases.point(connection, alias, seen, target, before),
    )  # fmt: skip
    desk.aliases.tell()
    return Moved(alias, PROMOTED, before, target, ended=canary)


def _share(
    desk: Desk, alias: str, target: Target, ground: dict[str, Any], share: float, tolerance: float | None, least: float
) -> Moved:
    """A share of the conversations goes to the target, in a canary that is begun or runs already."""
    seen = desk.aliases.get(alias)
    before = seen.target if seen else desk.stands_for(alias)
    if before is None:
        raise CannotDo(
            f"{alias!r} points at nothing yet, so there is nothing to keep the rest at.",
            hint="Promote without --share; or name what answers today first.",
        )
    if _same(before, target):
        raise CannotDo(f"{alias!r} points at {target.model} already, with all its calls.", hint="")
    if seen is not None and seen.canary is not None:
        _check_canary(alias, seen.canary, target)
        return _other_share(desk, seen, target, ground, share, tolerance)
    canary = Canary(
        new_id("canary"), alias, target, share, store.new_salt(), least if tolerance is None else tolerance,
        sequential.ALPHA, target.at,
    )  # fmt: skip
    state = msgspec.to_builtins(sequential.begin(canary.tolerance))
    desk.ledger.record(
        CANARY, alias, actor=target.by, detail=_canary_fact(canary) | {"beside": _fact(before)} | ground,
        with_it=lambda connection: desk.aliases.begin(connection, seen, canary, before, state),
    )  # fmt: skip
    desk.aliases.tell()
    return Moved(alias, CANARY, before, before, canary=canary)


def _other_share(
    desk: Desk, seen: Alias, target: Target, ground: dict[str, Any], share: float, tolerance: float | None
) -> Moved:
    """The canary that runs gets another share: whoever had the candidate at a smaller one keeps it."""
    if tolerance is not None and tolerance != seen.canary.tolerance:
        raise CannotDo(
            f"The tolerance of this canary was set to {seen.canary.tolerance:g} when it began.",
            hint="Leave it out; or roll the canary back and begin another.",
        )
    if share == seen.canary.share:
        return Moved(seen.name, "", seen.target, seen.target, canary=seen.canary)
    canary = msgspec.structs.replace(seen.canary, share=share)
    detail = _canary_fact(canary) | {"beside": _fact(seen.target), "share_before": seen.canary.share} | ground
    desk.ledger.record(
        CANARY, seen.name, actor=target.by, detail=detail,
        with_it=lambda connection: desk.aliases.share(connection, seen, share),
    )  # fmt: skip
    desk.aliases.tell()
    return Moved(seen.name, CANARY, seen.target, seen.target, canary=canary)


def _back(desk: Desk, alias: str, by: str) -> Moved:
    seen = desk.aliases.get(alias)
    if seen is None:
        known = ", ".join(one.name for one in desk.aliases.every()) or "none"
        raise CannotDo(f"There is no alias {alias!r}.", hint=f"There are: {known}.")
    if seen.canary is not None:
        return _ended(desk, seen, store.ROLLED_BACK, by, {})
    stack = [target for target in desk.aliases.targets(alias) if target.left_at is None]
    earlier = stack[-2::-1]
    gone = [target for target in earlier if not desk.has(target)]
    found = next((target for target in earlier if desk.has(target)), None)
    if found is None:
        lost = f" that is still here: {', '.join(target.model for target in gone)}" if gone else ""
        raise CannotDo(
            f"There is nothing before {seen.target.model} that {alias!r} pointed at{lost}.",
            hint="'freehold promote' points it at another model.",
        )
    skipped = tuple(earlier[: earlier.index(found)])
    detail = _fact(found) | {"from": _fact(seen.target), "skipped": [_fact(target) for target in skipped]}
    desk.ledger.record(
        BACK, alias, actor=by, detail=detail,
        with_it=lambda connection: desk.aliases.leave(connection, seen, len(skipped) + 1, by),
    )  # fmt: skip
    desk.aliases.tell()
    return Moved(alias, BACK, seen.target, found, skipped=skipped)


def _ended(desk: Desk, seen: Alias, how: str, by: str, more: Mapping[str, Any]) -> Moved:
    """End the canary: all calls go where the rest was. Raises Overtaken where it is over, or another one runs."""
    canary = seen.canary
    trial = desk.aliases.trial(canary.id)
    counts = {} if trial is None else {side: msgspec.to_builtins(getattr(trial, side)) for side in _SIDES}
    detail = _fact(seen.target) | {"from": _fact(canary.target), "canary": canary.id, "share": canary.share}
    detail |= {"ended": how} | counts | dict(more)
    desk.ledger.record(
        BACK, seen.name, actor=by, detail=detail,
        with_it=lambda connection: desk.aliases.end(connection, seen, how),
    )  # fmt: skip
    desk.aliases.tell()
    return Moved(seen.name, BACK, seen.target, seen.target, ended=canary)


_SIDES = ("incumbent", "candidate")


def _check_free(desk: Desk, alias: str) -> None:
    """An alias may not hide a model of the vault. Raises CannotDo."""
    store.check_name(alias)
    if alias in desk.models():
        raise CannotDo(
            f"{alias!r} is a model of this house, and a name cannot be both.",
            hint="Give the alias the name that the application sends; or add that model again under another name.",
        )


def _check_canary(alias: str, running: Canary | None, target: Target) -> None:
    """One canary at a time. Raises CannotDo."""
    if running is not None and not _same(running.target, target):
        raise CannotDo(
            f"A canary of {running.target.model} runs at {running.share:.4g} of the conversations of {alias!r}.",
            hint=f"Complete it ('freehold promote {alias} {running.target.model}'), or end it: 'freehold rollback "
            f"{alias}'.",
        )


def _same(one: Target, other: Target) -> bool:
    return (one.model, one.digest, one.upstream) == (other.model, other.digest, other.upstream)


def _fact(target: Target | None) -> dict[str, Any]:
    """A target as the audit chain has it."""
    return {} if target is None else {name: getattr(target, name) for name in ("model", "digest", "upstream")}


def _canary_fact(canary: Canary) -> dict[str, Any]:
    """A canary as the audit chain has it: without what decides who is in it."""
    own = {"canary": canary.id, "share": canary.share, "tolerance": canary.tolerance, "alpha": canary.alpha}
    return _fact(canary.target) | own


def _again(move: Callable[[], T]) -> T:
    """A move that looks first, done anew where somebody else has moved in between."""
    for _ in range(_TRIES - 1):
        try:
            return move()
        except store.Overtaken:
            continue
    return move()
