"""The whole move in one command: bring traffic in, tune, certify, write it up; and stop before promotion.

A small TOML file says what is moved (docs/guides/switch.md). It prints a line for each stage and ends with the
sentence that decides and the one command that would promote. Ctrl-C or a crash loses nothing: the same command goes on.
Exit code 0: the candidate is non-inferior; 1: it is not, or not shown to be.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from freehold import switch
from freehold.cli import local
from freehold.errors import CannotDo
from freehold.home import Home


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``freehold switch``."""
    parser.add_argument("file", type=Path, help="the switch's file")
    parser.add_argument("--promote", action="store_true", help="promote too, where the verdict is non-inferior")
    parser.add_argument("--commands", action="store_true", help="print each stage's command as well")


def run(arguments: argparse.Namespace) -> int:
    """Every stage that is missing, then what came of it."""
    home = local.home_of(arguments, create=True)
    going = switch.Going(arguments.file, home.folder / "switches", _asking(home, arguments.commands))
    for line in going.run():
        took = "done before" if line.before else _long(line.seconds)
        print(local.plain(f"{line.number:>2}/{line.of} {line.name:<9} {line.told} ({took})"), flush=True)
    end = going.end()
    print(local.lines(["", end.sentence, "", f"Dossier: {end.dossier}"]))
    words = " ".join(end.promote)
    if not end.passed:
        print(local.plain(f"Not promoted. Whoever would all the same: {words} --anyway REASON"))
        return 1
    if not arguments.promote:
        print(local.plain(f"To promote: {words}"))
        return 0
    _ask(home, end.promote[1:], document=False)
    print(local.plain(f"Promoted: {end.promote[2]} is {end.promote[3]} now. To take it back: freehold rollback "
                      f"{end.promote[2]}"))  # fmt: skip
    return 0


def _asking(home: Home, shown: bool) -> switch.Ask:
    def ask(stage: str, words: Sequence[str]) -> switch.Said:
        if shown:
            print(local.plain(f"      freehold {' '.join(words)}"), flush=True)
        return _ask(home, words)

    return ask


def _ask(home: Home, words: Sequence[str], *, document: bool = True) -> switch.Said:
    """Give a command as a person would. What it shows of its progress is shown."""
    command = [sys.executable, "-m", "freehold", *words, "--home", str(home.folder), *(["--json"] if document else [])]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        said, _ = process.communicate()
    except KeyboardInterrupt:  # which the command got as well, and which it may need a moment for
        process.wait()
        raise
    if process.returncode not in (0, 1):
        raise CannotDo(
            f"The stage stopped: freehold {' '.join(words)}",
            hint="Its reason is above. The same command goes on there.",
        )
    return switch.Said(process.returncode, _parsed(said, words) if document else None)


def _parsed(said: bytes, words: Sequence[str]) -> object:
    try:
        return json.loads(said)
    except ValueError:
        raise CannotDo(f"'freehold {' '.join(words)}' said nothing that could be read.") from None


def _long(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
