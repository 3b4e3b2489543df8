"""A pattern that the text must match.

It is Python's own (`re`), which can take for ever over a few characters, and cannot be interrupted in its own process.
So it runs in one of its own, which is ended when time is up. A pattern without that danger would need another engine,
which knows neither look-around nor back-references, and reads some patterns otherwise than what people try theirs with.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from freehold.errors import BadTask
from freehold.names import shown
from freehold.scorers import base
from freehold.scorers.process import Ended, Order, Process
from freehold.types import Score

MEMORY = 256 << 20  # bytes


class Settings(base.Settings):
    """``pattern``, in Python's dialect; ``whole``: it must match the whole text, not a part of it. ``group``: what this
    group of it holds must be the same in the reference. ``seconds``: time for one text."""

    pattern: Annotated[str, Meta(min_length=1, max_length=10_000)]
    whole: bool = False
    ignore_case: bool = False
    multiline: bool = False
    dotall: bool = False
    group: int | str | None = None
    seconds: Annotated[float, Meta(gt=0, le=60)] = 2.0


class Regex(base.TextScorer):
    """1 where the pattern matches (and its group holds the same as in the reference), 0 elsewhere."""

    kind = "regex"

    def __init__(self, settings: Settings, files: dict[str, bytes], seal: str = "best"):
        super().__init__(settings, files)
        self.compares = settings.group is not None
        self.measures = (
            "The share of answers in which the task's pattern finds the same as in the reference."
            if self.compares
            else "The share of answers that the task's pattern matches."
        )
        names = ("ignore_case", "multiline", "dotall")
        flags = [name for name in names if getattr(settings, name)]
        order = Order(settings.pattern, "regex", MEMORY, seal, tuple(flags), settings.whole, settings.group)
        self._process = Process(order, settings.seconds)
        try:
            self._process.start()
        except Ended as error:
            raise BadTask(f"The scorer's pattern cannot be used: {error}", hint="Mend it.") from None

    def close(self) -> None:
        """End the process."""
        self._process.close()

    def _score_text(self, text: str, reference: str) -> Score:
        try:
            ours = self._process.ask({"text": text})["found"]
            theirs = self._process.ask({"text": reference})["found"] if self.compares else None
        except Ended as error:
            return base.failed(str(error))
        if self.compares and theirs is None:
            return base.failed("The pattern, or its group, finds nothing in the reference.")
        if ours is None or not self.compares:
            return base.yes_or_no(ours is not None)
        return base.yes_or_no(ours == theirs, answer=shown(ours), reference=shown(theirs))
