"""The Engine protocol: what Freehold asks of anything that answers calls.

An engine takes a checked `Request` and gives a `Reply`, whose bytes are in the request's own wire format
(an engine that speaks another translates). It counts tokens, and its counts are the ones that are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from freehold.types import EngineState, Manifest, Request, Usage


class Reply(Protocol):
    """An answer on its way. ``media_type`` is known from its first bytes; ``usage`` grows as they are read and is
    final at the end, or when it is closed. ``left_the_house``: was the request sent to an upstream?"""

    media_type: str

    @property
    def left_the_house(self) -> bool:
        """Was any of the request sent to an upstream, or may it have been?"""

    @property
    def usage(self) -> Usage:
        """The engine's own token counts so far."""

    @property
    def complete(self) -> bool:
        """Do the bytes that have passed make a whole answer?"""

    @property
    def failure(self) -> str:
        """What the engine said went wrong after it had begun to answer; empty if nothing did."""

    async def read(self) -> bytes:
        """The next bytes, as they come; none at the end.

        Raises:
            EngineFailed: the engine died, or broke off.
            BadRequest: it refuses the request, and its reason is the message.
            ContextExceeded: the prompt does not fit.
        """

    async def close(self) -> None:
        """Be done with it. Before its end this abandons the work in the engine, and ``usage`` is what was done."""


class Engine(Protocol):
    """One model, ready to answer ``slots`` calls at once, in ``need`` bytes of memory (an estimate)."""

    model: Manifest
    slots: int
    need: int

    def serves(self, model: Manifest) -> bool:
        """Does it answer as this model: its own, or an adapter that it has loaded?"""

    @property
    def ready(self) -> bool:
        """Does it take calls now?"""

    async def start(self, on_ready: Callable[[], None]) -> None:
        """Bring the model up. ``on_ready`` is called whenever it takes calls, again after each restart.

        Raises:
            BadModel, CannotDo: it will not come.
        """

    async def stop(self) -> None:
        """Take it down; calls in flight end with EngineFailed."""

    def state(self) -> EngineState:
        """Where it is in its life."""

    def check(self, request: Request) -> None:
        """Raises what `ask` would raise for the request itself, whatever the engine is doing."""

    def ask(self, request: Request, model: Manifest, on_done: Callable[[], None]) -> Reply:
        """The engine's reply to a request, which it gets when the reply is read; whoever has it closes it. ``model``
        is the one to answer as: see `serves`. ``on_done`` is called when the engine has said its last, which may be
        long before the client has read it.

        Raises:
            EngineUnready: it is starting or restarting, or has not loaded that model.
            BadRequest: no engine of this kind could answer it.
        """
