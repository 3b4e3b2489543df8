"""What the ledger's calls cost, for ``freehold cost`` without a task and ``freehold ledger --by``."""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator

import msgspec

from freehold import cost
from freehold.chart import terminal
from freehold.chart.words import amount
from freehold.cli import local
from freehold.errors import CannotDo
from freehold.ledger import Ledger
from freehold.types import Call, CallCost, Figure, Rates, Spending, Spent

BY = (*cost.BY, "call")
_LATEST = 50  # calls in a table
_MOST_BARS = 20
_LOOK = 1_000  # calls between two looks at the clock
_HEAD = ("CALLS", "HERE", "LEFT", "PROMPT", "CACHED", "ANSWER", "BUSY", "MACHINE", "ENERGY", "PAID", "SPARED")
_CALL = (
    "ID", "TIME", "CALLER", "ALIAS", "MODEL", "OUTCOME", "LEFT", "PROMPT", "CACHED", "ANSWER", "BUSY", "OWNED",
    "RENTED",
)  # fmt: skip
_RATES = ("machine_per_hour", "watts_idle", "watts_busy", "energy_per_kwh", "hours_per_day")


def add_time(parser: argparse.ArgumentParser) -> None:
    """The flags that choose a time of the ledger."""
    parser.add_argument("--since", metavar="DATE", help="of the ledger: calls from then on, as 2026-05-03 (ISO 8601)")
    parser.add_argument("--until", metavar="DATE", help="of the ledger: calls before then")


def add_form(parser: argparse.ArgumentParser) -> None:
    """The flags that choose a form."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="everything, for programs")
    form.add_argument("--csv", action="store_true", help="one line for each, for spreadsheets")


def show(arguments: argparse.Namespace) -> int:
    """What the ledger's calls cost, by whatever ``--by`` says."""
    began = local.date(arguments.since) if arguments.since else None
    ended = local.date(arguments.until) if arguments.until else None
    if began is not None and ended is not None and began >= ended:
        raise CannotDo("--until is not after --since.", hint="Give a later one.")
    since, until = began or 0.0, math.inf if ended is None else ended
    with local.opened(arguments) as parts:
        told = _teller(arguments)
        spending = cost.spending(
            _watched(parts.ledger, since, until), parts.named, cost.rates(parts.settings.cost),
            by="key" if arguments.by in (None, "call") else arguments.by, began=began,
            ended=time.time() if ended is None else min(ended, time.time()), tell=told,
        )  # fmt: skip
    told.end(spending)
    return 0


def _watched(ledger: Ledger, since: float, until: float) -> Iterator[Call]:
    """The calls of a time, with a bar where there are many."""
    bar, total = local.Progress(), ledger.count(since, until)
    for done, call in enumerate(ledger.each(since, until), start=1):
        yield call
        if not done % _LOOK:
            bar("worked out", min(done, total), total)
    bar.end()


def _teller(arguments: argparse.Namespace) -> _Teller:
    if arguments.by == "call":
        return _CallsJson() if arguments.json else _CallsCsv() if arguments.csv else _CallsTable()
    return _Json() if arguments.json else _Csv() if arguments.csv else _Shown()


class _Teller:
    """Takes in calls as they are worked out, and what came of them in the end."""

    def __call__(self, call: CallCost) -> None:
        """One call."""

    def end(self, spending: Spending) -> None:
        """All of them."""


class _Shown(_Teller):
    """A table and a picture."""

    def end(self, spending: Spending) -> None:
        """Print them."""
        rows = [(row.key, *_cells(row)) for row in spending.rows]
        local.table([*rows, ("all", *_cells(spending.total))], (spending.by.upper(), *_HEAD))
        print()
        print(local.lines(f"{name:<8} {said}" for name, said in _spent(spending) if said))
        if any(spending.total.owned + row.paid for row in spending.rows):
            print(f"\n{spending.currency}, owned and paid")
            bars = [(row.key, row.owned + row.paid) for row in spending.rows[:_MOST_BARS]]
            print(terminal.bars(bars, **local.canvas()), end="")


class _Json(_Teller):
    """One document."""

    def end(self, spending: Spending) -> None:
        """Print it."""
        local.print_json(msgspec.to_builtins(spending))


class _Csv(_Teller):
    """A line for each group."""

    def end(self, spending: Spending) -> None:
        """Print them."""
        fields = Spent.__struct_fields__
        rows = [[getattr(row, name) for name in fields] for row in spending.rows]
        print(csv_text((spending.by, *fields[1:], "currency"), ([*row, spending.currency] for row in rows)), end="")


class _CallsTable(_Teller):
    """The latest calls."""

    def __init__(self) -> None:
        self._latest: deque[CallCost] = deque(maxlen=_LATEST)

    def __call__(self, call: CallCost) -> None:
        """Keep it, as long as it is among the latest."""
        self._latest.append(call)

    def end(self, spending: Spending) -> None:
        """Print them."""
        local.table([_call_row(call) for call in sorted(self._latest, key=lambda call: -call.at)], _CALL)
        print(f"Money in {spending.currency}; the latest {len(self._latest)}, and --csv has them all.")


class _CallsCsv(_Teller):
    """A line for each call, as it comes."""

    def __init__(self) -> None:
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        self._writer.writerow(CallCost.__struct_fields__)

    def __call__(self, call: CallCost) -> None:
        """Print it."""
        self._writer.writerow([local.cell(getattr(call, name)) for name in CallCost.__struct_fields__])


class _CallsJson(_Teller):
    """A list of calls, each printed as it comes."""

    def __init__(self) -> None:
        self._before = "[\n"

    def __call__(self, call: CallCost) -> None:
        """Print it."""
        print(self._before + msgspec.json.encode(call).decode(), end="")
        self._before = ",\n"

    def end(self, spending: Spending) -> None:
        """The list is complete."""
        print("\n]" if self._before == ",\n" else "[]")


def _cells(row: Spent) -> tuple[str, ...]:
    counts = (row.calls, row.here, row.left, row.prompt_tokens, row.cached_tokens, row.completion_tokens)
    paid = _sum(row.paid, row.unpriced_left, row.left)
    spared = _sum(row.spared, row.unpriced_here, row.here)
    return (
        *(f"{count:,}" for count in counts), f"{row.busy_seconds:,.1f} s",
        cost.money(row.machine), cost.money(row.energy), paid, spared,
    )  # fmt: skip


def _sum(known: float, unpriced: int, calls: int) -> str:
    """A sum that may lack some calls' prices: then it says so, and where all of them lack it is no 0."""
    if not unpriced:
        return cost.money(known) if calls else ""
    return f"{cost.money(known)} + {unpriced:,} unknown" if known else "unknown"


def _spent(spending: Spending) -> Iterator[tuple[str, str]]:
    currency, total = spending.currency, spending.total
    when = f"{local.when(spending.began)} to {local.when(spending.ended)}"
    share = spending.busy_seconds / spending.on_seconds if spending.on_seconds else 0.0
    yield "time", f"{when}; on for {_hours(spending.on_seconds)}, busy {_hours(spending.busy_seconds)} ({share:.2%})"
    yield "machine", f"{figure(spending.machine, currency, ', while it answered')}"
    yield "energy", f"{figure(spending.energy, currency, ', while it answered')}"
    idle = spending.idle_machine.value + spending.idle_energy.value
    yield (
        "idle",
        (
            f"{cost.money(idle, currency)} for {_hours(spending.idle_seconds)} in which nobody called: machine "
            f"{figure(spending.idle_machine, currency)}, energy {figure(spending.idle_energy, currency)}"
        ),
    )
    yield "power", f"{spending.kwh.value:,.3g} kWh  [{spending.kwh.basis}: {spending.kwh.source}]"
    if total.left:
        yield "paid", f"{_sum(total.paid, total.unpriced_left, total.left)} {currency} for {amount(total.left, 'call')}"
    for price in spending.prices:
        yield "price", cost.described(price)
    yield from (tuple(line.split(maxsplit=1)) for line in assumed(spending.rates))
    yield from (("note", note) for note in spending.notes)


def _hours(seconds: float) -> str:
    return f"{seconds:,.1f} s" if seconds < 600 else f"{seconds / 3600:,.1f} h"


def _call_row(call: CallCost) -> tuple[str, ...]:
    tokens = (str(call.prompt_tokens), str(call.cached_tokens), str(call.completion_tokens))
    return (
        call.id, local.when(call.at), call.caller, call.alias, call.model, call.outcome,
        "yes" if call.left_the_house else "no", *tokens, f"{call.busy_seconds:.3g} s",
        cost.money(call.machine + call.energy), cost.money(call.rented),
    )  # fmt: skip


def figure(found: Figure, currency: str, for_what: str = "") -> str:
    """An amount with what it is for and how it is known."""
    return f"{cost.money(found.value, currency)}{for_what}  [{found.basis}: {found.source}]"


def assumed(rates: Rates) -> list[str]:
    """What nobody has confirmed, as a line; none where there is nothing."""
    names = [name for name in _RATES if getattr(rates, name).basis == "assumed"]
    said = ", ".join(f"{name} {getattr(rates, name).value:g}" for name in names)
    return [f"  {'assumed':<11} {said}: set them under [cost] in freehold.toml"] if said else []


def csv_text(head: tuple[str, ...], rows: Iterable[Iterable[object]]) -> str:
    """Lines for a spreadsheet."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([local.cell(value) for value in row] for row in rows)
    return stream.getvalue()
