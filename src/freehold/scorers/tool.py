"""Calls of tools: their names, and their arguments field by field."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import field

from freehold.names import shown
from freehold.scorers import base
from freehold.scorers.compare import Comparator, Way
from freehold.scorers.fields import Comparison, Fields, Unreadable, compared, read
from freehold.scorers.json import differences, rules
from freehold.types import Answer, Sample, Score, ToolCall

MAX_CALLS = 32  # in one answer
MAX_ARGUMENTS = 5_000  # of all of them; each may be held against each call of the other side
_Call = tuple[str, Fields]  # its name, and its arguments
_Match = tuple[_Call | None, _Call | None, Comparison]  # ours, the reference's; None where there is no partner


class Settings(base.Settings):
    """``value``: ``all`` gives 1 where all calls are right; ``f1`` the share of names and arguments that are.
    ``order``: the calls must come in the reference's order. ``fields``, ``default``, ``null_is_missing``: as for json,
    of the arguments."""

    value: Literal["all", "f1"] = "all"
    order: bool = False
    fields: dict[str, Way | Comparator] = field(default_factory=dict)
    default: Way | Comparator = "exact"
    null_is_missing: bool = False


class Tool(base.Scorer):
    """1 where the answer calls what the reference calls, with the same arguments; or the share of them. Where the
    reference calls nothing, 1 for an answer that calls nothing either."""

    kind = "tool"

    def __init__(self, settings: Settings, files: dict[str, bytes]):
        super().__init__(settings, files)
        self._settings = settings
        self._rules = rules(settings.fields, settings.default, settings.null_is_missing)
        self.binary = settings.value == "all"
        self.measures = (
            "The share of answers that call the tools that the reference calls, each argument right and none besides."
            if self.binary
            else "The mean F1 over the names and arguments of the tool calls in the reference."
        )

    def _score(self, sample: Sample, answer: Answer, against: Answer) -> Score:
        if max(len(answer.tools), len(against.tools)) > MAX_CALLS:
            return base.failed(f"There are more than {MAX_CALLS} calls of tools.")
        try:
            ours, theirs = (self._taken_apart(one.tools) for one in (answer, against))
        except Unreadable as error:
            return base.failed(f"The calls cannot be compared, since one {error}.")
        found = self._matched(ours, theirs)
        total = _total([found_one for _, _, found_one in found])
        value = total.f1 if self._settings.value == "f1" else float(total.all_right)
        said = [_said(ours, theirs, one) for ours, theirs, one in found if not one.all_right]
        return Score(value, {"calls": len(theirs), "differ": said[: base.MAX_LISTED]} if said else {})

    def _matched(self, ours: list[_Call], theirs: list[_Call]) -> list[_Match]:
        """Each call of the reference with one of ours: the next, or the most similar of the same name."""
        pairs = [(i, j, _pair(ours[i], theirs[j])) for i in range(len(ours)) for j in range(len(theirs))
                 if ours[i][0] == theirs[j][0] and (i == j or not self._settings.order)]  # fmt: skip
        pairs.sort(key=lambda pair: (-pair[2].f1, pair[1], pair[0]))
        found, left, wanted = [], dict(enumerate(ours)), dict(enumerate(theirs))
        for i, j, one in pairs:
            if i in left and j in wanted:
                found.append((left.pop(i), wanted.pop(j), one))
        found += [(call, None, Comparison(answer=1 + len(call[1]))) for call in left.values()]
        return found + [(None, call, Comparison(reference=1 + len(call[1]))) for call in wanted.values()]

    def _taken_apart(self, calls: tuple[ToolCall, ...]) -> list[_Call]:
        found = [(call.name, self._rules.fields(_arguments(call.arguments))) for call in calls]
        if sum(len(fields) for _, fields in found) > MAX_ARGUMENTS:
            raise Unreadable(f"has more than {MAX_ARGUMENTS} arguments")
        return found


def _pair(ours: _Call, theirs: _Call) -> Comparison:
    """The arguments of two calls of one name; the name is a field besides."""
    found = compared(ours[1], theirs[1])
    counts = {part: getattr(found, part) + 1 for part in ("reference", "answer", "equal")}
    return msgspec.structs.replace(found, **counts)


def _arguments(text: str) -> Any:
    """No arguments at all are an empty object, as some models write it."""
    try:
        return read(text, fenced=False).value if text.strip() else {}
    except Unreadable:
        return text  # wrong unless the reference's are the same unreadable text


def _total(found: list[Comparison]) -> Comparison:
    return Comparison(*(sum(getattr(one, part) for one in found) for part in ("reference", "answer", "equal")))


def _said(ours: _Call | None, theirs: _Call | None, found: Comparison) -> dict[str, Any]:
    if ours is None:
        return {"missing call": shown(theirs[0])}
    if theirs is None:
        return {"additional call": shown(ours[0])}
    return {"call": shown(ours[0])} | differences(found)
