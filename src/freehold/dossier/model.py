"""The chapter about the model: where it is from, what was found in its files, and what its licence asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from freehold.chart import words
from freehold.dossier import say
from freehold.names import size
from freehold.types.dossier import Chapter, Evidence, Figure, Kept, Known, Part, Table
from freehold.types.models import Admission, Record

_FILES = 40  # that are listed
_FINDINGS = 40


def chapter(evidence: Evidence) -> Chapter:
    """Provenance, licence and scan of the candidate and, where it is an adapter, of its base."""
    name, digest = evidence.verdict.candidate.name, evidence.verdict.candidate.digest
    if evidence.model is None:
        return Chapter("model", "The model", (Part("model.main", figures=(_unknown(name, digest),)),))
    parts = [*_of("model", "", evidence.model)]
    if evidence.base is not None:
        parts += _of("base", "The base: ", evidence.base)
    elif evidence.model.manifest.base:
        why = f"{evidence.model.manifest.base} is no longer in the vault"
        parts.append(Part("base.main", "The base", figures=(say.missing("base.name", "Base", why, _ADD),)))
    return Chapter("model", "The model", tuple(parts))


_ADD = say.command("models", "add", "SOURCE")


def _unknown(name: str, digest: str) -> Figure:
    if not digest:
        why = f"{name} runs on somebody else's machine: which files answer there is not known here"
        return say.missing("model.name", "Model", why, say.command("status"))
    why = f"no model with the digest {digest} is in the vault any more"
    return say.missing("model.name", "Model", why, _ADD)


def _of(key: str, prefix: str, kept: Kept) -> Iterator[Part]:
    """The parts about one model. ``key`` begins the ids of its figures."""
    manifest, record = kept.manifest, kept.record
    again = say.command("models", "show", manifest.name)
    verify = say.command("models", "verify", manifest.name)
    title = f"{prefix}{manifest.name}" if prefix else ""
    yield Part(f"{key}.main", title, figures=tuple(_identity(key, kept, again, verify)))
    yield _licence(key, record, again)
    yield _scan(key, record, again)
    rows = tuple((file.path, file.kind, size(file.size), file.digest) for file in record.files[:_FILES])
    table = Table(
        f"{key}.files", "Every file, by its digest", ("file", "for", "size", "digest"), rows, verify,
        whole=len(record.files),
    )  # fmt: skip
    yield Part(f"{key}.files-part", "Files", tables=(table,))


def _identity(key: str, kept: Kept, again: str, verify: str) -> Iterator[Figure]:
    manifest, record = kept.manifest, kept.record
    pinned = "its digest was known before it came" if record.pinned else ""
    yield Figure(f"{key}.name", "Model", manifest.name, manifest.name, again, Known.STATED)
    yield Figure(f"{key}.digest", "Digest", manifest.digest, manifest.digest, verify, Known.COMPUTED)
    yield Figure(f"{key}.source", "Came from", record.source, record.source, again, Known.STATED, note=pinned)
    if record.via:
        yield Figure(f"{key}.via", "Carried by", record.via, record.via, again, Known.STATED)
    if record.chosen:
        yield Figure(f"{key}.chosen", "Chosen by", list(record.chosen), ", ".join(record.chosen), again, Known.STATED)
    for number, (path, old) in enumerate(sorted(record.converted.items()), 1):
        shown = f"{path}, from {old}"
        yield Figure(f"{key}.converted-{number}", "Converted here", [path, old], shown, again, Known.MEASURED)
    made = [record.format, record.architecture or "unknown architecture"]
    made += [f"{record.parameters:,} parameters"] if record.parameters else []
    made += [f"context of {record.context:,} tokens"] if record.context else []
    value = {"format": record.format, "architecture": record.architecture, "parameters": record.parameters}
    yield Figure(f"{key}.made", "What it is", value, ", ".join(made), again, Known.MEASURED)
    if record.base_models:
        bases = ", ".join(record.base_models)
        yield Figure(f"{key}.bases", "Says it was made from", list(record.base_models), bases, again, Known.STATED)
    yield _signatures(key, record, again)
    house = "signed by this house's key" if kept.signed else "NOT signed by this house's key"
    yield Figure(f"{key}.signed", "The house's record of it", kept.signed, house, verify, Known.COMPUTED)


def _signatures(key: str, record: Record, again: str) -> Figure:
    if not record.signatures:
        return Figure(f"{key}.signatures", "Publisher's signature", [], "none", again, Known.MEASURED)
    told = [
        f"{'good' if one.good else 'NOT GOOD'}, by {one.signer or 'somebody unknown here'}: {one.detail}"
        for one in record.signatures
    ]
    value = [{"key": one.key, "signer": one.signer, "good": one.good} for one in record.signatures]
    return Figure(f"{key}.signatures", "Publisher's signature", value, "; ".join(told), again, Known.COMPUTED)


def _licence(key: str, record: Record, again: str) -> Part:
    licence, openness = record.licence, record.openness
    shown = f"{licence.id or 'unknown'} ({licence.kind.value})"
    osaid = {"yes": "open source", "no": "not open source"}.get(openness.osaid, "not known")
    figures = [
        Figure(f"{key}.licence", "Licence", licence.id, shown, again, Known.COMPUTED),
        Figure(
            f"{key}.openness", "Openness", openness.grade, f"class {openness.grade}" if openness.grade else "no class",
            again, Known.COMPUTED, note="of the Model Openness Framework",
        ),
        Figure(
            f"{key}.osaid", "Open source AI", openness.osaid, osaid, again, Known.COMPUTED,
            note="by the definition of the Open Source Initiative",
        ),
    ]  # fmt: skip
    rows = tuple((stated.where, stated.says, stated.id or "not recognised") for stated in licence.stated)
    tables = [Table(f"{key}.stated", "Who says so", ("where", "says", "which is"), rows, again, Known.STATED)]
    if openness.missing:
        lacking = tuple((name,) for name in openness.missing)
        tables.append(Table(f"{key}.lacking", "What a higher class of openness would need", ("",), lacking, again))
    asks = tuple(f"The licence asks: {ask}" for ask in licence.asks)
    conflicts = tuple(f"Sources disagree: {conflict}" for conflict in licence.conflicts)
    reasons = tuple(openness.reasons)
    return Part(
        f"{key}.licence-part", "Licence", points=(*asks, *conflicts, *reasons), figures=tuple(figures),
        tables=tuple(table for table in tables if table.rows),
    )  # fmt: skip


def _scan(key: str, record: Record, again: str) -> Part:
    counts = Counter(finding.severity.value for finding in record.findings)
    shown = ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "nothing was found"
    figures = [
        Figure(f"{key}.gate", "The gate's verdict", record.verdict.value, record.verdict.value, again, Known.COMPUTED),
        Figure(
            f"{key}.judged", "Judged", record.judged_at, f"{say.moment(record.judged_at)}, by {record.judged_by}", again
        ),
        Figure(f"{key}.findings", "Findings", dict(counts), shown, again, note="every byte of every file was read"),
    ]
    ruling = record.ruling
    if ruling is not None:
        what = "admitted" if ruling.verdict is Admission.ADMIT else "refused"
        told = f"{what} by {ruling.by}, {say.moment(ruling.at)}: {ruling.why}"
        figures.append(Figure(f"{key}.ruling", "Decided by a person", ruling.verdict.value, told, again, Known.STATED))
    rows = tuple(
        (one.severity.value, one.rule, ", ".join(filter(None, (one.file, one.where))), one.meaning)
        for one in record.findings[:_FINDINGS]
    )
    head = ("asks for", "rule", "where", "what it means")
    table = Table(f"{key}.scan", "What the scan found", head, rows, again, whole=len(record.findings))
    return Part(f"{key}.scan-part", "Scan", figures=tuple(figures), tables=(table,) if rows else ())


def licence_in_short(evidence: Evidence) -> str:
    """The candidate's licence and, where it is an adapter, its base's, in a few words; '' where neither is known."""
    kept = [one for one in (evidence.model, evidence.base) if one is not None]
    return ", on ".join(dict.fromkeys(words.clean(one.record.licence.id or "unknown") for one in kept))
