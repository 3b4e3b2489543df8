"""Ways of scoring an answer, one module for each.

`make` makes the scorer that a task's ``[scorer]`` table describes. A `Judge` compares two answers instead, and asks a
model to; its ``asks`` is true.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from freehold import task as tasks
from freehold.errors import BadTask
from freehold.scorers import contains, exact, json, judge, label, number, python, regex, similarity, tool
from freehold.scorers.base import Scorer, Settings
from freehold.scorers.judge import Calibration, Judge, agreement
from freehold.types import Task

__all__ = ["KINDS", "Calibration", "Judge", "Scorer", "agreement", "alone", "make"]

KINDS: dict[str, tuple[type[Settings], type[Scorer] | type[Judge]]] = {
    "exact": (exact.Settings, exact.Exact),
    "label": (label.Settings, label.Label),
    "number": (number.Settings, number.Number),
    "json": (json.Settings, json.Json),
    "tool": (tool.Settings, tool.Tool),
    "contains": (contains.Settings, contains.Contains),
    "regex": (regex.Settings, regex.Regex),
    "similarity": (similarity.Settings, similarity.Similarity),
    "python": (python.Settings, python.Python),
    "judge": (judge.Settings, judge.Judge),
}
_WITH_PROCESS = ("regex", "python")
_ALONE = ("contains", "json", "regex")


def make(task: Task, folder: Path, seal: str = "best") -> Scorer | Judge:
    """The scorer of a task; ``folder`` is where the files lie that it names, ``seal`` the setting of that name.

    Raises:
        BadTask: its kind or a setting is unknown or wrong, a file cannot be read, or what is in it cannot be used.
    """
    values: dict[str, Any] = dict(task.scorer)
    kind = values.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise BadTask(f"There is no scorer {str(kind)[:64]!r}.", hint=tasks.nearest(str(kind), tuple(KINDS)))
    form, scorer = KINDS[kind]
    settings = tasks.settings(values, form, f"The scorer {kind!r}")
    files = {
        name: tasks.read(folder / Path(values[name]).expanduser())
        for name in tasks.NAMED
        if isinstance(values.get(name), str)
    }
    return scorer(settings, files, seal) if kind in _WITH_PROCESS else scorer(settings, files)


def alone(task: Task, folder: Path, seal: str = "best") -> Scorer | None:
    """What an answer can be held to where there is none to compare it with: JSON to its schema, a pattern, words that
    the task demands. A value of 1 keeps it. None where all that the task's scorer does is to compare. Raises BadTask.
    """
    kind = task.scorer.get("kind")
    if kind not in _ALONE:
        return None
    if kind == "json":
        task = msgspec.structs.replace(task, scorer=task.scorer | {"value": "valid"})
    scorer = make(task, folder, seal)
    if not scorer.compares:
        return scorer
    scorer.close()
    return None
