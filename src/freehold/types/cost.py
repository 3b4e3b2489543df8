"""Money and energy: what calls cost on a machine of one's own, beside what somebody else charges for the same.

Money is in the ``currency`` that stands beside it, energy in kilowatt-hours, time in seconds. What is not known is
None, never 0.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Basis(StrEnum):
    """How a figure is known."""

    MEASURED = "measured"  # counted or timed here
    SET = "set"  # the settings say so
    ASSUMED = "assumed"  # a default of the settings, which nobody has confirmed
    LISTED = "listed"  # a price list says so
    ESTIMATE = "estimate"  # worked out from others, of which one at least was not measured


class Figure(Struct, frozen=True):
    """A number and where it is from. Where ``value`` is None, ``source`` says why, and what would make it known."""

    value: float | None
    basis: Basis
    source: str = ""


class Rates(Struct, frozen=True):
    """What owning the machine costs. ``usd_rate`` is what one US dollar costs in ``currency``."""

    currency: str
    machine_per_hour: Figure
    watts_idle: Figure
    watts_busy: Figure
    energy_per_kwh: Figure
    hours_per_day: Figure
    usd_rate: Figure

    @property
    def idle_per_hour(self) -> float:
        """An hour in which the machine is on and answers nothing."""
        return self.machine_per_hour.value + self.watts_idle.value / 1000 * self.energy_per_kwh.value

    @property
    def extra_per_hour(self) -> float:
        """What an hour of answering adds to it: energy alone."""
        return (self.watts_busy.value - self.watts_idle.value) / 1000 * self.energy_per_kwh.value


class Tier(Struct, frozen=True):
    """What a million tokens cost in calls whose prompt has more than ``above`` tokens."""

    above: int
    input: float
    output: float
    cached: float


class Price(Struct, frozen=True):
    """What somebody else charges for a model's tokens, in ``currency`` for a million.

    ``model`` is the name that was looked up; ``provider`` and ``matched`` what the list has under it, '' where the
    settings have the price. ``cached`` is for prompt tokens that the provider had in its cache. ``list`` names the
    list and its version, ``newest`` is the date of its newest entry, ``on`` the day for which the price was looked up
    (both ISO 8601). ``per_call`` is charged for each call, whatever its tokens.
    """

    model: str
    input: float
    output: float
    cached: float
    currency: str
    basis: Basis
    list: str
    on: str = ""
    newest: str = ""
    provider: str = ""
    matched: str = ""
    per_call: float = 0.0
    tiers: tuple[Tier, ...] = ()


class CallCost(Struct, frozen=True):
    """One call of the ledger with what it cost.

    ``busy_seconds`` is its share of the machine's busy time, ``machine`` and ``energy`` what that share cost: nothing
    for a call that left the house. ``rented`` is what the price list charges for its tokens: paid where it left the
    house, and spared where it did not. ``priced_as`` names the price. ``joules`` is what the machine's own counters say
    that it drew, and then ``energy`` is worked out from it; None where they say nothing. ``team`` is the one that the
    caller's key was in, if it was in any.
    """

    id: str
    at: float
    caller: str
    model: str
    alias: str
    outcome: str
    left_the_house: bool
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    busy_seconds: float
    machine: float
    energy: float
    rented: float | None
    priced_as: str = ""
    joules: float | None = None
    team: str = ""


class Spent(Struct, frozen=True):
    """What some calls cost, together. ``here`` were answered, or tried, in this house, ``left`` by somebody else.

    ``machine`` and ``energy`` are for the busy time of those here. ``paid`` is the price of those that left, as far as
    it is known, ``spared`` what the price list charges for the tokens of those here; ``unpriced_left`` and
    ``unpriced_here`` count calls with tokens whose price nobody knows, which are in neither sum. ``kwh`` is what those
    here drew, ``metered`` how many of them by the machine's own counters: the others by estimate.
    """

    key: str
    calls: int
    here: int
    left: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    busy_seconds: float
    machine: float
    energy: float
    paid: float
    spared: float
    unpriced_left: int
    unpriced_here: int
    metered: int = 0
    kwh: float = 0.0

    @property
    def owned(self) -> float:
        """Machine and energy together."""
        return self.machine + self.energy


class Spending(Struct, frozen=True):
    """What the calls of a time cost, group by group and together, and what the machine cost while it waited.

    The machine was on for ``on_seconds`` between ``began`` and ``ended``: ``busy_seconds`` of it with a call in hand,
    the rest idle. ``untimed`` counts calls of which nobody knows how long they took, and ``untimed_slots`` those of
    which it is known only from end to end, their wait included.
    """

    currency: str
    by: str
    began: float
    ended: float
    on_seconds: float
    busy_seconds: float
    idle_seconds: float
    machine: Figure
    energy: Figure
    idle_machine: Figure
    idle_energy: Figure
    kwh: Figure
    rows: tuple[Spent, ...]
    total: Spent
    rates: Rates
    prices: tuple[Price, ...] = ()
    unpriced: tuple[str, ...] = ()
    untimed: int = 0
    untimed_slots: int = 0
    notes: tuple[str, ...] = ()


class Day(Struct, frozen=True):
    """A day with so many calls: what owning ``machines`` costs, split into the time in which they answer and in which
    they wait, and what renting would cost. The four parts of owning add up to ``owned``."""

    calls: float
    machines: int
    busy_seconds: float
    idle_seconds: float
    machine: float
    energy: float
    idle_machine: float
    idle_energy: float
    owned: float
    rented: float | None


class Costs(Struct, frozen=True):
    """What a task's recorded calls cost, owned and rented; `cost.of_task` makes it, and its docstring says how.

    Sums are over the ``calls`` that the candidate answered. ``prompt_tokens``, ``completion_tokens`` and
    ``cached_tokens`` are its engine's counts, ``rented_completion`` an estimate of the tokens that the incumbent's own
    answers have. ``machine`` and ``energy`` are for the time in which the machine was busy with these calls, ``rented``
    is what the incumbent would have charged for them, ``rented_uncached`` the same without its discount for cached
    prompts.

    ``owned_per_call`` is machine and energy while busy, without any idle time; ``fixed_per_day`` is what the machine
    costs in a day on which nobody calls, ``marginal_per_call`` what a call adds to that. From
    ``break_even_calls_per_day`` on owning is cheaper; it is None where it never is, or nobody knows. ``day`` is a day
    with the calls that were asked for, or that the recorded calls' own times show.
    """

    task: str
    candidate: str
    digest: str
    key: str
    currency: str
    calls: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    rented_completion: float
    busy_seconds: Figure
    machine: Figure
    energy: Figure
    rented: Figure
    rented_uncached: Figure
    owned_per_call: Figure
    rented_per_call: Figure
    fixed_per_day: Figure
    marginal_per_call: Figure
    break_even_calls_per_day: Figure
    capacity_calls_per_day: Figure
    rates: Rates
    price: Price | None = None
    day: Day | None = None
    notes: tuple[str, ...] = ()
