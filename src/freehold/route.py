"""A request is given a route. Pure: the same request and the same models give the same route."""

from __future__ import annotations

from collections.abc import Mapping

from freehold.errors import ModelNotFound
from freehold.types import Manifest, Request, Route


def find(request: Request, models: Mapping[str, Manifest], upstreams: Mapping[str, str] = {}) -> Route:
    """The route of a request; ``upstreams`` names whoever runs a model that this house does not. Raises ModelNotFound,
    naming what there is."""
    manifest = models.get(request.model)
    if manifest is None:
        served = ", ".join(sorted(models)) or "none"
        raise ModelNotFound(f"There is no model {request.model!r} here.", hint=f"Served: {served}.", param="model")
    return Route(manifest, upstreams.get(request.model, ""))
