"""Who may do what, and how much of it: actions, teams, limits, and how far a limit is used."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0, le=10**15)]
Money = Annotated[float, Meta(ge=0, le=1e12)]


class Action(StrEnum):
    """What a role may do or not; `policy.TABLE` says which. The value is what a refusal says of it."""

    CALL = "call models"
    TELL = "say what became of its own calls"
    OWN = "see its own calls in line, its own limits and what it has used of them"
    LOOK = "look at the state of the server"
    LEDGER = "read the ledger"
    AUDIT = "read and verify the audit chain"
    EXPORT = "export the audit chain"
    PEOPLE = "see who has keys, which teams there are and how their limits are used"
    MOVE = "move an alias"
    KEYS = "make and revoke keys"
    LIMITS = "manage teams and limits"
    ERASE = "erase recorded calls"


class Subject(Struct, frozen=True):
    """Whom a limit is for: ``kind`` is ``key`` or ``team``, ``id`` the key's id or the team's name."""

    kind: str
    id: str


class Limits(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How much one key or one team may have. None: nothing is said, and for a key the settings' ``callers`` hold; 0, or
    no models: no limit. ``max_tokens`` is the most that one call may ask for in its answer. A minute is any 60 seconds;
    days and months are those of UTC. Money is in ``cost.currency``."""

    models: tuple[str, ...] | None = None
    calls_per_minute: Count | None = None
    calls_at_once: Count | None = None
    tokens_per_minute: Count | None = None
    max_tokens: Count | None = None
    tokens_per_day: Count | None = None
    tokens_per_month: Count | None = None
    money_per_day: Money | None = None
    money_per_month: Money | None = None

    @property
    def has_tokens(self) -> bool:
        """Is there a limit on tokens over time?"""
        return bool(self.tokens_per_minute or self.tokens_per_day or self.tokens_per_month)

    @property
    def has_money(self) -> bool:
        """Is there a budget of money?"""
        return bool(self.money_per_day or self.money_per_month)

    @property
    def has_budget(self) -> bool:
        """Is there one whose use must be known from the ledger?"""
        return bool(self.tokens_per_day or self.tokens_per_month) or self.has_money


class Allowance(Struct, frozen=True):
    """The limits of one key or team as the database has them, and who set them last."""

    subject: Subject
    limits: Limits
    at: float
    by: str


class Team(Struct, frozen=True):
    """A team. ``members`` are the names of its live keys."""

    name: str
    created_at: float
    members: tuple[str, ...] = ()


class Used(Struct, frozen=True):
    """How far one limit is used: ``used`` of ``most``, and ``held`` more, reserved by calls in hand. ``resets_in`` is
    the number of seconds until all of it is there again, None where that takes nothing but the end of a call."""

    limit: str
    most: float
    used: float
    held: float = 0.0
    resets_in: float | None = None

    @property
    def left(self) -> float:
        """What a call can have now."""
        return max(self.most - self.used - self.held, 0.0)
