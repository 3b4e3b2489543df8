"""Findings decide: a quarantined model is admitted to the vault, held for a named person, or refused, with reasons."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

import freehold
from freehold import licence as licences
from freehold import openness, sign
from freehold.config import TrustSettings
from freehold.errors import BadConfig, BadModel
from freehold.ledger import Ledger
from freehold.scan import adapter, folder, templates
from freehold.scan.base import BLOCK, FETCH_AGAIN, HOLD, NOTE, Rule
from freehold.scan.sandbox import stamp
from freehold.types import (
    ADAPTER,
    Acquired,
    Admission,
    Finding,
    Judged,
    Licence,
    LicenceClass,
    Manifest,
    ModelFile,
    Openness,
    Progress,
    Record,
    Ruling,
    Signature,
)  # fmt: skip
from freehold.vault import SERVED, Vault

_GRADES = ("", "III", "II", "I")
_SIGNATURES = ("model.sig",)

PROMISE = Rule(
    "source.digest", BLOCK, "The file is not the one that its source promised.", FETCH_AGAIN,
    "the digest in the source's own listing",
)  # fmt: skip
NOTHING = Rule(
    "model.no-weights", BLOCK, "There are no weights in it.", "Give the file or folder that holds the model.",
    "Freehold: a model has weights",
)  # fmt: skip
UNSERVED = Rule(
    "model.not-served", NOTE, "No engine here opens this format; it is kept, and may be tuned or converted.",
    "Add a GGUF of it to serve it.", "Freehold: engines open GGUF",
)  # fmt: skip
CONFLICT = Rule(
    "licence.conflict", HOLD, "Two places disagree about the licence.", "Ask the publisher which one holds.",
    "Freehold: the text, the card, the file and the base model are compared",
)  # fmt: skip
CLASS = Rule(
    "licence.class", HOLD, "Its class of licence does not come in by itself here.",
    "Decide by name and reason, or change trust.licences.", "the setting trust.licences",
)  # fmt: skip
REFUSED = Rule(
    "licence.refused", BLOCK, "Its class of licence is refused here.", "Choose another model, or change trust.refused.",
    "the setting trust.refused",
)  # fmt: skip
UNKNOWN = Rule(
    "licence.unknown", NOTE, "Nothing says under which licence it is.",
    "Ask the publisher, or hold such models: trust.licences.", "Freehold: what is not known is said",
)  # fmt: skip
GRADE = Rule(
    "openness.class", HOLD, "It is less open than is asked for here.",
    "Decide by name and reason, or change trust.openness.", "the setting trust.openness",
)  # fmt: skip
BAD_SIGNATURE = Rule(
    "signature.bad", BLOCK, "Its signature does not hold.", FETCH_AGAIN, "OpenSSF model signing",
)  # fmt: skip
STRANGER = Rule(
    "signature.unknown", NOTE, "It is signed by somebody whom nobody here knows.",
    "If you know the key, name it under trust.signers.", "OpenSSF model signing",
)  # fmt: skip
UNSIGNED = Rule(
    "signature.missing", HOLD, "There is no good signature by anybody in trust.signers.",
    "Ask the publisher to sign, or decide by name and reason.", "the setting trust.signed",
)  # fmt: skip
TEMPLATE = Rule(
    "template.differs", HOLD, "Its chat template is not the publisher's.", "Read the difference, then decide.",
    "arXiv 2602.04653",
)  # fmt: skip


RULES = tuple(value for value in list(vars().values()) if isinstance(value, Rule))


POLICY = frozenset({CLASS.id, GRADE.id, UNSIGNED.id})  # what each house says for itself, whatever another decided


class Judgement(msgspec.Struct, frozen=True):
    """The record of a model as the gate would keep it, and its files as they were while they were read."""

    record: Record
    files: tuple[Judged, ...]
    acquired: Acquired


class Base(msgspec.Struct, frozen=True):
    """The admitted model that an adapter belongs to: the digest of its file, its licence as it was told here, and what
    an adapter is held against."""

    digest: str
    licence: Licence
    model: adapter.Base


def judge(
    acquired: Acquired, trust: TrustSettings, seal: str, progress: Progress, *, published: str = "",
    base: Base | None = None,
) -> Judgement:  # fmt: skip
    """Look into every file of a quarantined model and say what the gate makes of it. Nothing is kept or changed.

    ``seal`` is the setting of that name; ``published`` is the chat template as its publisher has it, to compare with;
    ``base`` is the model that an adapter belongs to.

    Raises:
        CannotDo: it cannot be looked into.
    """
    scanned = folder.scan(acquired.folder, seal, progress)
    licence = licences.judge(scanned.files, acquired, (base.model.name, base.licence) if base else None)
    grade = openness.grade(scanned.files, licence)
    signatures = _signatures(acquired.folder, scanned.files, trust)
    main = _main(scanned.files)
    findings = [
        *_looked_at(scanned.findings, scanned.files, trust),
        *_promises(acquired, scanned.files),
        *_weights(main),
        *_of_base(main, base),
        *_of_licence(licence, trust),
        *_of_grade(grade, trust),
        *_of_signatures(signatures, trust),
        *_of_templates(scanned.files, published, trust),
    ]
    record = Record(
        name=acquired.name,
        source=acquired.source,
        pinned=acquired.pinned,
        files=tuple(ModelFile(file.file, file.digest, file.size, file.format, kind(file)) for file in scanned.files),
        verdict=folder.verdict(findings),
        findings=tuple(findings),
        licence=licence,
        openness=grade,
        judged_by=f"freehold {freehold.__version__}",
        judged_at=time.time(),
        base_models=tuple(dict.fromkeys([*acquired.base_models, *_base_models(scanned.files)])),
        signatures=signatures,
        converted=acquired.converted,
        chosen=acquired.chosen,
        via=acquired.via,
        base=base.digest if base else "",
        **_facts(main, scanned.files),
    )
    return Judgement(record, scanned.files, acquired)


def admit(
    judgement: Judgement, vault: Vault, ledger: Ledger, key: sign.SigningKey, *, actor: str, replace: bool,
    ruling: Ruling | None = None,
) -> Manifest:  # fmt: skip
    """Take a judged model into the vault, its record signed with ``key``. ``replace`` lets the name move from another
    model to this one.

    Raises:
        CannotDo: the name is another model's, or the base of an adapter's.
        BadModel: the verdict is not to admit it and no ruling says otherwise, or its files have changed since they
            were judged. The vault is as it was.
    """
    record = msgspec.structs.replace(judgement.record, ruling=ruling)
    if record.verdict is Admission.BLOCK or (record.verdict is Admission.HOLD and not _admits(ruling)):
        raise BadModel(f"{record.source} was not admitted: {reasons(record)}", hint="Nothing was kept.")
    _unchanged(judgement)
    main = _main(judgement.files)
    manifest = Manifest(
        name=record.name,
        digest=main.digest,
        size=main.size,
        format=record.format,
        source=record.source,
        pinned=record.pinned,
        architecture=record.architecture,
        context=record.context,
        licence=record.licence.id,
        base=record.base,
    )
    vault.check_name(manifest, replace=replace)
    detail = {"digest": manifest.digest, "source": manifest.source, "pinned": manifest.pinned}
    ledger.record("model.admitted", manifest.name, actor=actor, detail=detail)  # before it can be served
    return vault.put(judgement.acquired.folder, manifest, record, key, replace=replace)


def reasons(record: Record) -> str:
    """Why a model does not come in by itself, as sentences."""
    grave = [found for found in record.findings if found.severity.value == record.verdict.value]
    said = [f"{found.meaning} [{found.rule}{_place(found)}]" for found in grave[:5]]
    return " ".join([*said, *([f"And {len(grave) - 5} more."] if len(grave) > 5 else [])])


def kind(file: Judged) -> str:
    """What a file is to its model: weights, config, template, doc, licence, code or signature."""
    name = file.file.rpartition("/")[2].lower()
    if name in _SIGNATURES:
        return "signature"
    if name.startswith(("license", "licence", "copying", "notice")):
        return "licence"
    if name.startswith("chat_template"):
        return "template"
    if file.facts.get("weights"):
        return "weights"
    if name.endswith((".py", ".sh", ".ipynb")):
        return "code"
    return "config" if file.format in ("json", "yaml", "sentencepiece") else "doc"


def _main(files: Sequence[Judged]) -> Judged | None:
    """The file that an engine opens; where none does, the first weights."""
    weights = [file for file in files if kind(file) == "weights"]
    served = [file for file in weights if _format(file) in SERVED]
    unknown = sorted((file for file in files if file.format == "opaque"), key=lambda file: -file.size)
    return next(iter([*served, *weights, *unknown]), None)  # what nobody knows may be weights: a person decides


def _format(file: Judged) -> str:
    """The format, by which an engine says whether it opens it."""
    if file.format != "gguf":
        return file.format
    split = file.facts.get("split")
    if file.facts.get("type", "model") == "adapter":
        return ADAPTER
    return "gguf-split" if split and split[1] > 1 else "gguf"


def _facts(main: Judged | None, files: Sequence[Judged]) -> dict[str, Any]:
    if main is None:
        return {}
    same = [file for file in files if file.format == main.format] if _format(main) != "gguf" else [main]
    return {
        "parameters": sum(file.facts.get("parameters", 0) for file in same),
        "architecture": str(main.facts.get("architecture", "")),
        "context": int(main.facts.get("context", 0)),
        "format": _format(main),
        "templates": {name: value for file in files for name, value in file.facts.get("templates", {}).items()},
        "metadata": main.facts.get("metadata", {}),
    }


def _base_models(files: Iterable[Judged]) -> list[str]:
    named = [str(name) for file in files for name in file.facts.get("base_models", ())]
    for file in files:
        told = file.facts.get("card", {}).get("base_model", ())
        named += [told] if isinstance(told, str) else [str(name) for name in told or ()]
    return named


def _looked_at(findings: Iterable[Finding], files: Sequence[Judged], trust: TrustSettings) -> list[Finding]:
    """The findings, without those about templates of files whose every template was looked at by somebody here."""
    accepted = {
        file.file
        for file in files
        if file.facts.get("templates") and set(file.facts["templates"].values()) <= set(trust.templates)
    }
    return [found for found in findings if not (found.rule.startswith("template.") and found.file in accepted)]


def _promises(acquired: Acquired, files: Iterable[Judged]) -> list[Finding]:
    promised = {file.file: file.digest for file in files}
    wrong = {path: due for path, due in acquired.digests.items() if promised.get(path) != due}
    return [
        _finding(PROMISE, f"The source promised {due}, and it is {promised.get(path, 'not there')}.", path)
        for path, due in wrong.items()
    ]


def _weights(main: Judged | None) -> list[Finding]:
    if main is None:
        return [_finding(NOTHING)]
    if _format(main) in (*SERVED, ADAPTER):
        return []
    return [_finding(UNSERVED, f"No engine here opens {_format(main)}.", main.file)]


def _of_base(main: Judged | None, base: Base | None) -> list[Finding]:
    """An adapter is held against its base; what is none has no base."""
    if main is None:
        return []
    if _format(main) == ADAPTER:
        found = adapter.judge(main.facts, base.model) if base else [(adapter.BASE, adapter.BASE.meaning)]
    else:
        found = [(adapter.NO_ADAPTER, adapter.NO_ADAPTER.meaning)] if base and _format(main) in SERVED else []
    return [_finding(rule, meaning, main.file) for rule, meaning in found]


def _of_licence(licence: Licence, trust: TrustSettings) -> list[Finding]:
    findings = [_finding(CONFLICT, sentence) for sentence in licence.conflicts]
    name = f"{licence.id or 'its licence'}, class {licence.kind.value}"
    if licence.kind.value in trust.refused:
        findings.append(_finding(REFUSED, f"It is under {name}, which is refused here."))
    elif licence.kind.value not in trust.licences:
        findings.append(_finding(CLASS, f"It is under {name}, which does not come in by itself here."))
    elif licence.kind is LicenceClass.UNKNOWN:
        findings.append(_finding(UNKNOWN))
    return findings


def _of_grade(grade: Openness, trust: TrustSettings) -> list[Finding]:
    if _GRADES.index(grade.grade) >= _GRADES.index(trust.openness):
        return []
    return [_finding(GRADE, f"Its class is {grade.grade or 'none'}, and {trust.openness} is asked for.")]


def _signatures(root: Path, files: Sequence[Judged], trust: TrustSettings) -> tuple[Signature, ...]:
    found = [file for file in files if kind(file) == "signature"]
    if not found:
        return ()
    from freehold import signature  # a third of a second of imports that few models need

    digests, trusted = {file.file: file.digest for file in files}, _signers(trust)
    bundles = {file.file: _read(root / file.file, signature.MAX_BUNDLE) for file in found}
    return tuple(signature.verify(bundle, digests, trusted, file=path) for path, bundle in bundles.items())


def _read(path: Path, most: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(most + 1)


def _signers(trust: TrustSettings) -> Mapping[str, bytes]:
    signers = {}
    for name, path in trust.signers.items():
        try:
            signers[name] = Path(path).expanduser().read_bytes()
        except OSError as error:
            raise BadConfig(
                f"The key of {name!r}, {path}, cannot be read: {error.strerror}.", hint="See trust.signers."
            ) from None
    return signers


def _of_signatures(signatures: Sequence[Signature], trust: TrustSettings) -> list[Finding]:
    findings = []
    for found in signatures:
        if not found.good and found.signer:
            findings.append(_finding(BAD_SIGNATURE, found.detail))
        elif not found.good:
            findings.append(_finding(STRANGER, found.detail))
    if trust.signed and not any(found.good for found in signatures):
        findings.append(_finding(UNSIGNED))
    return findings


def _of_templates(files: Iterable[Judged], published: str, trust: TrustSettings) -> list[Finding]:
    findings = []
    for file in files if published else ():
        for name, text in file.facts.get("template_texts", {}).items():
            known = file.facts["templates"][name] in trust.templates
            if not known and (difference := templates.compare(published, text)):
                findings.append(_finding(TEMPLATE, "\n".join(difference[:40]), file.file))
    return findings


def _finding(rule: Rule, meaning: str = "", file: str = "") -> Finding:
    return Finding(rule.id, rule.severity, file, "", meaning or rule.meaning, rule.remedy, rule.source)


def _place(found: Finding) -> str:
    return "".join(f", {part}" for part in (found.file, found.where) if part)


def _admits(ruling: Ruling | None) -> bool:
    return ruling is not None and ruling.verdict is Admission.ADMIT


def _unchanged(judgement: Judgement) -> None:
    """What is about to be kept is what was judged: the same files, not written to since."""
    for file in judgement.files:
        try:
            same = stamp(os.lstat(judgement.acquired.folder / file.file)) == file.stamp
        except OSError:
            same = False
        if not same:
            raise BadModel(f"{file.file} was written to after it was judged.", hint="Add the model again.")
