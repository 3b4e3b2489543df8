"""Answers, scores, fixings and looks: kept by what they come from, and never overwritten where they may not be."""

from __future__ import annotations

import math

import pytest
from sqlalchemy import event

from freehold.errors import StoreFailed
from freehold.results import INCUMBENT, Results, key_of
from freehold.store import TRAFFIC, Store
from freehold.types import Answer, Fixing, Look, Outlook, Replayed, Score, ToolCall, Usage


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "traffic.db", TRAFFIC)
    yield opened
    opened.close()


@pytest.fixture
def results(store):
    return Results(store)


def test_a_candidate_is_known_by_what_its_answers_come_from():
    """Another digest, setting or engine is another candidate; another name of the same bytes is not."""
    one = key_of("a", "sha256:1", {"seed": 1, "temperature": 0}, "e1")
    assert one == key_of("b", "sha256:1", {"temperature": 0, "seed": 1}, "e1")
    others = [
        key_of("a", "sha256:2", {"seed": 1, "temperature": 0}, "e1"),
        key_of("a", "sha256:1", {"seed": 2, "temperature": 0}, "e1"),
        key_of("a", "sha256:1", {"seed": 1, "temperature": 0}, "e2"),
    ]
    assert len({one, *others}) == 4
    assert key_of("a", "", {}, "e") != key_of("b", "", {}, "e")


def test_answers_come_back_as_they_were_given(results):
    """With tools, usage and times; a later answer to the same call takes the place of the first."""
    candidate = results.candidate("m", "sha256:1", {"seed": 1}, "e")
    said = Answer("text", (ToolCall("f", "{}"),))
    first = Replayed("s1", None, "engine_failed: it died", at=1.0)
    then = Replayed("s1", said, usage=Usage(3, 4, 1), first_token_ms=5.0, total_ms=6.5, at=2.0)
    results.put_answers("t", candidate.key, [first, Replayed("s2", said)])
    results.put_answers("t", candidate.key, [then])
    assert results.answers("t", candidate.key) == {"s1": then, "s2": Replayed("s2", said)}
    assert results.candidates("t") == [candidate] and results.candidates("u") == []


def test_scores_belong_to_a_scorer(results):
    """Another scorer's scores of the same answers are others."""
    results.put_scores("t", INCUMBENT, "d1", {"s1": Score(0.5, {"field": "x"}), "s2": Score(0.0, error="it raised")})
    assert results.scores("t", INCUMBENT, "d1")["s1"] == Score(0.5, {"field": "x"})
    assert results.scores("t", INCUMBENT, "d2") == {}


@pytest.mark.parametrize("value", [math.nan, -0.1, 1.1, math.inf])
def test_a_score_that_is_no_share_is_never_kept(results, value):
    """Neither NaN nor anything outside 0 to 1."""
    with pytest.raises(ValueError, match="s1"):
        results.put_scores("t", INCUMBENT, "d", {"s1": Score(value)})
    assert results.scores("t", INCUMBENT, "d") == {}


def test_what_was_laid_down_stays(results):
    """A second margin for the same round changes nothing, and the first is returned."""
    first = Fixing("t", 1, 0.03, 0.025, "sha256:s", "sha256:c", 1.0, "me")
    assert results.fixing("t", 1) is None
    assert results.fix(first) == first
    assert results.fix(Fixing("t", 1, 0.10, 0.025, "sha256:s", "sha256:c", 2.0, "you")) == first
    assert results.fixing("t", 2) is None


def test_every_look_is_counted(results):
    """Also those of the same candidate, in their order."""
    looks = [Look("t", 1, key, at, "me", 0.01, Outlook.UNDECIDED) for key, at in (("a", 1.0), ("b", 2.0), ("a", 3.0))]
    for look in looks:
        results.look(look)
    assert results.looks("t", 1) == looks and results.looks("t", 2) == []


def test_a_full_disk_is_a_sentence_and_loses_nothing(results, store):
    """What was there before is there after."""
    results.put_answers("t", "c", [Replayed("s1", Answer("x"))])
    with store.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    event.listen(store.engine, "connect", lambda raw, _: raw.execute(f"PRAGMA max_page_count = {pages}"))
    with pytest.raises(StoreFailed, match="full") as told:
        results.put_answers("t", "c", [Replayed(f"s{n}", Answer("y" * 9000)) for n in range(1, 50)])
    assert "goes on where it stopped" in told.value.hint
    assert results.answers("t", "c") == {"s1": Replayed("s1", Answer("x"))}
