"""A circuit breaker: after so many failures in a row nobody asks for a while; then one call is let through to see.

Source: Nygard, Release It!, "Circuit Breaker": closed, open, half-open.
"""

from __future__ import annotations

import time
from collections.abc import Callable

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half-open"


class Breaker:
    """Counts the failures of one upstream; ``clock`` gives seconds."""

    def __init__(self, failures: int, seconds: float, clock: Callable[[], float] = time.monotonic):
        self.failures = 0  # in a row
        self._most, self._seconds, self._clock = failures, seconds, clock
        self._opened_at: float | None = None
        self._probing = False

    @property
    def state(self) -> str:
        """Where it stands now."""
        if self._opened_at is None:
            return CLOSED
        return HALF_OPEN if self._clock() - self._opened_at >= self._seconds else OPEN

    def wait(self) -> float:
        """Seconds after which a call may be tried; 0: now."""
        if self._opened_at is None:
            return 0.0
        left = self._opened_at + self._seconds - self._clock()
        return max(left, 1.0 if self._probing else 0.0)

    def enter(self) -> None:
        """A call is tried. In half-open it is the one that sees."""
        self._probing = self._opened_at is not None

    def leave(self) -> None:
        """The call ended, and nothing can be told from it."""
        self._probing = False

    def answered(self) -> None:
        """The upstream answers; whether to the end, is not known yet."""
        self._probing, self._opened_at = False, None

    def succeeded(self) -> None:
        """It answered to the end."""
        self.answered()
        self.failures = 0

    def failed(self) -> None:
        """It did not."""
        self._probing = False
        self.failures += 1
        if self.failures >= self._most:
            self._opened_at = self._clock()
