"""What can be done over the wire beside calling models: the bodies, and the paths that take them."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from freehold.api.base import Strict, Text


class Feedback(Strict):
    """What an application says of one of its calls; ``call`` is the x-request-id of its answer."""

    call: Text
    good: bool


class Move(Strict):
    """An alias that is to be moved back to what it pointed at before."""

    alias: Text
    act: Literal["rollback"]


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
ERASE = Act("/admin/traffic/erase", Erase, "Erase recorded calls; without `confirm`, count them")
EXPIRE = Act("/admin/traffic/expire", Expire, "Erase the recorded calls whose days are over")
EVERY = (FEEDBACK, MOVE, ERASE, EXPIRE)
