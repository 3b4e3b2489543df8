"""Who answers: engines that are made when they are needed, and upstreams, which are there from the start."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from freehold.answer import Models
from freehold.app.opening import Parts
from freehold.engine.base import Engine
from freehold.engine.fake import FakeEngine
from freehold.engine.llamacpp import LlamaCpp
from freehold.engine.remote import Relay, RemoteEngine
from freehold.engine.upstream import REMOTE, Upstream
from freehold.errors import ModelNotFound
from freehold.metrics import Process
from freehold.types import Manifest, UpstreamState

ENGINES = {"llamacpp": LlamaCpp, "fake": FakeEngine}


class Outside:
    """The upstreams: an engine for each, which is there from the start and stays."""

    def __init__(self, upstreams: Sequence[Upstream], relay: Relay | None):
        self.relay = relay
        self.engines = {found.name: RemoteEngine(found, relay) for found in upstreams} if relay else {}
        self.seats = {model: found.manifest for found in upstreams for model in found.models}
        self.names = {model: found.name for found in upstreams for model in found.models}
        self.models = {name: model for found in upstreams for name, model in found.manifests().items()}
        self.places = {found.name: found.place for found in upstreams}

    def with_vault(self, vault: Models) -> Models:
        """Every model that can be called, as it is when somebody asks."""
        return (lambda *, now=False: ChainMap(self.models, vault(now=now))) if self.models else vault

    def views(self) -> list[UpstreamState]:
        """How each upstream stands."""
        return [engine.view() for engine in self.engines.values()]

    def processes(self) -> list[Process]:
        """The relay's two, if there is one."""
        if (relay := self.relay) is None:
            return []
        pids = {"relay, supervisor": None if relay.is_gone else relay.pid, "relay, worker": relay.worker}
        return [Process(who, pid, relay.layers) for who, pid in pids.items()]

    def facts(self) -> dict[str, Any]:
        """What status shows of it."""
        relay = self.relay
        if relay is None:
            return {"upstreams": [], "relay": None}
        said = {"pid": relay.pid, "worker": relay.worker, "restarts": relay.restarts, "state": relay.state}
        views = [msgspec.to_builtins(view) for view in self.views()]
        return {"upstreams": views, "relay": said | {"reported": msgspec.to_builtins(relay.layers)}}


class Workshop:
    """Makes the engines. ``verified`` are the models whose bytes were read and compared a moment ago."""

    def __init__(self, opened: Parts, engine: type[LlamaCpp], folder: Path, outside: Outside, verified: set[str]):
        self._opened, self._vault, self._settings = opened, opened.vault, opened.settings
        self._engine, self.folder, self.outside, self._verified = engine, folder, outside, verified
        self._metadata: dict[str, dict[str, Any]] = {}  # by digest; reading it anew takes a moment

    def base(self, adapter: Manifest) -> Manifest:
        """See `pool.Builder.base`."""
        if (found := self._vault.base(adapter)) is None:
            raise ModelNotFound(f"The base of {adapter.name!r} is not here any more.", hint="", param="model")
        return found

    def adapters(self, model: Manifest) -> list[Manifest]:
        """See `pool.Builder.adapters`."""
        return self._vault.adapters(model)

    def build(self, model: Manifest, vectors: bool, adapters: Sequence[Manifest]) -> Engine:
        """See `pool.Builder.build`. An adapter is built for its vectors alone, over its base."""
        if model.format == REMOTE:
            return self.outside.engines[model.name]
        opened, over = (self.base(model), [model]) if model.is_adapter else (model, adapters)
        if opened.digest not in self._metadata:
            self._metadata[opened.digest] = self._vault.record(opened).metadata
        return self._engine(
            model, self._vault.blob(opened.digest), self._metadata[opened.digest], self.folder,
            self._settings.engine_for(opened.name), self._settings.seal, vectors=vectors,
            adapters=[(adapter, self._vault.blob(adapter.digest)) for adapter in over],
        )  # fmt: skip

    def verify(self, model: Manifest, report: Callable[[int, int], None]) -> None:
        """See `pool.Builder.verify`. What was verified a moment ago is not read again."""
        if model.format == REMOTE:
            return
        if model.digest in self._verified:
            self._verified.discard(model.digest)
        else:
            self._opened.check(model, report)
