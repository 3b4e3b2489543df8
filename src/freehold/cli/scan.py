"""Judge model files without admitting them: nothing is imported, executed or rendered, and every byte is accounted for.

Exit code 0: nothing found that would keep them out; 1: something to decide (HOLD) or to refuse (BLOCK); 2: could not
look.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from freehold import config
from freehold.cli import local
from freehold.scan import folder, sarif
from freehold.types import Admission, Finding, Judged, Scanned, Severity

_SHOWN_SPANS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``freehold scan``."""
    parser.add_argument("paths", metavar="PATH", type=Path, nargs="+", help="a file, or a model's folder")
    parser.add_argument(
        "--format", choices=["text", "json", "sarif"], default="text", help="how to print what was found"
    )
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="the same as --format json")
    parser.add_argument("--output", "-o", metavar="FILE", type=Path, help="write there instead of to the terminal")


def run(arguments: argparse.Namespace) -> int:
    """Scan, print, and say by the exit code what came of it."""
    mode, bar = config.load(config.home_folder(arguments.home)).seal, local.Bar()
    scans = []
    for path in arguments.paths:
        scans.append(folder.scan(path, mode, bar))
        bar.end()
    text = _RENDER[arguments.format](scans)
    if arguments.output:
        local.write(arguments.output, text)
    else:
        sys.stdout.write(text)
    return 0 if all(scanned.verdict is Admission.ADMIT for scanned in scans) else 1


def as_text(scans: list[Scanned]) -> str:
    """For people: each file with something to say, then one line for the whole."""
    return local.lines(line for scanned in scans for line in _lines(scanned)) + "\n"


def as_json(scans: list[Scanned]) -> str:
    """For programs: the records as they are."""
    document = [msgspec.to_builtins(scanned) for scanned in scans]
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def as_sarif(scans: list[Scanned]) -> str:
    """For the programs that collect findings."""
    return msgspec.json.format(msgspec.json.encode(sarif.render(scans)), indent=2).decode() + "\n"


_RENDER = {"text": as_text, "json": as_json, "sarif": as_sarif}


def _lines(scanned: Scanned) -> list[str]:
    lines: list[str] = []
    by_file: dict[str, list[Finding]] = {}
    for found in scanned.findings:
        by_file.setdefault(found.file, []).append(found)
    judged = {file.file: file for file in scanned.files}
    for name, findings in by_file.items():
        lines += [_head(judged[name]) if name in judged else name]
        lines += [line for found in findings for line in _finding(found)]
        lines += ["", *([] if name not in judged else _unjudged(judged[name]))]
    return [*lines, _summary(scanned)]


def _head(judged: Judged) -> str:
    return f"{judged.file}  {judged.format}, {local.size(judged.size)}, {judged.digest or 'not read to its end'}"


def _finding(found: Finding) -> list[str]:
    where = f"  {found.where}" if found.where else ""
    return [
        f"  {found.severity.value.upper():<5} {found.rule}{where}",
        f"        {found.meaning}",
        f"        {found.remedy}",
    ]


def _unjudged(judged: Judged) -> list[str]:
    spans = [f"  unjudged: bytes {span.start} to {span.end}, {span.why}" for span in judged.unjudged[:_SHOWN_SPANS]]
    more = len(judged.unjudged) - _SHOWN_SPANS
    return spans + ([f"  unjudged: {more} parts more"] if more > 0 else []) + ([""] if spans else [])


def _summary(scanned: Scanned) -> str:
    files, size = len(scanned.files), sum(judged.size for judged in scanned.files)
    unjudged = sum(span.end - span.start for judged in scanned.files for span in judged.unjudged)
    counts = {severity: sum(found.severity is severity for found in scanned.findings) for severity in Severity}
    findings = ", ".join(f"{count} to {_ASKS[severity]}" for severity, count in counts.items() if count)
    account = f"{files} file{'s' * (files != 1)}, {local.size(size)}, {local.size(unjudged)} of it unjudged"
    return f"{scanned.verdict.value.upper()}  {scanned.root}: {account}; {findings or 'nothing found'}."


_ASKS = {Severity.NOTE: "note", Severity.HOLD: "decide", Severity.BLOCK: "refuse"}
