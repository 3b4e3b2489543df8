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


class Act(Struct, frozen=True):
    """A path that takes a body and does what it says."""

    path: str
    schema: type
    summary: str


FEEDBACK = Act("/admin/feedback", Feedback, "Say whether an answer was good, while its call is in a canary")
MOVE = Act("/admin/aliases", Move, "Move an alias back")
EVERY = (FEEDBACK, MOVE)
