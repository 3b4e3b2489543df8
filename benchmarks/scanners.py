"""The scanners that are compared: how each is asked about one file or folder, and how its answer is read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import contestants as who
from msgspec import Struct

HERE = Path(__file__).parent
MEMORY = 8 << 30  # bytes of address space, past which a scanner is refused more
PATIENCE = 60.0  # seconds for one case


class Run(Struct, frozen=True):
    """One command: what it took, and what it printed."""

    code: int
    seconds: float
    peak_mb: float
    late: bool
    out: str
    err: str


class Answer(Struct, frozen=True):
    """What a scanner says of one case: flagged, clean, unread (it says that it could not, or would not, look), or
    failed (it crashed, or took too long). ``verdict`` is Freehold's own word."""

    says: str
    seconds: float
    peak_mb: float
    why: str = ""
    verdict: str = ""


class Scanner:
    """One scanner. ``shown`` is its command as a person would type it."""

    name = ""
    requirements = ""
    shown = ""
    folders = True  # does it take a folder by itself?

    def install(self) -> None:
        """Make its virtual environment. Raises contestants.Unavailable."""
        who.make_venv(self.requirements)

    def version(self) -> str:
        return who.pinned_version(self.requirements)

    def command(self, path: Path, notes: Path) -> list[str]:
        """The command for one path; ``notes`` is a file that it may write to."""
        raise NotImplementedError

    def read(self, run: Run, notes: Path) -> tuple[str, str]:
        """What it says, and Freehold's verdict."""
        raise NotImplementedError

    def ask(self, path: Path, patience: float = PATIENCE) -> Answer:
        """Scan one path. A folder goes to a scanner that takes none file by file, and the gravest answer counts."""
        if path.is_dir() and not self.folders:
            files = sorted(one for one in path.rglob("*") if one.is_file())
            return gravest([self._ask(one, patience) for one in files])
        return self._ask(path, patience)

    def _ask(self, path: Path, patience: float) -> Answer:
        with tempfile.TemporaryDirectory(prefix="scan-") as folder:
            notes = Path(folder) / "notes.json"
            run = measured(self.command(path, notes), patience, folder)
            if run.late or run.code < 0:
                why = f"no answer in {patience:.0f} s" if run.late else f"ended by signal {-run.code}"
                return Answer("failed", run.seconds, run.peak_mb, why)
            says, verdict = self.read(run, notes)
            why = (run.err.strip().splitlines() or [""])[-1][:200] if says == "failed" else ""
            return Answer(says, run.seconds, run.peak_mb, why, verdict)


class Freehold(Scanner):
    """Freehold as ``freehold scan`` runs: sealed."""

    name = "Freehold"
    shown = "freehold scan --json PATH"

    def install(self) -> None:
        """It is there."""

    def version(self) -> str:
        import freehold

        return freehold.__version__

    def command(self, path: Path, notes: Path) -> list[str]:
        return [who.PYTHON, "-m", "freehold", "scan", "--json", "--output", str(notes), str(path)]

    def read(self, run: Run, notes: Path) -> tuple[str, str]:
        if not notes.exists():
            return "failed", ""
        verdict = json.loads(notes.read_text())[0]["verdict"]
        return "clean" if verdict == "admit" else "flagged", verdict


class Picklescan(Scanner):
    """picklescan as it is."""

    name = requirements = "picklescan"
    shown = "picklescan -p PATH"
    flags: tuple[str, ...] = ()

    def command(self, path: Path, notes: Path) -> list[str]:
        return [str(who.VENVS / "picklescan/bin/picklescan"), *self.flags, "-p", str(path)]

    def read(self, run: Run, notes: Path) -> tuple[str, str]:
        if _number(r"^Infected files: (\d+)", run.out):
            return "flagged", ""
        if "Traceback" in run.err and "SCAN SUMMARY" not in run.out:
            return "failed", ""
        looked = _number(r"^Scanned files: (\d+)", run.out)
        return "clean" if run.code == 0 and looked else "unread", ""


class StrictPicklescan(Picklescan):
    """picklescan, which then holds what it does not know for dangerous."""

    name = "picklescan --strict"
    shown = "picklescan --strict -p PATH"
    flags = ("--strict",)


class Modelscan(Scanner):
    """modelscan as it is."""

    name = requirements = "modelscan"
    shown = "modelscan scan -p PATH -r json -o FILE"

    def command(self, path: Path, notes: Path) -> list[str]:
        tool = str(who.VENVS / "modelscan/bin/modelscan")
        return [tool, "scan", "-p", str(path), "-r", "json", "-o", str(notes)]

    def read(self, run: Run, notes: Path) -> tuple[str, str]:
        if not notes.exists():
            return "failed", ""
        found = json.loads(notes.read_text())
        if found["issues"]:
            return "flagged", ""
        return "clean" if run.code == 0 and not found["errors"] else "unread", ""


class Fickling(Scanner):
    """fickling, by way of `fickle.py`."""

    name = requirements = "fickling"
    shown = "fickling's scan_file and scan_zip_archive, see benchmarks/fickle.py"
    folders = False

    def command(self, path: Path, notes: Path) -> list[str]:
        return [str(who.VENVS / "fickling/bin/python"), str(HERE / "fickle.py"), str(path)]

    def read(self, run: Run, notes: Path) -> tuple[str, str]:
        if "Traceback" in run.err:
            return "failed", ""
        return {0: "clean", 1: "flagged", 2: "unread"}.get(run.code, "failed"), ""


def all_scanners() -> list[Scanner]:
    """One of each."""
    return [Freehold(), Picklescan(), StrictPicklescan(), Modelscan(), Fickling()]


GRAVITY = ("clean", "unread", "failed", "flagged")


def gravest(answers: list[Answer]) -> Answer:
    """Those of a folder's files as one: time adds up, memory does not."""
    worst = max(answers, key=lambda one: GRAVITY.index(one.says), default=Answer("clean", 0, 0))
    took, peak = sum(one.seconds for one in answers), max((one.peak_mb for one in answers), default=0)
    return Answer(worst.says, took, peak, worst.why)


def measured(command: list[str], patience: float, folder: str) -> Run:
    """Run a command by way of `measure.py`, in a folder of its own."""
    result = Path(folder) / "measured"
    helper = [sys.executable, "-I", "-S", str(HERE / "measure.py"), str(result), str(patience), str(MEMORY)]
    home = {"FREEHOLD_HOME": str(Path(folder) / "home"), "HOME": folder}
    done = subprocess.run(
        [*helper, *command], capture_output=True, text=True, errors="replace", cwd=folder, env=os.environ | home
    )
    if done.returncode:
        raise who.Unavailable(f"{command[0]} could not be started: {done.stderr.strip().splitlines()[-1]}")
    return Run(**json.loads(result.read_text()), out=done.stdout, err=done.stderr)


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text, re.MULTILINE)
    return int(found[1]) if found else 0
