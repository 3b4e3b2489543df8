"""The project's own set of attacks and near-misses: no attack gets through, and nothing harmless is stopped."""

import os
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest

from freehold import admit
from freehold.config import TrustSettings
from freehold.scan import folder, formats, walk
from freehold.types import Acquired, Admission, Record

sys.path.insert(0, str(Path(__file__).parent / "assets"))
import corpus

_RANK = {"admit": 0, "hold": 1, "block": 2}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Every file, and what is expected of it."""
    return corpus.build(tmp_path_factory.mktemp("corpus"))


def judge(entry):
    """In this process: nine hundred sealed ones would take minutes."""
    with walk.opened(entry) as descriptor, tempfile.TemporaryFile() as scratch:
        size = os.fstat(descriptor).st_size
        judged = formats.judge(descriptor, size, entry.path.rpartition("/")[2], scratch=scratch.fileno())
    if judged.digest:
        assert judged.parsed + judged.data + sum(span.end - span.start for span in judged.unjudged) == size
    findings = tuple(msgspec.structs.replace(found, file=entry.path) for found in judged.findings)
    return msgspec.structs.replace(judged, file=entry.path, size=size, findings=findings)


def gated(path: Path) -> Record:
    """What the whole gate makes of a model: licences are no scanner's business."""
    place = path if path.is_dir() else path.parent
    acquired = Acquired(place, "model", "file:model")
    return admit.judge(acquired, TrustSettings(), "off", lambda what, done, total: None).record


def wrong(cases, judge) -> list[str]:
    """The cases that `folder.scan` judges otherwise than is expected, or whose parser gives up."""
    found = []
    for case in cases:
        scanned = gated(case.path) if case.kind == "licence" else folder.scan(case.path, "off", judge=judge)
        verdict, rules = scanned.verdict, sorted({finding.rule for finding in scanned.findings})
        good = verdict is Admission.ADMIT if case.expect == "admit" else _RANK[verdict.value] >= _RANK[case.expect]
        if not good or "scan.fault" in rules:
            found.append(f"{case.kind} {case.name}: {case.says} expected {case.expect}, got {verdict.value} {rules}")
    return found


def test_no_attack_gets_through_and_nothing_harmless_is_stopped(cases):
    """Every case of every class; and no parser gives up on any."""
    assert wrong(cases, judge) == []


def test_the_set_has_attacks_and_near_misses_of_every_class(cases):
    """So that neither test can pass for want of cases."""
    attacks = {case.kind for case in cases if case.expect != "admit"}
    harmless = {case.kind for case in cases if case.expect == "admit"}
    for kind in (
        "pickle",
        "torch",
        "numpy",
        "container",
        "keras",
        "safetensors",
        "gguf",
        "template",
        "licence",
        "onnx",
        "tensorflow",
    ):
        assert kind in attacks and kind in harmless, kind
    assert len(cases) > 500


def test_a_gate_that_lets_everything_in_is_noticed(cases):
    """The first test can fail: scanners that find nothing let attacks through, and each of those is named."""
    blind = wrong(cases, lambda entry: msgspec.structs.replace(judge(entry), findings=()))
    assert len(blind) > 200
