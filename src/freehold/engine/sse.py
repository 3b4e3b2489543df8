"""Server-sent events as they come from an engine: cut anywhere on the way, whole again here.

Source: the HTML standard's event streams, of which engines use the ``event`` and ``data`` lines.
"""

from __future__ import annotations

DONE = b"[DONE]"


class Events:
    """Takes in bytes as they come and gives the data of each event, as soon as its line is complete."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b""

    def read(self, piece: bytes) -> list[bytes]:
        """The data lines that these bytes complete."""
        lines = (self._tail + piece if self._tail else piece).split(b"\n")
        self._tail = lines.pop()
        return [line[6:] for line in lines if line.startswith(b"data: ")]
