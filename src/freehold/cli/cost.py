"""What calls cost: on this machine, beside what somebody else charges for the same tokens.

With a TASK: what its recorded calls would have cost rented, what a candidate's answers to them cost owned, and from
how many calls a day on owning is cheaper. Without one: what the ledger's calls cost, and the machine while it waited.
What is assumed, estimated or not known is marked so; docs/concepts/cost.md has the formulas.
"""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

import msgspec

from freehold import cost
from freehold.chart import terminal
from freehold.chart.words import amount
from freehold.cli import local, spending
from freehold.errors import CannotDo
from freehold.types import Candidate, Costs, Figure, Task

if TYPE_CHECKING:
    from freehold.app import Parts

_THOUSAND = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``freehold cost``."""
    parser.add_argument("task", nargs="?", help="a task; without one, the ledger's calls")
    parser.add_argument(
        "--candidate", action="append", default=[], metavar="MODEL",
        help="a model that answered the task's calls; may be given several times (default: all that did)",
    )  # fmt: skip
    parser.add_argument(
        "--calls-per-day",
        type=_calls,
        metavar="N",
        help="a day with so many (default: as the recorded calls' times show)",
    )
    parser.add_argument("--by", choices=spending.BY, help="of the ledger: a line for each of them (default: key)")
    spending.add_time(parser)
    spending.add_form(parser)


def run(arguments: argparse.Namespace) -> int:
    """Work it out, and show."""
    if arguments.task is None:
        if arguments.candidate or arguments.calls_per_day is not None:
            raise CannotDo("--candidate and --calls-per-day are about a task.", hint="Name it: freehold cost TASK ...")
        return spending.show(arguments)
    if arguments.by or arguments.since or arguments.until:
        raise CannotDo("--by, --since and --until are about the ledger.", hint="Leave the task out, or them.")
    with local.opened(arguments) as parts:
        found = _of_task(parts, parts.tasks.get(arguments.task), arguments)
    if arguments.json:
        local.print_json([msgspec.to_builtins(one) for one in found])
    elif arguments.csv:
        print(spending.csv_text(_COSTS, map(_costs_row, found)), end="")
    else:
        for number, one in enumerate(found):
            print("\n" if number else "", end="")
            _show_costs(one)
    return 0


def _calls(text: str) -> float:
    try:
        calls = float(text)
    except ValueError:
        calls = math.nan
    if not 0 < calls <= 1e12:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of calls")
    return calls


# a task


def _of_task(parts: Parts, task: Task, arguments: argparse.Namespace) -> list[Costs]:
    candidates = [local.candidate(parts, task, name) for name in dict.fromkeys(arguments.candidate)]
    for candidate in candidates:
        _check_owned(candidate)
    if not candidates:
        return parts.every_cost(task, arguments.calls_per_day)
    return [parts.costs(task, candidate, arguments.calls_per_day) for candidate in candidates]


def _check_owned(candidate: Candidate) -> None:
    if not candidate.digest:
        raise CannotDo(
            f"{candidate.name} runs on somebody else's machine, so there is nothing of it that is owned.",
            hint="Name a model of this house; 'freehold models list' has them.",
        )


def _show_costs(costs: Costs) -> None:
    who = f"answered by {costs.candidate} ({costs.digest[:19]})" if costs.candidate else "as recorded"
    facts = [f"{costs.task}, {who}: {cost.sentence(costs)}"]
    facts += [f"  {name:<11} {said}" for name, said in _facts(costs) if said]
    facts += spending.assumed(costs.rates)
    facts += [f"  {'note':<11} {note}" for note in costs.notes]
    print(local.lines(facts))
    if bars := _volumes(costs):
        print(f"\n{costs.currency} for 1,000 calls")
        print(terminal.bars(bars, **local.canvas()), end="")


def _facts(costs: Costs) -> list[tuple[str, str]]:
    failed = f", {costs.failed:,} more were not answered and are left out" if costs.failed else ""
    tokens = f"{costs.prompt_tokens:,} prompt ({costs.cached_tokens:,} cached), {costs.completion_tokens:,} answer"
    theirs = f"; the incumbent's answers have about {costs.rented_completion:,.0f}"
    return [
        ("calls", f"{costs.calls:,}{failed}"),
        ("tokens", tokens + theirs),
        ("busy", _seconds(costs)),
        ("rented", _for_thousand(costs.rented_per_call, costs.currency)),
        ("price", cost.described(costs.price) if costs.price else ""),
        ("owned", _for_thousand(costs.owned_per_call, costs.currency, ", while it answers")),
        ("idle", spending.figure(costs.fixed_per_day, costs.currency, " for a day on which nobody calls")),
        ("break-even", _point(costs)),
        ("capacity", _count(costs.capacity_calls_per_day, "calls a day")),
        ("a day", _day(costs)),
    ]


def _seconds(costs: Costs) -> str:
    busy = costs.busy_seconds
    if busy.value is None:
        return f"not known: {busy.source}"
    return f"{busy.value:,.1f} s, {busy.value / costs.calls:.3g} s a call  [{busy.basis}: {busy.source}]"


def _for_thousand(figure: Figure, currency: str, when: str = "") -> str:
    if figure.value is None:
        return f"not known: {figure.source}"
    said = f"{cost.money(figure.value * _THOUSAND, currency)} for 1,000 calls{when}"
    return f"{said}  [{figure.basis}: {figure.source}]"


def _count(figure: Figure, what: str) -> str:
    if figure.value is None:
        return f"not known: {figure.source}"
    return f"{figure.value:,.0f} {what}  [{figure.basis}: {figure.source}]"


def _point(costs: Costs) -> str:
    point = costs.break_even_calls_per_day
    if point.value is None:
        return point.source
    return f"{math.ceil(point.value):,} calls a day  [{point.basis}: {point.source}]"


def _day(costs: Costs) -> str:
    day = costs.day
    if day is None:
        return ""
    rented = "" if day.rented is None else f"; rented {cost.money(day.rented, costs.currency)}"
    idle = cost.money(day.idle_machine + day.idle_energy, costs.currency)
    owned = (
        f"owned {cost.money(day.owned, costs.currency)}, of which {idle} for {day.idle_seconds / 3600:,.1f} idle hours"
    )
    return f"with {day.calls:,.0f} calls, on {amount(day.machines, 'machine')}: {owned}{rented}"


def _volumes(costs: Costs) -> list[tuple[str, float]]:
    """What a thousand calls cost at some numbers of calls a day, up to what one machine answers."""
    most, rented = costs.capacity_calls_per_day.value, costs.rented_per_call.value
    if not most:
        return []
    busy = costs.busy_seconds.value / costs.calls
    some = [10.0**power for power in range(2, 10) if 10**power < most][-4:]
    rows = [(f"owned, {calls:,.0f} a day", cost.day(costs.rates, calls, busy).owned / calls) for calls in (*some, most)]
    rows += [("rented", rented)] if rented is not None else []
    return [(label, value * _THOUSAND) for label, value in rows]


_COSTS = (
    "task", "candidate", "digest", "currency", "calls", "failed", "prompt_tokens", "cached_tokens", "completion_tokens",
    "rented_completion", "busy_seconds", "machine", "energy", "rented", "rented_uncached", "owned_per_call",
    "rented_per_call", "fixed_per_day", "marginal_per_call", "break_even_calls_per_day", "capacity_calls_per_day",
    "price_model", "price_list", "price_newest", "price_on",
)  # fmt: skip


def _costs_row(costs: Costs) -> list[object]:
    price = costs.price
    told = ("", "", "", "") if price is None else (price.model, price.list, price.newest, price.on)
    own = [getattr(costs, name) for name in _COSTS[: -len(told)]]
    return [value.value if isinstance(value, Figure) else value for value in own] + list(told)
