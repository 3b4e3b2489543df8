"""What the formats of recorded calls share. A format is a module:

FORMAT                            its name, for ``--format``
recognises(document) -> bool      is this JSON document a line of it?
sample(document, given) -> Sample the call that the line records; raises Unfit
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from freehold.names import shown
from freehold.said import Unfit
from freehold.samples import ORDER_ONLY
from freehold.types import Answer, Sample, Task

MAX_NAME = 512  # characters of an id, a group, a model's or a caller's name
MAX_DEPTH = 128  # objects and lists within each other
_MILLISECONDS = 1e11  # seconds would be in the year 5138
_CLOCKS_DIFFER = 86_400.0


class Given(Struct, frozen=True):
    """What holds for every line of a file: the task, what the command said of it, and the time by which it is past."""

    task: Task
    now: float
    incumbent: str = ""
    terms: str = ""


class Format(Protocol):
    """One way of writing calls down, a document to a call."""

    FORMAT: str

    def recognises(self, document: Any) -> bool:
        """Is this document a line of the format?"""

    def sample(self, document: dict[str, Any], given: Given) -> Sample:
        """The call that the document records. Its ``at`` is 0 where no time is said. Raises Unfit."""


def read(line: bytes) -> Any:
    """The JSON document on a line. Raises Unfit where there is none, or where two readers would read it differently."""
    try:
        document = msgspec.json.decode(line)
        if line.count(b"{") + line.count(b"[") > MAX_DEPTH:
            _check_depth(document)
        _strict(line.decode())
    except msgspec.MsgspecError as error:
        raise Unfit(_why_not(line, str(error))) from None
    except UnicodeDecodeError:
        raise Unfit("is not UTF-8") from None
    except RecursionError:
        raise Unfit(_TOO_DEEP) from None
    except Unfit:
        raise
    except ValueError:
        raise Unfit("holds a number that is too large") from None
    return document


def dotted(document: Any, path: str) -> str:
    """What stands at a dotted path, as text; '' if nothing does."""
    for part in path.split("."):
        document = document.get(part) if isinstance(document, dict) else None
    if isinstance(document, bool) or not isinstance(document, str | int | float):
        return ""
    return str(document)


def group(document: dict[str, Any], given: Given, otherwise: str, *, need: bool = True) -> str:
    """What a line's call belongs to with others: as the task says, or ``otherwise``. Raises Unfit where the task names
    a path, nothing stands there, and there is a ``need``: a call in no group would pass for one that stands alone."""
    path = given.task.group
    found = dotted(document, path) if path else ""
    if path and not found and (need or not otherwise):
        raise Unfit(f"has nothing at {path!r}, by which the task's calls are grouped")
    return name(found or otherwise, "group")


def name(value: Any, what: str) -> str:
    """A short text: an id, or a name; '' for None. Raises Unfit."""
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise Unfit(f"has a {what} that is no text")
    if len(value) > MAX_NAME:
        raise Unfit(f"has a {what} of more than {MAX_NAME} characters")
    return value


def instant(value: Any, now: float) -> float:
    """A time in seconds: from ISO 8601 (UTC where it names no zone), or from seconds or milliseconds since 1970; 0 for
    None. Raises Unfit where it is neither, or lies ahead of ``now`` by more than a day."""
    if value is None or value == "":
        return 0.0
    at = _seconds(value)
    at = at / 1000 if at >= _MILLISECONDS else at
    if not 0 <= at <= now + _CLOCKS_DIFFER:
        raise Unfit("has a time in the future" if at > 0 else "has a time before 1970")
    return at


def identity(sample: Sample) -> str:
    """An id for a call that came without one: the same for the same call, so that a line which is read twice is no
    second answer of the incumbent. Without a time, nothing tells a repeated question from a repeated line."""
    at = sample.at if sample.at >= ORDER_ONLY else None
    said = msgspec.json.encode([sample.kind, sample.request, at], order="deterministic")
    return "c-" + hashlib.sha256(said).hexdigest()[:24]


def checked(sample: Sample) -> Sample:
    """The same call with an id, if there is something to compare a candidate's answer with. Raises Unfit."""
    if sample.expected is None and sample.answer is None:
        raise Unfit("has neither an answer nor an expected one")
    if sample.expected is None and sample.answer == Answer():
        raise Unfit("has an empty answer")
    return sample if sample.id else msgspec.structs.replace(sample, id=identity(sample))


def texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value, names of fields apart."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list | tuple):
            left += value


_TOO_DEEP = f"holds objects and lists nested deeper than {MAX_DEPTH}"


def _seconds(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        raise Unfit("has a time that is neither ISO 8601 nor seconds") from None


def _once(pairs: list[tuple[str, Any]]) -> None:
    """Readers take the first or the last of two fields of one name; we take neither."""
    if len(pairs) > 1 and len(dict(pairs)) < len(pairs):
        names = [key for key, _ in pairs]
        twice = next(key for key in names if names.count(key) > 1) if len(names) < 1000 else "..."
        raise Unfit(f"has the field {shown(twice)[:60]!r} twice in one object")


_strict = json.JSONDecoder(object_pairs_hook=_once).decode


def _check_depth(document: Any) -> None:
    level, depth = [document], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise Unfit(_TOO_DEEP)
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]


def _why_not(line: bytes, said: str) -> str:
    if "out of range" in said:
        return "holds a number that is too large"
    if line.lstrip()[:1] not in (b"{", b"["):
        return "is not JSON"
    return f"is broken JSON ({shown(said.removeprefix('JSON is malformed: '))})"
