"""Evidence becomes a document: chapter by chapter, the first page last, since it points at figures of the others."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

from freehold.chart import words
from freehold.dossier import closing, model, money, privacy, quality, say, tuning
from freehold.types.dossier import Chapter, Dossier, Evidence, Figure, Known, Table
from freehold.types.traffic import Verdict

LAYOUT = 1  # of the pages that are rendered; another one whenever a rendering changes

# The figures of the first page, in their order; those that there are not are left out.
_SUMMARY = (
    "numbers.difference", "numbers.calls", "flips.changed", "cost.beside", "cost.break-even", "privacy.left",
    "privacy.proof", "model.licences",
)  # fmt: skip


def compose(evidence: Evidence) -> Dossier:
    """The document that this evidence bears. Every text in it is harmless, every number one that JSON has."""
    found = (
        quality.verdict(evidence), quality.numbers(evidence), quality.flips(evidence), money.chapter(evidence),
        privacy.chapter(evidence), model.chapter(evidence), tuning.chapter(evidence), closing.terms(evidence),
        closing.environment(evidence), closing.limits(evidence), closing.check(evidence),
    )  # fmt: skip
    run, verdict = evidence.tuning, evidence.verdict
    made = Dossier(
        task=evidence.task.name,
        about=evidence.task.about,
        candidate=verdict.candidate.name,
        candidate_key=verdict.candidate.key,
        incumbent=quality.incumbent(evidence),
        outcome=verdict.outcome,
        headline=quality.headline(evidence),
        plain=quality.plain(evidence),
        sentence=evidence.sentence,
        made_at=evidence.at,
        made_by=evidence.by,
        layout=LAYOUT,
        with_text=evidence.with_text,
        key=evidence.key,
        signer=evidence.signer,
        summary=tuple(_summary(evidence, found)),
        points=closing.short_limits(evidence),
        verdicts=tuple(_drawn(one) for one in (verdict, *evidence.others)),
        chapters=found,
        curve=tuning.curve(run),
        best_step=run.best_step if run else 0,
    )
    return msgspec.convert(say.clean(msgspec.to_builtins(made)), Dossier)


def figures(dossier: Dossier) -> Iterator[Figure]:
    """Every figure, in the order of reading."""
    yield from dossier.summary
    for chapter in dossier.chapters:
        for part in chapter.parts:
            yield from part.figures


def tables(dossier: Dossier) -> Iterator[Table]:
    """Every table, likewise."""
    for chapter in dossier.chapters:
        for part in chapter.parts:
            yield from part.tables


def _summary(evidence: Evidence, chapters: tuple[Chapter, ...]) -> Iterator[Figure]:
    found = {figure.id: figure for chapter in chapters for part in chapter.parts for figure in part.figures}
    for id in _SUMMARY:
        for figure in (*_own(evidence), *_shorter(evidence, found)):
            if figure.id == id:
                yield figure


def _own(evidence: Evidence) -> Iterator[Figure]:
    """What only the first page says in this way."""
    verdict, again = evidence.verdict, say.command("certify", evidence.task.name, "--flips")
    changed, note = f"{verdict.worse + verdict.better:,}", f"{verdict.worse:,} worse, {verdict.better:,} better"
    if say.agreement(verdict):
        note = f"{verdict.worse:,} agree less, {verdict.better:,} more"
    yield Figure("flips.changed", "Scores that changed", [verdict.worse, verdict.better], changed, again, note=note)
    if beside := money.in_short(evidence):
        yield beside
    if licence := model.licence_in_short(evidence):
        shows = say.command("models", "show", verdict.candidate.name)
        yield Figure("model.licences", "Licence of the model", licence, licence, shows, Known.COMPUTED)


def _shorter(evidence: Evidence, found: dict[str, Figure]) -> Iterator[Figure]:
    """Figures of the chapters, in fewer words."""
    verdict, proof = evidence.verdict, evidence.privacy.proof
    notes = {"numbers.calls": words.amount(verdict.groups, "group"), "privacy.left": "calls to the candidate"}
    if interval := found.get("numbers.interval"):
        notes["numbers.difference"] = interval.shown.removesuffix(" points")
    for id, figure in found.items():
        if id == "privacy.proof" and proof is not None and not proof.wrong:
            yield msgspec.structs.replace(figure, shown=proof.verdict, note=say.day(proof.at))
        elif figure.kind is Known.MISSING:
            yield msgspec.structs.replace(figure, shown="not known", note="its chapter says why")
        elif figure.unit and figure.shown.endswith(f" {figure.unit}"):
            yield msgspec.structs.replace(figure, shown=figure.shown.removesuffix(f" {figure.unit}"), note=figure.unit)
        else:
            yield msgspec.structs.replace(figure, note=notes.get(id, figure.note))


def _drawn(verdict: Verdict) -> Verdict:
    """A verdict as it is drawn: without its flips, which hold texts of calls, and without an estimate that is none."""
    estimate = verdict.estimate
    if estimate is not None and not all(map(math.isfinite, (estimate.difference, estimate.lower, estimate.upper))):
        estimate = None
    return msgspec.structs.replace(verdict, flips=(), judge={}, estimate=estimate)
