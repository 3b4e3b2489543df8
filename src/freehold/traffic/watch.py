"""Look for secrets and personal data in texts, in other processes where there are many: it takes longer than all the
rest of an import."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

from freehold.errors import CannotDo


class Hit(Protocol):
    """Something sensitive in a text, of a kind."""

    kind: str


Look = Callable[[str], Iterable[Hit]]


class Watch:
    """Which kinds of what is sensitive each text holds. ``look`` must be a module's own function where there are
    ``workers``. ``ahead`` says how many batches may be under way before the first is asked for."""

    def __init__(self, look: Look | None, workers: int = 0):
        self._look, self.ahead = look, 2 * workers if look else 0
        context = multiprocessing.get_context("spawn")  # a fork would take the database's connections along
        self._pool = ProcessPoolExecutor(workers, context) if look and workers else None

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def begin(self, texts: list[str]) -> Callable[[], list[frozenset[str]]]:
        """Begin with some texts; what is returned gives their kinds, one after the other."""
        if self._look is None:
            return lambda: [frozenset()] * len(texts)
        if self._pool is None:
            return lambda: kinds(self._look, texts)
        asked = self._pool.submit(kinds, self._look, texts)
        return lambda: _answer(asked)


def _answer(asked: Future[list[frozenset[str]]]) -> list[frozenset[str]]:
    try:
        return asked.result()
    except BrokenProcessPool:
        raise CannotDo(
            "A process that looks for secrets and personal data was ended, perhaps for want of memory.",
            hint="Give the same command again: it goes on where it stopped.",
        ) from None


def kinds(look: Look, texts: list[str]) -> list[frozenset[str]]:
    """The kinds of what each text holds."""
    return [frozenset(str(hit.kind) for hit in look(text)) for text in texts]
