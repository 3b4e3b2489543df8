"""The chapters about how good the candidate is: the verdict, its numbers, and the calls that changed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from freehold.chart import words
from freehold.dossier import say
from freehold.types.dossier import Chapter, Evidence, Figure, Known, Part, Table
from freehold.types.traffic import Flip, Outlook, Split, Verdict

MOST = 30  # flips of each kind that are shown
_CODE = re.compile(r"[a-z_]{2,40}(?=:)")
_SIGNS = {  # what a scorer's detail says without any text of the call; in the order in which it is looked for
    "unreadable": "not readable",
    "schema": "breaks the schema",
    "none_of_them": "none of the labels",
    "no_number_in": "no number in it",
    "duplicates": "keys twice",
    "forbidden": "says what it must not",
    "none_of_any": "lacks what it must say",
    "forward": "the judge prefers the other",
}


# in words


def headline(evidence: Evidence) -> str:
    """The verdict in one short sentence. Agreement is never called anything else."""
    verdict, one, other = evidence.verdict, evidence.verdict.candidate.name, incumbent(evidence)
    if say.agreement(verdict):
        return {
            Outlook.NON_INFERIOR: f"{one} answers as {other} does, within the margin.",
            Outlook.INFERIOR: f"{one} does not answer as {other} does.",
            Outlook.UNDECIDED: f"Whether {one} answers as {other} does is not decided.",
        }[verdict.outcome]
    return {
        Outlook.NON_INFERIOR: f"{one} is good enough to take over from {other}.",
        Outlook.INFERIOR: f"{one} is not good enough to take over from {other}.",
        Outlook.UNDECIDED: f"Whether {one} is good enough to take over from {other} is not decided.",
    }[verdict.outcome]


def plain(evidence: Evidence) -> str:
    """What the verdict means, for whoever answers for the move."""
    verdict = evidence.verdict
    calls = words.amount(verdict.calls, "recorded call")
    set_on = f"the margin of {say.points(verdict.margin)}, which was set on {say.day(verdict.fixed_at)}"
    if verdict.estimate is None:
        return f"These calls bear no verdict. {verdict.why}"
    where = f"On {calls}, on which nothing was tuned or chosen,"
    if verdict.outcome is Outlook.NON_INFERIOR:
        lost = "the loss of agreement" if say.agreement(verdict) else "the loss"
        return (
            f"{where} {lost} is shown to be smaller than {set_on}, before any of them was scored. "
            f"Were it not smaller, this page would say so wrongly at most once in {_times(verdict)}."
        )
    if verdict.outcome is Outlook.INFERIOR:
        less = "it agrees less, by more" if say.agreement(verdict) else "it is worse, by more"
        return f"{where} {less} than {set_on}. That is shown with the same certainty that a good verdict needs."
    return f"{where} the loss could be smaller than {set_on}, or larger. {_lacking(verdict)}"


def incumbent(evidence: Evidence) -> str:
    """What the incumbent is called: by most of the recorded calls, or by the task."""
    named = [name for name, _ in evidence.incumbents if name]
    return named[0] if named else evidence.task.price or "the incumbent"


def _times(verdict: Verdict) -> str:
    return f"{1 / verdict.estimate.alpha:.0f} times" if verdict.estimate else ""


def _lacking(verdict: Verdict) -> str:
    if verdict.needed is None:
        return "If the difference is what it seems, no number of calls would show that it is small enough."
    return f"About {max(verdict.needed, verdict.calls + 1):,} calls would decide; there are {verdict.calls:,}."


# the chapters


def verdict(evidence: Evidence) -> Chapter:
    """What was found, against what, and what else was looked at."""
    found, again = evidence.verdict, say.certify(evidence.task)
    figures = [
        Figure("verdict.outcome", "Verdict", found.outcome.value, found.outcome.value, again, Known.COMPUTED),
        Figure("verdict.sentence", "In one sentence", found.outcome.value, evidence.sentence, again, Known.COMPUTED),
        Figure("verdict.measures", "What is measured", found.measures, found.measures, _shows(evidence), Known.STATED),
        Figure("verdict.against", "Measured against", found.against, _against(found), again, Known.STATED),
    ]
    if found.outcome is Outlook.UNDECIDED and found.estimate is not None:
        shown = "no number of calls" if found.needed is None else f"about {max(found.needed, found.calls + 1):,} calls"
        note = "if the difference stays as it is"
        figures.append(
            Figure("verdict.needed", "What would decide", found.needed, shown, again, Known.ESTIMATE, note=note)
        )
    return Chapter("verdict", "The verdict", (Part("verdict.main", figures=tuple(figures)), *_others(evidence)))


def _shows(evidence: Evidence) -> str:
    return say.command("tasks", "show", evidence.task.name)


def _against(verdict: Verdict) -> str:
    if say.agreement(verdict):
        return "the incumbent's answers: agreement with the incumbent, which is not the same as being right"
    return verdict.against


def _others(evidence: Evidence) -> Iterator[Part]:
    if not evidence.others:
        return
    rows = [
        (other.candidate.name, other.outcome.value, words.interval(other), f"{other.calls:,}")
        for other in evidence.others
    ]
    table = Table(
        "verdict.others", "Other candidates that were looked at on the same calls",
        ("candidate", "verdict", "difference in points", "calls"), tuple(rows), say.certify(evidence.task),
        Known.COMPUTED, numeric=(2, 3), note="All of them share one error rate (Holm).", lasting=False,
    )  # fmt: skip
    yield Part("verdict.rest", tables=(table,))


def numbers(evidence: Evidence) -> Chapter:
    """What the verdict stands on."""
    parts = [
        Part("numbers.calls-part", "The calls", figures=tuple(_calls(evidence)), tables=(_splits(evidence),)),
        Part("numbers.difference-part", "The difference", figures=tuple(_difference(evidence))),
        Part("numbers.rules", "What was laid down, and when", figures=tuple(_rules(evidence))),
        Part("numbers.pace-part", "How it answered", figures=tuple(_pace(evidence))),
    ]
    if evidence.verdict.judge:
        parts.append(Part("numbers.judge-part", "How the judge stands to people", figures=tuple(_judge(evidence))))
    return Chapter("numbers", "Numbers", tuple(parts))


def _calls(evidence: Evidence) -> Iterator[Figure]:
    found, again = evidence.verdict, say.certify(evidence.task)
    yield Figure("numbers.calls", "Calls compared", found.calls, f"{found.calls:,}", again)
    yield Figure(
        "numbers.groups", "Groups", found.groups, f"{found.groups:,}", again,
        note="calls that belong together, as of one customer or conversation, count as one piece of evidence",
    )  # fmt: skip
    yield Figure(
        "numbers.errors", "Not answered", found.errors, f"{found.errors:,}", again, note="which counts as wrong"
    )
    if found.unscored:
        yield Figure(
            "numbers.unscored", "Left out", found.unscored, f"{found.unscored:,}", again,
            note="the incumbent's answer has no score there, so that no answer could lose",
        )  # fmt: skip
    portion = evidence.splits.get(Split.CERTIFICATION.value)
    if portion and portion.last:
        shown = f"{say.day(portion.first)} to {say.day(portion.last)}"
        yield Figure(
            "numbers.period", "Made between", [portion.first, portion.last], shown, _traffic(evidence), Known.STATED
        )
    yield Figure("numbers.split", "Digest of the calls", found.split, found.split, again, Known.COMPUTED)


def _traffic(evidence: Evidence) -> str:
    return say.command("traffic", "show", evidence.task.name)


def _splits(evidence: Evidence) -> Table:
    uses = {"tuning": "to tune on", "validation": "to choose on", "certification": "to certify on"}
    rows = [
        (uses[name], f"{portion.calls:,}", f"{portion.groups:,}")
        for name, portion in evidence.splits.items()
        if portion.calls
    ]
    return Table(
        "numbers.splits", "Where the recorded calls went, by time and in whole groups", ("split", "calls", "groups"),
        tuple(rows), _traffic(evidence), numeric=(1, 2),
    )  # fmt: skip


def _difference(evidence: Evidence) -> Iterator[Figure]:
    found, again, agreed = evidence.verdict, say.certify(evidence.task), say.agreement(evidence.verdict)
    own, theirs = ("Candidate's agreement", "Incumbent with itself") if agreed else ("Candidate", "Incumbent")
    yield Figure("numbers.candidate", own, found.candidate_mean, say.percent(found.candidate_mean, 2), again)
    yield Figure("numbers.incumbent", theirs, found.incumbent_mean, say.percent(found.incumbent_mean, 2), again)
    estimate = found.estimate
    if estimate is None:
        yield say.missing("numbers.difference", "Difference", found.why, again)
        return
    digits = _digits(found)
    between = f"{words.signed(estimate.lower * 100, digits)} to {words.signed(estimate.upper * 100, digits)} points"
    level = f"each bound one-sided at {(1 - estimate.alpha) * 100:.4g}%, {(1 - 2 * estimate.alpha) * 100:.4g}% together"
    yield Figure(
        "numbers.difference", "Difference", estimate.difference, say.signed(estimate.difference, digits), again,
        Known.COMPUTED, "share", "candidate less incumbent",
    )  # fmt: skip
    bounds = [estimate.lower, estimate.upper]
    yield Figure("numbers.interval", "Interval", bounds, between, again, Known.COMPUTED, "share", level)
    yield Figure(
        "numbers.p", "p of a loss as large as the margin", estimate.p, f"{estimate.p:.2g}", again, Known.COMPUTED
    )
    yield Figure(
        "numbers.discordant", "Calls on which they differ", found.psi, say.percent(found.psi), again, Known.MEASURED
    )
    if found.certifiable is not None:
        yield Figure(
            "numbers.certifiable", "Smallest margin such calls could certify", found.certifiable,
            say.points(found.certifiable), again, Known.COMPUTED, note="with power 0.8, were there no difference",
        )  # fmt: skip
    yield from _noise(evidence, again)
    yield Figure("numbers.method", "Method", estimate.method, estimate.method, again, Known.COMPUTED)


def _noise(evidence: Evidence, again: str) -> Iterator[Figure]:
    noise = evidence.verdict.noise
    if noise is not None:
        note = "of the calls that it was asked twice"
        yield Figure("numbers.noise", "Incumbent differs from itself", noise, say.percent(noise), again, note=note)
    elif say.agreement(evidence.verdict):
        why = "not measured: none of the calls was asked of the incumbent twice"
        asked = say.command("traffic", "import", "AGAIN.jsonl", "--task", evidence.task.name)
        yield say.missing("numbers.noise", "Incumbent differs from itself", why, asked)


def _digits(verdict: Verdict) -> int:
    """Decimals that tell each bound from the margin."""
    ends = [100 * end for end in (verdict.estimate.lower, verdict.estimate.upper)]
    margin = -100 * verdict.margin
    return next((d for d in (1, 2, 3) if all(round(end, d) != round(margin, d) for end in ends if end != margin)), 3)


def _rules(evidence: Evidence) -> Iterator[Figure]:
    found, fixing, again = evidence.verdict, evidence.fixing, say.certify(evidence.task)
    audit = say.command("audit", "list", "--json")
    yield Figure("numbers.margin", "Margin", found.margin, say.points(found.margin), again, Known.STATED, "share")
    yield Figure(
        "numbers.fixed", "Laid down on", fixing.at, say.moment(fixing.at), audit, note="before any score was read"
    )
    yield Figure("numbers.alpha", "Error rate", fixing.alpha, f"{fixing.alpha:g}, one-sided", again, Known.STATED)
    shown = f"{found.looks:,} at these calls, {found.look:,} of them at this candidate"
    yield Figure("numbers.looks", "Looks", [found.looks, found.look], shown, audit, lasting=False)
    earlier = f"{found.round:,}" + (f", after {found.earlier:,} looks at earlier ones" if found.round > 1 else "")
    yield Figure("numbers.round", "Round of calls", [found.round, found.earlier], earlier, audit)
    yield Figure("numbers.scorer", "Digest of the scorer", fixing.scorer, fixing.scorer, audit, Known.COMPUTED)
    settings = found.candidate.settings
    replay = say.command("replay", evidence.task.name, "--candidate", found.candidate.name, "--json")
    yield Figure("numbers.settings", "Laid over each request", settings, say.compact(settings), replay, Known.STATED)


def _pace(evidence: Evidence) -> Iterator[Figure]:
    pace, name = evidence.pace, evidence.verdict.candidate.name
    again = say.command("replay", evidence.task.name, "--candidate", name, "--split", "certification", "--json")
    note = "one call at a time, on this machine; median / 95th percentile"
    if pace.total_ms:
        yield Figure(
            "numbers.answer-time", "Whole answer", list(pace.total_ms), say.milliseconds(pace.total_ms), again,
            unit="ms", note=note,
        )  # fmt: skip
    if pace.first_token_ms:
        first = pace.first_token_ms
        yield Figure(
            "numbers.first-token", "First token", list(first), say.milliseconds(first), again, unit="ms", note=note
        )
    shown = f"{pace.prompt_tokens:,} read, {pace.completion_tokens:,} written"
    tokens = [pace.prompt_tokens, pace.completion_tokens]
    yield Figure("numbers.tokens", "Tokens", tokens, shown, again, note="as the candidate's engine counts them")


def _judge(evidence: Evidence) -> Iterator[Figure]:
    found, again = evidence.verdict.judge, say.certify(evidence.task)
    names = {
        "n": "Calls that people labelled", "agreement": "Says what people say", "kappa": "Cohen's kappa",
        "consistency": "Holds to it in the other order", "length_bias": "Prefers the longer answer oftener than people",
    }  # fmt: skip
    for name, label in names.items():
        value = found.get(name)
        if value is not None:
            shares = name in ("agreement", "consistency", "length_bias")
            yield Figure(f"numbers.judge-{name}", label, value, say.percent(value) if shares else f"{value:.4g}", again)


# flips


def flips(evidence: Evidence) -> Chapter:
    """The calls on which the two differ."""
    found, again = evidence.verdict, say.command("certify", evidence.task.name, "--flips")
    agreed = say.agreement(found)
    label = "Agrees less" if agreed else "Worse"
    more = "Agrees more" if agreed else "Better"
    figures = (
        Figure("flips.worse", label, found.worse, f"{found.worse:,}", again),
        Figure("flips.better", more, found.better, f"{found.better:,}", again),
    )
    lead = ["The same average can hide many changed answers. These are the calls whose score changed, the worst first."]
    lead.append(_about_text(evidence))
    tables = [table for table in (_fields(evidence, again), *_lists(evidence, again)) if table.rows]
    return Chapter(
        "flips", "Calls that changed", (Part("flips.main", "", tuple(lead), (), "", figures, tuple(tables)),)
    )


def _about_text(evidence: Evidence) -> str:
    if evidence.with_text:
        return (
            "This dossier was made with texts of calls in it, cut short. They may hold personal data: hand it on only "
            "to whoever may read the calls themselves."
        )
    return (
        "No text of a call is in this dossier: calls go by their ids, and of an answer it is told where it differs, "
        "not what it says. 'freehold report' with --with-text makes one that has the texts."
    )


def _lists(evidence: Evidence, again: str) -> Iterator[Table]:
    found, agreed = evidence.verdict.flips, say.agreement(evidence.verdict)
    worse = [flip for flip in found if flip.candidate < flip.incumbent and "error" not in flip.detail]
    failed = [flip for flip in found if "error" in flip.detail]
    better = [flip for flip in reversed(found) if flip.candidate > flip.incumbent and "error" not in flip.detail]
    kinds = (
        ("flips.worse-list", "Agrees less than the incumbent" if agreed else "Worse than the incumbent", worse),
        ("flips.failed-list", "Nothing came that could be scored, which counts as wrong", failed),
        ("flips.better-list", "Agrees more" if agreed else "Better than the incumbent", better),
    )
    for id, caption, kind in kinds:
        shown = kind[:MOST]
        rows = tuple(
            (flip.sample, f"{flip.incumbent:.3g}", f"{flip.candidate:.3g}", _where(evidence, flip)) for flip in shown
        )
        under = tuple(_texts(evidence, flip) for flip in shown) if evidence.with_text else ()
        yield Table(
            id, caption, ("call", "incumbent", "candidate", "where"), rows, again, numeric=(1, 2), under=under,
            whole=len(kind),
        )  # fmt: skip


def _texts(evidence: Evidence, flip: Flip) -> tuple[tuple[str, str], ...]:
    """What was asked, and both answers, in short."""
    found = evidence.excerpts.get(flip.sample)
    if found is None:
        return (("", "The call is no longer there."),)
    own = found.candidate or say.brief(str(flip.detail.get("error", "")))
    texts = (("asked", found.asked), ("expected", found.expected), ("incumbent", found.incumbent), ("candidate", own))
    return tuple((word, text) for word, text in texts if text)


def _where(evidence: Evidence, flip: Flip) -> str:
    """Where the worse of the two answers is not as it should be, without a word of it: names of fields that the task's
    own file has, and signs whose words are ours."""
    if "error" in flip.detail:
        code = _CODE.match(str(flip.detail["error"]))
        return code[0].replace("_", " ") if code else "no score"
    detail = flip.detail.get("candidate" if flip.candidate < flip.incumbent else "incumbent", {})
    fields, unnamed = _named(detail, evidence.fields)
    signs = [said for sign, said in _SIGNS.items() if detail.get(sign)]
    more = [words.amount(unnamed, "field" if not fields else "other field")] if unnamed else []
    return ", ".join([*signs, *fields, *more])


def _named(detail: dict[str, Any], known: Sequence[str]) -> tuple[list[str], int]:
    """The known ones of the fields that are wrong or missing, and how many others there are."""
    found = [*detail.get("wrong", {}), *detail.get("missing", ()), *detail.get("additional", ())]
    found = list(dict.fromkeys(map(str, found)))
    named = [name for name in found if name in known]
    return named, len(found) - len(named)


def _fields(evidence: Evidence, again: str) -> Table:
    """How often each field that the task names is behind a flip."""
    worse: Counter[str] = Counter()
    better: Counter[str] = Counter()
    for flip in evidence.verdict.flips:
        for counter, whose, counts in (
            (worse, "candidate", flip.candidate < flip.incumbent),
            (better, "incumbent", flip.candidate > flip.incumbent),
        ):
            if counts:
                counter.update(_named(flip.detail.get(whose, {}), evidence.fields)[0])
    names = sorted({*worse, *better}, key=lambda name: (-worse[name], name))
    rows = tuple((name, f"{worse[name]:,}", f"{better[name]:,}") for name in names)
    return Table(
        "flips.fields", "Fields behind the changes", ("field", "wrong in the candidate", "wrong in the incumbent"),
        rows, again, numeric=(1, 2), note="A call may count for several fields.",
    )  # fmt: skip
