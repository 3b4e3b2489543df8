"""Failed log-ins as events: a few a minute, so that strangers cannot fill the disk, and the others as a number."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from freehold.errors import Unaccountable

FAILED = "login.failed"
PER_MINUTE = 6


class Knocks:
    """Counts failed log-ins and enters some. ``record`` writes an event, as `Ledger.record` does; it is called in a
    thread of its own, so that nobody who calls with a good key waits for a stranger."""

    def __init__(self, record: Callable[..., Any]):
        self._record = record
        self._room, self._at = float(PER_MINUTE), time.monotonic()
        self._others = 0
        self._thread = ThreadPoolExecutor(1, "knocks")

    def note(self, why: str, subject: str, attempt: str) -> None:
        """A log-in failed: why, with whose key if that is known, and the salted hash of the key that was sent."""
        now = time.monotonic()
        self._room = min(float(PER_MINUTE), self._room + (now - self._at) * PER_MINUTE / 60)
        self._at = now
        if self._room < 1:
            self._others += 1
            return
        self._room -= 1
        self._thread.submit(self._write, subject, {"why": why, "attempt": attempt, "others": self._taken()})

    def close(self) -> None:
        """Enter the number of those that were left out, and end."""
        if others := self._taken():
            self._thread.submit(self._write, "unknown", {"why": "several", "others": others})
        self._thread.shutdown()

    def _taken(self) -> int:
        """How many were left out since the last event."""
        others, self._others = self._others, 0
        return others

    def _write(self, subject: str, detail: dict[str, Any]) -> None:
        try:
            self._record(FAILED, subject, actor="somebody", detail=detail)
        except Unaccountable:  # calls are refused meanwhile, which says it louder
            self._others += detail["others"] + ("attempt" in detail)
