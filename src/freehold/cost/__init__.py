"""Money and energy: what calls cost on a machine of one's own, beside what somebody else charges for the same.

`rates` is what an hour costs, `shares` whose time it was, `task` a task's costs and where they break even, `house` what
the ledger's calls cost. docs/concepts/cost.md derives every formula.
"""

from freehold.cost.house import BY, Named, spending
from freehold.cost.rates import charge, money, on_seconds, rates
from freehold.cost.shares import shares
from freehold.cost.task import break_even, day, described, of_answers, of_candidate, of_recorded, rhythm, sentence

__all__ = [
    "BY", "Named", "break_even", "charge", "day", "described", "money", "of_answers", "of_candidate", "of_recorded",
    "on_seconds", "rates", "rhythm", "sentence", "shares", "spending",
]  # fmt: skip
