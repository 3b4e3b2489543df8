"""What a task costs: owned, by the times and tokens of a candidate's answers to its recorded calls, and rented, by what
the incumbent charges. docs/concepts/cost.md derives the formulas.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct

from freehold import prices
from freehold.cost.rates import DAY, HOUR, charge, drawn, energy, hourly, machine, money
from freehold.cost.shares import shares
from freehold.prices import PriceList
from freehold.results import Results
from freehold.samples import ORDER_ONLY, Samples
from freehold.types import Answer, Basis, Candidate, Costs, Day, Figure, Outline, Price, Rates, Replayed, Task

CHARACTERS = 4.0  # in a token, where no model has counted; OpenAI's rule of thumb for English
_TOKENS = "Prompt tokens are as the candidate's tokenizer counts them; the incumbent bills by its own count."
_ONE_BY_ONE = (
    "Busy time is the replay's, from question to answer. One call at a time takes longer for each than several at "
    "once, so the machine may well answer more than is said here."
)
_CACHED = (
    "Prompt tokens that the engine had in its cache are priced as if the incumbent had had them too, which makes "
    "renting cheap; without that, renting costs {}."
)
_LEFT_OUT = (
    "In neither sum: people, taxes, the network, spare machines, and discounts for batches, commitments or volume."
)


def of_candidate(
    samples: Samples, results: Results, listed: PriceList, rates: Rates, task: Task, candidate: Candidate,
    *, calls_per_day: float | None = None,
) -> Costs:  # fmt: skip
    """What the task's recorded calls that a candidate has answered cost, whatever split they are in; no score is read.

    Without ``calls_per_day`` it is taken from the times of the recorded calls, where these span a day or more.
    """
    outlines = samples.outlines(task.name)
    price, missing, notes = incumbent_price(task, outlines, listed)
    found = results.answers(task.name, candidate.key)
    answered = ((found[one.id], one.answer) for one in samples.of_split(task) if one.id in found)
    often = calls_per_day if calls_per_day is not None else rhythm(outlines)
    if calls_per_day is None and often is not None:
        notes += (_often(often),)
    return of_answers(
        task.name, candidate, answered, price=price, missing=missing, rates=rates, calls_per_day=often, notes=notes
    )


def of_recorded(samples: Samples, listed: PriceList, rates: Rates, task: Task, *, calls_per_day: float | None) -> Costs:
    """What the recorded calls cost rented, where no candidate has answered them: by their length in characters."""
    outlines = samples.outlines(task.name)
    price, missing, notes = incumbent_price(task, outlines, listed)
    asked = [_Asked(one.prompt / CHARACTERS, 0.0, 0.0, one.answer / CHARACTERS) for one in outlines]
    often = calls_per_day if calls_per_day is not None else rhythm(outlines)
    note = f"No candidate has answered: tokens are estimated, {CHARACTERS:g} characters each, and owning is not known."
    note += f" 'freehold replay {task.name} --candidate MODEL' measures both."
    nobody = Candidate("", "")
    return _costs(task.name, nobody, asked, 0, None, price, missing, rates, often, (note, *notes, _LEFT_OUT))


def incumbent_price(
    task: Task, outlines: Sequence[Outline], listed: PriceList
) -> tuple[Price | None, str, tuple[str, ...]]:
    """What the incumbent charges: the task's ``price`` says who it is, or else the recorded calls do, or else the name
    that the application sends. Returns the price, or what is to be said where there is none, and notes."""
    recorded = Counter(one.incumbent for one in outlines if one.incumbent)
    name = task.price or next((name for name, _ in recorded.most_common(1)), "") or task.alias
    notes = ()
    if not task.price and len(recorded) > 1:
        notes = (f"The recorded answers are of {len(recorded)} models; all of them are priced as {name}.",)
    price = listed.find(name) if name else None
    return price, "" if price else prices.unknown(name), notes


def rhythm(outlines: Sequence[Outline]) -> float | None:
    """Calls a day, by the times of recorded calls; None where they do not span a day."""
    times = [one.at for one in outlines if one.at >= ORDER_ONLY]
    span = max(times) - min(times) if times else 0.0
    return len(times) / (span / DAY) if span >= DAY else None


def of_answers(
    task: str, candidate: Candidate, answered: Iterable[tuple[Replayed, Answer | None]], *, price: Price | None,
    missing: str = "", rates: Rates, calls_per_day: float | None = None, notes: tuple[str, ...] = (),
) -> Costs:  # fmt: skip
    """What came of some calls, each with the incumbent's own answer, in money; ``missing`` says why there is no
    ``price``. The incumbent's answers are taken to have as many tokens for each character as the candidate's."""
    asked, times, failed, characters, tokens = [], [], 0, 0, 0
    theirs: list[int | None] = []
    for replayed, answer in answered:
        if replayed.answer is None:
            failed += 1
            continue
        usage = replayed.usage
        asked.append(_Asked(usage.prompt, usage.cached, usage.completion, usage.completion))
        times.append((replayed.at - replayed.total_ms / 1000, replayed.at))
        theirs.append(None if answer is None else _length(answer))
        characters += _length(replayed.answer)
        tokens += usage.completion
    if characters:
        dense = tokens / characters
        asked = [
            one if length is None else _Asked(one.prompt, one.cached, one.completion, length * dense)
            for one, length in zip(asked, theirs, strict=True)
        ]
    busy = math.fsum(share for _, share in shares((begin, begin, end, None) for begin, end in sorted(times)))
    said = (_TOKENS, _ONE_BY_ONE) if asked else ()
    return _costs(
        task, candidate, asked, failed, busy, price, missing, rates, calls_per_day, (*notes, *said, _LEFT_OUT)
    )


def break_even(fixed: float, rented: float, marginal: float) -> float | None:
    """Calls a day at which ``fixed + n * marginal`` and ``n * rented`` are the same; None where they never are."""
    return fixed / (rented - marginal) if rented > marginal else None


def day(rates: Rates, calls: float, busy_per_call: float, rented: float | None = None) -> Day:
    """A day with so many calls, each of which keeps a machine busy for so many seconds: as many machines are on as that
    takes, one at least."""
    room = rates.hours_per_day.value * HOUR
    busy = calls * busy_per_call
    machines = max(1, math.ceil(busy / room - 1e-9))
    idle = machines * room - busy
    parts = (
        machine(rates, busy), energy(rates, rates.watts_busy, busy),
        machine(rates, idle), energy(rates, rates.watts_idle, idle),
    )  # fmt: skip
    return Day(calls, machines, busy, idle, *parts, math.fsum(parts), None if rented is None else calls * rented)


def sentence(costs: Costs) -> str:
    """What it comes to, for whoever decides."""
    point, capacity, currency = costs.break_even_calls_per_day, costs.capacity_calls_per_day, costs.currency
    if costs.rented_per_call.value is None:
        return f"What renting costs is not known. {costs.rented_per_call.source}".rstrip()
    rent = f"Renting costs {money(costs.rented_per_call.value * 1000, currency)} for 1,000 calls"
    if costs.owned_per_call.value is None:
        return f"{rent}. What owning costs is not known: {costs.owned_per_call.source}."
    if point.value is None:
        return f"{rent}. Owning is {point.source}."
    if capacity.value is not None and point.value > capacity.value:
        full = day(costs.rates, capacity.value, HOUR * costs.rates.hours_per_day.value / capacity.value)
        return (
            f"{rent}. Owning does not pay on this machine at these figures: it would be cheaper from "
            f"{point.value:,.0f} calls a day on, and one machine answers {capacity.value:,.0f} at most, at "
            f"{money(full.owned / capacity.value * 1000, currency)} for 1,000."
        )
    return (
        f"{rent}. Owning is cheaper from {math.ceil(point.value):,} calls a day on; one machine answers "
        f"{capacity.value:,.0f} at most."
    )


class _Asked(Struct, frozen=True):
    """A call's tokens. ``rented`` is how many the incumbent's answer has."""

    prompt: float
    cached: float
    completion: float
    rented: float


def _length(answer: Answer) -> int:
    return len(answer.text) + sum(len(tool.name) + len(tool.arguments) for tool in answer.tools)


def _often(calls_per_day: float) -> str:
    return (
        f"{calls_per_day:,.0f} calls a day is what the times of the recorded calls show. Calls that ask what another "
        "has asked were not recorded, so there may be more; --calls-per-day says otherwise."
    )


def _costs(
    task: str, candidate: Candidate, asked: Sequence[_Asked], failed: int, busy: float | None, price: Price | None,
    missing: str, rates: Rates, calls_per_day: float | None, notes: tuple[str, ...],
) -> Costs:  # fmt: skip
    rent = _Rent(asked, price, missing, estimated=busy is None)
    own = _Own(rates, len(asked), busy)
    if price is not None and rent.uncached.value != rent.cached.value:
        notes = (*notes, _CACHED.format(money(rent.uncached.value / len(asked) * 1000, price.currency) + " for 1,000"))
    daily = None
    if calls_per_day is not None and own.busy_per_call is not None:
        daily = day(rates, calls_per_day, own.busy_per_call, rent.per_call.value)
    return Costs(
        task=task, candidate=candidate.name, digest=candidate.digest, key=candidate.key, currency=rates.currency,
        calls=len(asked), failed=failed,
        prompt_tokens=round(sum(one.prompt for one in asked)),
        completion_tokens=round(sum(one.completion for one in asked)),
        cached_tokens=round(sum(one.cached for one in asked)),
        rented_completion=math.fsum(one.rented for one in asked),
        busy_seconds=own.busy, machine=own.machine, energy=own.energy,
        rented=rent.cached, rented_uncached=rent.uncached,
        owned_per_call=own.per_call, rented_per_call=rent.per_call,
        fixed_per_day=own.fixed, marginal_per_call=own.marginal,
        break_even_calls_per_day=_point(own, rent), capacity_calls_per_day=own.capacity,
        rates=rates, price=price, day=daily, notes=notes,
    )  # fmt: skip


class _Rent:
    """What renting costs."""

    def __init__(self, asked: Sequence[_Asked], price: Price | None, missing: str, *, estimated: bool):
        if price is None or not asked:
            why = missing if price is None else "no call was answered"
            self.cached = self.uncached = self.per_call = Figure(None, Basis.LISTED, why)
            return
        tokens = (
            "tokens estimated by length" if estimated else "prompt tokens counted, the incumbent's answer by length"
        )
        source = f"as {price.model}, by {price.list}; {tokens}"
        self.cached = _estimate(math.fsum(charge(price, one.prompt, one.rented, one.cached) for one in asked), source)
        self.uncached = _estimate(math.fsum(charge(price, one.prompt, one.rented) for one in asked), source)
        self.per_call = _estimate(self.cached.value / len(asked), source)


class _Own:
    """What owning costs."""

    def __init__(self, rates: Rates, calls: int, busy: float | None):
        room = rates.hours_per_day.value
        idle = f"{hourly(rates)}, {rates.watts_idle.value:g} W idle ({rates.watts_idle.basis})"
        self.fixed = _estimate(room * rates.idle_per_hour, f"{room:g} hours ({rates.hours_per_day.basis}) of {idle}")
        self.busy_per_call = busy / calls if busy is not None and calls else None
        if self.busy_per_call is None:
            unknown = Figure(
                None, Basis.ESTIMATE, "no candidate has answered" if busy is None else "no call was answered"
            )
            self.busy = self.machine = self.energy = self.per_call = self.marginal = self.capacity = unknown
            return
        each = self.busy_per_call
        self.busy = Figure(busy, Basis.MEASURED, "the replay's times; calls at the same time share it")
        self.machine = _estimate(machine(rates, busy), hourly(rates))
        self.energy = _estimate(energy(rates, rates.watts_busy, busy), drawn(rates))
        self.per_call = _estimate((self.machine.value + self.energy.value) / calls, f"{hourly(rates)}; {drawn(rates)}")
        self.marginal = _estimate(each / HOUR * rates.extra_per_hour, f"what answering adds to idle: {drawn(rates)}")
        most = room * HOUR / each if each else None
        self.capacity = _estimate(most, f"{each:.3g} s a call (measured), {room:g} hours a day")


def _point(own: _Own, rent: _Rent) -> Figure:
    if rent.per_call.value is None:
        return Figure(None, Basis.ESTIMATE, rent.per_call.source)
    if own.marginal.value is None:
        return Figure(None, Basis.ESTIMATE, own.marginal.source)
    point = break_even(own.fixed.value, rent.per_call.value, own.marginal.value)
    if point is None:
        return Figure(
            None, Basis.ESTIMATE, "never cheaper: the energy alone of a call costs as much as renting it, or more"
        )
    within = own.capacity.value is None or point <= own.capacity.value
    return _estimate(
        point, "fixed cost of a day / (rented - marginal cost of a call)" + ("" if within else "; beyond the capacity")
    )


def described(price: Price) -> str:
    """A price and where it is from, in words."""
    rate = f"{money(price.input)} / {money(price.output)} / {money(price.cached)} {price.currency} for a million tokens"
    what = f"{rate} in / out / cached"
    if price.basis is Basis.SET:
        return f"{price.model}: {what}, set in {price.list}"
    dates = f", newest entry {price.newest}" if price.newest else ""
    return f"{price.model}: {what}; {price.provider}, {price.matched}; {price.list}{dates}, price on {price.on}"


def _estimate(value: float | None, source: str) -> Figure:
    return Figure(value, Basis.ESTIMATE, source)
