"""May a candidate take over an alias? Only with a verdict for its very bytes, on each task that the alias answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from freehold.types import Manifest, Outlook, Target, Task, Verdict

Verdicts = Mapping[str, Sequence[Verdict] | str]  # by the task's name; a sentence where none can be had


class Standing(Struct, frozen=True):
    """Whether it may, and ``why`` or why not, as sentences. ``tasks`` are the names of those that were looked at,
    ``margin`` the least of their margins (None without a task); ``ground`` is what the audit chain keeps of the
    verdicts."""

    may: bool
    why: str
    tasks: tuple[str, ...] = ()
    margin: float | None = None
    ground: tuple[dict[str, Any], ...] = ()


def standing(
    alias: str, target: Target, manifest: Manifest | None, tasks: Sequence[Task], verdicts: Verdicts
) -> Standing:
    """How a target stands for an alias. ``manifest`` is that of its model, where the vault has it."""
    if target.upstream:
        return _of_upstream(alias, target, tasks)
    if not tasks:
        return Standing(
            False, f"No task has the alias {alias!r}, so nobody has measured what its application needs. "
            f"'freehold tasks add' a task with it, or name one with --task.",
        )  # fmt: skip
    found = [_on(task, target, manifest, verdicts.get(task.name, ())) for task in tasks]
    bad = [one for one in found if not one.may]
    return Standing(
        not bad, " ".join(one.why for one in bad or found), tuple(task.name for task in tasks),
        min(task.margin for task in tasks), tuple(fact for one in found for fact in one.ground),
    )  # fmt: skip


def _of_upstream(alias: str, target: Target, tasks: Sequence[Task]) -> Standing:
    """Somebody else's model has no bytes that a verdict could be bound to; but it is where the alias came from."""
    names, margin = tuple(task.name for task in tasks), min((task.margin for task in tasks), default=None)
    if target.model == alias:
        return Standing(True, f"It is what {alias!r} stands for at {target.upstream!r}.", names, margin)
    why = (
        f"{target.model!r} is at the upstream {target.upstream!r}, and has no digest that a verdict could be bound to."
    )
    return Standing(False, why, names, margin)


def _on(task: Task, target: Target, manifest: Manifest | None, verdicts: Sequence[Verdict] | str) -> Standing:
    """How it stands on one task."""
    if isinstance(verdicts, str):
        return Standing(False, f"There is no verdict on {task.name}: {verdicts}")
    own = [verdict for verdict in verdicts if _is_of(verdict, target, manifest)]
    ground = tuple(map(_ground, own))
    if not own:
        return Standing(
            False, f"{target.model} ({target.digest[:19]}) was never certified on {task.name}. 'freehold replay "
            f"{task.name} --candidate {target.model}', then 'freehold certify {task.name} --candidate {target.model}'.",
            ground=ground,
        )  # fmt: skip
    for outlook in (Outlook.INFERIOR, Outlook.NON_INFERIOR, Outlook.UNDECIDED):
        if any(verdict.outcome is outlook for verdict in own):
            break
    said = f"{target.model} is {outlook.value} on {task.name}"
    return Standing(
        outlook is Outlook.NON_INFERIOR, f"{said}; 'freehold certify {task.name}' says more.", ground=ground
    )


def _is_of(verdict: Verdict, target: Target, manifest: Manifest | None) -> bool:
    """Is a verdict on these very bytes? An adapter's are those of the adapter on its base, which the engine names."""
    candidate, base = verdict.candidate, manifest.base if manifest else ""
    return bool(target.digest) and candidate.digest == target.digest and base in candidate.engine


def _ground(verdict: Verdict) -> dict[str, Any]:
    """What of a verdict goes into the audit chain."""
    lower = verdict.estimate.lower if verdict.estimate else None
    return {
        "task": verdict.task, "round": verdict.round, "outcome": verdict.outcome.value, "margin": verdict.margin,
        "lower": lower, "calls": verdict.calls, "digest": verdict.candidate.digest, "key": verdict.candidate.key,
        "split": verdict.split,
    }  # fmt: skip
