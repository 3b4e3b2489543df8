"""What candidates made of recorded calls: the only reader and writer of answers, scores, fixings and looks.

An answer is kept by the task, the call and the candidate's key, which is the digest of everything that bears on it: the
model's bytes, the settings laid over the request, the engine. A second replay with the same key finds it there.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, RowMapping, Table, delete, func, insert, select
from sqlalchemy.exc import SQLAlchemyError

from freehold.errors import NotDecidable, StoreFailed
from freehold.store import Store, cause
from freehold.store.cipher import Ring
from freehold.store.sealed import Key, adopt, opened, reseal, sealed
from freehold.store.traffic import answers, candidates, fixings, looks, scores
from freehold.types import Answer, Candidate, Fixing, Look, Replayed, Score, Usage

INCUMBENT = "incumbent"  # whose scores these are, where they are no candidate's
RERUN = "rerun"
_ANSWER: Key = ("answers", "task", "candidate", "sample")
_SCORE: Key = ("scores", "task", "of", "scorer", "sample")
_PAGE = 500  # rows at once


class Results:
    """The results in one store; ``ring`` has the keys that their texts are encrypted with. Whatever reads or writes a
    text raises WrongKey where its key is not in the ring."""

    def __init__(self, store: Store, ring: Ring | None = None):
        self._store = store
        self._ring = ring or Ring()

    def candidate(self, name: str, digest: str, settings: Mapping[str, Any], engine: str) -> Candidate:
        """The candidate of these, with its key, noted down."""
        found = Candidate(name, digest, dict(settings), engine, key_of(name, digest, settings, engine))
        with self._writing("A candidate") as connection:
            connection.execute(insert(candidates).prefix_with("OR REPLACE"), msgspec.structs.asdict(found))
        return found

    def candidates(self, task: str) -> list[Candidate]:
        """Those that have answered a call of the task, by name and key."""
        have = select(answers.c.candidate).where(answers.c.task == task).distinct()
        wanted = select(candidates).where(candidates.c.key.in_(have)).order_by(candidates.c.name, candidates.c.key)
        with self._store.reader() as connection:
            return [Candidate(**row) for row in connection.execute(wanted).mappings()]

    def put_answers(self, task: str, candidate: str, found: list[Replayed]) -> None:
        """Keep answers, over what there was of the same calls, whose scores go: they were another answer's. Raises
        StoreFailed; then none of them was kept."""
        with self._writing("Answers") as connection:
            for replayed in found:
                old = (scores.c.task == task) & (scores.c.of == candidate) & (scores.c.sample == replayed.sample)
                connection.execute(delete(scores).where(old))
            sealer = adopt(connection, self._ring)
            bare = [_answer_row(task, candidate, replayed) for replayed in found]
            rows = [sealed(sealer, row, _ANSWER, ("answer", "error")) for row in bare]
            connection.execute(insert(answers).prefix_with("OR REPLACE"), rows)

    def answers(self, task: str, candidate: str) -> dict[str, Replayed]:
        """A candidate's answers to the calls of a task, by the call's id."""
        wanted = select(answers).where(answers.c.task == task, answers.c.candidate == candidate)
        with self._store.reader() as connection:
            return {row["sample"]: _replayed(self._ring, row) for row in connection.execute(wanted).mappings()}

    def put_scores(self, task: str, of: str, scorer: str, found: Mapping[str, Score]) -> None:
        """Keep scores, by the call's id. Raises StoreFailed, or ValueError for a score that is no share."""
        if bad := [id for id, score in found.items() if not 0 <= score.value <= 1 or math.isnan(score.value)]:
            raise ValueError(f"the score of {bad[0]} is {found[bad[0]].value}, and not from 0 to 1")
        with self._writing("Scores") as connection:
            bare = [
                {"task": task, "of": of, "scorer": scorer, "sample": id, "value": score.value,
                 "detail": msgspec.json.encode(score.detail), "error": score.error}
                for id, score in found.items()
            ]  # fmt: skip
            sealer = adopt(connection, self._ring)
            rows = [sealed(sealer, row, _SCORE, ("detail", "error")) for row in bare]
            if rows:
                connection.execute(insert(scores).prefix_with("OR REPLACE"), rows)

    def scores(self, task: str, of: str, scorer: str) -> dict[str, Score]:
        """Scores by the call's id."""
        wanted = select(scores).where(scores.c.task == task, scores.c.of == of, scores.c.scorer == scorer)
        with self._store.reader() as connection:
            return {row["sample"]: _score(self._ring, row) for row in connection.execute(wanted).mappings()}

    def kept(self) -> Kept:
        """The same results, for whoever only reads."""
        return Kept(self._store, self._ring)

    def erase(self, task: str, ids: Sequence[str] | None = None) -> int:
        """Remove what was made of some calls, or of all of a task's: answers, and scores with their details. What was
        laid down and looked at stays: it holds no text. Returns how many answers."""
        gone = 0
        with self._writing("What is left") as connection:
            for some in _pages(ids):
                for table in (scores, answers):
                    found = connection.execute(delete(table).where(table.c.task == task, *some(table)))
                gone += found.rowcount
        return gone

    def count(self, task: str, ids: Sequence[str]) -> int:
        """How many answers there are to some calls."""
        found = 0
        with self._store.reader() as connection:
            for some in _pages(ids):
                wanted = select(func.count()).select_from(answers).where(answers.c.task == task, *some(answers))
                found += connection.execute(wanted).scalar_one()
        return found

    def expire(self, task: str, before: float) -> int:
        """Remove answers that were given before a time, with their scores. Returns how many."""
        old = (answers.c.task == task) & (answers.c.at < before)
        theirs = select(answers.c.sample).where(old, answers.c.candidate == scores.c.of).correlate(scores)
        with self._writing("What is left") as connection:
            connection.execute(delete(scores).where(scores.c.task == task, scores.c.sample.in_(theirs)))
            return connection.execute(delete(answers).where(old)).rowcount

    def reseal(self) -> Iterator[int]:
        """Encrypt what another key encrypted, or none, with the ring's; see `Samples.reseal`."""
        yield from reseal(self._store, self._ring, answers, _ANSWER, ("answer", "error"))
        yield from reseal(self._store, self._ring, scores, _SCORE, ("detail", "error"))

    def fix(self, fixing: Fixing) -> Fixing:
        """Lay down what a round is judged by, unless that was done: what is laid down is returned, and stays."""
        with self._writing("What a certification is judged by") as connection:
            connection.execute(insert(fixings).prefix_with("OR IGNORE"), msgspec.structs.asdict(fixing))
        return self.fixing(fixing.task, fixing.round)

    def fixing(self, task: str, round: int) -> Fixing | None:
        """What a round is judged by; None as long as that is open."""
        wanted = select(fixings).where(fixings.c.task == task, fixings.c.round == round)
        with self._store.reader() as connection:
            row = connection.execute(wanted).mappings().first()
            return Fixing(**row) if row else None

    def fixings(self, split: str) -> list[Fixing]:
        """What was laid down, for whatever task, on the calls with this digest."""
        with self._store.reader() as connection:
            rows = connection.execute(select(fixings).where(fixings.c.split == split).order_by(fixings.c.at))
            return [Fixing(**row) for row in rows.mappings()]

    def look(self, look: Look) -> None:
        """Note a look at a split. Raises StoreFailed, and then nobody may look."""
        with self._writing("A look at the certification calls") as connection:
            connection.execute(insert(looks), msgspec.structs.asdict(look))

    def looks(self, task: str, round: int) -> list[Look]:
        """Every look at a round's certification calls, oldest first."""
        wanted = select(looks).where(looks.c.task == task, looks.c.round == round).order_by(looks.c.id)
        with self._store.reader() as connection:
            rows = [dict(row) for row in connection.execute(wanted).mappings()]
        return [msgspec.convert({name: row[name] for name in Look.__struct_fields__}, Look) for row in rows]

    @contextmanager
    def _writing(self, what: str) -> Iterator[Connection]:
        try:
            with self._store.write() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise StoreFailed(
                f"{what} cannot be written: {cause(error)}.",
                hint="Free space where the home is, then give the same command: it goes on where it stopped.",
            ) from None


class Kept(Results):
    """Results to which no score is added."""

    def put_scores(self, task: str, of: str, scorer: str, found: Mapping[str, Score]) -> None:
        """Raises NotDecidable where there is anything to keep."""
        if found:
            raise NotDecidable(
                f"{len(found)} answers to calls of {task!r} have no score yet.",
                hint=f"'freehold certify {task}' makes them, on the record.",
            )


def key_of(name: str, digest: str, settings: Mapping[str, Any], engine: str) -> str:
    """A candidate's key: SHA-256 over what its answers come from. A model on another machine has no digest, and is
    known by its name."""
    asked = msgspec.json.encode([digest or name, settings, engine], order="deterministic")
    return "sha256:" + hashlib.sha256(asked).hexdigest()


def _pages(ids: Sequence[str] | None) -> Iterator[Callable[[Table], tuple[ColumnElement[bool], ...]]]:
    """What picks the rows of these calls, a page at a time; of every call where there are no ids."""
    if ids is None:
        yield lambda table: ()
        return
    for start in range(0, len(ids), _PAGE):
        some = ids[start : start + _PAGE]
        yield lambda table, some=some: (table.c.sample.in_(some),)


def _answer_row(task: str, candidate: str, found: Replayed) -> dict[str, Any]:
    return {
        "task": task, "candidate": candidate, "sample": found.sample,
        "answer": msgspec.json.encode(found.answer) if found.answer is not None else None, "error": found.error,
        "prompt_tokens": found.usage.prompt, "completion_tokens": found.usage.completion,
        "cached_tokens": found.usage.cached, "first_token_ms": found.first_token_ms, "total_ms": found.total_ms,
        "at": found.at,
    }  # fmt: skip


def _replayed(ring: Ring, row: RowMapping) -> Replayed:
    answer = opened(ring, row, "answer", _ANSWER)
    return Replayed(
        sample=row["sample"],
        answer=msgspec.json.decode(answer, type=Answer) if answer is not None else None,
        error=opened(ring, row, "error", _ANSWER),
        usage=Usage(row["prompt_tokens"], row["completion_tokens"], row["cached_tokens"]),
        first_token_ms=row["first_token_ms"],
        total_ms=row["total_ms"],
        at=row["at"],
    )


def _score(ring: Ring, row: RowMapping) -> Score:
    detail = msgspec.json.decode(opened(ring, row, "detail", _SCORE))
    return Score(row["value"], detail, opened(ring, row, "error", _SCORE))
