"""An answer on its way from the engine to the client: heard as it was said, passed on with what was masked in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from freehold.engine.base import Reply
from freehold.types import Usage

if TYPE_CHECKING:
    from freehold.guard.restore import Restorer

_STREAM = "text/event-stream"


class Tap(Protocol):
    """Takes in an answer on its way out."""

    def take(self, piece: bytes) -> None: ...


class Overheard:
    """A `base.Reply` over another. ``tap`` hears what the engine says, placeholders and all; ``restorer`` puts back
    what they stand for."""

    __slots__ = ("_ended", "_reply", "_restorer", "_tap")

    def __init__(self, reply: Reply, tap: Tap | None, restorer: Restorer | None):
        self._reply, self._tap, self._restorer = reply, tap, restorer
        self._ended = False

    @property
    def media_type(self) -> str:
        """See `base.Reply`."""
        return self._reply.media_type

    @property
    def left_the_house(self) -> bool:
        """See `base.Reply.left_the_house`."""
        return self._reply.left_the_house

    @property
    def usage(self) -> Usage:
        """See `base.Reply.usage`."""
        return self._reply.usage

    @property
    def complete(self) -> bool:
        """See `base.Reply.complete`."""
        return self._reply.complete

    @property
    def failure(self) -> str:
        """See `base.Reply.failure`."""
        return self._reply.failure

    async def read(self) -> bytes:
        """See `base.Reply.read`. Bytes that may yet turn out to be a placeholder wait for those that follow."""
        while not self._ended:
            piece = await self._reply.read()
            if piece and self._tap is not None:
                self._tap.take(piece)
            self._ended = not piece
            if passed := self._passed(piece):
                return passed
        return b""

    async def close(self) -> None:
        """See `base.Reply.close`."""
        await self._reply.close()

    def _passed(self, piece: bytes) -> bytes:
        if self._restorer is None:
            return piece
        if not self._reply.media_type.startswith(_STREAM):
            return self._restorer.whole(piece) if piece else b""
        return self._restorer.read(piece) if piece else self._restorer.rest()
