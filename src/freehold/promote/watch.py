"""The two sides of a canary, compared while it runs; where the candidate is shown worse, the canary is ended.

A call goes wrong where it fails or is refused by the side that should answer, where its answer does not keep the task's
own rule (`scorers.alone`), or where the application says so. A conversation counts once, by its first call: turns of
one conversation are no evidence of their own. There are two tests, each with half of the chance of a false alarm: one
of what is known when that call has ended, and one of what is known some time later, with the application's word on any
call that the conversation had until then.

On the way of a call nothing happens but that its answer is put aside. All else is done in a thread of its own, which
looks at most once a second; whatever happens there, the application has its answer.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from freehold import log
from freehold.auth import OWNER
from freehold.errors import Forbidden, FreeholdError, NotFound, Stopping, Unaccountable
from freehold.promote.facts import TESTS, evidence, level
from freehold.promote.move import Desk, give_up
from freehold.said import Unfit
from freehold.stats import sequential
from freehold.types import Aim, Alias, Answer, Arm, Caller, Kind, Outcome, Sample, Settlement, Trial

if TYPE_CHECKING:
    from freehold.scorers import Scorer

LOOK = 1.0  # seconds between looks, at least
_IDLE = 5.0  # seconds, where nothing happens
LONGEST = 8 << 20  # bytes of one answer; a longer one keeps no rule
ROOM = 64 << 20  # bytes of answers that wait to be judged
MOST = 100_000  # conversations that are remembered as counted
ACTOR = "canary"
_OURS = frozenset({Unaccountable.code, Stopping.code, Forbidden.code})  # no model's doing
_OVERHEAD = 512  # bytes of a call that waits, over those of its answer


class Eye:
    """Sees what becomes of one call (`answer.Eye`)."""

    __slots__ = ("_aim", "_call_id", "_caller", "_kind", "_pieces", "_size", "_watch")

    def __init__(self, watch: Watch, call_id: str, caller: Caller, kind: Kind, aim: Aim, *, reads: bool):
        self._watch, self._call_id, self._caller, self._kind, self._aim = watch, call_id, caller.id, kind, aim
        self._pieces: list[bytes] | None = [] if reads else None
        self._size = 0

    def take(self, piece: bytes) -> None:
        """The next bytes of the answer."""
        if self._pieces is None:
            return
        self._size += len(piece)
        if self._size <= LONGEST:
            self._pieces.append(piece)
        else:
            self._pieces.clear()

    def settled(self, settlement: Settlement) -> None:
        """The call is over. Neither waits nor raises."""
        went_wrong = settlement.outcome in (Outcome.FAILED, Outcome.REFUSED)
        if settlement.outcome is Outcome.ABANDONED or settlement.error in _OURS:
            return
        content = None
        if not went_wrong and self._pieces is not None:
            went_wrong, content = self._size > LONGEST, b"".join(self._pieces)
        seen = _Seen(self._call_id, self._caller, self._kind, self._aim, went_wrong, content, time.monotonic())
        self._watch.put(seen)


class _Seen(Struct, eq=False):
    """A call that is over. ``content`` is its answer, to be held against the rule, if there is one; ``complained`` what
    the application said of it."""

    call_id: str
    caller: str
    kind: Kind
    aim: Aim
    went_wrong: bool
    content: bytes | None
    at: float
    complained: bool = False


class _Conversation(Struct, eq=False):
    """A conversation that was counted, as long as the application may still complain."""

    canary: str
    is_candidate: bool
    went_wrong: bool
    due: float
    calls: list[_Seen]
    is_open: bool = True


class _News(Struct):
    """What is to be written down of one canary: counts by side, and observations of the two tests."""

    arms: dict[bool, Arm]
    missed: int = 0
    own: list[tuple[bool, bool]] = []
    told: list[tuple[bool, bool]] = []

    def add(self, is_candidate: bool, arm: Arm) -> None:
        self.arms[is_candidate] = _sum(self.arms[is_candidate], arm)


class Watch:
    """Watches every canary that runs. ``rule`` makes what a task's answers are held to without a reference, or None;
    ``hear`` reads the answer in a response, None where it holds no words; ``seconds`` is how long the application may
    take to complain."""

    def __init__(
        self, desk: Desk, rule: Callable[[str], Scorer | None], hear: Callable[[Kind, bytes], Answer | None],
        seconds: float,
    ):  # fmt: skip
        self._desk, self._rule, self._hear, self._seconds = desk, rule, hear, seconds
        self._rules: dict[str, Scorer | None] = {}  # by the canary's id
        self._waiting: list[_Seen] = []
        self._size = 0
        self._missed: dict[str, int] = {}  # by the canary's id
        self._words: list[tuple[Aim, int]] = []  # complaints, and those taken back
        self._calls: dict[str, _Seen] = {}  # by the call's id, as long as something may be said of it
        self._ends: deque[_Seen] = deque()  # the same, by time
        self._taken: deque[_Seen] = deque()  # to be judged in this round
        self._open: deque[_Conversation] = deque()  # by time
        self._counted: dict[tuple[str, int], _Conversation] = {}
        self._news: dict[str, _News] = {}
        self._looked: set[str] = set()
        self._lock, self._call, self._stop = threading.Lock(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="canary", daemon=True)

    def start(self) -> None:
        """Begin, with a look at what an earlier run may have left undone."""
        self._call.set()
        self._thread.start()

    def stop(self, seconds: float = 10.0) -> None:
        """Write down what is known, as far as that can be done in so many seconds."""
        self._stop.set()
        self._call.set()
        self._thread.join(seconds)

    def eye(self, call_id: str, caller: Caller, kind: Kind, aim: Aim) -> Eye | None:
        """What watches a call of a canary; None for the owner's own, which are no traffic."""
        if caller.id == OWNER:
            return None
        return Eye(self, call_id, caller, kind, aim, reads=self._rules.get(aim.canary, True) is not None)

    def put(self, seen: _Seen) -> None:
        """Let a call wait to be judged; where there is no room, it does not count."""
        size = _OVERHEAD + len(seen.content or b"")
        with self._lock:
            if self._size + size > ROOM:
                self._missed[seen.aim.canary] = self._missed.get(seen.aim.canary, 0) + 1
                return
            self._size += size
            self._waiting.append(seen)
            self._calls[seen.call_id] = seen
            self._ends.append(seen)
        self._call.set()

    def feedback(self, caller: Caller, call_id: str, *, good: bool) -> None:
        """What the application says of one of its own calls; its last word counts.

        Raises:
            NotFound: no call of this caller's with that id was in a canary a moment ago.
        """
        with self._lock:
            seen = self._calls.get(call_id)
            if seen is None or seen.caller != caller.id:
                raise NotFound(
                    f"No call {call_id[:64]!r} of yours was in a canary during the last {self._seconds:g} s.",
                    hint="Send the x-request-id of an answer, soon after it.", param="call",
                )  # fmt: skip
            if seen.complained != (not good):
                seen.complained = not good
                self._words.append((seen.aim, -1 if good else 1))
                self._call.set()

    # in the thread

    def _work(self) -> None:
        is_last = False
        while not is_last:
            self._call.wait(LOOK if self._open else _IDLE)
            self._call.clear()
            is_last, began = self._stop.is_set(), time.monotonic()
            try:
                self._round(began)
            except FreeholdError as error:
                log.note(f"A canary cannot be looked at now: {error.message}")
            except Exception as error:  # noqa: BLE001 - what nobody foresaw does not end all looking
                log.note(f"A canary cannot be looked at now: an unexpected fault, {type(error).__name__}")
            self._stop.wait(max(0.0, began + LOOK - time.monotonic()))
        for rule in self._rules.values():
            if rule is not None:
                rule.close()

    def _round(self, now: float) -> None:
        """Judge what has come, and look at every canary of which there is news, or that was never looked at."""
        self._taken.extend(self._take())  # first: whatever canary a call was in is in the database since
        running = {alias.canary.id: alias for alias in self._desk.aliases.every() if alias.canary}
        self._make_rules(running)
        while self._taken:
            seen = self._taken.popleft()
            if seen.aim.canary in running:
                self._judge(seen)
        self._close(now)
        for canary, alias in running.items():
            if canary in self._news or canary not in self._looked:
                self._look(alias)
        for canary in self._news.keys() - running.keys():
            del self._news[canary]

    def _take(self) -> Sequence[_Seen]:
        """What has come since the last time; what was said and missed is noted down."""
        with self._lock:
            taken, self._waiting, self._size = self._waiting, [], 0
            words, self._words = self._words, []
            missed, self._missed = self._missed, {}
        for aim, change in words:
            self._of(aim.canary).add(aim.candidate, Arm(complaints=change))
        for canary, count in missed.items():
            self._of(canary).missed += count
        return taken

    def _judge(self, seen: _Seen) -> None:
        """Did it go wrong? The first call of a conversation counts for it; later ones may still be complained of."""
        rule = self._rules.get(seen.aim.canary)
        if seen.content is not None and rule is not None and not seen.went_wrong:
            seen.went_wrong = not self._keeps(rule, seen)
        seen.content = None
        news, is_candidate = self._of(seen.aim.canary), seen.aim.candidate
        news.add(is_candidate, Arm(calls=1, went_wrong=int(seen.went_wrong)))
        key = (seen.aim.canary, seen.aim.conversation)
        if known := self._counted.get(key):
            if known.is_open and known.is_candidate == is_candidate:
                known.calls.append(seen)
            return
        news.own.append((is_candidate, seen.went_wrong))
        found = _Conversation(seen.aim.canary, is_candidate, seen.went_wrong, seen.at + self._seconds, [seen])
        self._counted[key] = found
        self._open.append(found)
        while len(self._counted) > MOST:
            del self._counted[next(iter(self._counted))]

    def _keeps(self, rule: Scorer, seen: _Seen) -> bool:
        """Does the answer keep the task's rule?"""
        try:
            answer = self._hear(seen.kind, seen.content)
        except Unfit:
            return False
        return answer is None or rule.score(Sample(seen.call_id, {}), answer, Answer()).value >= 1

    def _close(self, now: float) -> None:
        """Conversations of which nothing more can be said are counted with what was said."""
        while self._open and (self._open[0].due <= now or len(self._open) > MOST):
            found = self._open.popleft()
            went_wrong = found.went_wrong or any(seen.complained for seen in found.calls)
            self._of(found.canary).told.append((found.is_candidate, went_wrong))
            found.is_open = False
            found.calls.clear()
        with self._lock:
            while self._ends and (self._ends[0].at + self._seconds <= now or len(self._ends) > MOST):
                self._calls.pop(self._ends.popleft().call_id, None)

    def _look(self, alias: Alias) -> None:
        """Write the news down; end the canary where its candidate is shown worse. What cannot be written is kept."""
        canary = alias.canary
        news = self._of(canary.id)
        trial = self._desk.aliases.count(canary.id, lambda trial: _with(trial, news))
        del self._news[canary.id]
        self._looked.discard(canary.id)
        if trial is not None:
            self._end_if_worse(alias, trial)
        self._looked.add(canary.id)

    def _end_if_worse(self, alias: Alias, trial: Trial) -> None:
        canary, alpha = trial.canary, level(trial.canary)
        for test in TESTS:
            found = evidence(trial, test)
            if not sequential.is_worse(found, alpha):
                continue
            above, _ = sequential.bounds(found, alpha)
            detail = {"test": test, "tolerance": canary.tolerance, "alpha": canary.alpha, "state": getattr(trial, test)}
            if give_up(self._desk, canary, detail, ACTOR):
                more = canary.tolerance if above is None else above
                log.note(
                    f"The canary of {canary.target.model} for {canary.alias!r} is rolled back: it goes wrong oftener "
                    f"than {alias.target.model} by more than {more * 100:g} points. 'freehold audit list' says more."
                )
                return

    def _make_rules(self, running: dict[str, Alias]) -> None:
        for canary in self._rules.keys() - running.keys():
            rule = self._rules.pop(canary)
            if rule is not None:
                rule.close()
        for canary, alias in running.items():
            if canary not in self._rules:
                self._rules[canary] = self._made(alias.canary.target.task)

    def _made(self, task: str) -> Scorer | None:
        try:
            return self._rule(task) if task else None
        except FreeholdError as error:
            log.note(f"Answers of a canary are not held to the rule of the task {task!r}: {error.message}")
            return None

    def _of(self, canary: str) -> _News:
        """What is to be written down of a canary."""
        if canary not in self._news:
            self._news[canary] = _News({False: Arm(), True: Arm()}, own=[], told=[])
        return self._news[canary]


def _with(trial: Trial, news: _News) -> Trial:
    """A canary with what is new of it."""
    states = {test: msgspec.to_builtins(sequential.taken(evidence(trial, test), getattr(news, test))) for test in TESTS}
    return msgspec.structs.replace(
        trial, incumbent=_sum(trial.incumbent, news.arms[False]), candidate=_sum(trial.candidate, news.arms[True]),
        missed=trial.missed + news.missed, **states,
    )  # fmt: skip


def _sum(one: Arm, other: Arm) -> Arm:
    return Arm(*(getattr(one, name) + getattr(other, name) for name in Arm.__struct_fields__))
