"""What can be done over the wire beside calling models: the bodies, and the paths that take them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from freehold.api.base import Strict, Text


class Feedback(Strict):
    """What an application says of one of its calls; ``call`` is the x-request-id of its answer."""

    call: Text
    good: bool


class Move(Strict):
    """An alias that is to be moved back to what it pointed at before."""

    alias: Text
    act: Literal["rollback"]


class Sums(Strict):
    """What the calls of a time come to, with what they cost, a row for each key, team and so on. ``since`` and
    ``until`` are days or times (ISO 8601, of UTC where they name no zone): from the beginning of the month until now,
    where they are not said."""

    by: Literal["key", "team", "model", "alias", "day"] = "key"
    since: Text | None = None
    until: Text | None = None


class Costs(Strict):
    """What a task's recorded calls cost, owned and rented: for a day with so many calls, or as their times show."""

    task: Text
    calls_per_day: Annotated[float, Meta(gt=0, le=1e12)] | None = None


class Trial(Strict):
    """A text that the guard is to be tried on: as a message of a caller, on its way to an engine of the house, to an
    upstream, or to the disk."""

    text: Annotated[str, Meta(max_length=100_000)]
    to: Literal["house", "upstream", "capture"] = "house"
    caller: str = ""


Number = Annotated[int, Meta(ge=1, le=1 << 62)]


class Events(Strict):
    """Events of the audit chain, from a number on; ``calls``: with those that settle calls."""

    since: Number = 1
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    calls: bool = False


class Walk(Strict):
    """The whole chain is to be walked."""


class Export(Strict):
    """The chain is to be handed out, from an event on."""

    since: Number = 1


class Keys(Strict):
    """A key that is to be made, for a role, in a team and with an end if they are named; or one to be revoked.
    ``expires_at`` is in seconds since 1970."""

    act: Literal["create", "revoke"]
    name: Text
    role: Literal["admin", "operator", "member", "auditor"] = "member"
    team: str = ""
    expires_at: float | None = None


class Teams(Strict):
    """A team that is to be made or removed, or a key, by name or id, that is to be moved into it or out of it."""

    act: Literal["add", "remove", "join", "leave"]
    team: Text
    key: str = ""


class SetLimits(Strict):
    """Limits of one key, by name or id, or of one team: those in ``limits`` are changed, and null leaves one to the
    default again; ``unset`` does so with all of them."""

    act: Literal["set", "unset"]
    key: str = ""
    team: str = ""
    limits: dict[str, int | float | list[str] | None] = field(default_factory=dict)


class Erase(Strict):
    """Recorded calls that are to go: of a task, of a caller, from before a time (ISO 8601); all of what is not said.
    Without ``confirm`` they are counted."""

    task: Text | None = None
    caller: Text | None = None
    before: Text | None = None
    confirm: bool = False


class Expire(Strict):
    """The recorded calls whose days are over."""


class Act(Struct, frozen=True):
    """A path that takes a body and does what it says."""

    path: str
    schema: type
    summary: str


FEEDBACK = Act("/admin/feedback", Feedback, "Say whether an answer was good, while its call is in a canary")
MOVE = Act("/admin/aliases", Move, "Move an alias back")
EVENTS = Act("/admin/audit/list", Events, "Events of the audit chain, oldest first")
WALK = Act("/admin/audit/verify", Walk, "Walk the audit chain, and the calls with it")
EXPORT = Act("/admin/audit/export", Export, "The audit chain as lines of JSON, signed, for others to check")
SUMS = Act("/admin/ledger", Sums, "Calls, tokens and cost in all, for each key, team, model, alias or day")
COSTS = Act(
    "/admin/cost", Costs, "What a task's recorded calls cost, owned and rented, and from when on owning is cheaper"
)
TRIAL = Act("/admin/guard", Trial, "What the guard would make of a text")
KEYS = Act("/admin/keys", Keys, "Make a key, which is shown this once, or revoke one")
TEAMS = Act("/admin/teams", Teams, "Make or remove a team, or move a key into one or out of it")
LIMITS = Act("/admin/limits", SetLimits, "Set or unset limits of a key or a team")
ERASE = Act("/admin/traffic/erase", Erase, "Erase recorded calls; without `confirm`, count them")
EXPIRE = Act("/admin/traffic/expire", Expire, "Erase the recorded calls whose days are over")
EVERY = (FEEDBACK, MOVE, SUMS, COSTS, EVENTS, WALK, EXPORT, TRIAL, KEYS, TEAMS, LIMITS, ERASE, EXPIRE)
