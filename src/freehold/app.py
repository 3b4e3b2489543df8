"""The composition root: the only module that names concrete classes and joins them into a running server."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import itertools
import os
import resource
import signal
import socket
import ssl
import time
from collections import ChainMap
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import uvloop
from msgspec import Struct
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

import freehold
from freehold import admit, cost, disk, intake, log, promote, runs, seal, sign
from freehold.aliases import Aliases
from freehold.answer import House, Models
from freehold.api.admin import Admin
from freehold.api.browser import Browser
from freehold.api.http import Server
from freehold.api.people import People
from freehold.api.router import Router
from freehold.auth import KeyRing
from freehold.budget import Account, Accounts, month
from freehold.config import LimitsSettings, ServerSettings, Settings
from freehold.engine.base import Engine
from freehold.engine.fake import FakeEngine
from freehold.engine.llamacpp import LlamaCpp, context_of
from freehold.engine.pool import Pool
from freehold.engine.power import meter
from freehold.engine.remote import Relay, RemoteEngine, relaying
from freehold.engine.upstream import REMOTE, Upstream, all_of, check_names, collector
from freehold.errors import (
    BadConfig,
    BadModel,
    CannotDo,
    ModelNotFound,
    PortTaken,
    SealMissing,
    StoreFailed,
    UnsafeBind,
)
from freehold.guard import Guard, Place
from freehold.home import Home, Running
from freehold.lease import Leases
from freehold.ledger import Audit, Ledger
from freehold.limits import OWNER_NAME, Rules, Spend
from freehold.login import Login
from freehold.metrics import Process
from freehold.observe import Observer
from freehold.prices import PriceList, Tariff, charge
from freehold.results import Results
from freehold.samples import Samples
from freehold.store import TRAFFIC, Store, canonical
from freehold.store.cipher import Ring, load
from freehold.task import Tasks
from freehold.teams import Office
from freehold.traces import Traces
from freehold.traffic import heard, retention
from freehold.traffic.capture import Capture
from freehold.types import (
    Answer,
    Caller,
    Candidate,
    Comparison,
    Costs,
    EngineState,
    Kind,
    Layer,
    Limits,
    Manifest,
    Progress,
    Request,
    Role,
    Score,
    Split,
    Subject,
    Task,
    TuningRun,
    UpstreamState,
    Used,
)
from freehold.vault import SERVED, Vault

if TYPE_CHECKING:
    from freehold.certify import Bench
    from freehold.scorers import Judge, Scorer
    from freehold.tune.train import Choices, Tell

ENGINES = {"llamacpp": LlamaCpp, "fake": FakeEngine}
_SPARE_FILES = 256  # descriptors kept free of client connections: the database, the engines, the log


class Host(Protocol):
    """Whoever started the server and wants to hear of it: the terminal, or a test."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Something long is under way."""

    def first_key(self, key: str) -> None:
        """The first key was made; this is the only time it can be seen."""

    def ready(self, address: str, layers: tuple[Layer, ...], engines: list[EngineState], models: int) -> None:
        """Calls are answered from now on, by any of so many models."""

    def stopping(self) -> None:
        """No new calls are taken; running ones finish."""


class TuneOutcome(Struct, frozen=True):
    """What came of tuning: the run's record, whether the gate let the adapter in, and why not if it did not."""

    run: TuningRun
    admitted: bool
    reasons: str


class Parts(Struct):
    """What stands on one home's database and vault, for the server and for the commands that need no server."""

    home: Home
    settings: Settings
    store: Store
    ledger: Ledger
    keys: KeyRing
    vault: Vault
    aliases: Aliases
    audit: Audit
    rules: Rules
    _traffic: Store | None = None
    _ring: Ring | None = None

    @property
    def traffic(self) -> Store:
        """The database of recorded traffic, opened when it is first asked for. Raises StoreFailed."""
        if self._traffic is None:
            self._traffic = Store(self.home.traffic, TRAFFIC)
        return self._traffic

    @property
    def samples(self) -> Samples:
        """The recorded calls. Raises BadConfig where their key cannot be read."""
        return Samples(self.traffic, self.ring)

    @property
    def results(self) -> Results:
        """What candidates made of them."""
        return Results(self.traffic, self.ring)

    @property
    def ring(self) -> Ring:
        """The key that recorded calls are encrypted with. Raises BadConfig where it cannot be read."""
        if self._ring is None:
            self._ring = Ring(load(self.settings.traffic.key_file))
        return self._ring

    @property
    def shelf(self) -> retention.Shelf:
        """What is kept of texts, for whoever erases it."""
        return retention.Shelf(
            self.traffic, self.samples, self.results, self.tasks, self.ledger, self.settings.traffic.days
        )

    @property
    def tasks(self) -> Tasks:
        """The tasks' files."""
        return Tasks(self.home.tasks)

    @property
    def office(self) -> Office:
        """Where teams are made and limits are set."""
        return Office(self.store, self.ledger, self.rules)

    def used(self, of: Subject, limits: Limits, at: float) -> list[Used]:
        """How far the budgets of a key or team are used by what the ledger has as settled. Raises Unaccountable."""
        account, price = Account(), _price(self.tariff)
        for spend in self.rules.spends(month(at), of) if limits.has_budget else ():
            money = price(spend) if limits.has_money else 0.0
            account.count(spend.at, spend.prompt + spend.completion, money)
        return list(account.budgets(limits, at))

    @property
    def tariff(self) -> Tariff:
        """What tokens count for in budgets of money. Raises BadConfig."""
        return Tariff(PriceList(self.settings.cost), self._others)

    @property
    def named(self) -> cost.Named:
        """What the names in the ledger mean to the price list. Raises BadConfig."""
        tasks = {task.alias: task.price or task.alias for task in self.tasks.every() if task.alias}
        own, team = frozenset(self.vault.models()), self.office.teams.at()
        return cost.Named(PriceList(self.settings.cost), tasks, self._others, own, team)

    @property
    def _others(self) -> dict[str, tuple[str, str]]:
        """The models of upstreams, each with its name there and where that is."""
        return {name: (there, one.settings.url) for one in all_of(self.settings) for name, there in one.models.items()}

    @property
    def desk(self) -> promote.Desk:
        """What an alias is moved by. Raises BadConfig."""
        upstreams = {model: found.name for found in all_of(self.settings) for model in found.models}
        return promote.Desk(self.aliases, self.ledger, self.vault.models, upstreams)

    def rule(self, task: str) -> Scorer | None:
        """What a task's answers can be held to without a reference. Raises BadTask."""
        from freehold import scorers  # see `scorer`

        return scorers.alone(self.tasks.get(task), self.tasks.folder(task), self.settings.seal)

    @contextlib.contextmanager
    def scorer(self, task: Task) -> Iterator[Scorer | Judge]:
        """How a task's answers are scored. Raises BadTask."""
        from freehold import scorers  # with libraries that the server does not need

        made = scorers.make(task, self.tasks.folder(task.name), self.settings.seal)
        try:
            yield made
        finally:
            made.close()

    @contextlib.contextmanager
    def bench(self, task: Task, progress: Progress, *, asking: bool = True) -> Iterator[Bench]:
        """What a certification of the task stands on. Without ``asking`` no judge is asked, and no server is needed.

        Raises:
            BadTask: its scorer cannot be made.
            NotRunning, BadModel: the scorer is a judge, and no server runs or the judge is no model of this house.
        """
        from freehold import certify  # with numpy, which the server does not need

        with self.scorer(task) as scorer:
            judge, digest = (None, scorer.digest) if not scorer.asks else self._judge(scorer, progress, asking)
            yield certify.Bench(self.samples, self.results, self.ledger, scorer, digest, judge, progress)

    def costs(self, task: Task, candidate: Candidate | None, calls_per_day: float | None = None) -> Costs:
        """What the task costs, owned by what a candidate made of its recorded calls and rented from the incumbent;
        where there is no candidate, rented alone."""
        from freehold import cost, prices

        listed, rates = prices.PriceList(self.settings.cost), cost.rates(self.settings.cost)
        if candidate is None:
            return cost.of_recorded(self.samples, listed, rates, task, calls_per_day=calls_per_day)
        return cost.of_candidate(
            self.samples, self.results, listed, rates, task, candidate, calls_per_day=calls_per_day
        )

    def tune(
        self, task: Task, base: str, name: str, choices: Choices, *, actor: str, resume: bool = False,
        tell: Progress = lambda what, done, total: None, show: Tell = lambda stand, rate, left: None,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> TuneOutcome:  # fmt: skip
        """Train an adapter ``name`` on a task's tuning calls, under a seal, and bring it in through the gate.

        The process is sealed from here on: what recorded calls say is read by libraries that reach no network.

        Raises:
            CannotDo: as `tune.tune`, and as the gate does.
        """
        from freehold import tune  # with torch, where it is installed

        tune.need()
        manifest = self.vault.get(base)
        self.check(manifest, lambda done, total: tell("verifying", done, total))
        record = self.vault.record(manifest)
        files = {file.path: self.vault.blob(file.digest) for file in record.files}
        said = seal.put_on(self.settings.seal, seal.gateway_plan())
        if self.settings.seal == "required" and (lacking := seal.missing(said)):
            raise SealMissing(f"The seal is required and this kernel lacks {'; '.join(lacking)}.")
        with self.scorer(task) as scorer:
            bench = tune.Bench(
                self.home.tuning, self.settings.engine_for(base), self.settings.seal, self.settings.trust, scorer,
                tell, show, say,
            )  # fmt: skip
            tuning = list(self.samples.of_split(task, Split.TUNING))
            validation = list(self.samples.of_split(task, Split.VALIDATION))
            found = tune.tune(
                bench, task, tune.Base(manifest, record, files), name, tuning, validation, choices, resume=resume
            )
        outcome = self.intake(tell).add(intake.Wish(f"file:{found.file}", name, base=base), actor)
        path = runs.keep(self.home.tuning, found.run, sign.SigningKey.load(self.home.signing_key))
        detail = {"run": found.run.id, "adapter": found.run.adapter_digest, "base": found.run.base_digest}
        detail |= {"data": found.run.data, "record": disk.hash_file(path), "admitted": outcome.manifest is not None}
        self.ledger.record("tuning.done", name, actor=actor, detail=detail)
        tune.forget(bench, found.run)
        return TuneOutcome(found.run, outcome.manifest is not None, admit.reasons(outcome.record))

    def _judge(
        self, scorer: Judge, progress: Progress, asking: bool
    ) -> tuple[Callable[[Sequence[Comparison]], dict[str, Score]], str]:
        """What asks the judge, and the digest of how it scores, its own model included."""
        from freehold import replay

        model = self.vault.models().get(scorer.model)
        if model is None:
            raise BadModel(f"The judge {scorer.model!r} is no model of this house.", hint="'freehold models add' it.")
        digest = "sha256:" + hashlib.sha256(f"{scorer.digest} {model.digest}".encode()).hexdigest()
        if not asking:
            return lambda rows: {}, digest
        asker = replay.Asker(self.home.running())
        return lambda rows: replay.judging.compare(asker, scorer, rows, progress), digest

    def close(self) -> None:
        """Let go of the databases."""
        self.store.close()
        if self._traffic is not None:
            self._traffic.close()

    def intake(self, progress: Progress = lambda what, done, total: None) -> intake.Intake:
        """The way in for models."""
        return intake.Intake(self.home, self.settings, self.vault, self.ledger, self.aliases, progress)

    def signed(self, manifest: Manifest) -> bool:
        """Is the model's record signed with this home's key?"""
        try:
            key = sign.SigningKey.load(self.home.signing_key, create=False)
            return self.vault.signed_by(manifest, key.public)
        except CannotDo:
            return False

    def check(self, manifest: Manifest, progress: Callable[[int, int], None]) -> None:
        """Before an engine opens it: the bytes, the index and the record agree, and this house has signed the record.

        Raises:
            BadModel: something is not what was admitted.
        """
        self.vault.check(manifest, progress)
        if not self.signed(manifest):
            raise BadModel(
                f"The record of {manifest.name!r} is not signed by this house's key.",
                hint="Put the key back from a copy, or remove the model and add it again.",
            )


@contextlib.contextmanager
def parts(home: Home, settings: Settings) -> Iterator[Parts]:
    """Open a home. Raises StoreFailed if its database cannot be opened."""
    store = Store(settings.database or home.database)
    ledger, rules = Ledger(store), Rules(store, settings.callers)
    opened = Parts(
        home, settings, store, ledger, KeyRing(store, ledger), Vault(home.vault), Aliases(store),
        Audit(store, ledger, home.signing_key, home.folder, settings.audit), rules,
    )  # fmt: skip
    try:
        yield opened
    finally:
        opened.close()


def serve(home: Home, settings: Settings, host: Host, *, models: Sequence[Path] = (), engine: str = "llamacpp") -> None:
    """Serve until told to stop: everything that needs the network or may fail comes first, then the seal.

    The models in ``models`` are admitted and their engines brought up; every other model that was admitted
    before can be called all the same, and comes up at its first call; so can the upstreams' models.

    Raises:
        CannotDo: as its parts do; nothing is left half-written.
    """
    log.choose(settings.logs.format)
    _check_bind(settings.server)
    _check_open(settings)
    _check_database(settings)
    upstreams = all_of(settings)
    tls = _tls(settings.server)
    with home.lock(), contextlib.closing(_bind(settings.server)) as listener, parts(home, settings) as opened:
        opened.audit.check()
        wanted = [_admitted(opened, path, host) for path in models] or _usual(opened, host)
        check_names(upstreams, opened.vault.models())
        _check_key(opened)
        for manifest in wanted:
            opened.check(manifest, lambda done, total: host.progress("verifying", done, total))
        if not opened.keys.list():
            _, key = opened.keys.create("admin", Role.ADMIN, actor="first start")
            host.first_key(key)
        with home.run_folder() as folder, relaying(upstreams, settings, folder) as relay:
            layers = _seal(settings.seal)  # before there is a loop, which would keep an io_uring from before
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                outside = _Outside(upstreams, relay)
                verified = {manifest.digest for manifest in wanted}
                workshop = _Workshop(opened, ENGINES[engine], folder, outside, verified)
                runner.run(_Running(opened, workshop, wanted, layers, host).run(listener, tls))


class _Outside:
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


class _Workshop:
    """Makes the engines. ``verified`` are the models whose bytes were read and compared a moment ago."""

    def __init__(self, opened: Parts, engine: type[LlamaCpp], folder: Path, outside: _Outside, verified: set[str]):
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


class _Moves:
    """What operators and applications do with the aliases (`api.admin.Moves`)."""

    def __init__(self, opened: Parts, watch: promote.Watch):
        self._opened, self._watch = opened, watch

    def facts(self) -> list[dict[str, Any]]:
        """See `api.admin.Moves.facts`."""
        return promote.facts(self._opened.aliases)

    def rollback(self, alias: str, by: str) -> dict[str, Any]:
        """See `api.admin.Moves.rollback`."""
        return promote.told(promote.rollback(self._opened.desk, alias, by=by))

    def feedback(self, caller: Caller, call_id: str, *, good: bool) -> None:
        """See `api.admin.Moves.feedback`."""
        self._watch.feedback(caller, call_id, good=good)


class _Books:
    """What auditors see of the ledger and of the chain (`api.admin.Books`)."""

    def __init__(self, opened: Parts):
        self._opened, self._audit, self._ledger = opened, opened.audit, opened.ledger

    def calls(self, limit: int) -> list[dict[str, Any]]:
        """See `api.admin.Books.calls`."""
        return [msgspec.to_builtins(call) for call in self._ledger.calls(limit)]

    def sums(self, by: str, since: float, until: float) -> dict[str, Any]:
        """See `api.admin.Books.sums`."""
        named, rates = self._opened.named, cost.rates(self._opened.settings.cost)
        found = self._ledger.each(since, until)
        return msgspec.to_builtins(cost.spending(found, named, rates, by=by, began=since, ended=until))

    def head(self) -> dict[str, Any]:
        """See `api.admin.Books.head`."""
        return self._audit.head()

    def events(self, since: int, limit: int, calls: bool) -> list[dict[str, Any]]:
        """See `api.admin.Books.events`."""
        found = self._ledger.events(since=since, calls=calls)
        return [msgspec.to_builtins(event) for event in itertools.islice(found, limit)]

    def verify(self) -> dict[str, Any]:
        """See `api.admin.Books.verify`."""
        return msgspec.to_builtins(self._audit.verify())

    def export(self, since: int, by: str) -> Iterator[bytes]:
        """See `api.admin.Books.export`."""
        lines = self._audit.export(since)
        first = next(lines)
        self._ledger.record("audit.exported", "audit chain", actor=by, detail={"from": since})
        return itertools.chain([first], lines)


class _Records:
    """What operators see and do of what is kept of texts (`api.admin.Records`)."""

    def __init__(self, opened: Parts):
        self._opened = opened
        self.retention = retention.Retention(self._shelf)

    def facts(self) -> dict[str, Any]:
        """See `api.admin.Records.facts`."""
        key, last = self._opened.ring.writes.id, self.retention.facts()
        with self._open() as shelf:
            spans = retention.spans(shelf) if shelf else []
            plain = shelf.samples.unsealed() if shelf and key else 0
        return {"tasks": msgspec.to_builtins(spans), "key": key, "not_encrypted": plain, "expired": last}

    def erase(self, task: str, caller: str | None, before: float | None, *, confirm: bool, by: str) -> dict[str, Any]:
        """See `api.admin.Records.erase`."""
        wish = retention.check(retention.Wish(task, caller, before))
        with self._open() as shelf:
            gone = []
            if shelf is not None:
                gone = retention.erase(shelf, wish, actor=by) if confirm else retention.counted(shelf, wish)
        return {"erased": confirm, "calls": msgspec.to_builtins(gone)}

    def expire(self, by: str) -> dict[str, Any]:
        """See `api.admin.Records.expire`."""
        with self._open() as shelf:
            gone = retention.expire(shelf, actor=by) if shelf is not None else []
        return {"erased": True, "calls": msgspec.to_builtins(gone)}

    async def daily(self) -> None:
        """Erase what is due now and every day; an hour later where it failed."""
        while True:
            await asyncio.to_thread(self.retention.run)
            await asyncio.sleep(3600 if self.retention.failing else retention.DAY)

    @contextlib.contextmanager
    def _open(self) -> Iterator[retention.Shelf | None]:
        shelf = self._shelf()
        try:
            yield shelf
        finally:
            if shelf is not None:
                shelf.store.close()

    def _shelf(self) -> retention.Shelf | None:
        """With a database of its own, for another thread; None where nothing was ever recorded."""
        opened = self._opened
        if not opened.home.traffic.exists():
            return None
        store = Store(opened.home.traffic, TRAFFIC)
        kept = Samples(store, opened.ring), Results(store, opened.ring)
        return retention.Shelf(store, *kept, opened.tasks, opened.ledger, opened.settings.traffic.days)


class _Running:
    """One run of the server."""

    def __init__(
        self, opened: Parts, workshop: _Workshop, wanted: list[Manifest], layers: tuple[Layer, ...], host: Host
    ):
        self.opened, self.wanted, self.layers, self.host = opened, wanted, layers, host
        outside = self.outside = workshop.outside
        self.folder = workshop.folder
        settings = opened.settings
        self.meter = meter(settings.cost.energy_counters)
        self.pool = Pool(workshop, settings.pool, settings.queue, outside.seats, self.meter)
        recorded = lambda: Samples(Store(opened.home.traffic, TRAFFIC), opened.ring)  # noqa: E731
        self.guard, self.records = Guard(settings.guard), _Records(opened)
        self.capture = Capture(recorded, opened.tasks.every, opened.home.tasks, self.guard.recorded)
        models = outside.with_vault(opened.vault.models)
        leases = Leases(self.pool, opened.rules.now, *_accounts(opened), self._context)
        self.watch = promote.Watch(opened.desk, opened.rule, _heard, settings.canary.feedback_seconds)
        self.login = Login(settings.login, opened.keys, opened.ledger)
        self.observer = self._observer()
        self.house = House(
            opened.ledger, leases, models, outside.names, self.capture.tap, opened.aliases.now, self.watch.eye,
            self.guard, self.observer.see,
        )  # fmt: skip

    async def run(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        settings = self.opened.settings
        stop = _stop_signals()
        own_listener = _bind_own(self.folder)
        self.opened.ledger.start(settings.ledger.durability)
        await self.house.leases.start()
        if self.outside.relay is not None:
            self.outside.relay.listen()
        address = _address(listener, tls)
        self.guard.warm(Place.HOUSE, *([Place.UPSTREAM] if self.outside.engines else []))
        self.capture.start()
        self.watch.start()
        self.observer.start()
        moves, books = _Moves(self.opened, self.watch), _Books(self.opened)
        people = People(self.house, self.opened.keys, self.opened.office)
        admin = Admin(
            self.house, self._facts(address), moves, self.observer, self._now, people, books, self.records,
            metrics_open=settings.metrics.open,
        )  # fmt: skip
        behind_proxy = settings.server.behind_proxy
        browser = Browser(self.login, admin.overview, secure=bool(tls) or behind_proxy, behind_proxy=behind_proxy)
        router = Router(self.house, self.opened.keys, admin, browser)
        server = Server(router.handle, router.gate, router.on_error, _room(settings))
        running = Running(
            pid=os.getpid(), address=address, socket=own_listener.getsockname(),
            key=self.opened.keys.session_key(OWNER_NAME),
        )  # fmt: skip
        expiring = asyncio.create_task(self.records.daily())
        try:
            self.opened.ledger.record("server.started", "server", actor="freehold", detail=_begins(self.opened))
            self.opened.audit.start()
            await server.start([(listener, tls), (own_listener, None)])
            with self.opened.home.announced(running):
                if await self._bring_up(stop):
                    admin.is_up = True
                    gc.collect()
                    gc.freeze()  # what is there now stays, and need not be looked through again and again
                    self.host.ready(address, self.layers, self.pool.states(), len(self.house.models()))
                    await stop.wait()
                    self.host.stopping()
                router.stopping = True
                await server.stop(settings.server.grace)
        finally:
            expiring.cancel()
            try:
                await self.pool.stop()
            finally:
                self.capture.stop()
                self.watch.stop()
                self.guard.close()
                await self.observer.stop()
                await self.login.close()
                await self.opened.ledger.stop()
                self.opened.audit.stop()
                self.opened.keys.close()
                self.opened.aliases.close()
                self.opened.rules.close()

    def _context(self, request: Request, model: Manifest) -> int:
        """The tokens that one call may use in all; 0 where an upstream alone knows it."""
        if model.format == REMOTE:
            return 0
        vault, settings = self.opened.vault, self.opened.settings
        base = vault.base(model) if model.is_adapter else model
        return context_of(base or model, settings.engine_for((base or model).name))

    def _facts(self, address: str) -> dict[str, Any]:
        """What status shows and does not change."""
        return {
            "version": freehold.__version__,
            "pid": os.getpid(),
            "address": address,
            "seal": self.opened.settings.seal,
            "durability": self.opened.settings.ledger.durability,
            "started_at": time.time(),
            "reported": msgspec.to_builtins(self.layers),
        }

    def _now(self) -> dict[str, Any]:
        """What status shows and changes."""
        traces = self.observer.traces
        energy = {"counters": self.meter.names, "why": self.meter.why, "idle_joules": self.meter.idle}
        said = {"capture": self.capture.state(), "audit": self.opened.audit.state()}
        facts = {"guard": self.guard.facts(), "energy": energy, "traces": traces.facts() if traces else None}
        return self.outside.facts() | msgspec.to_builtins(said) | facts

    def _observer(self) -> Observer:
        """Who sees calls end, and counts, traces and logs them."""
        settings, outside = self.opened.settings, self.outside
        place = collector(settings)
        sent = Traces(settings.traces, place, outside.relay, outside.places) if place and outside.relay else None
        return Observer(
            self.opened.ledger, self.pool, self.login, self._processes, outside.views, self.capture.state,
            (freehold.__version__, settings.ledger.durability, settings.seal), sent,
            log.Lines() if settings.logs.calls else None,
        )  # fmt: skip

    def _processes(self) -> list[Process]:
        """Every process of the house, with the layers of the seal that it reported."""
        engines = [state for state in self.pool.states() if state.kind != REMOTE]
        names = [f"engine {one.model}{', vectors' if one.purpose == 'vectors' else ''}" for one in engines]
        own = Process("gateway", os.getpid(), self.layers)
        children = [Process(name, one.pid, one.reported) for name, one in zip(names, engines, strict=True)]
        return [own, *self.outside.processes(), *children]

    async def _bring_up(self, stop: asyncio.Event) -> bool:
        """Bring up the engines that were asked for, unless told to stop meanwhile. Raises what the first that
        fails raises."""
        upstreams = [engine.model for engine in self.outside.engines.values()]
        starting = asyncio.create_task(self.pool.start([*upstreams, *self.wanted]))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not starting.done():
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
            return False
        starting.result()
        return True


def _begins(opened: Parts) -> dict[str, Any]:
    """What the chain says of a start: with which settings, as digests, and which tables of them are others than at the
    start before. They hold no secret: a database's password is left out."""
    shown = msgspec.structs.replace(opened.settings, database=_no_password(opened.settings.database))
    usual = msgspec.to_builtins(Settings())
    tables = {
        name: "sha256:" + hashlib.sha256(canonical(value).encode()).hexdigest()
        for name, value in msgspec.to_builtins(shown).items()
        if value != usual[name]
    }
    whole = hashlib.sha256(canonical(msgspec.to_builtins(shown)).encode()).hexdigest()
    before = opened.ledger.latest("server.started")
    known = before.detail.get("tables", {}) if before else {}
    changed = sorted(name for name in known.keys() | tables.keys() if known.get(name) != tables.get(name))
    return {"version": freehold.__version__, "settings": f"sha256:{whole}", "tables": tables, "changed": changed}


def _no_password(database: str) -> str:
    try:
        return make_url(database).render_as_string() if database else ""
    except SQLAlchemyError:
        return ""


def _accounts(opened: Parts) -> tuple[Accounts, Tariff]:
    """What is used of budgets, as the ledger has it and what becomes of the calls now; and what tokens count for."""
    tariff = opened.tariff
    return Accounts(opened.rules.spends, _price(tariff), opened.ledger.flush, tariff.prepare), tariff


def _price(tariff: Tariff) -> Callable[[Spend], float]:
    """What a call of the ledger counts for in money: nothing where nobody knows."""

    def price(spend: Spend) -> float:
        found = tariff.price(spend.model, spend.alias, spend.at, left=spend.left_the_house)
        return charge(found, spend.prompt, spend.completion, spend.cached) if found is not None else 0.0

    return price


def _heard(kind: Kind, content: bytes) -> Answer | None:
    """The answer in a response; None where it holds no words. Raises Unfit."""
    return heard.answer(kind, content) if kind in heard.KINDS else None


def _usual(opened: Parts, host: Host) -> list[Manifest]:
    """The model to bring up where none was named: the one admitted last, or on a new home the starter; none where
    upstreams answer and the vault is empty."""
    if known := opened.vault.models():
        return [max(known.values(), key=lambda manifest: manifest.admitted_at)]
    return [] if opened.settings.upstreams else [opened.intake(host.progress).starter("freehold up")]


def _admitted(opened: Parts, path: Path, host: Host) -> Manifest:
    """The model in a file, admitted if the vault lacks it."""
    manifest = intake.admitted(opened.intake(host.progress).add(intake.from_file(path), "freehold up"))
    if manifest.format not in SERVED:
        raise BadModel(
            f"No engine here opens {manifest.format}, which {path} is.", hint="Give a .gguf file of a model."
        )
    return manifest


def _check_key(opened: Parts) -> None:
    """Before anything is recorded: the key of recorded calls can be read, and is the one in use."""
    if opened.ring.writes.id or opened.home.traffic.exists():
        with contextlib.suppress(StoreFailed):  # whoever records says so, and tries again
            opened.samples.ready()


def _check_bind(server: ServerSettings) -> None:
    if bool(server.tls_cert) != bool(server.tls_key):
        raise BadConfig("TLS needs a certificate and its key.", hint="Give both --tls-cert and --tls-key.")
    try:
        loopback = server.host == "localhost" or ip_address(server.host).is_loopback
    except ValueError:
        raise BadConfig(f"{server.host!r} is not an address.", hint="Give one like 127.0.0.1 or 0.0.0.0.") from None
    if not loopback and not server.tls_cert and not server.behind_proxy:
        raise UnsafeBind(
            f"Listening on {server.host} would send keys and prompts in the clear.",
            hint="Add --tls-cert and --tls-key, or --behind-proxy if something in front encrypts.",
        )


def _check_open(settings: Settings) -> None:
    """Behind a proxy on this machine everybody seems to come from this machine."""
    if settings.metrics.open and settings.server.behind_proxy:
        raise BadConfig(
            "metrics.open would show the metrics to whoever comes through the proxy of server.behind_proxy.",
            hint="Leave one of the two out; with a key /metrics can be read from anywhere.",
        )


def _check_database(settings: Settings) -> None:
    """A sealed gateway has Unix sockets and no others, to its database too."""
    try:
        url = make_url(settings.database or "sqlite://")
    except SQLAlchemyError:
        return  # opening it says what is wrong
    if url.get_backend_name() == "sqlite" or settings.seal == "off":
        return
    if url.host or not str(url.query.get("host", "")).startswith("/"):
        raise BadConfig(
            f"The seal lets the gateway reach no database over the network, and {url.render_as_string()} is one.",
            hint="Name the folder of its Unix socket: postgresql+psycopg://USER@/NAME?host=/var/run/postgresql",
        )


def _tls(server: ServerSettings) -> ssl.SSLContext | None:
    if not server.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(server.tls_cert, server.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise BadConfig(f"The TLS files cannot be used: {error}.", hint="See that both are PEM and fit.") from None
    return context


def _bind(server: ServerSettings) -> socket.socket:
    host = "127.0.0.1" if server.host == "localhost" else server.host
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, server.port))
        listener.listen(4096)  # now: bind alone would share the port with another that has not listened yet
    except OSError as error:
        listener.close()
        raise PortTaken(
            f"{host}:{server.port} cannot be listened on: {error.strerror}.",
            hint="Choose another with --port or FREEHOLD_SERVER_PORT; 0 takes any that is free.",
        ) from None
    return listener


def _bind_own(folder: Path) -> socket.socket:
    """The owner's own way in: a Unix socket in a folder that nobody else may enter."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "api.sock"))
    return listener


def _seal(mode: str) -> tuple[Layer, ...]:
    layers = seal.put_on(mode, seal.gateway_plan())
    if mode == "required" and (lacking := seal.missing(layers)):
        raise SealMissing(
            f"The seal is required and this kernel lacks {'; '.join(lacking)}.",
            hint='Run on Linux, or set seal = "best" to serve with what there is.',
        )
    return layers


def _room(settings: Settings) -> LimitsSettings:
    """The limits, with no more connections than this process may have files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(files - _SPARE_FILES, 16) if files > 0 else settings.limits.connections
    return msgspec.structs.replace(settings.limits, connections=min(settings.limits.connections, most))


def _stop_signals() -> asyncio.Event:
    """Set at the first Ctrl-C or SIGTERM; the second ends the process at once."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def on(number: int) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on, number)
    return stop


def _address(listener: socket.socket, tls: ssl.SSLContext | None) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{shown}:{port}"
