"""The watch over a canary: what counts as going wrong, what counts once, and when the candidate is taken back."""

from __future__ import annotations

import random
import time

import msgspec
import pytest
from harness import until
from test_aliases import YES, Bed

from freehold import promote
from freehold.aliases import Aliases
from freehold.auth import OWNER
from freehold.errors import CannotDo, NotFound, StoreFailed
from freehold.promote import watch as watching
from freehold.promote.facts import evidence
from freehold.said import Unfit
from freehold.scorers import alone
from freehold.types import Aim, Answer, Arm, Caller, Kind, Outcome, Role, Settlement, Task, Trial

APP, OTHER = Caller("key_1", "app", Role.MEMBER), Caller("key_2", "other", Role.MEMBER)
FINE = Settlement(Outcome.ANSWERED, 200)
FAILED = Settlement(Outcome.FAILED, 502, "engine_failed")
WORDS = Task("words", {"kind": "contains", "all": ["yes"]}, 0.03)


def hear(kind: Kind, content: bytes) -> Answer | None:
    """Bytes as they are; none for vectors, and some that cannot be read."""
    if b"?" in content:
        raise Unfit("has no known form")
    return None if kind is Kind.EMBEDDING else Answer(content.decode())


class Site:
    """A canary of b at one half beside the upstream's gpt, and its watch in a thread."""

    def __init__(self, folder, seconds: float = 3600.0, task: str = "", tolerance: float = 0.0):
        self.bed, self.number = Bed(folder), 0
        standing = msgspec.structs.replace(YES, tasks=(task,)) if task else YES
        self.canary = self.bed.promote("gpt", "b", standing, share=0.5, tolerance=tolerance).canary
        self.seconds = seconds
        self.watch = self.begun()

    def rule(self, task: str):
        if task != "words":
            raise CannotDo(f"There is no task {task}.")
        return alone(WORDS, None)

    def begun(self) -> promote.Watch:
        made = promote.Watch(self.bed.desk, self.rule, hear, self.seconds)
        made.start()
        return made

    def call(
        self, candidate: bool, settlement: Settlement = FINE, *, who: int | None = None, caller: Caller = APP,
        kind: Kind = Kind.CHAT, pieces: tuple[bytes, ...] = (b"yes",), canary: str = "",
    ) -> str:  # fmt: skip
        """One call in the canary, of a conversation of its own; gives its id."""
        self.number += 1
        aim = Aim("b" if candidate else "gpt", "gpt", canary or self.canary.id, candidate, who or self.number)
        id = f"req_{self.number}"
        eye = self.watch.eye(id, caller, kind, aim)
        if eye is not None:
            for piece in pieces:
                eye.take(piece)
            eye.settled(settlement)
        return id

    def trial(self) -> Trial:
        return self.bed.aliases.trial(self.canary.id)

    def after(self, check) -> Trial:
        """The canary as soon as this holds of it."""
        return until(lambda: check(found := self.trial()) and found)

    def conversations(self, test: str) -> list[tuple[int, int]]:
        """Those that a test has counted and those that went wrong, of the incumbent and of the candidate."""
        found = evidence(self.trial(), test)
        pairs = ((found.incumbent, found.waiting_incumbent), (found.candidate, found.waiting_candidate))
        return [(one.n + more.n, one.wrong + more.wrong) for one, more in pairs]

    def close(self) -> None:
        self.watch.stop()
        self.bed.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Looks come many times a second here."""
    monkeypatch.setattr(watching, "LOOK", 0.02)
    monkeypatch.setattr(watching, "_IDLE", 0.02)


@pytest.fixture
def made(tmp_path):
    """Makes sites, and closes them."""
    sites: list[Site] = []

    def make(**options) -> Site:
        sites.append(Site(tmp_path, **options))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


# what goes wrong


@pytest.mark.parametrize(
    ("settlement", "counts", "went_wrong"),
    [
        (FINE, 1, 0),
        (FAILED, 1, 1),
        (Settlement(Outcome.FAILED, 503, "overloaded"), 1, 1),
        (Settlement(Outcome.REFUSED, 400, "unsupported"), 1, 1),
        (Settlement(Outcome.REFUSED, 400, "context_length_exceeded"), 1, 1),
        (Settlement(Outcome.ABANDONED, 499), 0, 0),
        (Settlement(Outcome.FAILED, 503, "ledger_unavailable"), 0, 0),
        (Settlement(Outcome.FAILED, 503, "stopping"), 0, 0),
        (Settlement(Outcome.REFUSED, 403, "permission_denied"), 0, 0),
    ],
)
def test_a_call_goes_wrong_where_the_side_that_should_answer_does_not(made, settlement, counts, went_wrong):
    """What the client or the house itself is the reason of counts for neither side."""
    site = made()
    site.call(True, settlement)
    site.call(False)
    found = site.after(lambda trial: trial.incumbent.calls)
    assert found.candidate == Arm(counts, went_wrong) and found.incumbent == Arm(1)
    assert site.conversations("own") == [(1, 0), (counts, went_wrong)]


@pytest.mark.parametrize(
    ("pieces", "kind", "went_wrong"),
    [
        ((b"oh ", b"yes"), Kind.CHAT, 0),
        ((b"no",), Kind.CHAT, 1),
        ((b"?",), Kind.CHAT, 1),
        ((b"no",), Kind.EMBEDDING, 0),
        ((b"yes" + b" " * (3 << 20),) * 3, Kind.CHAT, 1),
    ],
    ids=["kept", "not kept", "cannot be read", "no words", "too long"],
)
def test_an_answer_that_breaks_the_tasks_own_rule_went_wrong(made, pieces, kind, went_wrong):
    """As one does that cannot be read, or is longer than anybody reads; what has no words has no rule to keep."""
    site = made(task="words")
    site.call(True, pieces=pieces, kind=kind)
    assert site.after(lambda trial: trial.candidate.calls).candidate.went_wrong == went_wrong


def test_without_a_task_or_with_one_that_is_gone_an_answer_is_an_answer(made, capfd):
    """And the log says that the rule is not held."""
    site = made(task="gone")
    site.call(True, pieces=(b"no",))
    assert site.after(lambda trial: trial.candidate.calls).candidate.went_wrong == 0
    assert "rule of the task 'gone'" in capfd.readouterr().err


def test_which_tasks_have_a_rule_of_their_own(tmp_path):
    """Words, patterns and JSON with a schema; what can only be compared has none."""
    schema = {"type": "object", "required": ["a"]}
    rules = {
        "json": {"schema": schema, "fields": {"a": "exact"}, "value": "f1"}, "contains": {"none": ["never"]},
        "regex": {"pattern": "^o"},
    }  # fmt: skip
    good, bad = {"json": '{"a": 1}', "contains": "x", "regex": "ok"}, {"json": "{}", "contains": "never", "regex": "no"}
    for kind, settings in rules.items():
        scorer = alone(Task("t", {"kind": kind} | settings, 0.1), tmp_path)
        values = [scorer.score(None, Answer(text), Answer()).value for text in (good[kind], bad[kind])]
        scorer.close()
        assert values == [1, 0], kind
    for kind, settings in {"exact": {}, "number": {}, "contains": {}, "regex": {"pattern": "(a)", "group": 1}}.items():
        assert alone(Task("t", {"kind": kind} | settings, 0.1), tmp_path) is None


# what counts once


def test_a_conversation_counts_once_by_its_first_call(made):
    """All its calls are counted as calls; its later ones are no evidence of their own, whichever side answers them."""
    site = made()
    for candidate, settlement in ((True, FINE), (True, FAILED), (False, FAILED), (True, FAILED)):
        site.call(candidate, settlement, who=77)
    site.call(False)
    found = site.after(lambda trial: trial.candidate.calls == 3 and trial.incumbent.calls == 2)
    assert (found.candidate.went_wrong, found.incumbent.went_wrong) == (2, 1)
    assert site.conversations("own") == [(1, 0), (1, 0)]


def test_a_conversation_that_was_left_at_first_counts_when_it_comes_back(made):
    """An abandoned call says nothing."""
    site = made()
    site.call(True, Settlement(Outcome.ABANDONED, 499), who=5)
    site.call(True, FAILED, who=5)
    site.after(lambda trial: trial.candidate.calls == 1)
    assert site.conversations("own")[1] == (1, 1)


def test_the_owners_own_calls_are_no_traffic(made):
    """A replay or a question from the command line."""
    site = made()
    site.call(True, FAILED, caller=Caller(OWNER, "me", Role.ADMIN))
    site.call(False)
    assert site.after(lambda trial: trial.incumbent.calls).candidate.calls == 0


# what the application says


def test_complaints_count_in_the_second_test_alone_when_their_time_is_over(made):
    """The first test has counted the call already. What is taken back is taken back."""
    site = made(seconds=1.0)
    ids = [site.call(True) for _ in range(4)] + [site.call(False)]
    site.watch.feedback(APP, ids[0], good=False)
    site.watch.feedback(APP, ids[1], good=False)
    site.watch.feedback(APP, ids[1], good=True)
    site.watch.feedback(APP, ids[2], good=True)
    found = site.after(lambda trial: trial.candidate.complaints == 1 and trial.incumbent.calls)
    assert found.candidate == Arm(4, 0, 1)
    assert site.conversations("own") == [(1, 0), (4, 0)] and site.conversations("told") == [(0, 0), (0, 0)]
    until(lambda: site.conversations("told") == [(1, 0), (4, 1)])
    assert site.conversations("own") == [(1, 0), (4, 0)]


def test_a_complaint_of_a_later_call_is_one_of_its_conversation(made):
    """As long as the same side answers."""
    site = made(seconds=1.0)
    site.call(True, who=9)
    later, other = site.call(True, who=9), site.call(False, who=9)
    site.watch.feedback(APP, later, good=False)
    site.call(False, who=10)
    site.call(True, who=11)
    site.watch.feedback(APP, other, good=False)
    until(lambda: site.conversations("told") == [(1, 0), (2, 1)])


def test_only_the_caller_itself_may_say_something_and_only_in_time(made):
    """Another's call, one that is not known and one of long ago are not found."""
    site = made(seconds=0.3)
    id = site.call(True)
    for caller, call in ((OTHER, id), (APP, "req_nothing"), (APP, "")):
        with pytest.raises(NotFound, match="of yours was in a canary"):
            site.watch.feedback(caller, call, good=False)
    site.watch.feedback(APP, id, good=False)
    until(lambda: site.conversations("told")[1] == (1, 1))
    with pytest.raises(NotFound):
        site.watch.feedback(APP, id, good=True)


# what is taken back


def test_a_candidate_that_fails_is_taken_back_by_itself(made, capfd):
    """The alias stays where most calls were, and the event has what is needed to work the test out again."""
    site = made(tolerance=0.03)
    gateway = Aliases(site.bed.store)
    assert gateway.now()["gpt"].canary is not None
    for number in range(60):
        site.call(number % 2 == 0, FAILED if number % 2 == 0 else FINE)
    found = site.after(lambda trial: trial.canary.ended)
    assert found.canary.ended == "shown worse" and gateway.now()["gpt"].canary is None
    assert gateway.now()["gpt"].target.model == "gpt"
    *_, event = site.bed.ledger.events()
    assert (event.act, event.subject, event.actor) == ("alias.rolled-back", "gpt", "canary")
    state = msgspec.convert(event.detail["state"], type(evidence(found, "own")))
    assert event.detail["test"] == "own" and state == evidence(found, "own")
    assert event.detail["candidate"]["went_wrong"] == event.detail["candidate"]["calls"] > 5
    assert site.bed.ledger.verify().holds
    assert "rolled back: it goes wrong oftener than gpt" in capfd.readouterr().err
    gateway.close()


def test_a_candidate_that_is_complained_of_is_taken_back_by_itself(made):
    """Though no call of it failed."""
    site = made(seconds=1.0, tolerance=0.03)
    ids = [site.call(number % 2 == 0) for number in range(80)]
    for id in ids[::2]:
        site.watch.feedback(APP, id, good=False)
    assert site.after(lambda trial: trial.canary.ended).canary.ended == "shown worse"
    *_, event = site.bed.ledger.events()
    assert event.detail["test"] == "told" and event.detail["candidate"] == {
        "calls": 40,
        "went_wrong": 0,
        "complaints": 40,
    }


def test_one_that_is_no_worse_stays(made):
    """Both go wrong in one call of ten, for a thousand conversations."""
    site, rng = made(tolerance=0.03), random.Random(1)
    for _ in range(1000):
        site.call(rng.random() < 0.5, FAILED if rng.random() < 0.1 else FINE)
    found = site.after(lambda trial: trial.candidate.calls + trial.incumbent.calls == 1000)
    assert not found.canary.ended and sum(n for n, _ in site.conversations("own")) == 1000


def test_a_canary_that_ended_meanwhile_is_left_alone(made):
    """Calls that come in afterwards count nowhere, and nothing is rolled back twice."""
    site = made()
    site.bed.back("gpt")
    for _ in range(30):
        site.call(True, FAILED)
        site.call(False)
    second = site.bed.promote("gpt", "c", share=0.5).canary
    site.call(True, FINE, canary=second.id)
    until(lambda: site.bed.aliases.trial(second.id).candidate.calls)
    assert site.trial().candidate.calls == 0 and not site.bed.aliases.trial(second.id).canary.ended
    assert [act for act, _ in site.bed.acts()] == ["alias.canary", "alias.rolled-back", "alias.canary"]


def test_what_an_earlier_run_left_undone_is_done_at_the_next_start(made, monkeypatch):
    """Shown worse, and not yet taken back, when the gateway was killed."""
    site = made()
    monkeypatch.setattr(watching, "give_up", lambda *_: False)
    for _ in range(30):
        site.call(True, FAILED)
        site.call(False)
    site.after(lambda trial: trial.candidate.calls == 30)
    site.watch.stop()
    assert not site.trial().canary.ended
    monkeypatch.undo()
    site.watch = site.begun()
    assert site.after(lambda trial: trial.canary.ended).canary.ended == "shown worse"


def test_a_share_that_changes_meanwhile_does_not_save_the_candidate(made, monkeypatch):
    """The alias has moved on since the watch looked; the canary is the same."""
    site, real = made(), watching.give_up

    def raised_first(*arguments) -> bool:
        site.bed.promote("gpt", "b", share=0.5 + random.random() / 4)
        return real(*arguments)

    monkeypatch.setattr(watching, "give_up", raised_first)
    for _ in range(30):
        site.call(True, FAILED)
        site.call(False)
    assert site.after(lambda trial: trial.canary.ended).canary.ended == "shown worse"


def test_counts_that_cannot_be_written_are_written_later(made, monkeypatch, capfd):
    """None is lost, and the log says why."""
    site = made()
    real = site.bed.aliases.count
    monkeypatch.setattr(site.bed.aliases, "count", _failing)
    for _ in range(5):
        site.call(True)
        site.call(False, FAILED)
    until(lambda: "cannot be looked at now: The disk is full." in capfd.readouterr().err)
    assert site.trial().candidate.calls == 0
    monkeypatch.setattr(site.bed.aliases, "count", real)
    found = site.after(lambda trial: trial.candidate.calls)
    assert (found.candidate.calls, found.incumbent) == (5, Arm(5, 5))


def _failing(*_):
    raise StoreFailed("The disk is full.")


def test_two_gateways_on_one_database_add_their_counts(made):
    """Neither overwrites the other's."""
    site = made()
    second = Site.begun(site)
    first = site.watch
    for number in range(200):
        site.watch = first if number % 2 else second
        site.call(number % 4 < 2)
    found = site.after(lambda trial: trial.candidate.calls + trial.incumbent.calls == 200)
    assert found.candidate.calls == 100 and sum(n for n, _ in site.conversations("own")) == 200
    second.stop()
    site.watch = first


def test_answers_for_which_there_is_no_room_do_not_count(made, monkeypatch):
    """They are counted apart; the call itself is none the wiser."""
    site = made(task="words")
    monkeypatch.setattr(watching, "ROOM", 2000)
    site.call(True, pieces=(b"x" * 3000,))
    site.call(False)
    found = site.after(lambda trial: trial.missed)
    assert (found.missed, found.candidate.calls) == (1, 0)


def test_nothing_of_a_call_is_kept_when_its_time_is_over(made):
    """Neither its answer nor its id, however many calls a conversation goes on with."""
    site = made(seconds=0.2, task="words")
    for _ in range(50):
        site.call(True, who=3)
    site.after(lambda trial: trial.candidate.calls == 50)
    until(lambda: not site.watch._calls and not site.watch._ends)
    for _ in range(50):
        site.call(True, who=3)
    site.after(lambda trial: trial.candidate.calls == 100)
    (known,) = site.watch._counted.values()
    assert known.calls == [] and not site.watch._open


def test_the_call_itself_waits_for_nothing(made, monkeypatch):
    """A rule that takes its time holds up the thread alone."""
    site = made(task="words")
    monkeypatch.setattr(promote.Watch, "_keeps", lambda *_: time.sleep(0.5) or True)
    began = time.monotonic()
    for _ in range(20):
        site.call(True)
    assert time.monotonic() - began < 0.3
