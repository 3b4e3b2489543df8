"""OpenAI's batches: a file of what was asked and a file of what was answered, joined by ``custom_id``.

The answers wait in a database on the disk, so that files of any size and any order are joined in little memory.

Source: OpenAI, API reference, batch, "the request input object" and "the request output object".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from freehold import said
from freehold.said import Unfit
from freehold.traffic import asked
from freehold.traffic.line import Given, checked, group, instant, name, read
from freehold.traffic.lines import Source
from freehold.types import Kind, Sample

FORMAT = "batch"
_SCHEMA = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = FILE; PRAGMA cache_size = -8192;
CREATE TABLE answers (line INTEGER PRIMARY KEY, id TEXT, content BLOB, reason TEXT, used INTEGER);
CREATE INDEX by_id ON answers (id, line);
"""


def recognises(document: Any) -> bool:
    """A line of what was asked."""
    return isinstance(document, dict) and "custom_id" in document and "body" in document


def is_answer(document: Any) -> bool:
    """Is it a line of what was answered, or of the errors?"""
    return isinstance(document, dict) and "custom_id" in document and ("response" in document or "error" in document)


class Batch:
    """The format, with the answers in ``source`` at hand; ``several``: did the last one have more than one choice?
    Everything may raise sqlite3.Error where the disk is full."""

    FORMAT = FORMAT
    recognises = staticmethod(recognises)

    def __init__(self, source: Source):
        self._file, self.several = source.name, False
        self._answers = sqlite3.connect("")  # a file without a name, which goes when it is closed
        self._answers.executescript(_SCHEMA)
        with self._answers:
            self._answers.executemany("INSERT INTO answers VALUES (?, ?, ?, ?, 0)", _rows(source))

    def close(self) -> None:
        """Let go of the answers."""
        self._answers.close()

    def sample(self, document: dict[str, Any], given: Given) -> Sample:
        """See `line.Format`."""
        kind = asked.kind(document.get("url")) or Kind.CHAT
        body = document.get("body")
        request = asked.request(kind, body)
        answered = self._take(document)
        response = answered["response"]["body"]
        self.several = said.several(response)
        created = response.get("created", response.get("created_at")) if isinstance(response, dict) else None
        return checked(
            Sample(
                id=name(answered.get("id") or document["custom_id"], "id"),
                request=request,
                kind=kind,
                answer=said.answer(kind, response),
                group=group(document, given, ""),
                at=instant(created, given.now),
                incumbent=name(body.get("model") or given.incumbent, "model"),
                terms=given.terms,
            )
        )

    def passed(self, document: Any) -> None:
        """A line that was kept, or not, before the import was broken off: its answer is spoken for."""
        if isinstance(document, dict):
            self._find(document)

    def left(self) -> Iterator[str]:
        """Why each line of the answers that no line asks for is no call, in their order."""
        found = self._answers.execute("SELECT line, reason FROM answers WHERE used = 0 ORDER BY line")
        for line, reason in found:
            why = reason or "answers what the other file does not ask, or asks once alone"
            yield f"stands in {self._file}, line {line}: it {why}"

    def _take(self, document: dict[str, Any]) -> dict[str, Any]:
        """The line that answers another. Raises Unfit."""
        content = self._find(document)
        if content is None:
            raise Unfit("has no answer in the other file, or shares its custom_id with a line before")
        answered = read(content)
        if answered.get("error"):
            raise Unfit(f"records a call that failed: {said.problem(answered['error'])}")
        response = answered.get("response")
        if not isinstance(response, dict) or "body" not in response:
            raise Unfit("has an answer without a body")
        if (status := response.get("status_code", 200)) != 200:
            body = response["body"] if isinstance(response["body"], dict) else {}
            raise Unfit(f"records a call that failed with {str(status)[:8]}: {said.problem(body.get('error'))}")
        return answered

    def _find(self, document: dict[str, Any]) -> bytes | None:
        wanted = "SELECT line, content FROM answers WHERE id = ? AND used = 0 ORDER BY line LIMIT 1"
        custom = document.get("custom_id")
        if not isinstance(custom, str) or self._is_used(custom):
            return None
        row = self._answers.execute(wanted, (custom,)).fetchone()
        if row is None:
            return None
        self._answers.execute("UPDATE answers SET used = 1 WHERE line = ?", (row[0],))
        return row[1]

    def _is_used(self, custom: str) -> bool:
        wanted = "SELECT 1 FROM answers WHERE id = ? AND used = 1 LIMIT 1"
        return self._answers.execute(wanted, (custom,)).fetchone() is not None


def _rows(source: Source) -> Iterator[tuple[int, str | None, bytes, str]]:
    for piece in source.pieces():
        reason, custom = piece.reason, None
        try:
            document = read(piece.content) if not reason else None
            if document is not None:
                custom = document.get("custom_id") if is_answer(document) else None
                reason = "" if isinstance(custom, str) else "is no answer of a batch"
        except Unfit as error:
            reason = str(error)
        usable = isinstance(custom, str)
        yield piece.line, custom if usable else None, piece.content if usable else b"", reason
