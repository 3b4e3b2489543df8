"""A candidate's answers to recorded calls, asked for and kept as they come, so that a run can end anywhere.

Answers are kept at the latest a second after they came, or when there are sixteen: a process that is killed loses
no more than that, and the next run with the same candidate asks for what is missing alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from freehold.errors import BadModel, CannotDo, NotRunning
from freehold.replay import candidate as candidates
from freehold.replay.asker import Asker, NotAnswered, Told
from freehold.results import Results
from freehold.types import Candidate, Replayed, Sample

KEEP_CALLS, KEEP_SECONDS = 16, 1.0
_TRIES, _BUSY_TRIES = 3, 8  # of a call that fails; of one that the server has no room for
_PAUSE, _LONGEST_PAUSE = 0.5, 60.0  # seconds before the second try, twice as long before each further one
_IN_A_ROW = 20  # calls that failed one after the other: the next would fail too
_SENTENCE = 500  # characters of a reason
_RESUME = "What was answered is kept: give the same command, and it goes on where it stopped."
_PASSING = frozenset(
    ("engine_failed", "engine_unready", "failed", "internal_error", "ledger_unavailable", "overloaded", "queue_full",
     "rate_limit_exceeded", "request_timeout", "stopping", "timed_out", "unreachable")
)  # fmt: skip


class Progress(Struct):
    """How far a run is. ``began`` is on the monotonic clock; ``prompt`` and ``completion`` are tokens.

    ``shared`` counts the looks at which the model had more calls in hand than this run's: others', which go through
    the engine in one batch with these.
    """

    total: int
    began: float
    done: int = 0
    prompt: int = 0
    completion: int = 0
    errors: dict[str, int] = {}
    shared: int = 0

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float | None:
        """Seconds until it is done, as it goes; None before there is an answer."""
        return self.seconds / self.done * (self.total - self.done) if self.done else None


Check = Callable[[dict[str, Any]], None]  # raises CannotDo for a status (/admin/status) that does not fit the candidate


class Run:
    """One candidate's way through some calls of a task. ``check`` is shown the server's status before answers are kept,
    ``tell`` how far it is after each of them."""

    def __init__(
        self, asker: Asker, results: Results, task: str, candidate: Candidate, *, at_once: int = 1,
        check: Check = lambda status: None, tell: Callable[[Progress], None] = lambda progress: None,
    ):  # fmt: skip
        self._asker, self._results, self._task, self._candidate = asker, results, task, candidate
        self._at_once, self._check, self._tell = at_once, check, tell
        self._unkept: list[tuple[Replayed, str]] = []  # each with who answered, where the gateway says it
        self._news, self._full = asyncio.Event(), asyncio.Event()
        self._failed_in_a_row, self._engine_seen, self._over = 0, False, False
        self.progress = Progress(0, time.monotonic())

    async def run(self, samples: Iterator[Sample], total: int) -> Progress:
        """Ask for the answer to each of the samples, and keep it.

        Raises:
            StoreFailed: answers cannot be kept.
            NotRunning: the server has gone.
            BadModel: the name belongs to another model by now.
            CannotDo: the server does not let the owner in, or nothing is answered any more.
        """
        self.progress = Progress(total, time.monotonic())
        self._look(await self._status())
        try:
            async with asyncio.TaskGroup() as group:
                keeper = group.create_task(self._keep_as_they_come())
                workers = [group.create_task(self._work(samples)) for _ in range(self._at_once)]
                await asyncio.wait(workers)
                self._over = True
                keeper.cancel()
        except* CannotDo as stopped:
            raise _first(stopped) from None
        finally:
            await self._keep()
        return self.progress

    async def _work(self, samples: Iterator[Sample]) -> None:
        for sample in samples:
            replayed, model = await self._one(sample)
            self._unkept.append((replayed, model))
            self._news.set()
            if len(self._unkept) >= KEEP_CALLS:
                self._full.set()
            self._count(replayed)

    async def _one(self, sample: Sample) -> tuple[Replayed, str]:
        """What came of one sample, at the last try."""
        body = candidates.body(sample, self._candidate.name, self._candidate.settings)
        for attempt in range(1, _BUSY_TRIES + 1):
            began = time.perf_counter()
            try:
                told = await self._asker.ask(sample.kind, body)
            except NotAnswered as error:
                if not error.passing or attempt >= (_BUSY_TRIES if error.status in (429, 503) else _TRIES):
                    await self._must_go_on(error)
                    return _failed(sample, error, (time.perf_counter() - began) * 1000), ""
                await asyncio.sleep(_pause(error, attempt))
            else:
                self._failed_in_a_row = 0
                self._must_be_the_candidate(told)
                return _answered(sample, told), told.model
        raise AssertionError("every last try returns")

    async def _must_go_on(self, error: NotAnswered) -> None:
        """Raises what ends the run, where the error is not this one call's."""
        if error.status in (401, 403, 404):
            raise CannotDo(f"The server refuses every such call: {error.message}", hint=_RESUME)
        if error.status == 0 and error.code == "unreachable":
            await self._status()
        self._failed_in_a_row = self._failed_in_a_row + 1 if error.passing else 0
        if self._failed_in_a_row >= _IN_A_ROW:
            raise CannotDo(
                f"{_IN_A_ROW} calls in a row failed, the last one so: {error.message}",
                hint="See 'freehold status'. They are kept as errors; --retry-errors asks them again.",
            )

    def _must_be_the_candidate(self, told: Told) -> None:
        name, _, digest = told.model.rpartition("@")
        if told.model and self._candidate.digest and digest != self._candidate.digest:
            raise _another(self._candidate, digest)
        if told.model and not self._candidate.digest and name != self._candidate.name:
            raise BadModel(
                f"{self._candidate.name!r} is an alias, and {told.model} answers for it.",
                hint="Give the upstream's model another name here, in its table 'names', and replay that one.",
            )

    def _count(self, replayed: Replayed) -> None:
        now = self.progress
        now.done += 1
        now.prompt += replayed.usage.prompt
        now.completion += replayed.usage.completion
        if replayed.error:
            now.errors = dict(Counter(now.errors) + Counter([code_of(replayed.error)]))
        self._tell(now)

    async def _keep_as_they_come(self) -> None:
        """Until it is cancelled, or all is over: before Python 3.12 ``wait_for`` loses a cancellation that comes in the
        very moment in which what it waits for does."""
        while not self._over:
            await self._news.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._full.wait(), KEEP_SECONDS)
            await self._keep()

    async def _keep(self) -> None:
        """Keep what came. Who gave an answer is known from the answer, or else from the server's status afterwards;
        where neither says it, it is not kept. With what settings the engine runs is known once it has answered."""
        batch = list(self._unkept)
        if not batch:
            return
        nameless = self._candidate.digest and any(replayed.answer and not model for replayed, model in batch)
        if nameless or not self._engine_seen:
            look = self._look if nameless else self._check
            look(await self._status())
            self._engine_seen = any(replayed.answer for replayed, _ in batch)
        with contextlib.suppress(NotAnswered):
            self.progress.shared += await self._asker.answering(self._candidate.name) > self._at_once
        self._results.put_answers(self._task, self._candidate.key, [replayed for replayed, _ in batch])
        del self._unkept[: len(batch)]
        if not self._unkept:
            self._news.clear()
        self._full.clear()

    async def _status(self) -> dict[str, Any]:
        try:
            return await self._asker.status()
        except NotAnswered as error:
            if error.status:
                raise CannotDo(f"The server does not say how it is: {error.message}", hint=_RESUME) from None
            raise NotRunning("The server has stopped, or does not answer.", hint=_RESUME) from None

    def _look(self, status: dict[str, Any]) -> None:
        """Raises where the server would have somebody else answer."""
        named = next((model for model in status["models"] if model["name"] == self._candidate.name), None)
        if self._candidate.digest and (named is None or named["digest"] != self._candidate.digest):
            raise _another(self._candidate, named["digest"] if named else "no model")
        self._check(status)


def code_of(error: str) -> str:
    """The code in a `Replayed.error`, which is 'code: sentence'."""
    return error.partition(":")[0]


def may_pass(replayed: Replayed) -> bool:
    """Is this an error that another try may not meet?"""
    return code_of(replayed.error) in _PASSING


def _answered(sample: Sample, told: Told) -> Replayed:
    return Replayed(sample.id, told.answer, "", told.usage, told.first_token_ms, told.total_ms, time.time())


def _failed(sample: Sample, error: NotAnswered, ms: float) -> Replayed:
    code = "failed" if error.passing and error.code not in _PASSING else error.code
    return Replayed(sample.id, None, f"{code}: {error.message[:_SENTENCE]}", total_ms=ms, at=time.time())


def _pause(error: NotAnswered, attempt: int) -> float:
    wanted = error.retry_after if error.retry_after is not None else _PAUSE * 2 ** (attempt - 1)
    return min(wanted, _LONGEST_PAUSE)


def _another(candidate: Candidate, digest: str) -> BadModel:
    return BadModel(
        f"{candidate.name!r} was {candidate.digest}, and is {digest} by now.",
        hint="Give the command again: another model's answers are kept apart.",
    )


def _first(group: BaseExceptionGroup) -> BaseException:
    """The first error in a group, however deep."""
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
