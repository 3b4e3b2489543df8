"""A request is given a route. Pure: the same request, models and aliases give the same route.

A name means, in this order: the model of the vault that is called so, which no alias can hide; what an alias of that
name points at; the upstream's model that is called so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from freehold import identity
from freehold.errors import ModelNotFound
from freehold.types import Aim, Alias, Manifest, Request, Route, Target


def aim(
    name: Any, conversation: Callable[[], bytes], aliases: Mapping[str, Alias],
    models: Callable[[], Mapping[str, Manifest]], upstreams: Mapping[str, str] = {},
) -> Aim:  # fmt: skip
    """What the name in a request leads to. ``conversation`` says what the call's conversation is known by: in a canary
    it alone decides which side answers.

    Raises:
        ModelNotFound: what the alias points at is not here, or is another model by now.
    """
    if not isinstance(name, str):
        return Aim("")  # for the surface to refuse
    alias = aliases.get(name)
    if alias is None or (name in (known := models()) and name not in upstreams):
        return Aim(name)
    canary = alias.canary
    if canary is None:
        return Aim(_there(alias, alias.target, known, upstreams), name)
    place = identity.place(canary.salt, conversation())
    is_candidate = place < canary.share * identity.ROOM
    target = canary.target if is_candidate else alias.target
    return Aim(_there(alias, target, known, upstreams), name, canary.id, is_candidate, place)


def find(request: Request, models: Mapping[str, Manifest], upstreams: Mapping[str, str] = {}) -> Route:
    """The route of a request; ``upstreams`` names whoever runs a model that this house does not. Raises ModelNotFound,
    naming what there is."""
    manifest = models.get(request.model)
    if manifest is None:
        served = ", ".join(sorted(models)) or "none"
        raise ModelNotFound(f"There is no model {request.model!r} here.", hint=f"Served: {served}.", param="model")
    return Route(manifest, upstreams.get(request.model, ""))


def _there(alias: Alias, target: Target, models: Mapping[str, Manifest], upstreams: Mapping[str, str]) -> str:
    """The name of an alias's target, if that is here and the very one that the alias was pointed at."""
    manifest = models.get(target.model)
    if manifest is not None and manifest.digest == target.digest and upstreams.get(target.model, "") == target.upstream:
        return target.model
    where = f"upstream:{target.upstream}" if target.upstream else target.digest
    raise ModelNotFound(
        f"{alias.name!r} points at {target.model}@{where}, which is not here any more.",
        hint=f"Whoever runs Freehold: 'freehold rollback {alias.name}', or 'freehold promote' another model.",
        param="model",
    )
