"""``make fuzz``: every parser under atheris, two at a time, from the corpus of attack files and near-misses.

What is worth keeping stays in ``fuzz/.work`` for the next run. At the end every kept input is looked at once more
outside the fuzzer, with the parser's coverage, and the page is written.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import page

HERE = Path(__file__).parent
WORK, TOOLS = HERE / ".work", HERE / ".tools"
SOURCE = HERE.parent / "src"
PAGE = HERE.parent / "docs" / "reference" / "fuzz.md"
MEMORY_MB = 768  # a target's, kept inputs and all
PATIENCE = 25  # seconds for one input
MOST_STARTS = 20  # of one target, which a hang or too much memory ends
LEFTOVERS = ("timeout-", "oom-", "crash-", "leak-")  # what libFuzzer calls the input that ended it


def main() -> int:
    """Read the flags, fuzz, write the page. Exit code 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="for each parser")
    parser.add_argument("--only", help="parsers, with commas")
    parser.add_argument("--jobs", type=int, default=2, help="at a time")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the table goes")
    arguments = parser.parse_args()
    install()
    run_python(HERE / "seeds.py", WORK, check=True, timeout=1800)
    chosen = choose(arguments.only)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for name, result in zip(chosen, pool.map(lambda name: fuzz(name, arguments.seconds), chosen), strict=True):
            (WORK / name / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    results = {name: read(name) for name in every() if (WORK / name / "result.json").exists()}
    arguments.page.write_text(page.render(results, every()))
    print(f"\n{page.table(results)}\n\n{arguments.page} is written.")
    return 1 if any(results[name]["found"] for name in chosen) else 0


def install() -> None:
    """Put atheris and coverage, pinned, beside this file, unless they are there."""
    done, pins = TOOLS / ".installed", HERE / "requirements.txt"
    if done.exists() and done.stat().st_mtime > pins.stat().st_mtime:
        return
    shutil.rmtree(TOOLS, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--target", str(TOOLS)]
    subprocess.run([*pip, "-r", str(pins)], check=True)
    done.touch()


def every() -> list[str]:
    """All parsers, in the order in which they are asked."""
    return json.loads(run_python("-c", "import json, check; print(json.dumps(list(check.parsers())))").stdout)


def choose(only: str | None) -> list[str]:
    """Those that were asked for. Exits with a sentence where there is no such parser."""
    there = every()
    chosen = [name.strip() for name in only.split(",")] if only else there
    if strangers := set(chosen) - set(there):
        sys.exit(f"There is no parser {', '.join(sorted(strangers))}; there are {', '.join(there)}.")
    return chosen


def fuzz(name: str, seconds: int) -> dict:
    """One parser's time, then its kept inputs again."""
    work, begun, runs = WORK / name, time.monotonic(), []
    while (left := seconds - int(time.monotonic() - begun)) > 0 and len(runs) < MOST_STARTS:
        runs.append(start(name, work, left))
    result = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "seconds": round(time.monotonic() - begun),
        "executions": sum(run["executions"] for run in runs),
        "judged": sum(run["judged"] for run in runs),
        "edges": max(run["edges"] for run in runs),
        "starts": len(runs),
        "fuzzer_mb": max(run["peak_mb"] for run in runs),
    }
    result |= again(name, work)
    result["found"] = found(work) + [{"kind": kind, "says": says} for kind, says in result.pop("wrong").items()]
    say(f"{name}: {result['executions']:,} executions, {len(result['found'])} found")
    return result


def start(name: str, work: Path, seconds: int) -> dict:
    """The fuzzer once, until its time is over or an input ends it."""
    flags = [f"-max_total_time={seconds}", f"-timeout={PATIENCE}", f"-rss_limit_mb={MEMORY_MB}", "-max_len=65537",
             "-print_final_stats=1", f"-artifact_prefix={work / 'found'}/"]  # fmt: skip
    say(f"{name}: {seconds} s")
    (work / "judged").write_text("0")
    done = run_python(HERE / "target.py", name, work, *flags, work / "kept", timeout=seconds + 4 * PATIENCE)
    (work / "log").write_text(done.stderr)
    return {
        "executions": number(r"^stat::number_of_executed_units:\s*(\d+)", done.stderr),
        "judged": int((work / "judged").read_text()),
        "edges": number(r"cov: (\d+)", done.stderr),
        "peak_mb": number(r"^stat::peak_rss_mb:\s*(\d+)", done.stderr),
        "code": done.returncode,
    }


def again(name: str, work: Path) -> dict:
    """The kept inputs outside the fuzzer: what they reach of the parser's code, and what they take."""
    data = work / "coverage"
    module = SOURCE / "freehold" / "scan" / f"{name}.py"
    plain = run_python(HERE / "check.py", name, work, timeout=1800)
    run_python("-m", "coverage", "run", "--branch", f"--data-file={data}", f"--include={module}",
               HERE / "check.py", name, work, timeout=3600)  # fmt: skip
    shown = run_python("-m", "coverage", "json", f"--data-file={data}", "--quiet", "-o", "-")
    if plain.returncode:
        return {"inputs": 0, "slowest_s": 0, "peak_mb": 0, "reached": 0,
                "wrong": {"the kept inputs, looked at again": plain.stderr.strip().splitlines()[-1]}}  # fmt: skip
    reached = json.loads(shown.stdout)["totals"]["percent_covered"] if not shown.returncode else 0
    return json.loads(plain.stdout) | {"reached": round(reached)}


def found(work: Path) -> list[dict]:
    """What was written down, each looked at once more outside the fuzzer, with its bytes where they are few."""
    listed = []
    for path in sorted((work / "found").iterdir()):
        if path.suffix == ".bin":
            written = json.loads(path.with_suffix(".json").read_text())
            alone = run_python(HERE / "check.py", work.name, path, written["name"], timeout=120)
            listed.append(written | _shown(path.read_bytes()) | {"again": alone.returncode != 0})
        elif path.name.startswith(LEFTOVERS):
            listed.append({"kind": path.name.partition("-")[0], "says": f"libFuzzer ended on {path.name}"})
    return listed


def _shown(content: bytes) -> dict:
    return {"bytes": len(content), "hex": content.hex() if len(content) <= 512 else ""}


def read(name: str) -> dict:
    return json.loads((WORK / name / "result.json").read_text())


def number(pattern: str, text: str) -> int:
    """The last such number in what the fuzzer printed; 0 where it printed none."""
    every_one = re.findall(pattern, text, re.MULTILINE)
    return int(every_one[-1]) if every_one else 0


def run_python(*arguments: object, timeout: float = 600, check: bool = False) -> subprocess.CompletedProcess:
    """Python with the parsers and the tools on its path."""
    path = os.pathsep.join([str(SOURCE), str(HERE), str(TOOLS), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, *map(str, arguments)]
    try:
        return subprocess.run(
            command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, errors="replace",
            timeout=timeout, check=check,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        said = (late.stderr or b"").decode(errors="replace")
        return subprocess.CompletedProcess(command, 124, "", f"{said}\nnothing came back within {timeout:.0f} s")
    except subprocess.CalledProcessError as failed:
        sys.exit(f"{' '.join(command)} failed:\n{failed.stderr}")


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
