"""Tensor data in files beside their models: what a model says lies there is data, and the rest stays unjudged.

Such a file is raw bytes without a head, so no parser can know it by itself. Source: ONNX, External Data; writers pad
with zeros up to where a tensor is aligned (4 KiB, 64 KiB on Windows).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from freehold.scan import beside, opaque
from freehold.scan.base import HOLD, Rule
from freehold.types import Finding, Judged, Span

MAX_ALIGNMENT = 64 << 10
_PADDING = "padding up to where the next tensor is aligned"
_REST = "no tensor of a model beside it lies here"
_UNKNOWN = frozenset((opaque.OPAQUE.id, opaque.MISNAMED.id))

UNCOVERED = Rule(
    "external.uncovered", HOLD, "A file holds tensors of the model beside it, and bytes that are no tensor's.",
    "Ask the publisher what they are; decide by name and reason.", "ONNX, External Data",
)  # fmt: skip

Place = tuple[int, int]  # first byte, and the one behind the last


def credit(files: Sequence[Judged]) -> list[Judged]:
    """The files, those that no parser knew credited with the tensors that models in the folder keep in them.

    A file that tensors cover whole loses its finding; between them may lie no more than alignment explains. One that
    they cover in part is held with the spans that they do not. A model asks by its fact ``external``.
    """
    claims = _claims(files)
    return [_credited(judged, claims[judged.file]) if judged.file in claims else judged for judged in files]


def _claims(files: Sequence[Judged]) -> dict[str, list[Place]]:
    """What models say of each file that no parser knew."""
    unknown = {judged.file: judged.size for judged in files if _is_unknown(judged)}
    claims: dict[str, list[Place]] = {}
    for judged in files:
        folder = posixpath.dirname(judged.file)
        for part in judged.facts.get("external", ()):
            location = str(part.get("location", ""))
            path = posixpath.normpath(posixpath.join(folder, location))
            if path in unknown and path != judged.file and not beside.why_not(location):
                claims.setdefault(path, []).append(_place(part, unknown[path]))
    return claims


def _is_unknown(judged: Judged) -> bool:
    rules = {found.rule for found in judged.findings}
    return judged.format == opaque.FORMAT and judged.size > 0 and bool(rules) and rules <= _UNKNOWN


def _place(part: dict[str, Any], size: int) -> Place:
    """Where a tensor lies; one that reaches past the file's end covers none of it (`repository` says so)."""
    begin, length = part.get("offset") or 0, part.get("length")
    end = size if length is None else begin + length
    return (begin, end) if 0 <= begin <= end <= size else (0, 0)


def _credited(judged: Judged, claims: Iterable[Place]) -> Judged:
    covered = merged(claims)
    if not covered:
        return judged
    gaps = _gaps(covered, judged.size)
    passed = sum(end - begin for begin, end in covered)
    if not all(_is_padding(begin, end) for begin, end in gaps) or not _is_little(gaps, passed):
        return _held(judged, passed, gaps)
    spans = tuple(Span(begin, end, _PADDING) for begin, end in gaps)
    return msgspec.structs.replace(judged, parsed=0, data=passed, unjudged=spans, findings=())


def _held(judged: Judged, passed: int, gaps: list[Place]) -> Judged:
    spans = tuple(Span(begin, end, _REST) for begin, end in gaps)
    if any(found.rule == opaque.MISNAMED.id for found in judged.findings):  # which is worse, and says it all
        return msgspec.structs.replace(judged, parsed=0, data=passed, unjudged=spans)
    shown = ", ".join(f"{begin} to {end}" for begin, end in gaps[:5]) + (", and more" if len(gaps) > 5 else "")
    meaning = f"Bytes {shown} of the file belong to no tensor of a model beside it."
    finding = Finding(
        UNCOVERED.id, UNCOVERED.severity, judged.findings[0].file, f"byte {gaps[0][0]}", meaning, UNCOVERED.remedy,
        UNCOVERED.source,
    )  # fmt: skip
    return msgspec.structs.replace(judged, parsed=0, data=passed, unjudged=spans, findings=(finding,))


def merged(places: Iterable[Place]) -> list[Place]:
    """The same bytes, as places in order that do not touch."""
    merged: list[Place] = []
    for begin, end in sorted(places):
        if begin == end:
            continue
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged


def _gaps(covered: list[Place], size: int) -> list[Place]:
    ends = [0, *(end for _, end in covered)]
    begins = [*(begin for begin, _ in covered), size]
    return [(end, begin) for end, begin in zip(ends, begins, strict=True) if end < begin]


def _is_padding(begin: int, end: int) -> bool:
    """Padding is shorter than the alignment that it leads up to, and does not stand at the start."""
    alignment = end & -end  # the largest power of two that the end is a multiple of
    return begin > 0 and end - begin < min(alignment, MAX_ALIGNMENT)


def _is_little(gaps: list[Place], passed: int) -> bool:
    """More padding than tensors would be room to hide in."""
    return sum(end - begin for begin, end in gaps) <= max(passed, MAX_ALIGNMENT)
