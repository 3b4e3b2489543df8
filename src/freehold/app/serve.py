"""From a home to a running server, in the order in which it has to be: what may fail, the seal, the loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

import freehold
from freehold import intake, log, promote, seal
from freehold.answer import House
from freehold.api.admin import Admin
from freehold.api.books import Books
from freehold.api.browser import Browser
from freehold.api.http import Server
from freehold.api.people import People
from freehold.api.records import Records
from freehold.api.router import Router
from freehold.app import views
from freehold.app.checks import check_bind, check_database, check_key, check_open
from freehold.app.opening import Host, Parts, parts, price_of
from freehold.app.sockets import address_of, bind, bind_own, room, tls_of
from freehold.app.workshop import ENGINES, Outside, Workshop
from freehold.budget import Accounts
from freehold.config import Settings
from freehold.engine.llamacpp import context_of
from freehold.engine.pool import Pool
from freehold.engine.power import meter
from freehold.engine.remote import relaying
from freehold.engine.upstream import REMOTE, all_of, check_names, collector
from freehold.errors import BadModel, SealMissing
from freehold.guard import Destination, Guard
from freehold.home import Home, Running
from freehold.lease import Leases
from freehold.limits import OWNER_NAME
from freehold.login import Login
from freehold.metrics import AUDIT_FAILING, RETENTION_FAILING, Family, Process
from freehold.observe import Observer
from freehold.prices import Tariff
from freehold.samples import Samples
from freehold.store import TRAFFIC, Store, canonical
from freehold.traces import Traces
from freehold.traffic import heard
from freehold.traffic.capture import Capture
from freehold.types import Answer, Kind, Layer, Manifest, Request, Role
from freehold.vault import SERVED


def serve(home: Home, settings: Settings, host: Host, *, models: Sequence[Path] = (), engine: str = "llamacpp") -> None:
    """Serve until told to stop: everything that needs the network or may fail comes first, then the seal.

    The models in ``models`` are admitted and their engines brought up; every other model that was admitted
    before can be called all the same, and comes up at its first call; so can the upstreams' models.

    Raises:
        CannotDo: as its parts do; nothing is left half-written.
    """
    log.choose(settings.logs.format)
    check_bind(settings.server)
    check_open(settings)
    check_database(settings)
    upstreams = all_of(settings)
    tls = tls_of(settings.server)
    with home.lock(), contextlib.closing(bind(settings.server)) as listener, parts(home, settings) as opened:
        opened.audit.check()
        wanted = [_admitted(opened, path, host) for path in models] or _usual(opened, host)
        check_names(upstreams, opened.vault.models())
        check_key(opened)
        for manifest in wanted:
            opened.check(manifest, lambda done, total: host.progress("verifying", done, total))
        if not opened.keys.list():
            _, key = opened.keys.create("admin", Role.ADMIN, actor="first start")
            host.first_key(key)
        with home.run_folder() as folder, relaying(upstreams, settings, folder) as relay:
            layers = _seal(settings.seal)  # before there is a loop, which would keep an io_uring from before
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                outside = Outside(upstreams, relay)
                verified = {manifest.digest for manifest in wanted}
                workshop = Workshop(opened, ENGINES[engine], folder, outside, verified)
                runner.run(_Running(opened, workshop, wanted, layers, host).run(listener, tls))


class _Running:
    """One run of the server."""

    def __init__(
        self, opened: Parts, workshop: Workshop, wanted: list[Manifest], layers: tuple[Layer, ...], host: Host
    ):
        self.opened, self.wanted, self.layers, self.host = opened, wanted, layers, host
        outside = self.outside = workshop.outside
        self.folder = workshop.folder
        self._contexts: dict[tuple[str, str], int] = {}
        settings = opened.settings
        self.meter = meter(settings.cost.energy_counters)
        self.pool = Pool(workshop, settings.pool, settings.queue, outside.seats, self.meter)
        recorded = lambda: Samples(Store(opened.home.traffic, TRAFFIC), opened.ring)  # noqa: E731
        self.guard, self.records = Guard(settings.guard, opened.ledger.pseudonym), views.Records(opened)
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
        own_listener = bind_own(self.folder)
        self.opened.ledger.start(settings.ledger.durability)
        await self.house.leases.start()
        if self.outside.relay is not None:
            self.outside.relay.listen()
        address = address_of(listener, tls)
        self.guard.warm(Destination.HOUSE, *([Destination.UPSTREAM] if self.outside.engines else []))
        self.capture.start()
        self.watch.start()
        self.observer.start()
        _list_no_generators()
        router = self._router(address, secure=bool(tls))
        server = Server(router.handle, router.gate, router.on_error, room(settings))
        running = Running(
            pid=os.getpid(), address=address, socket=own_listener.getsockname(),
            key=self.opened.keys.session_key(OWNER_NAME),
        )  # fmt: skip
        expiring = asyncio.create_task(self.records.daily())
        try:
            self.opened.ledger.record("server.started", "server", actor="freehold", detail=_begins(self.opened))
            self.opened.audit.start()
            self.opened.audit.enter_place()
            await server.start([(listener, tls), (own_listener, None)])
            with self.opened.home.announced(running):
                if await self._bring_up(stop):
                    router.admin.is_up = True
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

    def _router(self, address: str, *, secure: bool) -> Router:
        """What answers requests; ``secure``: the way to clients is encrypted here."""
        opened, settings = self.opened, self.opened.settings
        people = People(self.house, opened.keys, opened.office)
        rooms = (people, Books(views.Books(opened)), Records(self.records))
        admin = Admin(
            self.house, self._facts(address), views.Moves(opened, self.watch), self.observer, self._now, rooms,
            metrics_open=settings.metrics.open,
        )  # fmt: skip
        behind_proxy = settings.server.behind_proxy
        browser = Browser(self.login, admin.overview, secure=secure or behind_proxy, behind_proxy=behind_proxy)
        return Router(self.house, opened.keys, admin, browser)

    def _context(self, request: Request, model: Manifest) -> int:
        """The tokens that one call may use in all; 0 where an upstream alone knows it."""
        if model.format == REMOTE:
            return 0
        base = (self.opened.vault.base(model) if model.is_adapter else None) or model
        known = self._contexts.get((base.name, base.digest))
        if known is None:
            known = context_of(base, self.opened.settings.engine_for(base.name))
            self._contexts[base.name, base.digest] = known
        return known

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
        energy = {"counters": self.meter.names, "why": self.meter.why, "idle_joules": self.meter.idle}
        said = {"capture": self.capture.state(), "audit": self.opened.audit.state()}
        facts = {"guard": self.guard.facts(), "energy": energy, "traces": self.observer.traced()}
        return self.outside.facts() | msgspec.to_builtins(said) | facts

    def _observer(self) -> Observer:
        """Who sees calls end, and counts, traces and logs them."""
        settings, outside = self.opened.settings, self.outside
        place = collector(settings)
        sent = Traces(settings.traces, place, outside.relay, outside.places) if place and outside.relay else None
        return Observer(
            self.opened.ledger, self.pool, self.login, self._processes, outside.views, self.capture.state,
            self._faults,
            (freehold.__version__, settings.ledger.durability, settings.seal), sent,
            log.Lines() if settings.logs.calls else None,
        )  # fmt: skip

    def _faults(self) -> dict[Family, bool]:
        """What goes wrong, and stops no call."""
        return {
            AUDIT_FAILING: bool(self.opened.audit.failing),
            RETENTION_FAILING: bool(self.records.retention.failing),
        }

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
    return Accounts(opened.rules.spends, price_of(tariff), opened.ledger.flush, tariff.prepare), tariff


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


def _seal(mode: str) -> tuple[Layer, ...]:
    layers = seal.put_on(mode, seal.gateway_plan())
    if mode == "required" and (lacking := seal.missing(layers)):
        raise SealMissing(
            f"The seal is required and this kernel lacks {'; '.join(lacking)}.",
            hint='Run on Linux, or set seal = "best" to serve with what there is.',
        )
    return layers


def _list_no_generators() -> None:
    """The running loop keeps a list of its async generators, to close them at its end: a few microseconds of each call,
    and here whoever opens one closes it. One that is dropped is closed when it is collected, as ever."""
    sys.set_asyncgen_hooks(firstiter=None)


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
