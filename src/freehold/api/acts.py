"""What can be done over the wire beside calling models: the bodies, and the paths that take them."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from freehold.api.base import Strict, Text


class Feedback(Strict):
    """What an application says of one of its calls; ``call`` is the x-request-id of its answer."""

    call: Text
    good: bool


class Move(Strict):
    """An alias that is to be moved back to what it pointed at before."""

    alias: Text
    act: Literal["rollback"]


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


class Act(Struct, frozen=True):
    """A path that takes a body and does what it says."""

    path: str
    schema: type
    summary: str


FEEDBACK = Act("/admin/feedback", Feedback, "Say whether an answer was good, while its call is in a canary")
MOVE = Act("/admin/aliases", Move, "Move an alias back")
KEYS = Act("/admin/keys", Keys, "Make a key, which is shown this once, or revoke one")
TEAMS = Act("/admin/teams", Teams, "Make or remove a team, or move a key into one or out of it")
LIMITS = Act("/admin/limits", SetLimits, "Set or unset limits of a key or a team")
EVERY = (FEEDBACK, MOVE, KEYS, TEAMS, LIMITS)
