"""What operators see: is it alive, is it ready, what is true now, and the document of the whole API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from freehold import policy
from freehold.answer import House
from freehold.api import document
from freehold.api.http import HttpResponse
from freehold.errors import Forbidden
from freehold.types import Caller

Page = Callable[[Caller], HttpResponse]


class Admin:
    """``open_to_all`` are the two paths that need no key; ``pages`` are those that do."""

    def __init__(self, house: House, facts: Mapping[str, Any]):
        self._house = house
        self._facts = dict(facts)
        self.open_to_all: dict[str, Callable[[], HttpResponse]] = {"/healthz": self.health, "/readyz": self.ready}
        self.pages: dict[str, Page] = {"/admin/status": self.status, "/openapi.json": self.openapi}

    def health(self) -> HttpResponse:
        """The process is alive."""
        return _json(200, {"status": "ok"})

    def ready(self) -> HttpResponse:
        """Every engine answers. Names no model: this page needs no key."""
        states = [engine.state().state for engine in self._house.engines.values()]
        waiting = sorted({state for state in states if state != "ready"})
        if waiting:
            return _json(
                503, {"status": "not ready", "reason": f"an engine is {' and '.join(waiting)}"}, ("retry-after", "2")
            )
        return _json(200, {"status": "ready"})

    def status(self, caller: Caller) -> HttpResponse:
        """What the gateway knows of itself; ``freehold status`` holds it against the kernel."""
        decision = policy.may_look(caller)
        if not decision.allowed:
            raise Forbidden(decision.reason)
        engines = [msgspec.to_builtins(engine.state()) for engine in self._house.engines.values()]
        models = [msgspec.to_builtins(manifest) for manifest in self._house.models.values()]
        return _json(200, self._facts | {"engines": engines, "models": models})

    def openapi(self, _caller: Caller) -> HttpResponse:
        """The API's own description."""
        return _json(200, document.openapi())


def _json(status: int, content: dict[str, Any], *headers: tuple[str, str]) -> HttpResponse:
    return HttpResponse(status, msgspec.json.encode(content), headers=headers)
