"""The chapter about tuning: what was trained on what, how it went, and how well the engine reproduces the result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from freehold.chart import words
from freehold.dossier import say
from freehold.types.dossier import Chapter, Evidence, Figure, Known, Part, Table
from freehold.types.tuning import CurvePoint, Parity, TuningRun

POINTS = 200  # of a curve that is drawn
_ROWS = 16  # of the table beside it


def chapter(evidence: Evidence) -> Chapter:
    """The run that made the adapter; or that there was none, which is no fault."""
    run = evidence.tuning
    if run is None:
        return Chapter("tuning", "Tuning", (Part("tuning.main", figures=(_none(evidence),)),))
    again = say.command("models", "show", run.name, "--json")
    parts = [Part("tuning.main", figures=tuple(_run(evidence, run, again)), tables=tuple(_tables(run, again)))]
    if run.curve:
        parts.append(Part("tuning.curve", "How it went", picture="curve", tables=(_curve(run, again),)))
    parts.append(Part("tuning.parity-part", "The same in the engine", _PARITY, figures=tuple(_parity(run, again))))
    return Chapter("tuning", "Tuning", tuple(parts))


_PARITY = (
    "The adapter was trained in one library and answers in another. On prompts that it was not trained on both must "
    "agree as well with the adapter as they do without it.",
)


def _none(evidence: Evidence) -> Figure:
    base = evidence.verdict.candidate.name
    again = say.command("models", "show", base) if evidence.model else say.command("models", "list")
    if evidence.model is not None and evidence.model.manifest.base:
        return say.missing("tuning.run", "Tuning run", "the run that made this adapter is not in this home", again)
    why = "the candidate answers as it came: nobody tuned it here"
    return Figure("tuning.run", "Tuning run", None, why, again, Known.STATED)


def _run(evidence: Evidence, run: TuningRun, again: str) -> Iterator[Figure]:
    audit = say.command("audit", "list", "--json")
    yield Figure("tuning.run", "Run", run.id, f"{run.id}, {say.moment(run.began)}", audit)
    yield Figure("tuning.base", "Base", run.base_digest, f"{run.base}, {run.base_digest}", again)
    yield Figure("tuning.adapter", "Adapter", run.adapter_digest, f"{run.name}, {run.adapter_digest}", again)
    if run.adapter_digest != evidence.verdict.candidate.digest:
        why = "NO: the candidate that was certified is another file"
        yield Figure("tuning.same", "Is it the candidate?", False, why, again, Known.COMPUTED)
    shown = f"{run.calls:,} to train on, {run.validation_calls:,} to choose by"
    traffic = say.command("traffic", "show", run.task)
    yield Figure("tuning.calls", "Calls", [run.calls, run.validation_calls], shown, traffic)
    yield Figure("tuning.data", "Digest of the data", run.data, run.data, again, Known.COMPUTED)
    yield Figure("tuning.tokens", "Tokens trained on", run.tokens, f"{run.tokens:,}", again, note="prompts included")
    pace = f"{say.seconds(run.seconds)}, {run.tokens / run.seconds:,.0f} tokens/s" if run.seconds else "not known"
    yield Figure("tuning.seconds", "Time", run.seconds, pace, again, unit="s", note=f"on {run.device}, {run.dtype}")
    yield Figure("tuning.best", "Kept", run.best_step, f"the checkpoint after {run.best_step:,} updates", again)
    if run.stopped:
        yield Figure("tuning.stopped", "Why it ended", run.stopped, run.stopped, again)


def _tables(run: TuningRun, again: str) -> Iterator[Table]:
    settings = tuple((name, say.compact(value)) for name, value in sorted(run.settings.items()))
    versions = tuple(sorted(run.versions.items()))
    if settings:
        yield Table("tuning.settings", "Settings", ("setting", "value"), settings, again, Known.STATED)
    if versions:
        yield Table("tuning.versions", "Versions", ("library", "version"), versions, again, Known.STATED)


def _curve(run: TuningRun, again: str) -> Table:
    chosen = _spread([point for point in run.curve if point.validation_loss is not None] or list(run.curve), _ROWS)
    rows = tuple(
        (
            f"{point.step:,}", f"{point.epoch:.2f}", f"{point.tokens:,}", f"{point.loss:.4g}",
            "" if point.validation_loss is None else f"{point.validation_loss:.4g}",
            "" if point.validation_score is None else say.percent(point.validation_score),
        )
        for point in chosen
    )  # fmt: skip
    head = ("update", "epoch", "tokens", "loss", "validation loss", "validation score")
    return Table(
        "tuning.points", "Loss in nats per answer token; score by the task's own scorer", head, rows, again,
        numeric=(0, 1, 2, 3, 4, 5), whole=len(run.curve),
    )  # fmt: skip


def curve(run: TuningRun | None) -> tuple[CurvePoint, ...]:
    """The points of a curve that are drawn: all of few, or some of many, those with a validation among them first."""
    if run is None:
        return ()
    judged = [point for point in run.curve if point.validation_loss is not None]
    bare = [point for point in run.curve if point.validation_loss is None]
    kept = [*_spread(judged, POINTS // 2), *_spread(bare, POINTS // 2)]
    return tuple(sorted(kept, key=lambda point: point.step))


def _spread(points: Sequence[CurvePoint], most: int) -> list[CurvePoint]:
    """At most so many of them, evenly, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(number * (len(points) - 1) / (most - 1))] for number in range(most)]


def _parity(run: TuningRun, again: str) -> Iterator[Figure]:
    found = run.parity
    if found is None:
        yield say.missing("tuning.parity", "Parity", "the gate left no measurement", again)
        return
    outcome = "passed" if found.passed else "NOT PASSED"
    yield Figure("tuning.parity", "Parity", found.passed, outcome, again, note=found.why)
    yield from _sides(found, again)
    where = f"{words.amount(found.prompts, 'prompt')}, {words.amount(found.positions, 'position')}"
    yield Figure("tuning.positions", "Measured on", [found.prompts, found.positions], where, again)


def _sides(found: Parity, again: str) -> Iterator[Figure]:
    """Each measure with the adapter, beside the base's own."""
    for name, label in (("argmax", "Same likeliest token"),):
        own, base = getattr(found, f"adapter_{name}"), getattr(found, f"base_{name}")
        shown = f"{say.percent(own)}; the base {say.percent(base)}"
        yield Figure(f"tuning.{name}", label, [own, base], shown, again)
    for name, label in (("median", "Difference, median"), ("p95", "Difference, 95th percentile")):
        own, base = getattr(found, f"adapter_{name}"), getattr(found, f"base_{name}")
        yield Figure(
            f"tuning.{name}", label, [own, base], f"{own:.3g} nats; the base {base:.3g}", again, unit="nats",
            note="of the log-probability of the token that was chosen",
        )  # fmt: skip
