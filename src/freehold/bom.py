"""Bills of materials: what a model is made of, for other people's tools, rendered from our own record of it.

Formats: CycloneDX 1.6 as JSON (an ML-BOM: a component of the type machine-learning-model with a model card; ECMA-424),
and SPDX 3.0.1 as JSON-LD with its AI profile. Both are made from `types.Record` alone, and the same record, serial
number and time give the same document, byte for byte. What the record does not know is left out or said to be
unknown; nothing is made up.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

import msgspec

import freehold
from freehold.types import ModelFile, Record, Severity

CYCLONEDX = "http://cyclonedx.org/schema/bom-1.6.schema.json"
SPDX_CONTEXT = "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"
_NO_LICENCE = "https://spdx.org/rdf/3.0.1/terms/ExpandedLicensing/NoAssertionLicense"
_CREATION = "_:creation"

# Identifiers of the SPDX licence list that models are found under; any other licence goes by its name.
_LISTED = """
AFL-3.0 AGPL-3.0 AGPL-3.0-only AGPL-3.0-or-later Apache-2.0 Artistic-2.0 BSD-2-Clause BSD-3-Clause BSD-3-Clause-Clear
BSL-1.0 CC-BY-2.0 CC-BY-2.5 CC-BY-3.0 CC-BY-4.0 CC-BY-NC-2.0 CC-BY-NC-3.0 CC-BY-NC-4.0 CC-BY-NC-ND-3.0 CC-BY-NC-ND-4.0
CC-BY-NC-SA-2.0 CC-BY-NC-SA-3.0 CC-BY-NC-SA-4.0 CC-BY-ND-4.0 CC-BY-SA-3.0 CC-BY-SA-4.0 CC0-1.0 CDLA-Permissive-1.0
CDLA-Permissive-2.0 CDLA-Sharing-1.0 ECL-2.0 EPL-1.0 EPL-2.0 EUPL-1.1 EUPL-1.2 GFDL-1.3 GPL-2.0 GPL-2.0-only
GPL-2.0-or-later GPL-3.0 GPL-3.0-only GPL-3.0-or-later ISC LGPL-2.1 LGPL-2.1-only LGPL-2.1-or-later LGPL-3.0
LGPL-3.0-only LGPL-3.0-or-later MIT MIT-0 MPL-2.0 MS-PL NCSA ODC-By-1.0 ODbL-1.0 OFL-1.1 OSL-3.0 OpenMDW-1.0 PDDL-1.0
PostgreSQL Unlicense WTFPL Zlib etalab-2.0
"""
SPDX_LICENCES = frozenset(_LISTED.split())
_PURPOSE = {  # what a file is for -> SPDX's software purpose
    "weights": "model", "config": "configuration", "template": "configuration", "doc": "documentation",
    "licence": "documentation", "code": "source", "signature": "evidence",
}  # fmt: skip


def serial(record: Record) -> str:
    """A UUID that is the same for the same record, and for no other."""
    content = msgspec.json.encode(_plain(msgspec.to_builtins(record)), order="deterministic")
    return str(uuid.uuid5(uuid.NAMESPACE_OID, content.decode()))


def document(record: Record, kind: str) -> dict[str, Any]:
    """A model's bill of materials as it was judged: ``kind`` is cyclonedx or spdx. The same record gives the same."""
    return {"cyclonedx": cyclonedx, "spdx": spdx}[kind](record, serial=serial(record), at=record.judged_at)


def cyclonedx(record: Record, *, serial: str, at: float) -> dict[str, Any]:
    """The record as a CycloneDX 1.6 ML-BOM. ``serial`` is a UUID; ``at`` the time of making, in seconds.

    Raises:
        ValueError: ``serial`` is no UUID.
    """
    files = [_file_component(number, file) for number, file in enumerate(record.files)]
    tool = {"type": "application", "name": "freehold", "version": freehold.__version__}
    return _plain({
        "$schema": CYCLONEDX,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(serial)}",
        "version": 1,
        "metadata": {
            "timestamp": _time(at),
            "lifecycles": [{"phase": "operations"}],
            "tools": {"components": [tool]},
            "component": _model_component(record),
        },
        "components": files,
        "dependencies": [{"ref": "model", "dependsOn": [file["bom-ref"] for file in files]}],
        "compositions": [{"aggregate": "complete", "assemblies": ["model"]}],
    })  # fmt: skip


def spdx(record: Record, *, serial: str, at: float) -> dict[str, Any]:
    """The record as an SPDX 3.0.1 document. ``serial`` is a UUID, under which every element has its name; ``at`` the
    time of making, in seconds.

    Raises:
        ValueError: ``serial`` is no UUID.
    """
    graph = list(_elements(record, f"urn:uuid:{uuid.UUID(serial)}#", _time(at)))
    return _plain({"@context": SPDX_CONTEXT, "@graph": graph})


# CycloneDX


def _model_component(record: Record) -> dict[str, Any]:
    publisher, name, revision = _origin(record)
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": record.name,
        "version": revision or _version(record),
        "licenses": [{"license": _licence_of(record) | {"acknowledgement": "concluded"}}],
        "externalReferences": [{"type": "distribution", "url": _uri(record.source)}],
        "modelCard": _model_card(record),
        "properties": [{"name": f"freehold:{key}", "value": value} for key, value in _properties(record)],
    }
    if publisher:
        component |= {"group": publisher, "purl": _purl(publisher, name, revision)}
    if record.base_models:
        bases = [{"type": "machine-learning-model", "name": base} for base in record.base_models]
        component["pedigree"] = {"ancestors": bases}
    return component


def _model_card(record: Record) -> dict[str, Any]:
    card: dict[str, Any] = {"bom-ref": "model-card"}
    if record.architecture:
        card["modelParameters"] = {"architectureFamily": record.architecture}
    known = {"parameters": record.parameters, "context": record.context, "format": record.format}
    card["properties"] = [{"name": f"freehold:{key}", "value": str(value)} for key, value in known.items() if value]
    return card


def _licence_of(record: Record) -> dict[str, str]:
    known = record.licence.id
    return {"id": known} if known in SPDX_LICENCES else {"name": known or "unknown"}


def _file_component(number: int, file: ModelFile) -> dict[str, Any]:
    said = {"kind": file.kind, "format": file.format, "size": str(file.size)}
    return {
        "type": "file",
        "bom-ref": f"file-{number}",
        "name": file.path,
        "hashes": [{"alg": "SHA-256", "content": file.digest.removeprefix("sha256:")}],
        "properties": [{"name": f"freehold:{key}", "value": value} for key, value in said.items() if value],
    }


def _properties(record: Record) -> Iterator[tuple[str, str]]:
    """What the gate says of a model, in the order in which a person would ask."""
    yield "verdict", record.verdict
    yield "findings", str(len(record.findings))
    for severity in Severity:
        yield f"findings:{severity}", str(sum(finding.severity == severity for finding in record.findings))
    if record.ruling:
        yield "ruling", f"{record.ruling.verdict} by {record.ruling.by}: {record.ruling.why}"
    yield "judged-by", record.judged_by
    yield "judged-at", _time(record.judged_at)
    yield "source", record.source
    yield "pinned", "yes" if record.pinned else "no"
    yield "licence:class", record.licence.kind
    for asked in record.licence.asks:
        yield "licence:asks", asked
    for stated in record.licence.stated:
        yield "licence:stated", f"{stated.where}: {stated.says}"
    for conflict in record.licence.conflicts:
        yield "licence:conflict", conflict
    yield "openness:grade", record.openness.grade or "none"
    yield "openness:osaid", record.openness.osaid
    for name, digest in sorted(record.templates.items()):
        yield f"template:{name}", digest
    for signature in record.signatures:
        yield "signature", f"{'good' if signature.good else 'not good'}: {signature.detail}"


# SPDX


def _elements(record: Record, base: str, created: str) -> Iterator[dict[str, Any]]:
    """Every element of the document; the ones made first are those that all others name."""
    us, tool, supplier, model = (base + name for name in ("maker", "tool", "supplier", "model"))
    yield {
        "type": "CreationInfo", "@id": _CREATION, "specVersion": "3.0.1", "created": created, "createdBy": [us],
        "createdUsing": [tool],
    }  # fmt: skip
    publisher = _origin(record)[0]
    content = [
        _element("SoftwareAgent", us, name="freehold"),
        _element("Tool", tool, name=f"freehold {freehold.__version__}"),
        _element("Organization" if publisher else "Agent", supplier, name=publisher or "unknown"),
        _model_package(record, model, supplier),
        *_file_elements(record, base, model),
        *_licence_elements(record, base, model),
        *_base_elements(record, base, model),
        *_annotations(record, base, model),
    ]
    yield from content
    members = [element["spdxId"] for element in content]
    yield _element(
        "software_Sbom", base + "sbom", rootElement=[model], element=members, software_sbomType=["analyzed"],
    )  # fmt: skip
    yield _element(
        "SpdxDocument", base + "document", name=record.name, rootElement=[base + "sbom"],
        element=[*members, base + "sbom"], profileConformance=["core", "software", "simpleLicensing", "ai"],
    )  # fmt: skip


def _element(kind: str, id: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "spdxId": id, "creationInfo": _CREATION} | fields


def _model_package(record: Record, id: str, supplier: str) -> dict[str, Any]:
    publisher, name, revision = _origin(record)
    package = _element(
        "ai_AIPackage", id, name=record.name, software_primaryPurpose="model", suppliedBy=supplier,
        software_packageVersion=revision or _version(record), software_downloadLocation=_uri(record.source),
        releaseTime=_time(record.judged_at),
        comment="releaseTime is when the model was judged for use here; when its publisher released it is not known.",
    )  # fmt: skip
    if record.architecture:
        package["ai_typeOfModel"] = [record.architecture]
    known = {"parameters": record.parameters, "context": record.context}
    entries = [_entry(key, str(value)) for key, value in known.items() if value]
    if entries:
        package["ai_hyperparameter"] = entries
    if publisher:
        package["software_packageUrl"] = _purl(publisher, name, revision)
    return package


def _entry(key: str, value: str) -> dict[str, str]:
    return {"type": "DictionaryEntry", "key": key, "value": value}


def _file_elements(record: Record, base: str, model: str) -> Iterator[dict[str, Any]]:
    ids = [f"{base}file-{number}" for number in range(len(record.files))]
    for id, file in zip(ids, record.files, strict=True):
        yield _element(
            "software_File", id, name=file.path, software_primaryPurpose=_PURPOSE.get(file.kind, "file"),
            comment=f"{file.kind}, {file.format}, {file.size} bytes", verifiedUsing=[_hash(file.digest)],
        )  # fmt: skip
    if ids:
        yield _relationship(f"{base}contains", model, "contains", ids, completeness="complete")


def _hash(digest: str) -> dict[str, str]:
    return {"type": "Hash", "algorithm": "sha256", "hashValue": digest.removeprefix("sha256:")}


def _relationship(id: str, source: str, kind: str, targets: list[str], **fields: Any) -> dict[str, Any]:
    return _element("Relationship", id, **{"from": source}, relationshipType=kind, to=targets, **fields)


def _licence_elements(record: Record, base: str, model: str) -> Iterator[dict[str, Any]]:
    """What the model is under by our reading, and what it itself says: exactly one of each, as the AI profile asks."""
    declared = next((stated.id for stated in record.licence.stated if stated.id), "")
    for name, kind, licence in (
        ("concluded", "hasConcludedLicense", record.licence.id),
        ("declared", "hasDeclaredLicense", declared),
    ):
        target = _NO_LICENCE
        if licence:
            target = f"{base}licence-{name}"
            yield _element(
                "simplelicensing_LicenseExpression", target, simplelicensing_licenseExpression=_expression(licence)
            )
        yield _relationship(f"{base}{name}", model, kind, [target])


def _expression(licence: str) -> str:
    if licence in SPDX_LICENCES:
        return licence
    return "LicenseRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", licence)


def _base_elements(record: Record, base: str, model: str) -> Iterator[dict[str, Any]]:
    ids = [f"{base}base-{number}" for number in range(len(record.base_models))]
    for id, name in zip(ids, record.base_models, strict=True):
        yield _element("software_Package", id, name=name, software_primaryPurpose="model")
    if ids:
        yield _relationship(f"{base}descends", model, "descendantOf", ids)


def _annotations(record: Record, base: str, model: str) -> Iterator[dict[str, Any]]:
    for number, (key, value) in enumerate(_properties(record)):
        said = f"{key}: {value}"
        yield _element("Annotation", f"{base}note-{number}", annotationType="review", subject=model, statement=said)


# Both


def _origin(record: Record) -> tuple[str, str, str]:
    """The publisher, the model's name there and its revision, where the source says them (``hf:org/name@revision``)."""
    scheme, _, rest = record.source.partition(":")
    if scheme != "hf":
        return "", "", ""
    path, _, revision = rest.partition("@")
    publisher, _, name = path.partition("/")
    return (publisher, name, revision) if publisher and name else ("", "", revision)


def _purl(publisher: str, name: str, revision: str) -> str:
    """A package URL of the type huggingface (package-url/purl-spec)."""
    version = "@" + quote(revision.lower(), safe="") if revision else ""
    return f"pkg:huggingface/{quote(_clean(publisher), safe='')}/{quote(_clean(name), safe='')}{version}"


def _version(record: Record) -> str:
    """The digest of the weights, or of the first file, where no revision is known."""
    ordered = sorted(record.files, key=lambda file: file.kind != "weights")
    return ordered[0].digest if ordered else "unknown"


def _uri(source: str) -> str:
    return quote(_clean(source), safe=":/@?&=+,;~")


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _plain(thing: Any) -> Any:
    """The same with every string fit for UTF-8: file names may hold bytes that are not."""
    if isinstance(thing, str):
        return _clean(thing)
    if isinstance(thing, dict):
        return {_clean(key): _plain(value) for key, value in thing.items()}
    if isinstance(thing, Iterable):
        return [_plain(item) for item in thing]
    return thing


def _clean(text: str) -> str:
    return str(text).encode("utf-8", "backslashreplace").decode()
