"""``make bench-scan``: Freehold's scanner beside picklescan, modelscan and fickling.

First on the project's own attack files and near-misses, one command for each file and scanner. Then on large files,
against SHA-256 alone, in turns; and on a folder of small files. Writes `scan-results.json` and the page.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import bench
import contestants as who
import hashing
import scanners
import scanpage

HERE = Path(__file__).parent
RESULT = HERE / "scan-results.json"
PAGE = HERE.parent / "docs" / "reference" / "scan.md"
LARGE, SMALL_FILES = 2 << 30, 1000
QUICK_LARGE, QUICK_FILES, QUICK_CASES = 64 << 20, 100, 8  # of the cases every eighth
PATIENCE = 300.0  # seconds for a large file or the folder


def main() -> int:
    """Read the flags, run, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes and a part of the cases, to see that it runs")
    parser.add_argument("--rounds", type=int, default=5, help="of each timing")
    parser.add_argument("--only", help="scanners, or parts of their names, with commas")
    parser.add_argument("--no-cases", action="store_true", help="leave the first part out, and keep what it last gave")
    parser.add_argument("--no-random", action="store_true", help="large files with holes alone; no disk is needed")
    parser.add_argument("--folder", type=Path, help="where the files are made (else the usual temporary folder)")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the tables go")
    parser.add_argument("--pair", nargs=2, metavar=("FILE", "ROUNDS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.pair:
        print(json.dumps(pair(Path(arguments.pair[0]), int(arguments.pair[1]))))
        return 0
    chosen, missing = choose(arguments.only)
    with tempfile.TemporaryDirectory(prefix="bench-scan-", dir=arguments.folder) as folder:
        result = measure(arguments, chosen, missing, Path(folder))
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    arguments.page.write_text(scanpage.render(result))
    print(f"\n{arguments.page} is written.")
    return 0


def choose(only: str | None) -> tuple[list[scanners.Scanner], dict[str, str]]:
    """Who takes part, and who cannot, with the reason."""
    chosen, missing = [], {}
    for scanner in scanners.all_scanners():
        if only and not any(part.strip().lower() in scanner.name.lower() for part in only.split(",")):
            continue
        try:
            scanner.install()
        except who.Unavailable as reason:
            missing[scanner.name] = str(reason)
        else:
            chosen.append(scanner)
    return chosen, missing


def measure(
    arguments: argparse.Namespace, chosen: list[scanners.Scanner], missing: dict[str, str], folder: Path
) -> dict:
    """The cases, the large files, the small ones."""
    size, count = (QUICK_LARGE, QUICK_FILES) if arguments.quick else (LARGE, SMALL_FILES)
    kept = json.loads(RESULT.read_text()).get("cases") if arguments.no_cases and RESULT.exists() else None
    contents = [False] if arguments.no_random else [False, True]
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "command": "make bench-scan" + (" QUICK=1" if arguments.quick else ""),
        "quick": arguments.quick,
        "rounds": arguments.rounds,
        "machine": bench.machine(),
        "scanners": {one.name: {"version": one.version(), "command": one.shown} for one in chosen},
        "missing": missing,
        "cases": kept if arguments.no_cases else cases(chosen, folder / "cases", arguments.quick),
        "large_bytes": size,
        "large": [large(chosen, folder, kind, size, random, arguments.rounds)
                  for kind in ("safetensors", "GGUF", "PyTorch zip") for random in contents],
        "small": small(chosen, folder / "small", count, arguments.rounds),
    }  # fmt: skip


def cases(chosen: list[scanners.Scanner], folder: Path, quick: bool) -> list[dict]:
    """Every case through every scanner. Built in a process of its own, so that this one stays small."""
    rows = build(folder)[:: QUICK_CASES if quick else 1]
    for number, row in enumerate(rows):
        if number % 25 == 0:
            bench.say(f"case {number + 1} of {len(rows)}")
        path = Path(row.pop("path"))
        row["answers"] = {one.name: answer(one.ask(path)) for one in chosen}
    return rows


def build(folder: Path) -> list[dict]:
    """The corpus, written out: name, path, expect, kind and says of every case."""
    program = (
        "import json, sys; from pathlib import Path; from assets.corpus import build; "
        "print(json.dumps([case._asdict() | {'path': str(case.path)} for case in build(Path(sys.argv[1]))]))"
    )
    path = os.pathsep.join([str(who.TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(
        [who.PYTHON, "-c", program, str(folder)], capture_output=True, check=True, env=environment, text=True
    )
    return json.loads(done.stdout)


def answer(one: scanners.Answer) -> dict:
    """An answer without what it does not say."""
    row = {"says": one.says, "seconds": round(one.seconds, 3), "peak_mb": one.peak_mb}
    return row | {name: value for name, value in (("why", one.why), ("verdict", one.verdict)) if value}


def large(
    chosen: list[scanners.Scanner], folder: Path, kind: str, size: int, random: bool, rounds: int
) -> dict:  # fmt: skip
    """One large file: judged beside hashed in one process, then as commands, then the other scanners once."""
    import bulk

    bench.say(f"{kind}, {size >> 20} MiB, {'random' if random else 'sparse'}")
    path = bulk.large(folder, kind, size, random)
    try:
        inside = _json(subprocess.run(
            [who.PYTHON, __file__, "--pair", str(path), str(rounds)], capture_output=True, check=True, text=True
        ))  # fmt: skip
        ours = next((one for one in chosen if isinstance(one, scanners.Freehold)), None)
        hashed, scanned, peaks, says = [], [], [], set()
        for _ in range(rounds if ours else 0):
            hashed.append(command_seconds([who.PYTHON, str(HERE / "hashing.py"), str(path)], folder))
            found = ours.ask(path, PATIENCE)
            scanned.append(found.seconds)
            peaks.append(found.peak_mb)
            says.add(found.verdict or found.says)
        return {
            "format": kind, "random": random, "bytes": path.stat().st_size, "inside": inside,
            "command": {"hash_s": hashed, "scan_s": scanned, "peak_mb": peaks, "says": sorted(says)},
            "others": {one.name: answer(one.ask(path, PATIENCE)) for one in chosen if one is not ours},
        }  # fmt: skip
    finally:
        path.unlink()


def _json(done: subprocess.CompletedProcess) -> dict:
    return json.loads(done.stdout)


def command_seconds(command: list[str], folder: Path) -> float:
    """One command by way of `measure.py`. Raises Unavailable where it fails."""
    run = scanners.measured(command, PATIENCE, str(folder))
    if run.code:
        raise who.Unavailable(f"{command[1]} failed: {run.err.strip()}")
    return run.seconds


def pair(path: Path, rounds: int) -> dict:
    """Hash and judge one file in turns, in a scanner's process that has started: seconds of each."""
    from freehold.scan.sandbox import Sandbox

    descriptor, taken = os.open(path, os.O_RDONLY), {"hash_s": [], "scan_s": []}
    with Sandbox("best") as sandbox, tempfile.NamedTemporaryFile() as little:
        little.write(b"warm up")
        little.flush()
        sandbox.judge(little.fileno(), "little", "little", lambda done: None)
        hashing.sha256(str(path))  # so that the file is in memory for everybody
        for _ in range(rounds):
            taken["hash_s"].append(_seconds(lambda: hashing.sha256(str(path))))
            taken["scan_s"].append(_seconds(lambda: sandbox.judge(descriptor, path.name, path.name, lambda done: None)))
        judged = sandbox.judge(descriptor, path.name, path.name, lambda done: None)
    os.close(descriptor)
    same = judged.digest == "sha256:" + hashing.sha256(str(path))
    unjudged = sum(span.end - span.start for span in judged.unjudged)
    return taken | {"format": judged.format, "parsed": judged.parsed, "data": judged.data, "unjudged": unjudged,
                    "findings": [found.rule for found in judged.findings], "digest_agrees": same}  # fmt: skip


def _seconds(what: Callable[[], object]) -> float:
    begun = time.monotonic()
    what()
    return round(time.monotonic() - begun, 4)


def small(chosen: list[scanners.Scanner], folder: Path, count: int, rounds: int) -> dict:
    """A folder of small files: medians of the rounds, in turns."""
    import bulk

    bench.say(f"{count} small files")
    path, found = bulk.small(folder, count), {one.name: [] for one in chosen}
    for _ in range(min(rounds, 3)):
        for one in chosen:
            if one.folders:
                found[one.name].append(one.ask(path, PATIENCE))
    rows = {name: answers for name, answers in found.items() if answers}
    return {"files": count, "rounds": min(rounds, 3)} | {
        "scanners": {
            name: answer(answers[-1]) | {
                "seconds": statistics.median(one.seconds for one in answers),
                "peak_mb": max(one.peak_mb for one in answers),
            }
            for name, answers in rows.items()
        }
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
