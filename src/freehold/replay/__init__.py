"""Replay: what a candidate makes of recorded calls, through the running gateway, as an application would ask it."""

from freehold.replay import judging
from freehold.replay.asker import Asker, NotAnswered, Told
from freehold.replay.candidate import NOT_SETTINGS, body, described, engine, is_drawn
from freehold.replay.grade import Means, Scorer, grade
from freehold.replay.run import Progress, Run, code_of, may_pass
from freehold.replay.totals import Totals, totals

__all__ = [
    "NOT_SETTINGS", "Asker", "Means", "NotAnswered", "Progress", "Run", "Scorer", "Told", "Totals", "body", "code_of",
    "described", "engine", "grade", "is_drawn", "judging", "may_pass", "totals",
]  # fmt: skip
