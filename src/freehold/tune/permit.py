"""May this base be tuned here? What its licence says of changed copies, and what the house says of its class."""

from __future__ import annotations

from freehold.config import TrustSettings
from freehold.errors import BadModel
from freehold.licence.known import NO_CHANGES
from freehold.types import Admission, Record


def check(record: Record, trust: TrustSettings) -> None:
    """Raises BadModel, naming the clause, where the base's licence or this house's policy is against it."""
    licence, name = record.licence, record.name
    if NO_CHANGES in licence.asks:
        raise BadModel(
            f"{name!r} is under {licence.id}, which says: {NO_CHANGES} A tuned model is a changed one.",
            hint="Choose a base whose licence allows derivatives; 'freehold models show' names each model's.",
        )
    if licence.kind.value in trust.refused:
        raise BadModel(
            f"{name!r} is under {licence.id or 'its licence'}, class {licence.kind.value}, which is refused here.",
            hint="Choose another base, or change trust.refused.",
        )
    decided = record.ruling is not None and record.ruling.verdict is Admission.ADMIT
    if licence.kind.value not in trust.licences and not decided:
        raise BadModel(
            f"{name!r} is under {licence.id or 'its licence'}, class {licence.kind.value}, and nobody has decided that "
            "it may be used here.",
            hint=f"'freehold models decide {name}' does that by name and reason.",
        )
