"""What the house keeps of texts: how long, and what is erased."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from freehold.api import acts
from freehold.api.message import HttpResponse
from freehold.api.reply import allow, as_json, done, instant
from freehold.types import Action, Caller


class Source(Protocol):
    """What the house keeps of texts."""

    def facts(self) -> dict[str, Any]:
        """How long each task's calls are kept, and with which key."""

    def erase(self, task: str, caller: str | None, before: float | None, *, confirm: bool, by: str) -> dict[str, Any]:
        """Erase recorded calls, or only count them. Raises CannotDo."""

    def expire(self, by: str) -> dict[str, Any]:
        """Erase those whose days are over. Raises CannotDo."""


class Records:
    """``pages`` show, ``acts`` erase, each for those whose role allows it."""

    def __init__(self, source: Source):
        self._source = source
        self.pages: dict[str, Callable[[Caller], Any]] = {"/admin/traffic": self.traffic}
        self.acts: dict[str, tuple[acts.Act, Callable[[Caller, Any], HttpResponse]]] = {
            acts.ERASE.path: (acts.ERASE, self.erase),
            acts.EXPIRE.path: (acts.EXPIRE, self.expire),
        }

    async def traffic(self, caller: Caller) -> HttpResponse:
        """How long recorded calls are kept."""
        allow(caller, Action.LOOK)
        return as_json(200, await asyncio.to_thread(lambda: done(self._source.facts)))

    def erase(self, caller: Caller, wanted: acts.Erase) -> HttpResponse:
        """Erase recorded calls, or count those that would go."""
        allow(caller, Action.ERASE)
        before = instant(wanted.before, "before") if wanted.before else None
        erase = self._source.erase
        return as_json(
            200, done(lambda: erase(wanted.task or "", wanted.caller, before, confirm=wanted.confirm, by=caller.id))
        )

    def expire(self, caller: Caller, _wanted: acts.Expire) -> HttpResponse:
        """Erase the recorded calls whose days are over."""
        allow(caller, Action.ERASE)
        return as_json(200, done(lambda: self._source.expire(caller.id)))
