"""The chapter about cost: owned beside rented, and from how many calls a day on owning is cheaper."""

from __future__ import annotations

from freehold.dossier import say
from freehold.types.dossier import Chapter, Evidence, Part, Table

_LEAD = (
    "Owned: the machine's hours and its energy, shared out by the time that the engine was busy. Rented: what the "
    "incumbent would have charged for the same calls by a dated price list. Both rest on assumptions, which are named."
)


def chapter(evidence: Evidence) -> Chapter:
    """What the calls cost, either way."""
    costs = evidence.costs
    if costs is None:
        why = "no cost was worked out for this task"
        absent = say.missing("cost.comparison", "Owned against rented", why, say.command("status"))
        return Chapter("cost", "Cost", (Part("cost.main", figures=(absent,)),))
    rows = tuple((row.label, row.owned_shown, row.rented_shown, row.kind.value) for row in costs.rows)
    head = ("", "owned", "rented", "how known")
    table = Table("cost.rows", "Owned against rented", head, rows, costs.command, numeric=(1, 2), lasting=False)
    tables = (table,) if rows else ()
    return Chapter("cost", "Cost", (Part("cost.main", "", (_LEAD,), costs.notes, "", costs.figures, tables),))
