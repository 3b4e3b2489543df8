"""May a base be tuned? And is a run's record the one that was kept?"""

from __future__ import annotations

import msgspec
import pytest

from freehold import runs, sign
from freehold.config import TrustSettings
from freehold.errors import BadModel, CannotDo
from freehold.licence import KNOWN
from freehold.tune import permit
from freehold.types import Admission, Licence, LicenceClass, Openness, Record, Ruling, TuningRun

OPEN = ("open", "source-available", "use-restricted", "unknown")


def a_record(id: str, *, kind: LicenceClass | None = None, ruling: Ruling | None = None) -> Record:
    known = KNOWN[id]
    return Record(
        name="base", source="file:x", pinned=False, files=(), verdict=Admission.ADMIT, findings=(),
        licence=Licence(id, kind or known.kind, known.asks), openness=Openness("", "unknown"), judged_by="t",
        judged_at=0.0, ruling=ruling,
    )  # fmt: skip


@pytest.mark.parametrize("id", ["CC-BY-ND-4.0", "CC-BY-NC-ND-4.0"])
def test_a_licence_against_derivatives_is_named_with_its_clause(id):
    """Whatever the house's policy: a tuned model is a changed one."""
    with pytest.raises(BadModel, match="Do not share what you change") as raised:
        permit.check(a_record(id), TrustSettings(licences=(*OPEN, "non-commercial")))
    assert id in raised.value.sentence()


def test_an_open_licence_is_fine():
    """Apache-2.0, MIT and their like may be tuned, also where a clause asks for credit."""
    for id in ("Apache-2.0", "MIT", "CC-BY-4.0"):
        permit.check(a_record(id), TrustSettings())


def test_what_the_house_refuses_is_not_tuned():
    """A class that is refused, or that comes in by decision alone and was not decided."""
    record = a_record("CC-BY-NC-4.0")
    with pytest.raises(BadModel, match="refused here"):
        permit.check(record, TrustSettings(refused=("non-commercial",)))
    with pytest.raises(BadModel, match="nobody has decided"):
        permit.check(record, TrustSettings(licences=OPEN))
    decided = Ruling(Admission.ADMIT, "somebody", "for research", 0.0, "x")
    permit.check(a_record("CC-BY-NC-4.0", ruling=decided), TrustSettings(licences=OPEN))


def a_run() -> TuningRun:
    return TuningRun(
        id="sha256:1", task="t", name="base+t@1", base="base", base_digest="sha256:2", adapter_digest="sha256:33",
        data="sha256:4", calls=40, validation_calls=5, tokens=1000, settings={"rank": 4}, versions={}, device="cpu",
        dtype="float32", seconds=1.0, began=0.0, ended=2.0,
    )  # fmt: skip


def test_a_runs_record_is_found_and_cannot_be_changed(tmp_path):
    """It comes back as it was kept; a changed or foreign one is refused, and one that is not there is none."""
    key = sign.SigningKey.load(tmp_path / "key.pem")
    path = runs.keep(tmp_path / "tuning", a_run(), key)
    assert runs.find(tmp_path / "tuning", "sha256:33", key.public) == a_run()
    assert runs.find(tmp_path / "tuning", "sha256:44", key.public) is None
    other = sign.SigningKey.load(tmp_path / "other.pem")
    with pytest.raises(CannotDo):
        runs.find(tmp_path / "tuning", "sha256:33", other.public)
    forged = msgspec.structs.replace(a_run(), calls=4000)
    path.write_bytes(sign.seal(msgspec.json.encode(forged), runs.TYPE, other))
    with pytest.raises(CannotDo):
        runs.find(tmp_path / "tuning", "sha256:33", key.public)
