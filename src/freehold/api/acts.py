"""What can be done over the wire beside calling models: the bodies, and the paths that take them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from freehold.api.base import Strict, Text


class Feedback(Strict):
    """What an application says of one of its calls; ``call`` is the x-request-id of its answer."""

    call: Text
    good: bool


class Move(Strict):
    """An alias that is to be moved back to what it pointed at before."""

    alias: Text
    act: Literal["rollback"]


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
EVERY = (FEEDBACK, MOVE, EVENTS, WALK, EXPORT)
