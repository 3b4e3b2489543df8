"""The chapter about cost: owned beside rented, and from how many calls a day on owning is cheaper."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from freehold.dossier import say
from freehold.types import cost as costing
from freehold.types.cost import Basis, Costs, Price
from freehold.types.dossier import Chapter, Evidence, Figure, Known, Part, Table

_LEAD = (
    "Owned is the machine's hours and its energy, by the time in which it was busy with these calls. Rented is what "
    "the incumbent would have charged for the same calls. Both rest on the assumptions below."
)
_KNOWN = {
    Basis.MEASURED: Known.MEASURED, Basis.SET: Known.STATED, Basis.LISTED: Known.STATED, Basis.ASSUMED: Known.ESTIMATE,
    Basis.ESTIMATE: Known.ESTIMATE,
}  # fmt: skip
_HOW = {  # in the table of what it rests on
    Basis.MEASURED: "measured", Basis.SET: "set", Basis.LISTED: "from a price list", Basis.ASSUMED: "ASSUMED",
    Basis.ESTIMATE: "estimate",
}  # fmt: skip
_THOUSAND = 1000


def chapter(evidence: Evidence) -> Chapter:
    """What the calls cost, either way."""
    costs, again = evidence.costs, command(evidence)
    if costs is None:
        why = "not worked out: the candidate runs on somebody else's machine, so that nothing of it is owned"
        absent = say.missing("cost.break-even", "Owning is cheaper from", why, again)
        return Chapter("cost", "Cost", (Part("cost.main", figures=(absent,)),))
    parts = (
        Part("cost.main", "", (_LEAD,), figures=tuple(_found(evidence, costs, again)), tables=(_beside(costs, again),)),
        Part("cost.rests", "What it rests on", points=costs.notes, tables=(_rates(costs, again),)),
    )
    return Chapter("cost", "Cost", parts)


def command(evidence: Evidence) -> str:
    """The command that works costs out."""
    candidate = evidence.verdict.candidate
    words = ("--candidate", candidate.name) if candidate.digest else ()
    return say.command("cost", evidence.task.name, *words)


def money(value: float | None, currency: str) -> str:
    """An amount for people: to the cent, or three figures of what is less than one unit."""
    if value is None:
        return "not known"
    text = f"{value:,.2f}" if abs(value) >= 1 or value == 0 else f"{Decimal(f'{value:.3g}'):f}"
    return f"{text} {currency}"


def _found(evidence: Evidence, costs: Costs, again: str) -> Iterator[Figure]:
    """The figures that have one side alone."""
    yield Figure("cost.sentence", "What it comes to", None, evidence.costs_said, again, Known.ESTIMATE, lasting=False)
    for id, label, figure, unit in (
        ("break-even", "Owning is cheaper from", costs.break_even_calls_per_day, "calls a day"),
        ("capacity", "One machine answers at most", costs.capacity_calls_per_day, "calls a day"),
    ):
        yield _count(f"cost.{id}", label, figure, unit, again)
    idle = costs.fixed_per_day
    yield _amount("cost.idle", "A day on which nobody calls", idle, costs.currency, again)
    shown = f"{costs.calls:,}" + (f"; {costs.failed:,} more were not answered" if costs.failed else "")
    yield Figure("cost.calls", "Recorded calls that this is worked out from", costs.calls, shown, again, lasting=False)
    tokens = [costs.prompt_tokens, costs.cached_tokens, costs.completion_tokens]
    shown = f"{tokens[0]:,} read, {tokens[1]:,} of them from the cache; {tokens[2]:,} written"
    yield Figure("cost.tokens", "Tokens", tokens, shown, again, lasting=False)
    yield _price(costs.price, costs, again)


def _count(id: str, label: str, figure: costing.Figure, unit: str, again: str) -> Figure:
    if figure.value is None:
        return say.missing(id, label, figure.source, again)
    shown, known = f"{figure.value:,.0f} {unit}", _KNOWN[figure.basis]
    return Figure(id, label, figure.value, shown, again, known, unit, figure.source, lasting=False)


def _amount(id: str, label: str, figure: costing.Figure, currency: str, again: str) -> Figure:
    shown, known = money(figure.value, currency), _KNOWN[figure.basis]
    return Figure(id, label, figure.value, shown, again, known, "", figure.source, lasting=False)


def _price(price: Price | None, costs: Costs, again: str) -> Figure:
    if price is None:
        return say.missing("cost.price", "Price of the incumbent", costs.rented_per_call.source, again)
    rate = f"{money(price.input, price.currency)} read, {money(price.output, price.currency)} written, a million tokens"
    dates = f", newest entry {price.newest}" if price.newest else ""
    note = f"{price.model}, by {price.list}{dates}{f', price of {price.on}' if price.on else ''}"
    value = [price.input, price.output, price.cached]
    known = _KNOWN[price.basis]
    return Figure("cost.price", "Price of the incumbent", value, rate, again, known, "", note, lasting=False)


def _beside(costs: Costs, again: str) -> Table:
    """What has two sides."""
    currency, day = costs.currency, costs.day
    owned, rented = costs.owned_per_call.value, costs.rented_per_call.value
    rows = [("1,000 calls, while the machine answers", _of(owned, _THOUSAND), _of(rented, _THOUSAND))]
    rows.append((f"These {costs.calls:,} calls", _sum(costs.machine.value, costs.energy.value), costs.rented.value))
    if day is not None:
        rows.append((f"A day with {day.calls:,.0f} calls, idle time included", day.owned, day.rented))
    rows.append(("A day on which nobody calls", costs.fixed_per_day.value, 0.0))
    shown = tuple((label, money(own, currency), money(theirs, currency)) for label, own, theirs in rows)
    return Table(
        "cost.rows", "Owned against rented", ("", "owned", "rented"), shown, again, Known.ESTIMATE, numeric=(1, 2),
        lasting=False,
    )  # fmt: skip


def _rates(costs: Costs, again: str) -> Table:
    rates = costs.rates
    found = (
        ("the machine, an hour", rates.machine_per_hour, f"{rates.machine_per_hour.value:g} {costs.currency}"),
        ("power while idle", rates.watts_idle, f"{rates.watts_idle.value:g} W"),
        ("power while it answers", rates.watts_busy, f"{rates.watts_busy.value:g} W"),
        ("a kilowatt-hour", rates.energy_per_kwh, f"{rates.energy_per_kwh.value:g} {costs.currency}"),
        ("hours a day that it is on", rates.hours_per_day, f"{rates.hours_per_day.value:g}"),
    )
    rows = tuple((label, shown, _HOW[figure.basis]) for label, figure, shown in found)
    note = "What is ASSUMED nobody has set; [cost] in freehold.toml does."
    return Table(
        "cost.rates", "Rates", ("", "value", "how known"), rows, again, Known.STATED, numeric=(1,), note=note,
        lasting=False,
    )  # fmt: skip


def in_short(evidence: Evidence) -> Figure | None:
    """Both prices of a thousand calls, for the first page."""
    costs = evidence.costs
    if costs is None or costs.owned_per_call.value is None:
        return None
    owned, rented = _of(costs.owned_per_call.value, _THOUSAND), _of(costs.rented_per_call.value, _THOUSAND)
    note = f"rented {money(rented, costs.currency)}"
    shown = money(owned, costs.currency)
    return Figure("cost.beside", "1,000 calls, owned", [owned, rented], shown, command(evidence), Known.ESTIMATE,
                  note=note, lasting=False)  # fmt: skip


def _of(value: float | None, times: float) -> float | None:
    return None if value is None else value * times


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
