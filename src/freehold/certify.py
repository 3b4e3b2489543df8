"""Scores become a verdict: is the candidate good enough to take over from the incumbent, on this task's own calls?

Paired, clustered, one-sided non-inferiority on the certification split (`stats`). What is judged by is laid down before
the first certification score is read: margin, calls, scorer (`fix`), in the store and in the audit chain. Every look is
written down before it is shown, and candidates that were looked at on the same calls share the error rate (Holm): the
verdict on one may become stricter when another is looked at, and is then given anew.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from freehold import stats
from freehold.errors import BadTraffic, NotDecidable
from freehold.ledger import Ledger
from freehold.results import INCUMBENT, RERUN, Results
from freehold.samples import Samples
from freehold.scorers import Judge, Scorer, agreement
from freehold.types import (
    Answer,
    Candidate,
    Comparison,
    Estimate,
    Fixing,
    Flip,
    Look,
    Outlook,
    Progress,
    Replayed,
    Sample,
    Score,
    Split,
    Task,
    Verdict,
)

ALPHA = 0.025
LABELS = 30  # rows that people labelled, without which no judge decides
EXPECTED = "the expected answers"
AGREEMENT = "the incumbent's answers"  # then agreement is what is measured, and nothing else may be said
OWN_RULE = "the task's own rule"


class Bench(Struct, frozen=True):
    """What a certification stands on. ``digest`` is that of how answers are scored, a judge's own model included;
    ``judge`` asks it, where the scorer is one."""

    samples: Samples
    results: Results
    ledger: Ledger
    scorer: Scorer | Judge
    digest: str
    judge: Callable[[Sequence[Comparison]], dict[str, Score]] | None = None
    tell: Progress = lambda what, done, total: None


class _Pairs(Struct, frozen=True):
    """The calls that count, with both scores of each, in the order of their ids. ``unscored`` is how many do not,
    because the incumbent's answer has no score there."""

    samples: list[Sample]
    incumbent: list[Score]
    candidate: list[Score]
    errors: int
    unscored: int

    @property
    def scores(self) -> tuple[list[float], list[float], list[str]]:
        groups = [sample.group or sample.id for sample in self.samples]
        return [score.value for score in self.incumbent], [score.value for score in self.candidate], groups


def fix(bench: Bench, task: Task, *, margin: float | None, by: str, alpha: float = ALPHA) -> Fixing:
    """Lay down what the task's current round is judged by, unless that was done; no score is read.

    Raises:
        NotDecidable: another margin was laid down, or the calls or the scorer are not those of then.
        BadTraffic: no call certifies.
    """
    if next(bench.samples.of_split(task, Split.CERTIFICATION), None) is None:
        raise BadTraffic(f"No call of {task.name!r} certifies.", hint="Import more; 'freehold traffic show' says.")
    round = bench.samples.fix(task)
    split, known = bench.samples.digest(task, Split.CERTIFICATION), bench.results.fixing(task.name, round)
    scorer = _judged_by(bench)
    if known is None:
        _check_fresh(bench, task, split)
        wanted = task.margin if margin is None else margin
        detail = {"round": round, "margin": wanted, "alpha": alpha, "split": split, "scorer": scorer}
        bench.ledger.record("certify.fix", task.name, actor=by, detail=detail)
        known = bench.results.fix(Fixing(task.name, round, wanted, alpha, split, scorer, time.time(), by))
    _hold(bench, task, known, split, margin)
    return known


def certify(
    bench: Bench, task: Task, candidates: Sequence[Candidate], *, margin: float | None, by: str
) -> list[Verdict]:
    """The verdicts on some candidates, whose answers to the certification calls are all there.

    Raises:
        NotDecidable: as `fix`; or there are too few calls or groups.
        BadTraffic: answers are missing.
    """
    for candidate in candidates:
        _check_answered(bench, task, candidate)
    fixing = fix(bench, task, margin=margin, by=by)
    pairs = {candidate.key: _pairs(bench, task, candidate) for candidate in candidates}
    found = {one.key: _estimate(bench, fixing, one, pairs[one.key], fixing.alpha) for one in candidates}
    for candidate in candidates:
        _look(bench, fixing, candidate, found[candidate.key], by)
    shares = _shares(bench, fixing)
    return [_verdict(bench, task, fixing, candidate, pairs[candidate.key], shares) for candidate in candidates]


def again(bench: Bench, task: Task, *, margin: float | None = None, by: str = "") -> list[Verdict]:
    """The verdicts on every candidate that was looked at in this round, as they are now. A candidate that has other
    answers than at the last look is looked at anew, on the record.

    Raises:
        NotDecidable: as `fix`.
    """
    fixing = bench.results.fixing(task.name, bench.samples.round(task.name))
    if fixing is None:
        return []
    _hold(bench, task, fixing, bench.samples.digest(task, Split.CERTIFICATION), margin)
    latest = {look.candidate: look.p for look in bench.results.looks(task.name, fixing.round)}
    there = {candidate.key: candidate for candidate in bench.results.candidates(task.name)}
    known = [there[key] for key in latest if key in there]  # in the order of their first looks
    for candidate in known:
        _check_answered(bench, task, candidate)
    pairs = {candidate.key: _pairs(bench, task, candidate) for candidate in known}
    for candidate in known:
        found = _estimate(bench, fixing, candidate, pairs[candidate.key], fixing.alpha)
        if latest[candidate.key] != (None if isinstance(found, str) else found.p):
            _look(bench, fixing, candidate, found, by)
    shares = _shares(bench, fixing)
    return [_verdict(bench, task, fixing, one, pairs[one.key], shares) for one in known]


def standing(bench: Bench, task: Task, *, anew: bool = False) -> list[Verdict]:
    """The verdicts as they stand, for whoever reports them: nothing is scored, asked, looked at or written. The order
    is that of the latest looks, the newest last; no verdict where nobody looked. With ``anew`` scores that changed
    since the last look count as they are now, for whoever compares.

    Raises:
        NotDecidable: as `fix`; or a candidate has answers that nobody has looked at.
    """
    fixing = bench.results.fixing(task.name, bench.samples.round(task.name))
    if fixing is None:
        return []
    _hold(bench, task, fixing, bench.samples.digest(task, Split.CERTIFICATION), None)
    latest: dict[str, float | None] = {}
    for look in bench.results.looks(task.name, fixing.round):
        latest.pop(look.candidate, None)  # so that the newest is the last
        latest[look.candidate] = look.p
    there = {candidate.key: candidate for candidate in bench.results.candidates(task.name)}
    known = [there[key] for key in latest if key in there]
    quiet = _quiet(bench)
    pairs = {candidate.key: _seen(quiet, task, candidate) for candidate in known}
    for candidate in known:
        found = _estimate(quiet, fixing, candidate, pairs[candidate.key], fixing.alpha)
        if not anew and not _same(latest[candidate.key], None if isinstance(found, str) else found.p):
            raise _unseen(task, candidate)
    shares = _shares(quiet, fixing)
    return [_verdict(quiet, task, fixing, one, pairs[one.key], shares) for one in known]


def _quiet(bench: Bench) -> Bench:
    """The same bench, on which nothing is made or asked."""
    judge = None if bench.judge is None else lambda rows: {}
    silent = lambda what, done, total: None  # noqa: E731
    return msgspec.structs.replace(bench, results=bench.results.kept(), judge=judge, tell=silent)


def _seen(bench: Bench, task: Task, candidate: Candidate) -> _Pairs:
    """Both scores of every call, all of which are there. Raises NotDecidable where a score of the candidate is not."""
    _check_answered(bench, task, candidate)
    known = bench.results.scores(task.name, candidate.key, bench.digest)
    theirs = {} if bench.judge is not None else bench.results.scores(task.name, INCUMBENT, bench.digest)
    for sample in _comparable(bench, task):
        bears = bench.judge is not None or (sample.id in theirs and _bears(bench, sample, theirs[sample.id]))
        if bears and sample.id not in known:
            raise _unseen(task, candidate)
    return _pairs(bench, task, candidate)


def _same(one: float | None, other: float | None) -> bool:
    """One p-value twice, but for the last digits, which another version of a library may have otherwise."""
    return one == other if one is None or other is None else math.isclose(one, other, rel_tol=1e-9)


def _unseen(task: Task, candidate: Candidate) -> NotDecidable:
    return NotDecidable(
        f"{candidate.name} has other answers than at the last look at the certification calls of {task.name!r}.",
        hint=f"'freehold certify {task.name}' looks at them, on the record.",
    )


def _check_fresh(bench: Bench, task: Task, split: str) -> None:
    """A second name for a task is no second chance. Raises NotDecidable."""
    for other in bench.results.fixings(split):
        if other.task != task.name and other.scorer == _judged_by(bench):
            raise NotDecidable(
                f"These very calls were laid down for the task {other.task!r}, at a margin of {other.margin:g}.",
                hint=f"Certify there: 'freehold certify {other.task}'; or bring in other calls.",
            )


def _hold(bench: Bench, task: Task, fixing: Fixing, split: str, margin: float | None) -> None:
    """What was laid down holds. Raises NotDecidable."""
    when = time.strftime("%d %B %Y, %H:%M UTC", time.gmtime(fixing.at))
    another = "Later calls begin a round of their own: 'freehold traffic renew'."
    if margin is not None and margin != fixing.margin:
        raise NotDecidable(
            f"The margin of these calls was set to {fixing.margin:g} on {when} and cannot be {margin:g} now.",
            hint=f"Certify at {fixing.margin:g}. {another}",
        )
    if split != fixing.split:
        raise NotDecidable(
            f"The certification calls are not those of {when}: some were changed or erased.", hint=another
        )
    if _judged_by(bench) != fixing.scorer:
        raise NotDecidable(
            f"The scorer of {task.name!r} is not the one of {when}.", hint=f"Put that one back. {another}"
        )


def _judged_by(bench: Bench) -> str:
    """The digest of what makes scores into an estimate: of the scorer, and of what people said where it is a judge."""
    if bench.judge is None:
        return bench.digest
    labels = msgspec.json.encode([bench.digest, bench.scorer.labels], order="deterministic")
    return "sha256:" + hashlib.sha256(labels).hexdigest()


def _check_answered(bench: Bench, task: Task, candidate: Candidate) -> None:
    answered = bench.results.answers(task.name, candidate.key)
    certify = [sample.id for sample in bench.samples.of_split(task, Split.CERTIFICATION)]
    if missing := sum(id not in answered for id in certify):
        raise BadTraffic(
            f"{candidate.name} has not answered {missing} of the {len(certify)} certification calls of {task.name!r}.",
            hint=f"'freehold replay {task.name} --candidate {candidate.name} --split certification' does that.",
        )


class _Plan(Struct, frozen=True):
    certifiable: float
    needed: int | None


# scores


def _pairs(bench: Bench, task: Task, candidate: Candidate) -> _Pairs:
    """Both scores of every call that can be compared."""
    every = sorted(_comparable(bench, task), key=lambda sample: sample.id)
    answers = bench.results.answers(task.name, candidate.key)
    said = {id: found.answer for id, found in answers.items()}
    if bench.judge is not None:
        chosen, theirs = every, {sample.id: Score(0.5) for sample in every}  # as good as itself
        ours = _judged(bench, task, candidate, chosen, said)
    else:
        theirs = _scored(bench, task, INCUMBENT, every, {sample.id: sample.answer for sample in every})
        chosen = [sample for sample in every if _bears(bench, sample, theirs[sample.id])]
        ours = _scored(bench, task, candidate.key, chosen, said)
    return _Pairs(
        samples=chosen,
        incumbent=[theirs[sample.id] for sample in chosen],
        candidate=[_score(answers.get(sample.id), ours[sample.id]) for sample in chosen],
        errors=sum(said.get(sample.id) is None for sample in chosen),
        unscored=len(every) - len(chosen),
    )


def _bears(bench: Bench, sample: Sample, theirs: Score) -> bool:
    """Does a call bear a comparison? Where the incumbent's answer cannot be scored, or does not even agree with itself,
    no candidate could be worse, and a pair of two zeros would speak for any."""
    agreed = bench.scorer.compares and sample.expected is None
    return not theirs.error and not (agreed and not theirs.value)


def _comparable(bench: Bench, task: Task) -> list[Sample]:
    """Certification calls that the incumbent answered: those with an expected answer where there are any."""
    answered = [sample for sample in bench.samples.of_split(task, Split.CERTIFICATION) if sample.answer is not None]
    if not bench.scorer.compares:
        return answered
    return [sample for sample in answered if sample.expected is not None] or answered


def _scored(
    bench: Bench, task: Task, of: str, chosen: list[Sample], answers: Mapping[str, Answer | None]
) -> dict[str, Score]:
    """The scores of some answers, kept or made now and then kept."""
    known = bench.results.scores(task.name, of, bench.digest)
    lacking = [sample for sample in chosen if sample.id not in known]
    made: dict[str, Score] = {}
    for done, sample in enumerate(lacking, start=1):
        made[sample.id] = bench.scorer.score(sample, answers.get(sample.id), sample.expected or sample.answer)
        bench.tell("scoring", done, len(lacking))
    bench.results.put_scores(task.name, of, bench.digest, made)
    return known | made


def _judged(
    bench: Bench, task: Task, candidate: Candidate, chosen: list[Sample], said: Mapping[str, Answer | None]
) -> dict[str, Score]:
    """What the judge says of a candidate's answers beside the incumbent's; kept, but for those it could not judge."""
    known = bench.results.scores(task.name, candidate.key, bench.digest)
    lacking = [sample for sample in chosen if sample.id not in known or known[sample.id].error]
    made = bench.judge([Comparison(sample, sample.answer, said.get(sample.id)) for sample in lacking])
    bench.results.put_scores(task.name, candidate.key, bench.digest, made)
    return known | made


def _score(replayed: Replayed | None, score: Score) -> Score:
    """An error counts as wrong, and says which it was."""
    if replayed is None or replayed.answer is not None:
        return score
    return Score(0.0, error=replayed.error or score.error)


# the verdict


def _estimate(bench: Bench, fixing: Fixing, candidate: Candidate, pairs: _Pairs, alpha: float) -> Estimate | str:
    """The estimate, or why these calls bear none."""
    incumbent, ours, groups = pairs.scores
    try:
        if not pairs.samples:
            raise NotDecidable(f"On none of {pairs.unscored} calls has the incumbent's answer a score to compare with.")
        if bench.judge is None:
            return stats.compare(incumbent, ours, groups, margin=fixing.margin, alpha=alpha)
        labels = bench.scorer.labels_of(candidate)
        rows = [row for row, sample in enumerate(pairs.samples) if sample.id in labels]
        if len(rows) < LABELS:
            return (
                f"{len(rows)} of this candidate's answers were labelled by people, and a judge is believed only as "
                f"far as at least {LABELS} show it."
            )
        people = [labels[pairs.samples[row].id] for row in rows]
        return stats.rectified(
            incumbent, ours, groups, labelled=rows, human_incumbent=[0.5] * len(rows), human_candidate=people,
            margin=fixing.margin, alpha=alpha,
        )  # fmt: skip
    except NotDecidable as error:
        return error.sentence()


def _look(bench: Bench, fixing: Fixing, candidate: Candidate, found: Estimate | str, by: str) -> None:
    """Write a look down, in the audit chain too, before anybody sees what it found."""
    estimate = None if isinstance(found, str) else found
    outcome = Outlook.UNDECIDED if estimate is None else stats.outlook(estimate, fixing.margin)
    detail = {"round": fixing.round, "candidate": candidate.digest, "name": candidate.name, "key": candidate.key}
    bench.ledger.record("certify.look", fixing.task, actor=by, detail=detail)
    p = None if estimate is None else estimate.p
    bench.results.look(Look(fixing.task, fixing.round, candidate.key, time.time(), by, p, outcome))


def _shares(bench: Bench, fixing: Fixing) -> dict[str, float]:
    """The error rate at which each candidate that was looked at is judged, by its key. Looking at the same answers
    again is the same test, and takes no further share; other answers of the same candidate are another test."""
    looks = bench.results.looks(fixing.task, fixing.round)
    latest = {look.candidate: look.p for look in looks}
    before = {(look.candidate, look.p) for look in looks} - set(latest.items())
    tests = latest | {f"{key} {p}": p for key, p in before}
    levels = stats.holm({key: 1.0 if p is None else p for key, p in tests.items()}, alpha=fixing.alpha)
    return {key: levels[key] for key in latest}


def _verdict(
    bench: Bench, task: Task, fixing: Fixing, candidate: Candidate, pairs: _Pairs, shares: Mapping[str, float]
) -> Verdict:
    incumbent, ours, groups = pairs.scores
    found = _estimate(bench, fixing, candidate, pairs, shares[candidate.key])
    estimate = None if isinstance(found, str) else found
    outcome = Outlook.UNDECIDED if estimate is None else stats.outlook(estimate, fixing.margin)
    flips = _flips(pairs)
    looks = bench.results.looks(task.name, fixing.round)
    calls = len(pairs.samples)
    plan = _plan(pairs, fixing, shares[candidate.key]) if estimate else None
    return Verdict(
        task=task.name,
        candidate=candidate,
        outcome=outcome,
        why=found if isinstance(found, str) else "",
        margin=fixing.margin,
        fixed_at=fixing.at,
        against=_against(bench, pairs),
        measures=bench.scorer.measures,
        calls=calls,
        groups=len(set(groups)),
        incumbent_mean=_mean(incumbent),
        candidate_mean=_mean(ours),
        worse=sum(flip.candidate < flip.incumbent for flip in flips),
        better=sum(flip.candidate > flip.incumbent for flip in flips),
        psi=len(flips) / calls if calls else 0.0,
        estimate=estimate,
        certifiable=plan.certifiable if plan else None,
        needed=plan.needed if plan and outcome is Outlook.UNDECIDED else None,
        needed_groups=stats.needed_groups(fixing.margin, shares[candidate.key]),
        look=sum(look.candidate == candidate.key for look in looks),
        looks=len(looks),
        errors=pairs.errors,
        unscored=pairs.unscored,
        round=fixing.round,
        earlier=sum(len(bench.results.looks(task.name, round)) for round in range(1, fixing.round)),
        split=fixing.split,
        noise=_noise(bench, task, pairs),
        judge=_calibration(bench, candidate, pairs),
        flips=flips,
    )


def _plan(pairs: _Pairs, fixing: Fixing, alpha: float) -> _Plan:
    """What calls like these could decide, and how many would decide this margin if the difference stays as it is. In
    groups it is never less than what nothing but unseen losses could be."""
    incumbent, candidate, groups = pairs.scores
    differences = [ours - theirs for theirs, ours in zip(incumbent, candidate, strict=True)]
    mean, effect = _mean(differences), stats.design_effect(differences, groups)
    variance, count = _mean([(difference - mean) ** 2 for difference in differences]), len(set(groups))
    least = math.ceil(stats.needed_groups(fixing.margin, alpha) * len(groups) / count)
    needed = stats.needed(variance, fixing.margin, difference=min(mean, 0.0), design_effect=effect, alpha=alpha)
    return _Plan(
        certifiable=max(
            stats.certifiable(variance, len(groups), design_effect=effect, alpha=alpha), 1 - alpha ** (1 / count)
        ),
        needed=None if needed is None else max(needed, least),
    )


def _calibration(bench: Bench, candidate: Candidate, pairs: _Pairs) -> dict[str, Any]:
    """How the judge stands to people on the answers of this candidate that they labelled."""
    if bench.judge is None:
        return {}
    outcomes = {sample.id: score for sample, score in zip(pairs.samples, pairs.candidate, strict=True)}
    found = agreement(outcomes, bench.scorer.labels_of(candidate))
    facts = {name: getattr(found, name) for name in found.__struct_fields__ if name != "pairs"}
    return facts | {"length_bias": found.length_bias}


def _against(bench: Bench, pairs: _Pairs) -> str:
    if not bench.scorer.compares:
        return OWN_RULE
    return EXPECTED if pairs.samples and pairs.samples[0].expected is not None else AGREEMENT


def _flips(pairs: _Pairs) -> tuple[Flip, ...]:
    """The calls on which the two differ, the worst first."""
    rows = zip(pairs.samples, pairs.incumbent, pairs.candidate, strict=True)
    found = [
        Flip(sample.id, sample.group, theirs.value, ours.value, _detail(theirs, ours))
        for sample, theirs, ours in rows
        if theirs.value != ours.value
    ]
    return tuple(sorted(found, key=lambda flip: (flip.candidate - flip.incumbent, flip.sample)))


def _detail(theirs: Score, ours: Score) -> dict:
    said = {"incumbent": theirs.detail, "candidate": ours.detail, "error": ours.error}
    return {name: value for name, value in said.items() if value}


def _noise(bench: Bench, task: Task, pairs: _Pairs) -> float | None:
    """On what share of the calls that it answered twice the incumbent's score is not the same both times."""
    twice = [(sample, score) for sample, score in zip(pairs.samples, pairs.incumbent, strict=True) if sample.rerun]
    if not twice or bench.judge is not None:
        return None
    again = _scored(
        bench, task, RERUN, [sample for sample, _ in twice], {sample.id: sample.rerun for sample, _ in twice}
    )
    return sum(again[sample.id].value != score.value for sample, score in twice) / len(twice)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


# in words


def sentence(verdict: Verdict) -> str:
    """The verdict as one sentence for whoever answers for the move."""
    if verdict.estimate is None:
        return f"{verdict.outcome.value}: {verdict.why}"
    head = (
        f"on {verdict.calls:,} of your own later calls the candidate {_differs(verdict)}, {_sure(verdict)} lower bound"
    )
    bound = f"{verdict.estimate.lower * 100:+.{_digits(verdict)}f}, margin {verdict.margin * 100:g} points"
    said = f"{head} {bound} set on {_day(verdict.fixed_at)}: {verdict.outcome.value}"
    return f"{said}; {_lacks(verdict)}" if verdict.outcome is Outlook.UNDECIDED else said


def _lacks(verdict: Verdict) -> str:
    """What would decide an undecided verdict."""
    if verdict.needed is None:
        return "if the difference is what it seems, no number of calls would certify it"
    said = f"about {max(verdict.needed, verdict.calls + 1):,} calls are needed, you have {verdict.calls:,}"
    if verdict.groups < min(verdict.needed_groups, verdict.calls):
        said += f" (and some {verdict.needed_groups:,} groups of calls, you have {verdict.groups:,})"
    return said


def _differs(verdict: Verdict) -> str:
    points = verdict.estimate.difference * 100
    if verdict.against == AGREEMENT:
        return f"agrees with the incumbent to {verdict.candidate_mean:.1%}"
    if not points:
        return "is exactly as good"
    return f"is {abs(points):.1f} points {'worse' if points < 0 else 'better'}"


def _digits(verdict: Verdict) -> int:
    """Decimals that tell the bound from the margin."""
    lower, margin = verdict.estimate.lower * 100, -verdict.margin * 100
    return next((digits for digits in (1, 2, 3) if round(lower, digits) != round(margin, digits)), 3)


def _sure(verdict: Verdict) -> str:
    """How sure the interval is whose lower end is told: 95%, or more where several candidates share the error rate."""
    return f"{100 - 200 * verdict.estimate.alpha:.4g}%"


def _day(at: float) -> str:
    return time.strftime("%d %B %Y", time.gmtime(at)).lstrip("0")
