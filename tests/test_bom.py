"""Bills of materials: valid by their formats' own schemas, complete, and the same each time."""

import json
import uuid

import pytest
import spdx_python_model
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from freehold import bom
from freehold.types import (
    Admission,
    Finding,
    Licence,
    LicenceClass,
    ModelFile,
    Openness,
    Record,
    Ruling,
    Severity,
    Signature,
    Stated,
)

AT = 1_800_000_000.0
SERIAL = "0c3eb5d8-3ad5-4f62-9d34-9a3c3fd0a7a1"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


FULL = Record(
    name="acme-7b",
    source=f"hf:Acme/Acme-7B@{COMMIT}",
    pinned=True,
    files=(
        ModelFile("README.md", digest(2), 10, "text", "doc"),
        ModelFile("model.safetensors", digest(1), 1 << 40, "safetensors", "weights"),
        ModelFile("sub/LICENSE", digest(3), 0, "text", "licence"),
    ),
    verdict=Admission.HOLD,
    findings=(Finding("template/dormant", Severity.HOLD, "model.safetensors", "byte 3", "means", "do"),),
    licence=Licence(
        "Apache-2.0", LicenceClass.OPEN, ("Keep the notice.",), (Stated("LICENSE", "Apache License", "Apache-2.0"),)
    ),
    openness=Openness("III", "no"),
    judged_by="freehold 0.2.0",
    judged_at=AT - 60,
    base_models=("acme/base-7b",),
    parameters=7_000_000_000,
    architecture="llama",
    context=8_192,
    format="safetensors",
    templates={"default": "a" * 64},
    signatures=(Signature("openssf-model-signing", digest(9), "Acme", True, "Signed by 'Acme'."),),
    ruling=Ruling(Admission.ADMIT, "mo", "compared by hand", AT, digest(8)),
)
BARE = Record(
    name="m", source="file:/tmp/a b", pinned=False, files=(), verdict=Admission.BLOCK, findings=(),
    licence=Licence("", LicenceClass.UNKNOWN), openness=Openness("", "unknown"), judged_by="x", judged_at=0.0,
)  # fmt: skip
ODD = Record(
    name='<\u202e"\udcff\x1b[2J', source="hf:a b/c%d@\u00e9#?", pinned=False, verdict=Admission.ADMIT, findings=(),
    files=tuple(ModelFile(path, digest(1), 1, "\udcfe", "kind") for path in ("a\udcff", "a\udcff", "\x00", "")),
    licence=Licence("Llama 3.1 (Community)/\u00e9", LicenceClass.SOURCE_AVAILABLE), openness=Openness("", "no"),
    judged_by="", judged_at=AT, base_models=("\udcff", "\udcff"), architecture="\x00", templates={"\udcff": ""},
)  # fmt: skip
RECORDS = pytest.mark.parametrize("record", [FULL, BARE, ODD], ids=["full", "bare", "odd"])


def cyclonedx_faults(document: dict) -> object:
    """What CycloneDX's own schema says is wrong, or None."""
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    return validator.validate_str(json.dumps(document))


def spdx_load(document: dict) -> tuple:
    """The document by SPDX's own model; an error where a class, a property, a type or a count is not as it says."""
    model, objects = spdx_python_model.load_data(json.loads(json.dumps(document)))
    model.JSONLDSerializer().serialize_data(objects)  # counts are checked here
    assert not objects.missing_ids - {_NOTHING}, "a reference leads nowhere"
    return model, objects


_NOTHING = "https://spdx.org/rdf/3.0.1/terms/ExpandedLicensing/NoAssertionLicense"


@RECORDS
def test_the_cyclonedx_document_is_valid_by_its_schema(record):
    """Strictly, for a full record, one that knows nothing, and one with names that nobody should give."""
    assert cyclonedx_faults(bom.cyclonedx(record, serial=SERIAL, at=AT)) is None


@RECORDS
def test_the_spdx_document_is_valid_by_its_model(record):
    """The same records, read by the classes that are generated from SPDX's own shapes."""
    spdx_load(bom.spdx(record, serial=SERIAL, at=AT))


def test_an_invalid_cyclonedx_document_is_refused():
    """The check can say no: a hash that is none, an unknown field, an unknown licence, a missing name."""
    for spoil in (
        lambda made: made["components"][0]["hashes"][0].update(content="xyz"),
        lambda made: made.update(unknown=1),
        lambda made: made["metadata"]["component"]["licenses"][0]["license"].update(id="Apache-9"),
        lambda made: made["components"][1].pop("name"),
        lambda made: made.update(serialNumber="1"),
    ):
        made = bom.cyclonedx(FULL, serial=SERIAL, at=AT)
        spoil(made)
        assert cyclonedx_faults(made) is not None


def test_an_invalid_spdx_document_is_refused():
    """The check can say no: an unknown field, class or word, a missing target or time, a time that is none."""

    def element(made: dict, kind: str) -> dict:
        return next(element for element in made["@graph"] if element["type"] == kind)

    for spoil in (
        lambda made: element(made, "ai_AIPackage").update(unknown=1),
        lambda made: element(made, "software_File").update(type="software_Folder"),
        lambda made: element(made, "Relationship").update(relationshipType="holds"),
        lambda made: element(made, "Relationship").update(to=[]),
        lambda made: element(made, "Relationship").update(to=["urn:nothing"]),
        lambda made: element(made, "CreationInfo").pop("created"),
        lambda made: element(made, "CreationInfo").update(created="yesterday"),
        lambda made: element(made, "Organization").update(type="Tool"),
        lambda made: element(made, "software_File")["verifiedUsing"][0].pop("hashValue"),
        lambda made: made.update({"@context": "https://example.org"}),
    ):
        made = bom.spdx(FULL, serial=SERIAL, at=AT)
        spoil(made)
        with pytest.raises((ValueError, TypeError, KeyError, AssertionError, spdx_python_model.LoadError)):
            spdx_load(made)


def test_cyclonedx_says_what_the_record_knows():
    """Every file with its digest, the licence, the publisher and revision, the base, and what the gate said."""
    made = bom.cyclonedx(FULL, serial=SERIAL, at=AT)
    files = {part["name"]: part["hashes"][0] for part in made["components"]}
    assert files == {file.path: {"alg": "SHA-256", "content": file.digest[7:]} for file in FULL.files}
    model = made["metadata"]["component"]
    assert (model["type"], model["name"], model["group"], model["version"]) == (
        "machine-learning-model", "acme-7b", "Acme", COMMIT,
    )  # fmt: skip
    assert model["purl"] == f"pkg:huggingface/Acme/Acme-7B@{COMMIT}"
    assert model["licenses"][0]["license"]["id"] == "Apache-2.0"
    assert model["modelCard"]["modelParameters"] == {"architectureFamily": "llama"}
    assert model["pedigree"]["ancestors"][0]["name"] == "acme/base-7b"
    said = {known["name"]: known["value"] for known in model["properties"]}
    assert (said["freehold:verdict"], said["freehold:findings"], said["freehold:findings:hold"]) == ("hold", "1", "1")
    assert said["freehold:ruling"] == "admit by mo: compared by hand"
    assert said["freehold:signature"] == "good: Signed by 'Acme'."
    assert made["metadata"]["timestamp"] == "2027-01-15T08:00:00Z"


def test_spdx_says_what_the_record_knows():
    """Read by SPDX's own classes: the package of the AI profile contains every file, with its digest and licences."""
    model, objects = spdx_load(bom.spdx(FULL, serial=SERIAL, at=AT))
    (package,) = objects.foreach_type(model.ai_AIPackage)
    assert (package.name, package.software_packageVersion, package.suppliedBy.name) == ("acme-7b", COMMIT, "Acme")
    assert package.software_packageUrl == f"pkg:huggingface/Acme/Acme-7B@{COMMIT}"
    related = {one.relationshipType.rpartition("/")[2]: one for one in objects.foreach_type(model.Relationship)}
    assert all(one.from_ is package for one in related.values())
    contained = {file.name: file.verifiedUsing[0].hashValue for file in related["contains"].to}
    assert contained == {file.path: file.digest[7:] for file in FULL.files}
    for kind in ("hasConcludedLicense", "hasDeclaredLicense"):
        assert [licence.simplelicensing_licenseExpression for licence in related[kind].to] == ["Apache-2.0"]
    assert [base.name for base in related["descendantOf"].to] == ["acme/base-7b"]
    statements = {note.statement for note in objects.foreach_type(model.Annotation)}
    assert {"verdict: hold", "findings:hold: 1"} <= statements


@RECORDS
def test_the_ai_profile_s_own_demands_are_met(record):
    """Exactly one concluded and one declared licence, and the fields that the profile makes a must."""
    made = bom.spdx(record, serial=SERIAL, at=AT)["@graph"]
    kinds = [element.get("relationshipType") for element in made]
    assert kinds.count("hasConcludedLicense") == kinds.count("hasDeclaredLicense") == 1
    (package,) = (element for element in made if element["type"] == "ai_AIPackage")
    demanded = ("releaseTime", "suppliedBy", "software_downloadLocation", "software_packageVersion")
    assert all(package[field] for field in demanded) and package["software_primaryPurpose"] == "model"


def test_an_unknown_licence_is_not_made_up():
    """Nothing is asserted where nothing is known, and a licence outside the list goes by its name."""
    bare = bom.cyclonedx(BARE, serial=SERIAL, at=AT)["metadata"]["component"]
    assert bare["licenses"][0]["license"]["name"] == "unknown"
    targets = [one["to"] for one in bom.spdx(BARE, serial=SERIAL, at=AT)["@graph"] if "License" in str(one)]
    assert targets == [[_NOTHING], [_NOTHING]]
    odd = json.dumps(bom.spdx(ODD, serial=SERIAL, at=AT))
    assert '"LicenseRef-Llama-3.1--Community---"' in odd


def test_the_licence_list_is_spdx_s():
    """Every identifier that we know is one of theirs, by the list that CycloneDX ships."""
    from importlib.resources import files

    listed = json.loads((files("cyclonedx.schema") / "_res" / "spdx.SNAPSHOT.schema.json").read_text())["enum"]
    assert set(listed) >= bom.SPDX_LICENCES


@RECORDS
def test_the_same_record_gives_the_same_document(record):
    """Byte for byte; and its own serial number, which another record does not have."""
    for render in (bom.cyclonedx, bom.spdx):
        first, second = (json.dumps(render(record, serial=bom.serial(record), at=AT)) for _ in range(2))
        assert first == second
        first.encode()  # no broken text in it
    others = {bom.serial(other) for other in (FULL, BARE, ODD)}
    assert len(others) == 3 and bom.serial(record) in others


def test_a_serial_number_is_a_uuid():
    """Anything else would make an invalid document, and is refused."""
    for render in (bom.cyclonedx, bom.spdx):
        with pytest.raises(ValueError):
            render(FULL, serial="1", at=AT)
    assert str(uuid.UUID(bom.serial(FULL))) == bom.serial(FULL)
