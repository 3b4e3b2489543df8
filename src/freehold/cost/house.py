"""What the house's calls cost: those that were answered here by the machine's busy time, those that left by the price
list; and what the machine cost while it waited. Calls are taken one by one, in the order of their opening, so memory
holds the calls in hand and a row for each group, however long the ledger is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec import Struct

from freehold import prices
from freehold.chart.words import amount
from freehold.cost.rates import JOULES_PER_KWH, charge, drawn, energy, hourly, kwh, machine, on_seconds
from freehold.cost.shares import shares
from freehold.prices import PriceList
from freehold.types import Basis, Call, CallCost, Figure, Kind, Outcome, Price, Rates, Spending, Spent

NO_MODEL, NO_TEAM = "(no model)", "(no team)"
_MOST = 100  # prices, and models without one, that are remembered


def _model(cost: CallCost, reached: bool) -> str:
    """A call that reached no model may name anything, and anybody could make a row of it."""
    return cost.model if reached else NO_MODEL


BY: dict[str, Callable[[CallCost, bool], str]] = {
    "key": lambda cost, reached: cost.caller,
    "team": lambda cost, reached: cost.team or NO_TEAM,
    "model": _model,
    "alias": lambda cost, reached: cost.alias or (cost.model if reached else NO_MODEL),
    "day": lambda cost, reached: time.strftime("%Y-%m-%d", time.gmtime(cost.at)),
}


class Named(Struct, frozen=True):
    """What the names that callers use mean to a price list: ``aliases`` are the names that tasks' applications send,
    with the model that the task is priced as, ``upstreams`` the models of others with their name there and where they
    are reached, ``own`` the models of this house, which nobody rents out under these names, and ``team`` says which
    team a caller was in at a time."""

    listed: PriceList
    aliases: Mapping[str, str] = {}
    upstreams: Mapping[str, tuple[str, str]] = {}
    own: frozenset[str] = frozenset()
    team: Callable[[str, float], str] = lambda caller, at: ""

    def price(self, call: Call) -> Price | None:
        """What a call's tokens cost with somebody else; None where nobody knows, or nobody else has the model."""
        name = call.model or ""
        if not call.left_the_house:
            asked = self.aliases.get(name, "" if name in self.own else name)
            return self.listed.own(name) or (self.listed.find(asked, call.opened_at) if asked else None)
        there, url = self.upstreams.get(name, (name, ""))
        return self.listed.own(name) or self.listed.find(there, call.opened_at, url=url)


class _Taken(Struct):
    """What is known of some calls besides their sums: the prices that were used, the models that have none, and how
    many calls are known less well than the others (``guessed``: their energy)."""

    prices: dict[Price, None] = {}
    unpriced: dict[str, None] = {}
    uncounted: int = 0
    guessed: int = 0
    untimed: int = 0
    untimed_slots: int = 0
    first: float | None = None

    def note(self, call: Call, price: Price | None) -> None:
        """A call was priced, or could not be."""
        if price is not None and len(self.prices) < _MOST:
            self.prices.setdefault(price)
        elif price is None and len(self.unpriced) < _MOST:
            self.unpriced.setdefault(call.model or "")


def spending(
    calls: Iterable[Call], named: Named, rates: Rates, *, by: str = "key", began: float | None = None, ended: float,
    tell: Callable[[CallCost], None] = lambda cost: None,
) -> Spending:  # fmt: skip
    """What some calls, oldest first, cost in the time from ``began`` (the first of them, where it is None) to
    ``ended``; grouped by the caller's ``key``, its ``team`` at the time, the ``model``, the ``alias`` that was asked
    for (or the model, where it was none) or the ``day`` (UTC). ``tell`` is told of each call."""
    taken, rows, group = _Taken(), {}, BY[by]
    total = _Sums("")
    for call, share in shares(_spans(calls, taken)):
        joules = None if call.left_the_house else call.joules
        drew = kwh(rates.watts_busy, share) if joules is None else joules / JOULES_PER_KWH
        taken.guessed += joules is None and share > 0
        cost = _cost(call, share, joules, drew, named, rates, taken)
        key = group(cost, bool(call.digest) or call.left_the_house)
        rows.setdefault(key, _Sums(key)).add(cost, drew)
        total.add(cost, drew)
        tell(cost)
    began = (taken.first if taken.first is not None else ended) if began is None else began
    return _spending(rows, total, taken, rates, by, began, max(began, ended))


def _spans(calls: Iterable[Call], taken: _Taken) -> Iterator[tuple[float, float, float, Call]]:
    """Each call with when it kept the machine busy: not at all if it left the house or did not get to an engine."""
    for call in calls:
        taken.first = call.opened_at if taken.first is None else taken.first
        begin, seconds = call.opened_at, 0.0
        if call.left_the_house:
            pass
        elif call.engine_ms is not None:
            begin += max(call.waited_ms or 0.0, 0.0) / 1000
            seconds = call.engine_ms / 1000
        elif call.outcome in (None, Outcome.INTERRUPTED):
            taken.untimed += 1
        elif call.digest and call.total_ms:
            taken.untimed_slots += 1
            seconds = call.total_ms / 1000
        yield call.opened_at, begin, begin + max(seconds, 0.0), call


def _cost(
    call: Call, share: float, joules: float | None, drew: float, named: Named, rates: Rates, taken: _Taken
) -> CallCost:
    """What a call cost that had so much of the busy time and drew so many kilowatt-hours: by the machine's counters
    where there are ``joules``, and by its share of the time where nothing counted."""
    rented, priced_as = 0.0, ""
    tokens = call.prompt_tokens + call.completion_tokens
    if call.left_the_house and not tokens and call.outcome == Outcome.ANSWERED:
        rented = None
        taken.uncounted += 1
    elif tokens and call.kind != Kind.COUNT:  # which nobody charges for
        price = named.price(call)
        rented = (
            None if price is None else charge(price, call.prompt_tokens, call.completion_tokens, call.cached_tokens)
        )
        priced_as = "" if price is None else price.model
        taken.note(call, price)
    return CallCost(
        call.id, call.opened_at, call.caller, call.model or "", call.alias or "", call.outcome or "open",
        call.left_the_house, call.prompt_tokens, call.completion_tokens, call.cached_tokens, share,
        machine(rates, share), drew * rates.energy_per_kwh.value, rented, priced_as, joules,
        named.team(call.caller, call.opened_at),
    )  # fmt: skip


class _Sums:
    """A `Spent` while it grows."""

    __slots__ = tuple(Spent.__struct_fields__)

    def __init__(self, key: str):
        self.key = key
        self.calls = self.here = self.left = self.unpriced_left = self.unpriced_here = self.metered = 0
        self.prompt_tokens = self.completion_tokens = self.cached_tokens = 0
        self.busy_seconds = self.machine = self.energy = self.paid = self.spared = self.kwh = 0.0

    def add(self, cost: CallCost, drew: float) -> None:
        """One call more, which drew so many kilowatt-hours."""
        self.calls += 1
        self.prompt_tokens += cost.prompt_tokens
        self.completion_tokens += cost.completion_tokens
        self.cached_tokens += cost.cached_tokens
        self.busy_seconds += cost.busy_seconds
        self.machine += cost.machine
        self.energy += cost.energy
        self.kwh += drew
        self.metered += cost.joules is not None
        if cost.left_the_house:
            self.left += 1
            self.paid += cost.rented or 0.0
            self.unpriced_left += cost.rented is None
        else:
            self.here += 1
            self.spared += cost.rented or 0.0
            self.unpriced_here += cost.rented is None

    def spent(self) -> Spent:
        """As it is now."""
        return Spent(*(getattr(self, name) for name in self.__slots__))


def _spending(
    rows: Mapping[str, _Sums], total: _Sums, taken: _Taken, rates: Rates, by: str, began: float, ended: float
) -> Spending:
    busy, hours = total.busy_seconds, rates.hours_per_day
    on = max(on_seconds(ended - began, hours.value), busy)
    idle = on - busy
    still = f"{rates.watts_idle.value:g} W while it waits ({rates.watts_idle.basis})"
    waited = f"{still}, {rates.energy_per_kwh.value:g} {rates.currency} a kWh ({rates.energy_per_kwh.basis})"
    counted = f", {amount(total.metered, 'call')} by the machine's counters" if total.metered else ""
    power = f"{still}, {rates.watts_busy.value:g} W while it answers ({rates.watts_busy.basis}){counted}"
    found = [sums.spent() for sums in rows.values()]
    found.sort(key=lambda row: row.key if by == "day" else (-(row.owned + row.paid), -row.calls, row.key))
    return Spending(
        rates.currency, by, began, ended, on, busy, idle,
        machine=_estimate(total.machine, hourly(rates)),
        energy=_energy(total, taken.guessed, rates),
        idle_machine=_estimate(machine(rates, idle), f"{hourly(rates)}, {hours.value:g} hours a day ({hours.basis})"),
        idle_energy=_estimate(energy(rates, rates.watts_idle, idle), waited),
        kwh=_estimate(kwh(rates.watts_idle, idle) + total.kwh, power),
        rows=tuple(found), total=total.spent(), rates=rates, prices=tuple(taken.prices), unpriced=tuple(taken.unpriced),
        untimed=taken.untimed, untimed_slots=taken.untimed_slots, notes=tuple(_notes(total, taken)),
    )  # fmt: skip


def _notes(total: _Sums, taken: _Taken) -> Iterator[str]:
    """What the sums do not hold, or hold with a doubt."""
    for name in taken.unpriced:
        yield prices.unknown(name)
    if taken.uncounted:
        yield f"{amount(taken.uncounted, 'call')} that left brought no token counts, so nobody knows what they cost."
    if taken.untimed:
        yield f"Of {amount(taken.untimed, 'call')} nobody knows how long they took: open ones, or cut off by a crash."
    if taken.untimed_slots:
        yield f"{amount(taken.untimed_slots, 'call')} of before 0.5 count from end to end, with their wait."
    if total.spared:
        yield "What was spared is the list's price of these tokens, as the engine counted them, less for cached ones."


def _energy(total: _Sums, guessed: int, rates: Rates) -> Figure:
    """What the energy of busy time cost: measured where the counters saw every call that was answered here."""
    if not total.metered:
        return _estimate(total.energy, drawn(rates))
    price = f"{rates.energy_per_kwh.value:g} {rates.currency} a kWh ({rates.energy_per_kwh.basis})"
    counted = f"{amount(total.metered, 'call')} by the machine's own counters"
    if not guessed:
        return Figure(total.energy, Basis.MEASURED, f"{counted}, {price}")
    return _estimate(total.energy, f"{counted}; {amount(guessed, 'call')} at {drawn(rates)}")


def _estimate(value: float, source: str) -> Figure:
    return Figure(value, Basis.ESTIMATE, source)
