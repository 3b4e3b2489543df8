"""Findings as SARIF, for the programs that collect them.

Format: Static Analysis Results Interchange Format (SARIF) 2.1.0, OASIS standard.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import freehold
from freehold.scan import rules
from freehold.types import Finding, Judged, Scanned, Severity

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {Severity.NOTE: "note", Severity.HOLD: "warning", Severity.BLOCK: "error"}
_OFFSET = re.compile(r"(?:^|, )byte (\d{1,18})$")


def render(scans: Sequence[Scanned]) -> dict[str, Any]:
    """One SARIF document with one run, of every path that was scanned."""
    found = [(scanned, finding) for scanned in scans for finding in scanned.findings]
    used = sorted({finding.rule for _, finding in found})
    driver = {
        "name": "freehold",
        "semanticVersion": freehold.__version__,
        "rules": [_rule(rule) for rule in rules.every() if rule.id in used],
    }
    known = {rule["id"]: position for position, rule in enumerate(driver["rules"])}
    run = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": True}],
        "columnKind": "unicodeCodePoints",
        "artifacts": [_artifact(scanned, judged) for scanned in scans for judged in scanned.files],
        "results": [_result(scanned, finding, known) for scanned, finding in found],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(rule: Any) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.meaning},
        "help": {"text": f"{rule.remedy} Source: {rule.source}."},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
    }


def _artifact(scanned: Scanned, judged: Judged) -> dict[str, Any]:
    artifact = {"location": {"uri": _uri(scanned, judged.file)}, "length": judged.size}
    if judged.digest:
        artifact["hashes"] = {"sha-256": judged.digest.removeprefix("sha256:")}
    return artifact


def _result(scanned: Scanned, finding: Finding, known: dict[str, int]) -> dict[str, Any]:
    where = f" ({finding.where})" if finding.where else ""
    place: dict[str, Any] = {"artifactLocation": {"uri": _uri(scanned, finding.file)}}
    if offset := _OFFSET.search(finding.where):
        place["region"] = {"byteOffset": int(offset[1])}
    result = {
        "ruleId": finding.rule,
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{finding.meaning}{where} {finding.remedy}"},
        "locations": [{"physicalLocation": place}],
    }
    return result | ({"ruleIndex": known[finding.rule]} if finding.rule in known else {})


def _uri(scanned: Scanned, file: str) -> str:
    """A file's path as it was asked for: the root itself where that is the file."""
    alone = len(scanned.files) == 1 and scanned.root.rpartition("/")[2] == file
    path = scanned.root if alone else f"{scanned.root.rstrip('/')}/{file}"
    return quote(path, safe="/")
