"""What is done with each kind of secret and personal data: by the settings, for one caller and one place.

The caller's own table wins over the table for everybody, a kind over its group (``secrets``, ``personal``), and where
nothing is set `DEFAULTS` hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import UNSET, Struct

from freehold.config import GuardSettings, TreatmentSettings

SECRETS = frozenset({"private_key", "jwt", "api_key", "password", "secret"})  # the detectors are loaded where they work
KINDS = tuple(name for name in TreatmentSettings.__struct_fields__ if name not in ("secrets", "personal"))


class Destination(StrEnum):
    """Where a text is about to go."""

    HOUSE = "house"  # an engine of this house
    UPSTREAM = "upstream"  # somebody else's
    CAPTURE = "capture"  # the disk, as recorded traffic


ALLOW, MASK, REFUSE = "allow", "mask", "refuse"
DEFAULTS = {
    Destination.HOUSE: {"secrets": ALLOW, "personal": ALLOW},  # the text stays in the house, and the model may need it
    Destination.UPSTREAM: {"secrets": REFUSE, "personal": ALLOW},
    Destination.CAPTURE: {"secrets": MASK, "personal": ALLOW},
}


class Rules(Struct, frozen=True):
    """What holds for one caller and one place: the kinds that are masked, and those that are refused; whether what
    cannot be read is refused; whether what was masked is put back into the answer."""

    place: Destination
    masked: frozenset[str]
    refused: frozenset[str]
    unread: bool
    restore: bool

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds that are looked for."""
        return self.masked | self.refused

    def action(self, kind: str) -> str:
        """What is done with a kind."""
        return REFUSE if kind in self.refused else MASK if kind in self.masked else ALLOW

    @property
    def is_idle(self) -> bool:
        """Is there nothing to do?"""
        return not self.masked and not self.refused and not self.unread


def rules(settings: GuardSettings, caller: str, place: Destination) -> Rules:
    """The rules for a caller, by name."""
    own = settings.callers.get(caller)
    tables = [getattr(own, place) if own else None, getattr(settings, place)]
    actions = {kind: _action(kind, tables, DEFAULTS[place]) for kind in KINDS}
    restore = settings.restore if own is None or own.restore is UNSET else own.restore
    return Rules(
        place,
        frozenset(kind for kind, action in actions.items() if action == MASK),
        frozenset(kind for kind, action in actions.items() if action == REFUSE),
        settings.unread == REFUSE and place is not Destination.CAPTURE,
        restore,
    )


def _action(kind: str, tables: list[TreatmentSettings | None], default: Mapping[str, str]) -> str:
    group = "secrets" if kind in SECRETS else "personal"
    for table in tables:
        for name in (kind, group) if table else ():
            if (found := getattr(table, name)) is not UNSET:
                return found
    return default[group]
