"""A home, opened: what stands on its database and its vault, for the server and for the commands that need none.

What only some commands need (the gate, the way in, costs, aliases' moves) is imported where it is asked for: a command
that lists keys should not wait for the scanners.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from freehold import disk, runs, seal, sign
from freehold.aliases import Aliases
from freehold.auth import KeyRing
from freehold.budget import Account, month
from freehold.config import Settings
from freehold.engine.upstream import all_of
from freehold.errors import BadModel, CannotDo, SealMissing
from freehold.home import Home
from freehold.ledger import Audit, Ledger
from freehold.limits import Rules, Spend
from freehold.prices import PriceList, Tariff, charge
from freehold.results import Results
from freehold.samples import Samples
from freehold.store import TRAFFIC, Store
from freehold.store.cipher import Ring, load
from freehold.task import Tasks
from freehold.teams import Office
from freehold.types import (
    Candidate,
    Comparison,
    Costs,
    EngineState,
    Layer,
    Limits,
    Manifest,
    Progress,
    Score,
    Split,
    Subject,
    Task,
    TuningRun,
    Used,
)
from freehold.vault import Vault

if TYPE_CHECKING:
    from freehold import cost, intake, promote
    from freehold.certify import Bench
    from freehold.scorers import Judge, Scorer
    from freehold.traffic import retention
    from freehold.tune.train import Choices, Tell


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
        from freehold.traffic import retention

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
        account, price = Account(), price_of(self.tariff)
        for spend in self.rules.spends(month(at), of) if limits.has_budget else ():
            money = price(spend) if limits.has_money else 0.0
            account.count(spend.at, spend.prompt + spend.completion, money)
        return account.budgets(limits, at)

    @property
    def tariff(self) -> Tariff:
        """What tokens count for in budgets of money. Raises BadConfig."""
        return Tariff(PriceList(self.settings.cost), self._others)

    @property
    def named(self) -> cost.Named:
        """What the names in the ledger mean to the price list. Raises BadConfig."""
        from freehold import cost

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
        from freehold import promote

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

    def every_cost(self, task: Task, calls_per_day: float | None = None) -> list[Costs]:
        """The same for each candidate of this house that answered the task's calls; rented alone where none has."""
        candidates = [one for one in self.results.candidates(task.name) if one.digest]
        return [self.costs(task, candidate, calls_per_day) for candidate in candidates or [None]]

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
        from freehold import admit, intake, tune  # with torch, where it is installed

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
        from freehold import intake

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


def price_of(tariff: Tariff) -> Callable[[Spend], float]:
    """What a call of the ledger counts for in money: nothing where nobody knows."""

    def price(spend: Spend) -> float:
        found = tariff.price(spend.model, spend.alias, spend.at, left=spend.left_the_house)
        return charge(found, spend.prompt, spend.completion, spend.cached) if found is not None else 0.0

    return price
