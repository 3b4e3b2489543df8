"""Recorded calls: kept once, divided by time without cutting a group, laid down, and renewed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from freehold.errors import BadTraffic, StoreFailed
from freehold.samples import Placed, Samples, divide
from freehold.store import TRAFFIC, Store
from freehold.types import Answer, Import, Outline, Sample, Split, Task, Unusable

TASK = Task("t", {"kind": "exact"}, 0.03)


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "traffic.db", TRAFFIC)
    yield opened
    opened.close()


@pytest.fixture
def samples(store):
    return Samples(store)


def sample(number: int, group: str = "", **fields) -> Sample:
    asked = {"messages": [{"role": "user", "content": f"question {number}"}]}
    return Sample(f"s{number}", asked, group=group, at=float(number), **({"answer": Answer("yes")} | fields))


def begun(samples: Samples, task: str = "t", name: str = "i1") -> Import:
    found = Import(name, task, "f.jsonl", "own", 1.0, "me")
    samples.begin(found)
    return found


def filled(samples: Samples, calls: int, groups: int = 0) -> None:
    samples.keep("t", [sample(n, f"g{n * groups // calls}" if groups else "") for n in range(calls)])


def outline(number: int, group: str) -> Outline:
    return Outline(f"s{number}", float(number), group, None, 1, 1, False, "")


def test_what_is_kept_comes_back_by_time_and_whole(samples):
    """In the order of the calls' times, whatever the order of the file."""
    given = [sample(3), sample(1, "g", expected=Answer("no"), terms="any"), sample(2)]
    assert samples.keep("t", given).kept == 3
    assert list(samples.of_split(TASK)) == [given[1], given[2], given[0]]
    assert samples.counts() == {"t": 3}


def test_more_calls_than_a_page_come_back_each_once(samples):
    """Pages end in the middle of calls of the same time."""
    given = [sample(n) for n in range(1203)]
    same_time = [Sample(f"t{n:04}", {"messages": [n]}, at=5.0) for n in range(1100)]
    samples.keep("t", [*given, *same_time])
    assert [found.id for found in samples.of_split(TASK)] == [
        found.id for found in sorted([*given, *same_time], key=lambda found: (found.at, found.id))
    ]


def test_the_same_question_is_kept_once_and_its_second_answer_is_the_rerun(samples):
    """In one batch and across two; the first answer stays."""
    twice = Sample("other", sample(1).request, answer=Answer("no"), at=9.0)
    kept = samples.keep("t", [sample(1), twice])
    assert (kept.kept, [found.line for found in kept.duplicates]) == (1, [2])
    assert samples.get("t", ["s1"])["s1"].rerun == Answer("no")
    samples.keep("t", [sample(2)])
    samples.keep("t", [Sample("third", sample(2).request, answer=Answer("maybe"), at=9.0)])
    assert samples.get("t", ["s2"])["s2"] == sample(2, rerun=Answer("maybe"))


def test_a_second_record_of_a_question_adds_what_the_first_lacked(samples):
    """Right answers from one file and the incumbent's from another make one call that can certify."""
    samples.keep("t", [sample(1, answer=None, expected=Answer("right"), incumbent="")])
    samples.keep("t", [sample(1, incumbent="big")])
    both = samples.get("t", ["s1"])["s1"]
    assert (both.answer, both.expected, both.incumbent, both.rerun) == (Answer("yes"), Answer("right"), "big", None)
    [outline] = samples.outlines("t")
    assert outline.has_expected and outline.answer == 3 and outline.incumbent == "big"


def test_what_was_laid_down_is_not_completed(samples):
    """The calls of a certification stay as they were."""
    samples.keep("t", [sample(n, answer=None, expected=Answer("right")) for n in range(4)])
    samples.fix(TASK)
    digest = samples.digest(TASK, Split.CERTIFICATION)
    samples.keep("t", [sample(n) for n in range(4)])
    assert samples.digest(TASK, Split.CERTIFICATION) == digest


def test_a_repeated_line_is_no_rerun(samples):
    """The same call imported twice says nothing of the incumbent's noise."""
    samples.keep("t", [sample(1)])
    assert samples.keep("t", [sample(1)]).duplicates
    assert samples.get("t", ["s1"])["s1"].rerun is None


def test_an_id_that_is_taken_is_said_and_nothing_overwritten(samples):
    """Two calls cannot share an id."""
    samples.keep("t", [sample(1)])
    kept = samples.keep("t", [Sample("s1", {"messages": ["another"]})])
    assert kept.kept == 0 and "s1" in kept.clashes[0].reason
    assert samples.get("t", ["s1"])["s1"] == sample(1)


def test_an_import_counts_every_line(samples):
    """lines == kept + duplicates + skipped, and the reasons can be read."""
    found = begun(samples)
    placed = [Placed(1, sample(1)), Placed(3, sample(1)), Placed(4, sample(2))]
    found = samples.add(found, placed, [Unusable(2, "no JSON")], line=4, sensitive={"email": 1})
    found = samples.add(found, [Placed(5, sample(3))], line=5, sensitive={"email": 2})
    found = samples.finish(found)
    assert (found.line, found.kept, found.duplicates, found.skipped, found.sensitive) == (5, 3, 1, 1, {"email": 3})
    assert samples.imports("t") == [found] and found.done
    assert list(samples.skipped("i1")) == [Unusable(2, "no JSON")]
    assert [skip.line for skip in samples.skipped("i1", duplicates=True)] == [3]


@given(
    some.lists(some.integers(0, 12), min_size=1, max_size=120),
    some.floats(0, 1),
    some.floats(0, 1),
)
def test_no_split_cuts_a_group_and_time_goes_one_way(groups, tuning, validation):
    """Each group is in one split; no group of a later split began before one of an earlier split."""
    outlines = [outline(n, f"g{group}") for n, group in enumerate(groups)]
    splits = divide(outlines, tuning, min(validation, 1 - tuning))
    assert len(splits) == len(groups)
    first: dict[str, int] = {}
    where: dict[str, set[Split]] = {}
    for found in outlines:
        first.setdefault(found.group, int(found.at))
        where.setdefault(found.group, set()).add(splits[found.id])
    assert all(len(found) == 1 for found in where.values())
    order = [list(Split).index(next(iter(where[group]))) for group in sorted(first, key=first.get)]
    assert order == sorted(order)


def test_splits_have_the_shares_that_the_task_asks_for(samples):
    """Where groups are small."""
    filled(samples, 100)
    found = list(samples.splits(TASK).values())
    assert [found.count(split) for split in Split] == [60, 15, 25]
    assert [found.id for found in samples.of_split(TASK, Split.CERTIFICATION)] == [f"s{n}" for n in range(75, 100)]


def test_splits_that_are_laid_down_stay_whatever_comes(samples):
    """Later calls are in none until a round is begun for them; then they certify, and the old ones do not."""
    filled(samples, 100)
    assert samples.fix(TASK) == 1 == samples.fix(TASK)
    before, digest = samples.splits(TASK), samples.digest(TASK, Split.CERTIFICATION)
    samples.keep("t", [sample(n) for n in range(100, 140)])
    assert samples.splits(TASK) == before
    assert samples.digest(TASK, Split.CERTIFICATION) == digest
    assert samples.renew(TASK) == 2
    assert [found.id for found in samples.of_split(TASK, Split.CERTIFICATION)] == [f"s{n}" for n in range(100, 140)]
    assert {found.id for found in samples.of_split(TASK, Split.VALIDATION)} == {f"s{n}" for n in range(60, 100)}


def test_a_group_that_was_seen_does_not_certify_in_the_next_round(samples):
    """Its later calls go where it is."""
    filled(samples, 100, groups=20)
    samples.fix(TASK)
    samples.keep("t", [sample(200, "g0"), sample(201, "g19"), sample(202, "new")])
    samples.renew(TASK)
    splits = samples.splits(TASK)
    assert (splits["s200"], splits["s201"], splits["s202"]) == (Split.TUNING, Split.VALIDATION, Split.CERTIFICATION)


def test_a_round_without_new_calls_is_refused(samples):
    """Before anything was laid down, and when nothing came."""
    filled(samples, 10)
    with pytest.raises(BadTraffic, match="not laid down"):
        samples.renew(TASK)
    samples.fix(TASK)
    with pytest.raises(BadTraffic, match="No group of calls came"):
        samples.renew(TASK)


def test_a_changed_call_changes_the_digest_of_its_split(samples, store):
    """The digest covers what was asked and answered, not ids alone."""
    filled(samples, 10)
    samples.fix(TASK)
    before = samples.digest(TASK, Split.CERTIFICATION)
    with store.write() as connection:
        connection.exec_driver_sql("UPDATE samples SET content = replace(content, 'yes', 'yea') WHERE id = 's9'")
    assert samples.digest(TASK, Split.CERTIFICATION) != before


def test_calls_are_erased_by_task_caller_and_time(samples):
    """And no others."""
    samples.keep("t", [sample(1, caller="a"), sample(2, caller="b"), sample(3, caller="a")])
    samples.keep("u", [sample(1)])
    assert samples.erase("t", caller="a", before=3.0) == 1
    assert samples.erase("t", caller="b") == 1
    assert samples.counts() == {"t": 1, "u": 1}
    assert samples.erase("t") == 1


def test_a_full_disk_keeps_nothing_of_the_batch_and_says_so(samples, store):
    """The import stands where it stood."""
    found = begun(samples)
    found = samples.add(found, [Placed(1, sample(1))], line=1)
    with store.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    from sqlalchemy import event

    event.listen(store.engine, "connect", lambda raw, _: raw.execute(f"PRAGMA max_page_count = {pages}"))
    many = [Placed(n, Sample(f"x{n}", {"messages": ["y" * 5000, n]})) for n in range(2, 100)]
    with pytest.raises(StoreFailed, match="full"):
        samples.add(found, many, line=99)
    assert samples.imports("t")[0].line == 1 and samples.counts() == {"t": 1}


def test_the_file_is_where_it_was_put(tmp_path):
    """Traffic has a database of its own."""
    Store(tmp_path / "traffic.db", TRAFFIC).close()
    assert [path.name for path in Path(tmp_path).iterdir()] == ["traffic.db"]
