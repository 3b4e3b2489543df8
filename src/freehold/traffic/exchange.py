"""What the two formats of others have in common: a call as messages, a sample made sure of, a file written in one go.

Each call that is exported carries its sample whole, under `KEY` in the format's own place for metadata; so what was
exported and comes back is the same sample, with the incumbent's answer and not the candidate's.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from freehold.errors import BadTraffic
from freehold.said import Unfit
from freehold.types import Answer, Candidate, Kind, Replayed, Sample, Score, Task

KEY = "freehold"
_SHOWN = ("role", "content", "tool_calls", "tool_call_id")
_COPY = 1024 * 1024
_IN_MEMORY = 8 * 1024 * 1024  # bytes of an export that are not yet put on the disk


class Row(Struct, frozen=True):
    """One sample with what a candidate answered and how good that was: what an export is written from."""

    sample: Sample
    replayed: Replayed
    score: Score


def own(metadata: Any) -> Sample | None:
    """The sample that an export of ours carries; None where a file is not ours.

    Raises:
        Unfit: it says that it is ours, and is not as we write it.
    """
    if not isinstance(metadata, dict) or KEY not in metadata:
        return None
    try:
        return msgspec.convert(metadata[KEY], Sample)
    except msgspec.ValidationError as error:
        raise Unfit(f"Its metadata has a '{KEY}' that is not as Freehold writes it: {error}.") from None


def sure(sample: Sample) -> Sample:
    """The same sample, if it can be kept and sent: text that is text, numbers that are numbers.

    Raises:
        Unfit: it holds a lone surrogate, NaN or an infinity, or is nested too deeply.
    """
    try:
        json.dumps(msgspec.to_builtins(sample), ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise Unfit("It holds half of a surrogate pair, which is not text.") from None
    except ValueError:
        raise Unfit("It holds NaN or an infinity where a number is due.") from None
    except RecursionError:
        raise Unfit("It is nested too deeply.") from None
    return sample


def seconds(text: Any) -> float:
    """An ISO 8601 time as seconds since the epoch, taken as UTC where it names no zone; 0 where it is none."""
    try:
        at = datetime.fromisoformat(text)
        return max((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp(), 0.0)
    except (TypeError, ValueError, OverflowError):
        return 0.0


def iso(at: float) -> str:
    """Seconds since the epoch as ISO 8601, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def dotted(document: Any, path: str) -> str:
    """The text or number at a dotted path, as text; '' where there is none."""
    for name in path.split(".") if path else [""]:
        document = document.get(name) if isinstance(document, dict) else None
    return str(document) if isinstance(document, str | int | float) else ""


def messages(sample: Sample) -> list[dict[str, Any]]:
    """The request of any kind as chat messages, for a person to read; what is no text is named in brackets."""
    body = sample.request
    if sample.kind is Kind.CHAT:
        found = body.get("messages")
    elif sample.kind is Kind.COMPLETION:
        found = [{"role": "user", "content": body.get("prompt")}]
    else:
        opening = body.get("system") or body.get("instructions")
        found = [{"role": "system", "content": opening}] if opening else []
        said = body.get("messages") if sample.kind in (Kind.MESSAGE, Kind.COUNT) else body.get("input")
        found += said if isinstance(said, list) else [{"role": "user", "content": said}]
    return [_message(message) for message in found] if isinstance(found, list) else []


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, dict):
        return {"role": "user", "content": _text(message)}
    role = {"developer": "system", "function": "tool"}.get(message.get("role"), message.get("role"))
    told = message | {
        "role": role if role in ("system", "user", "assistant", "tool") else "user",
        "content": _text(message.get("content")),
    }
    return {name: told[name] for name in _SHOWN if told.get(name) is not None}


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(map(_part, content))
    return content if isinstance(content, str) else "" if content is None else msgspec.json.encode(content).decode()


def _part(part: Any) -> str:
    if isinstance(part, dict):
        text = part.get("text")
        return text if isinstance(text, str) else f"[{part.get('type', 'part')}]"
    return part if isinstance(part, str) else "[part]"


def said(answer: Answer | None) -> str:
    """An answer as one text: what it says, or the calls that it asks for as JSON."""
    if answer is None:
        return ""
    if answer.text or not answer.tools:
        return answer.text
    return msgspec.json.encode(answer.tools).decode()


def mark(task: Task, candidate: Candidate, *more: object) -> str:
    """A stable identifier, of 32 hex digits, of what a candidate did on a task."""
    facts = [task.name, candidate.name, candidate.digest, candidate.key, *map(str, more)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


class Spool:
    """The calls of an export, put aside until it is known what is to stand before them."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed by close
        self.count = self.errors = self.right = 0
        self.total = self.milliseconds = 0.0
        self.prompt = self.completion = self.cached = 0
        self.begun = self.ended = 0.0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def put(self, row: Row, make: Callable[[Row], dict[str, Any]]) -> None:
        """One call, as ``make`` writes it.

        Raises:
            BadTraffic: its score is no number, or its text is no text.
        """
        if not math.isfinite(row.score.value):
            raise BadTraffic(f"The score of the call '{row.sample.id}' is {row.score.value}, which is no score.")
        try:
            raw = msgspec.json.encode(make(row))
        except (UnicodeEncodeError, RecursionError, TypeError) as error:
            raise BadTraffic(f"The call {row.sample.id!a} cannot be written: {error}.") from None
        self._file.write((b",\n" if self.count else b"") + raw)
        self._count(row)

    def _count(self, row: Row) -> None:
        usage, at = row.replayed.usage, row.replayed.at
        self.count += 1
        self.errors += bool(row.replayed.error)
        self.right += row.score.value >= 1 and not row.replayed.error
        self.total += row.score.value
        self.milliseconds += row.replayed.total_ms
        self.prompt, self.completion = self.prompt + usage.prompt, self.completion + usage.completion
        self.cached += usage.cached
        self.begun = min(self.begun, at) if self.begun and at else self.begun or at
        self.ended = max(self.ended, at)

    @property
    def mean(self) -> float:
        """The mean score."""
        return self.total / self.count if self.count else 0.0

    def pieces(self) -> Iterator[bytes]:
        """What was put aside, in its order."""
        self._file.seek(0)
        while piece := self._file.read(_COPY):
            yield piece


def save(target: Path | BinaryIO, pieces: Iterable[bytes]) -> None:
    """Write a file, which is whole or as it was before, or into a stream.

    Raises:
        BadTraffic: the file cannot be written.
    """
    if not isinstance(target, str | Path):
        target.writelines(pieces)
        return
    temporary = Path(target).with_name(f".{Path(target).name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            stream.writelines(pieces)
        os.replace(temporary, target)
    except OSError as error:
        raise BadTraffic(f"'{target}' cannot be written: {error.strerror}.") from None
    finally:
        temporary.unlink(missing_ok=True)
