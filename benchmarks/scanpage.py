"""The page of how the scanners compare, from the results alone."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable

OURS = "Freehold"
RATIO, PEAK_MB, FOLDER_SECONDS = 0.8, 200, 5.0  # the targets
GRAVITY = {"admit": 0, "hold": 1, "block": 2}

HEAD = """# The scanners compared

<!-- written by 'make bench-scan'; run it to have your own -->

Measured on {date} with `{command}`: {cpu}, {cores} hardware threads, {memory_gib} GiB, Linux {kernel}, Python {python}.
Seconds hold for this machine at that hour; the ratios, in bold, are of runs taken in turns. "Peak" is the largest
resident size of any one process of a command, as the kernel counts it (`ru_maxrss`).
{quick}"""
QUICK = """
**A quick run, with small files and every eighth case: it shows that the comparison runs, and no more.**
"""

CASES = """## On our own files

{attacks} attack files and {near} near-misses, written by `tests/assets/corpus.py`: ours, so others do better on
files that they were made for. Each command is run on each case by itself, with 8 GiB of address space and 60 s at most.
An attack is *caught* where the scanner finds anything at all; *unread* where it says that it could not look, or skips
the file; *failed* where it crashes or does not come back; else it is *passed as clean*. For Freehold, *as severe as
expected* counts those it blocks where the corpus says block, and at least holds where it says hold.
"""


def render(result: dict) -> str:
    """The whole page."""
    quick = QUICK if result["quick"] else ""
    parts = [
        HEAD.format(date=result["date"], command=result["command"], quick=quick, **result["machine"]),
        targets(result),
        contestants(result),
        *(cases(result["cases"], list(result["scanners"])) if result["cases"] else []),
        large(result),
        others(result),
        small(result),
    ]
    return "\n".join(part for part in parts if part)


def targets(result: dict) -> str:
    """Each target, the figure, and whether it is met."""
    lines = ["## Targets", "", "| target | measured | |", "| --- | --- | --- |"]
    rows = [row for row in result["cases"] or () if OURS in row["answers"]]
    if rows:
        misses, alarms = _misses(rows), _alarms(rows, OURS)
        lines.append(_target("no miss on our own set", f"{len(misses)} of {len(_attacks(rows))}", not misses))
        lines.append(_target("no false alarm on our own set", f"{len(alarms)} of {len(_near(rows))}", not alarms))
    for row in result["large"]:
        ratio = _ratio(row["inside"])
        says = f"{RATIO}x the speed of SHA-256 alone: {_title(row, result)}"
        lines.append(_target(says, f"{ratio:.2f}x", ratio >= RATIO))
    if peaks := [max(row["command"]["peak_mb"]) for row in result["large"] if row["command"]["peak_mb"]]:
        lines.append(_target(f"under {PEAK_MB} MB whatever the size", f"{max(peaks):.0f} MB", max(peaks) < PEAK_MB))
    if ours := result["small"]["scanners"].get(OURS):
        says = f"{result['small']['files']:,} small files in under {FOLDER_SECONDS:.0f} s"
        lines.append(_target(says, f"{ours['seconds']:.1f} s", ours["seconds"] < FOLDER_SECONDS))
    return "\n".join([*lines, ""])


def _target(says: str, measured: str, met: bool) -> str:
    return f"| {says} | {measured} | {'met' if met else '**missed**'} |"


def contestants(result: dict) -> str:
    """Who took part, and the commands."""
    lines = ["## Who is compared", "", "| | version | command |", "| --- | --- | --- |"]
    lines += [f"| {name} | {one['version']} | `{one['command']}` |" for name, one in result["scanners"].items()]
    lines += [f"| {name} | did not take part: {reason} | |" for name, reason in result["missing"].items()]
    return "\n".join([*lines, ""])


def cases(rows: list[dict], names: list[str]) -> list[str]:
    """The first part: in sum, by class, and what Freehold gets wrong."""
    attacks, near = _attacks(rows), _near(rows)
    return [
        CASES.format(attacks=len(attacks), near=len(near)),
        _sums(rows, names),
        _by_class("Attacks caught, by class", attacks, names, "flagged"),
        _by_class("False alarms, by class", near, names, "flagged"),
        *(_wrong(rows) if OURS in names else []),
    ]


def _sums(rows: list[dict], names: list[str]) -> str:
    lines = [
        "| | attacks caught | as severe as expected | unread | failed | passed as clean | false alarms | "
        "near-misses unread or failed | seconds in all | median, s | peak, MB |",
        "| --- |" + " ---: |" * 10,
    ]
    attacks, near = _attacks(rows), _near(rows)
    for name in names:
        said = [_says(attacks, name, word) for word in ("flagged", "unread", "failed", "clean")]
        severe = len(attacks) - len(_misses(rows)) if name == OURS else None
        taken = [row["answers"][name]["seconds"] for row in rows]
        cells = [
            f"{said[0]} ({_percent(said[0], len(attacks))})",
            "" if severe is None else f"{severe} ({_percent(severe, len(attacks))})",
            *said[1:],
            f"{_says(near, name, 'flagged')} ({_percent(_says(near, name, 'flagged'), len(near))})",
            _says(near, name, "unread") + _says(near, name, "failed"),
            f"{sum(taken):.0f}",
            f"{statistics.median(taken):.2f}",
            f"{max(row['answers'][name]['peak_mb'] for row in rows):,.0f}",
        ]
        lines.append(_row(name, cells))
    return "\n".join([*lines, ""])


def _by_class(title: str, rows: list[dict], names: list[str], word: str) -> str:
    kinds = sorted({row["kind"] for row in rows})
    lines = [f"### {title}", "", _row("class", ["cases", *names]), "| --- |" + " ---: |" * (len(names) + 1)]
    for kind in kinds:
        these = [row for row in rows if row["kind"] == kind]
        lines.append(_row(kind, [len(these), *(_says(these, name, word) for name in names)]))
    return "\n".join([*lines, ""])


def _wrong(rows: list[dict]) -> list[str]:
    ours = lambda row: row["answers"][OURS]  # noqa: E731
    return [
        _listing("Missed by Freehold", _misses(rows), lambda row: f"expected {row['expect']}, got {_verdict(row)}"),
        _listing("False alarms of Freehold", _alarms(rows, OURS), lambda row: f"got {_verdict(row)}"),
        _listing("Freehold failed", [row for row in rows if ours(row)["says"] == "failed"],
                 lambda row: ours(row).get("why", "")),
    ]  # fmt: skip


def _listing(title: str, rows: list[dict], why: Callable[[dict], str]) -> str:
    lines = [f"- `{row['name']}`: {why(row)}. {row['says']}" for row in rows] or ["None."]
    return "\n".join([f"### {title}", "", *lines, ""])


def large(result: dict) -> str:
    """The second part: against SHA-256 alone."""
    lines = [
        "## Large files against SHA-256 alone",
        "",
        f"Medians of {result['rounds']} rounds, hash and scan in turns, the file in the page cache. *Judging* is one "
        "file in a scanner's",
        "process that has started, beside hashlib over blocks of 1 MiB (`benchmarks/scan.py --pair FILE ROUNDS`); "
        "*the command* is",
        "`freehold scan --json FILE` beside `python benchmarks/hashing.py FILE`, both from start to end.",
        "",
        "| file | SHA-256, s | judging, s | | SHA-256 command, s | scan command, s | | peak, MB | verdict |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in result["large"]:
        inside, outside = row["inside"], row["command"]
        cells = [*_times(inside), *(_times(outside) if outside["scan_s"] else ["", "", ""])]
        peak = f"{max(outside['peak_mb']):.0f}" if outside["peak_mb"] else ""
        lines.append(_row(_title(row, result), [*cells, peak, ", ".join(outside["says"])]))
    return "\n".join([*lines, "", *_doubts(result), ""])


def _times(taken: dict) -> list[str]:
    cells = [
        f"{statistics.median(taken[name]):.2f} ({min(taken[name]):.2f} to {max(taken[name]):.2f})"
        for name in ("hash_s", "scan_s")
    ]
    return [*cells, f"**{_ratio(taken):.2f}x**"]


def _doubts(result: dict) -> Iterable[str]:
    for row in result["large"]:
        inside = row["inside"]
        if inside["unjudged"] or not inside["digest_agrees"]:
            rules = ", ".join(inside["findings"]) or "nothing"
            yield (
                f"{_title(row, result)} was taken for {inside['format']}, {inside['unjudged']:,} bytes of it unjudged "
                f"({rules}){'' if inside['digest_agrees'] else ', and the digests differ'}: this is no full scan."
            )


def others(result: dict) -> str:
    """What the others do with the same files."""
    names = [name for name in result["scanners"] if name != OURS]
    if not names:
        return ""
    lines = [
        "## The others on the same files",
        "",
        "Seconds and peak of one run of each. None of them hashes the file.",
        "",
        _row("file", names),
        "| --- |" + " --- |" * len(names),
    ]
    for row in result["large"]:
        cells = [f"{one['says']}, {one['seconds']:.1f} s, {one['peak_mb']:,.0f} MB" for one in row["others"].values()]
        lines.append(_row(_title(row, result), cells))
    return "\n".join([*lines, ""])


def small(result: dict) -> str:
    """The third part."""
    found = result["small"]
    lines = [
        f"## A folder of {found['files']:,} small files",
        "",
        f"safetensors, GGUF, PyTorch zips and JSON in equal parts; medians of {found['rounds']} rounds of each "
        "scanner's command on the folder.",
        "",
        "| | seconds | peak, MB | says |",
        "| --- | ---: | ---: | --- |",
    ]
    lines += [
        _row(name, [f"{one['seconds']:.2f}", f"{one['peak_mb']:,.0f}", one.get("verdict") or one["says"]])
        for name, one in found["scanners"].items()
    ]
    return "\n".join([*lines, ""])


def _attacks(rows: list[dict]) -> list[dict]:
    return [row for row in rows if row["expect"] != "admit"]


def _near(rows: list[dict]) -> list[dict]:
    return [row for row in rows if row["expect"] == "admit"]


def _says(rows: list[dict], name: str, word: str) -> int:
    return sum(row["answers"][name]["says"] == word for row in rows)


def _misses(rows: list[dict]) -> list[dict]:
    return [row for row in _attacks(rows) if GRAVITY.get(_verdict(row), -1) < GRAVITY[row["expect"]]]


def _alarms(rows: list[dict], name: str) -> list[dict]:
    return [row for row in _near(rows) if row["answers"][name]["says"] in ("flagged", "failed")]


def _verdict(row: dict) -> str:
    one = row["answers"][OURS]
    return one.get("verdict") or one["says"]


def _ratio(taken: dict) -> float:
    """How fast the scan is, as a part of the hash's speed: the median of each round's own ratio."""
    return statistics.median(h / s for h, s in zip(taken["hash_s"], taken["scan_s"], strict=True))


def _title(row: dict, result: dict) -> str:
    size = result["large_bytes"]
    shown = f"{size >> 30} GiB" if size >= 1 << 30 else f"{size >> 20} MiB"
    return f"{row['format']}, {shown}, {'random' if row['random'] else 'sparse'}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f}%" if whole else "none"


def _row(name: str, cells: Iterable[object]) -> str:
    return f"| {name} | " + " | ".join(str(cell) for cell in cells) + " |"
