"""Numbers, times and other people's texts, as the dossier says them. Times are in UTC: a page is read anywhere."""

from __future__ import annotations

import math
import shlex
import time
from typing import Any

import msgspec

from freehold.chart import words
from freehold.types.dossier import Figure, Known
from freehold.types.traffic import Task, Verdict

BRIEF = 320  # characters of a call's text, where texts are shown at all


def clean(thing: Any) -> Any:
    """The same JSON value with every text in it made harmless (`words.clean`): whatever stands in a dossier may be
    shown. Numbers that JSON does not have become null."""
    if isinstance(thing, str):
        return words.clean(thing)
    if isinstance(thing, dict):
        return {words.clean(str(key)): clean(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [clean(item) for item in thing]
    if isinstance(thing, float) and not math.isfinite(thing):
        return None
    return thing


def brief(text: str, room: int = BRIEF) -> str:
    """A call's text on one line, cut."""
    line = " ".join(text.split())
    return line if len(line) <= room else line[: room - 1] + "…"


def command(*words: str) -> str:
    """A command of ours, as it is typed."""
    return shlex.join(("freehold", *words))


def moment(at: float) -> str:
    """A time to the minute."""
    return time.strftime("%d %B %Y, %H:%M UTC", time.gmtime(at)).lstrip("0") if at else "not known"


def day(at: float) -> str:
    """A date."""
    return time.strftime("%d %B %Y", time.gmtime(at)).lstrip("0") if at else "not known"


def points(share: float) -> str:
    """A share as points: 0.03 is ``3 points``."""
    said = words.plain_points(share)
    return f"{said} point" if said == "1" else f"{said} points"


def signed(share: float, digits: int = 1) -> str:
    """A difference in points, with its sign."""
    return f"{words.signed(share * 100, digits)} points"


def percent(share: float, digits: int = 1) -> str:
    """A share in a hundred."""
    return f"{share * 100:.{digits}f}%"


def seconds(value: float) -> str:
    """A duration."""
    if value < 90:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"


def milliseconds(pair: tuple[float, float] | None) -> str:
    """A median and a 95th percentile."""
    return " / ".join(f"{ms / 1000:.2f} s" if ms >= 1000 else f"{ms:.0f} ms" for ms in pair or ())


def compact(value: Any) -> str:
    """A JSON value on one line."""
    return value if isinstance(value, str) else msgspec.json.encode(value, order="deterministic").decode()


def missing(id: str, label: str, why: str, command: str) -> Figure:
    """A figure that there is none of: why, and the command that would make it."""
    return Figure(id, label, None, why, command, Known.MISSING)


def agreement(verdict: Verdict) -> bool:
    """Is agreement with the incumbent all that could be measured?"""
    return words.agreement([verdict])


def certify(task: Task) -> str:
    """The command that shows the verdicts that there are."""
    return command("certify", task.name, "--json")
